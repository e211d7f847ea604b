"""STCCL's representations, weights and losses: worked by hand, and against slow loops."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from spfem_bench.definitions.cards import validate
from spfem_bench.errors import CardError, StcclError
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.contrast import (
    ContrastSettings,
    parts,
    spatial_terms,
    temporal_terms,
)
from spfem_bench.stccl.losses import (
    Terms,
    contrast_terms,
    info_nce,
    matrix_rows,
    matrix_weights,
    region_weights,
    released_terms,
)

NEAR = {"rtol": 0.0, "atol": 1e-6}
PLAIN = ContrastSettings(adaptive=False)


def doubles(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spatial_matrix(maps: Tensor, centres: Tensor | None = None) -> Tensor:
    """Return the correlation matrix of the regions of each image, (B, R, R)."""
    return rep.gram(rep.feature_rows(rep.checked_maps(maps), centres))


def temporal_matrix(maps: Tensor, centres: Tensor | None = None) -> Tensor:
    """Return the correlation matrix of the frames, for each region, (B, R, T, T)."""
    return rep.gram(rep.feature_rows(rep.checked_sequence(maps), centres).transpose(1, 2))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def entropy(row: list[float], right: int) -> float:
    return math.log(sum(math.exp(v) for v in row)) - row[right]


def cross(
    up: tuple[float, float],
    left: tuple[float, float],
    right: tuple[float, float],
    down: tuple[float, float],
) -> Tensor:
    """Return a 3 x 3 map of two channels whose centre is 0, so disparities are -neighbours."""
    maps = torch.full((1, 2, 3, 3), 9.0, dtype=torch.float64)  # corners: no neighbours of 4
    places = {(0, 1): up, (1, 0): left, (1, 1): (0.0, 0.0), (1, 2): right, (2, 1): down}
    for (row, column), disparity in places.items():
        maps[0, :, row, column] = -torch.tensor(disparity, dtype=torch.float64)
    return maps


# ---- By hand: representations ---------------------------------------------------------------


def test_spatial_disparity_by_hand() -> None:
    # 0 1 2
    # 3 4 5   the one interior position is 4; 4 minus each neighbour, row by row
    # 6 7 8
    maps = torch.arange(9.0).view(1, 1, 3, 3)
    found = rep.spatial_disparity(maps)
    assert found.shape == (1, 1, 8, 1)
    assert found.flatten().tolist() == [4, 3, 2, 1, -1, -2, -3, -4]
    # Of those, the four that share an edge: above 1, left 3, right 5, below 7.
    assert rep.spatial_disparity(maps, neighbours=4).flatten().tolist() == [3, 1, -1, -3]


def test_temporal_disparity_by_hand() -> None:
    # Region r of frame t holds r * t^2: r times 0, 1, 4.
    frames = torch.tensor([0.0, 1.0, 4.0]).view(1, 3, 1, 1, 1) * torch.arange(9.0).view(3, 3)
    adjacent = rep.temporal_disparity(frames)
    assert adjacent.shape == (1, 2, 9, 1)
    # (0, 1): 0 - r; (1, 2): r - 4 r.
    assert adjacent[0, :, :, 0].tolist() == [[-r for r in range(9)], [-3 * r for r in range(9)]]
    every = rep.temporal_disparity(frames, "window")
    # (0, 1): -r; (0, 2): -4 r; (1, 2): -3 r.
    assert every[0, :, 1, 0].tolist() == [-1, -4, -3]
    # Windows of two frames hold adjacent pairs only.
    assert torch.equal(rep.temporal_disparity(frames, "window", window=2), adjacent)


def test_spatial_matrix_by_hand() -> None:
    # One channel: unit features are signs, so G_ij is the product of two signs.
    maps = torch.tensor([[[[1.0, -2.0, 3.0], [0.0, 5.0, -6.0], [7.0, -8.0, 9.0]]]])
    signs = torch.tensor([1.0, -1.0, 1.0, 0.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    torch.testing.assert_close(spatial_matrix(maps)[0], torch.outer(signs, signs))
    # Two channels, three regions (1, 0), (3, 4), (0, 2): unit (1, 0), (0.6, 0.8), (0, 1).
    # Products: 0.6, 0 and 0.8.
    maps = torch.zeros(1, 2, 3, 3)
    maps[0, :, 0, 0], maps[0, :, 1, 1] = torch.tensor([1.0, 0.0]), torch.tensor([3.0, 4.0])
    maps[0, :, 2, 1] = torch.tensor([0.0, 2.0])
    found = spatial_matrix(maps, torch.tensor([[0, 0], [1, 1], [2, 1]]))
    expected = torch.tensor([[[1.0, 0.6, 0.0], [0.6, 1.0, 0.8], [0.0, 0.8, 1.0]]])
    torch.testing.assert_close(found, expected)


def test_temporal_matrix_by_hand() -> None:
    # Each of nine regions goes through (1, 0), (3, 4), (0, 2), region r times r + 1:
    # the scale falls out, and each matrix is that of the regions above.
    path = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
    maps = path.view(1, 3, 2, 1, 1) * torch.arange(1.0, 10.0).view(3, 3)
    found = temporal_matrix(maps)
    expected = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.0, 0.8], [0.0, 0.8, 1.0]])
    assert found.shape == (1, 9, 3, 3)
    torch.testing.assert_close(found, expected.expand(1, 9, 3, 3))


def test_matrix_rows_by_hand() -> None:
    matrix = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.0, 0.8], [0.0, 0.8, 1.0]])
    # Off the diagonal: 0.6, 0 less mean 0.3; 0.6, 0.8 less 0.7; 0, 0.8 less 0.4. Each row
    # is then (d, -d) in two places, of unit length with 1/sqrt(2).
    h = math.sqrt(0.5)
    expected = torch.tensor([[0.0, h, -h], [-h, 0.0, h], [-h, h, 0.0]])
    torch.testing.assert_close(matrix_rows(matrix), expected)
    # As they stand: squared lengths 1.36, 2 and 1.64.
    lengths = torch.tensor([[1.36], [2.0], [1.64]]).sqrt()
    torch.testing.assert_close(matrix_rows(matrix, "cosine"), matrix / lengths)


# ---- By hand: weights and losses ------------------------------------------------------------


def test_weights_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    # rms of (3, 4): sqrt(25 / 2). No disparity: sigmoid(0) = 1/2, 2 * 1/4 = 0.5.
    found = region_weights(x, ContrastSettings())
    assert found is not None
    assert found.tolist() == pytest.approx([2 * sigmoid(math.sqrt(12.5)) ** 2, 0.5])
    # Length 5; lambda 3, r 1.
    found = region_weights(x, ContrastSettings(size="norm", strength=3, power=1))
    assert found is not None
    assert found.tolist() == pytest.approx([3 * sigmoid(5.0), 1.5])
    found = region_weights(-x, ContrastSettings(size="channels"))
    assert found is not None
    assert found[0].item() == pytest.approx(2 * (sigmoid(-3.0) ** 2 + sigmoid(-4.0) ** 2) / 2)
    assert region_weights(x, PLAIN) is None
    # G_01 = 0.6, G_02 = 0, G_12 = 0.8. Squared distances 2 - 2 G: 0.8, 2 and 0.4; means over
    # the other two regions: 1.4, 0.6 and 1.2.
    matrix = torch.tensor([[1, 0.6, 0], [0.6, 1, 0.8], [0, 0.8, 1]], dtype=torch.float64)
    found = matrix_weights(matrix, ContrastSettings())
    assert found is not None
    assert found.tolist() == pytest.approx(
        [2 * sigmoid(math.sqrt(s)) ** 2 for s in (1.4, 0.6, 1.2)]
    )
    found = matrix_weights(matrix, ContrastSettings(size="norm"))
    assert found is not None
    assert found.tolist() == pytest.approx(
        [2 * sigmoid(math.sqrt(s)) ** 2 for s in (2.8, 1.2, 2.4)]
    )


def test_info_nce_by_hand() -> None:
    # Row 0: ln(e^1 + e^0) - 1; row 1: ln(e^0.5 + e^0.5) - 0.5 = ln 2. At tau 0.5 row 0 is
    # ln(e^2 + e^0) - 2.
    alike = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    assert info_nce(alike, 1.0).tolist() == pytest.approx([math.log(math.e + 1) - 1, math.log(2)])
    assert info_nce(alike, 0.5)[0].item() == pytest.approx(math.log(math.e**2 + 1) - 2)


def test_spatial_disparity_loss_by_hand() -> None:
    source = cross(up=(2, 0), left=(0, 1), right=(-1, 0), down=(0, -1))
    generated = cross(up=(3, 4), left=(0, 2), right=(-1, 0), down=(0, -1))
    # Unit vectors of source:    (1, 0),     (0, 1), (-1, 0), (0, -1)
    #              of generated: (0.6, 0.8), (0, 1), (-1, 0), (0, -1)
    alike = [[0.6, 0, -1, 0], [0.8, 1, 0, -1], [-0.6, 0, 1, 0], [-0.8, -1, 0, 1]]
    # Positive (0.6 + 1 + 1 + 1) / 4 = 0.9; negative: rows -1, -0.2, -0.6, -1.8: -3.6 / 12.
    each = [entropy(row, right) for right, row in enumerate(alike)]
    plain = ContrastSettings(adaptive=False, temperature=1.0, neighbours=4)
    found = spatial_terms(source, generated, plain)
    assert found.loss.item() == pytest.approx(sum(each) / 4)
    assert found.positive.item() == pytest.approx(0.9)
    assert found.negative.item() == pytest.approx(-0.3)
    assert found.per_region.shape == (1, 1, 1)
    assert found.per_region.item() == pytest.approx(0.9)
    # Weights by rms of source: sqrt(4 / 2) above, sqrt(1 / 2) elsewhere.
    high, low = (2 * sigmoid(math.sqrt(s)) ** 2 for s in (2.0, 0.5))
    adaptive = ContrastSettings(temperature=1.0, neighbours=4)
    inside = (high * each[0] + low * (each[1] + each[2] + each[3])) / 4
    found = spatial_terms(source, generated, adaptive)
    assert found.loss.item() == pytest.approx(inside)
    # Weighting after averaging is another number: the hard pair has the larger weight.
    after = (high + 3 * low) / 4 * sum(each) / 4
    assert abs(inside - after) > 0.01


def test_temporal_disparity_loss_by_hand() -> None:
    # Source, everywhere: changes (1, 0), then (0, 1). Generated: (3, 4), then (0, 1), but
    # the first region stands still.
    source = torch.zeros(1, 3, 2, 3, 3, dtype=torch.float64)
    generated = source.clone()
    source[0, 1, 0], source[0, 2, 0], source[0, 2, 1] = -1, -1, -1
    generated[0, 1:, 0], generated[0, 1, 1], generated[0, 2, 1] = -3, -4, -5
    generated[0, :, :, 0, 0] = 0.5
    # Cosines: (1, 0) with (0.6, 0.8) and (0, 1); (0, 1) with the same: 0.6, 0; 0.8, 1.
    # At rest all cosines are 0, and the loss is ln 2.
    moving = entropy([0.6, 0], 0) + entropy([0.8, 1], 1)
    settings = ContrastSettings(adaptive=False, temperature=1.0, window=3)
    found = temporal_terms(source, generated, settings)
    assert found.loss.item() == pytest.approx((8 * moving + 2 * math.log(2)) / 18)
    assert found.positive.item() == pytest.approx(8 * (0.6 + 1) / 18)
    assert found.negative.item() == pytest.approx(8 * (0.8 + 0) / 18)
    assert found.per_region.shape == (1, 2, 3, 3)
    assert found.per_region[0, :, 0, 0].tolist() == [0, 0]
    assert found.per_region[0, :, 2, 1].tolist() == pytest.approx([0.6, 1])
    # Every source disparity has rms sqrt(1 / 2): one weight, so it multiplies the whole.
    weighted = temporal_terms(source, generated, settings.model_copy(update={"adaptive": True}))
    weight = 2 * sigmoid(math.sqrt(0.5)) ** 2
    assert weighted.loss.item() == pytest.approx(weight * found.loss.item())
    # Beside, not before and after: the centre (1, 1) is compared with its four neighbours,
    # which all change as it does: five candidates alike, loss ln 5, similarities 0.6 and 1.
    beside = settings.model_copy(update={"temporal_negatives": "regions", "neighbours": 4})
    found = temporal_terms(source, generated, beside)
    assert found.loss.item() == pytest.approx(math.log(5))
    assert found.positive.item() == pytest.approx(0.8)
    assert found.negative.item() == pytest.approx(0.8)
    assert found.per_region.shape == (1, 2, 1, 1)


@pytest.mark.parametrize("temporal", [False, True])
@pytest.mark.parametrize("rows", ["cosine", "centred"])
def test_matrix_loss_by_hand(temporal: bool, rows: str) -> None:
    # Three regions (or frames): source (1, 0), (3, 4), (0, 2); generated (1, 0), (0, 1), (1, 0).
    # Source G: 1 .6 0 / .6 1 .8 / 0 .8 1. Generated G: 1 0 1 / 0 1 0 / 1 0 1.
    x = torch.tensor([[1, 0], [3, 4], [0, 2]], dtype=torch.float64)
    y = torch.tensor([[1, 0], [0, 1], [1, 0]], dtype=torch.float64)
    if rows == "cosine":
        # Squared lengths 1.36, 2, 1.64 and 2, 1, 2. Products of rows:
        # 1, .6, 1 / 1.4, 1, 1.4 / 1, .8, 1.
        products, long, short = (
            [[1, 0.6, 1], [1.4, 1, 1.4], [1, 0.8, 1]],
            (1.36, 2, 1.64),
            (2, 1, 2),
        )
        alike = [
            [products[i][k] / math.sqrt(long[i] * short[k]) for k in range(3)] for i in range(3)
        ]
    else:
        # h = sqrt(1/2). Source rows: 0 h -h / -h 0 h / -h h 0. Generated rows: 0, 1 less 0.5:
        # 0 -h h; 0, 0: flat, so 0; 1, 0 less 0.5: h -h 0.
        alike = [[-1, 0, -0.5], [0.5, 0, -0.5], [-0.5, 0, -1]]
    # Mean squared distances of source, as in test_weights_by_hand.
    weights = [2 * sigmoid(math.sqrt(s)) ** 2 for s in (1.4, 0.6, 1.2)]
    each = [entropy(row, right) for right, row in enumerate(alike)]
    settings = ContrastSettings(form="cm", rows=rows, temperature=1.0, window=3)
    if temporal:
        sequences = [frames.view(1, 3, 2, 1, 1).expand(1, 3, 2, 3, 3) for frames in (x, y)]
        found = temporal_terms(*sequences, settings)
        assert found.per_region.shape == (1, 3, 3, 3)
    else:
        maps = [torch.zeros(1, 2, 3, 3, dtype=torch.float64) for _ in range(2)]
        for drawn, regions in zip(maps, (x, y), strict=True):
            drawn[0, :, 0, :] = regions.T
        centres = torch.tensor([[0, 0], [0, 1], [0, 2]])
        found = spatial_terms(*maps, settings, centres)
        assert found.per_region.tolist() == [pytest.approx([alike[i][i] for i in range(3)])]
    assert found.loss.item() == pytest.approx(
        sum(w * e for w, e in zip(weights, each, strict=True)) / 3
    )
    positive = sum(alike[i][i] for i in range(3))
    assert found.positive.item() == pytest.approx(positive / 3)
    assert found.negative.item() == pytest.approx((sum(map(sum, alike)) - positive) / 6)


def test_released_loss_by_hand() -> None:
    source = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    generated = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]], dtype=torch.float64)
    # Anchors are generated, (1, 0) and (0.6, 0.8); candidates (1, 0) and (0, 1).
    # Cosines 1, 0 / 0.6, 0.8. Weights: sigmoid(2) = 0.881 is above 0.8, the others are 1.
    mean = (entropy([1, 0], 0) + entropy([0.6, 0.8], 1)) / 2
    weight = (2 * sigmoid(2.0) ** 2 + 1 + 1 + 1) / 4
    settings = ContrastSettings(definition="released-code", temperature=1.0)
    found = released_terms(generated, source, settings, raw=source, model="joint spatial")
    assert found.loss.item() == pytest.approx(weight * mean)
    found = released_terms(generated, source, settings, raw=source)
    assert found.loss.item() == pytest.approx(0.3 * weight * mean)
    # Channel by channel over the two positions: (1, 0) with (1, 0.6), (0, 1) with (0, 0.8).
    assert found.positive.item() == pytest.approx((1 / math.sqrt(1.36) + 1) / 2)
    found = released_terms(generated, source, settings, model="temporal")
    assert found.loss.item() == pytest.approx(mean)


# ---- Against slow loops ---------------------------------------------------------------------


def slow_cosine(x: Tensor, y: Tensor) -> float:
    length = math.sqrt(sum(float(v) ** 2 for v in x)) * math.sqrt(sum(float(v) ** 2 for v in y))
    return sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) / length


def slow_weight(x: Tensor) -> float:
    return 2 * sigmoid(math.sqrt(sum(float(v) ** 2 for v in x) / len(x))) ** 2


def slow_terms(groups: list[tuple[list[Tensor], list[Tensor]]]) -> tuple[float, float, float]:
    """Return loss, positive and negative of lists of corresponding disparities."""
    losses, positives, negatives = [], [], []
    for xs, ys in groups:
        for j, x in enumerate(xs):
            row = [slow_cosine(x, y) for y in ys]
            losses.append(slow_weight(x) * entropy([v / 0.07 for v in row], j))
            positives.append(row[j])
            negatives += row[:j] + row[j + 1 :]
    return tuple(sum(v) / len(v) for v in (losses, positives, negatives))  # type: ignore[return-value]


def slow_neighbours(maps: Tensor, row: int, column: int) -> list[Tensor]:
    return [
        maps[:, row, column] - maps[:, row + down, column + right]
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
        if (down, right) != (0, 0)
    ]


def agree(found: Terms, expected: tuple[float, float, float]) -> None:
    assert [v.item() for v in found[:3]] == pytest.approx(expected, abs=1e-6, rel=0)


@pytest.mark.parametrize("sampled", [False, True])
def test_spatial_disparity_terms_equal_slow_loops(sampled: bool) -> None:
    x, y = doubles(2, 3, 5, 7), doubles(2, 3, 5, 7, seed=1)
    dense = [(row, column) for row in range(1, 4) for column in range(1, 6)]
    places = [(3, 5), (1, 1), (2, 4)] if sampled else dense
    centres = torch.tensor(places) if sampled else None
    disparity = rep.spatial_disparity(x, centres)
    for image in range(2):
        for region, place in enumerate(places):
            expected = torch.stack(slow_neighbours(x[image], *place))
            torch.testing.assert_close(disparity[image, region], expected, **NEAR)
    found = spatial_terms(x, y, None, centres)
    groups = [
        (slow_neighbours(a, *p), slow_neighbours(b, *p))
        for a, b in zip(x, y, strict=True)
        for p in places
    ]
    agree(found, slow_terms(groups))
    assert found.per_region.shape == ((2, 3) if sampled else (2, 3, 5))
    last = groups[-1]
    assert found.per_region.flatten()[-1].item() == pytest.approx(
        sum(slow_cosine(a, b) for a, b in zip(*last, strict=True)) / 8
    )


def test_negatives_from_all_positions_equal_slow_loops() -> None:
    x, y = doubles(2, 3, 5, 7), doubles(2, 3, 5, 7, seed=1)
    places = [(3, 5), (1, 1), (2, 4)]
    groups = [
        (
            [d for p in places for d in slow_neighbours(a, *p)],
            [d for p in places for d in slow_neighbours(b, *p)],
        )
        for a, b in zip(x, y, strict=True)
    ]
    settings = ContrastSettings(spatial_negatives="positions")
    found = spatial_terms(x, y, settings, torch.tensor(places))
    agree(found, slow_terms(groups))
    usual = spatial_terms(x, y, None, torch.tensor(places))
    torch.testing.assert_close(found.per_region, usual.per_region)


@pytest.mark.parametrize("pairs", ["adjacent", "window"])
def test_temporal_disparity_terms_equal_slow_loops(pairs: str) -> None:
    # Seven frames in windows of four: 0 to 3 and 3 to 6.
    x, y = doubles(2, 7, 3, 3, 4), doubles(2, 7, 3, 3, 4, seed=1)
    settings = ContrastSettings(pairs=pairs, window=4)
    groups, listed = [], []
    for a, b in zip(x, y, strict=True):
        for start in (0, 3):
            inside = [
                (t, s)
                for t, s in combinations(range(start, start + 4), 2)
                if pairs == "window" or s == t + 1
            ]
            listed += inside
            for place in [(r, c) for r in range(3) for c in range(4)]:
                changes = tuple(
                    [(m[t] - m[s])[:, place[0], place[1]] for t, s in inside] for m in (a, b)
                )
                groups.append(changes)
    found = temporal_terms(x, y, settings)
    agree(found, slow_terms(groups))
    order = rep.frame_pairs(7, settings.pairs, window=4)
    assert [(t, s) for t, s in order.tolist()] == sorted({*listed})
    assert found.per_region.shape == (2, len(order), 3, 4)
    t, s = order[-1].tolist()
    assert found.per_region[1, -1, 2, 3].item() == pytest.approx(
        slow_cosine((x[1, t] - x[1, s])[:, 2, 3], (y[1, t] - y[1, s])[:, 2, 3])
    )


def test_negatives_from_neighbouring_regions_equal_slow_loops() -> None:
    x, y = doubles(1, 3, 4, 4, 5), doubles(1, 3, 4, 4, 5, seed=1)
    losses, positives, negatives = [], [], []
    for t in range(2):
        a, b = x[0, t] - x[0, t + 1], y[0, t] - y[0, t + 1]
        for row, column in [(r, c) for r in (1, 2) for c in (1, 2, 3)]:
            anchor = a[:, row, column]
            values = [
                slow_cosine(anchor, b[:, row + d, column + e])
                for d in (-1, 0, 1)
                for e in (-1, 0, 1)
            ]
            losses.append(slow_weight(anchor) * entropy([v / 0.07 for v in values], 4))
            positives.append(values.pop(4))
            negatives += values
    settings = ContrastSettings(temporal_negatives="regions", window=3)
    expected = tuple(sum(v) / len(v) for v in (losses, positives, negatives))
    agree(temporal_terms(x, y, settings), expected)  # type: ignore[arg-type]
    chosen = temporal_terms(x, y, settings, rep.grid_centres(4, 5))
    agree(chosen, expected)  # type: ignore[arg-type]


def slow_matrix(features: list[Tensor]) -> list[list[float]]:
    return [[slow_cosine(a, b) for b in features] for a in features]


def slow_matrix_terms(
    pairs: list[tuple[list[Tensor], list[Tensor]]],
) -> tuple[float, float, float]:
    losses, positives, negatives = [], [], []
    for xs, ys in pairs:
        gx, gy = slow_matrix(xs), slow_matrix(ys)
        count = len(gx)
        rows = []
        for g in (gx, gy):
            flat = []
            for i in range(count):
                others = [g[i][k] for k in range(count) if k != i]
                mean = sum(others) / len(others)
                flat.append(
                    torch.tensor(
                        [0.0 if k == i else g[i][k] - mean for k in range(count)],
                        dtype=torch.float64,
                    )
                )
            rows.append(flat)
        for i in range(count):
            row = [slow_cosine(rows[0][i], other) for other in rows[1]]
            apart = [2 - 2 * gx[i][k] for k in range(count) if k != i]
            weight = 2 * sigmoid(math.sqrt(sum(apart) / len(apart))) ** 2
            losses.append(weight * entropy([v / 0.07 for v in row], i))
            positives.append(row[i])
            negatives += row[:i] + row[i + 1 :]
    return tuple(sum(v) / len(v) for v in (losses, positives, negatives))  # type: ignore[return-value]


def test_matrix_terms_equal_slow_loops() -> None:
    settings = ContrastSettings(form="cm")
    x, y = doubles(2, 3, 3, 5), doubles(2, 3, 3, 5, seed=1)
    flat = [([*a.flatten(1).T], [*b.flatten(1).T]) for a, b in zip(x, y, strict=True)]
    agree(spatial_terms(x, y, settings), slow_matrix_terms(flat))
    torch.testing.assert_close(
        spatial_matrix(x)[1],
        torch.tensor(slow_matrix(flat[1][0]), dtype=torch.float64),
        **NEAR,
    )
    # Six frames in windows of five: 0 to 4 and 1 to 5; frames 1 to 4 are in both.
    x, y = doubles(1, 6, 3, 3, 2), doubles(1, 6, 3, 3, 2, seed=1)
    pairs = [
        tuple([m[0, t, :, r, c] for t in range(start, start + 5)] for m in (x, y))
        for start in (0, 1)
        for r in range(3)
        for c in range(2)
    ]
    found = temporal_terms(x, y, settings)
    agree(found, slow_matrix_terms(pairs))  # type: ignore[arg-type]
    assert found.per_region.shape == (1, 6, 3, 2)
    torch.testing.assert_close(
        temporal_matrix(x)[0, 5],
        torch.tensor(slow_matrix([m[:, 2, 1] for m in x[0]]), dtype=torch.float64),
        **NEAR,
    )
    one = temporal_terms(x[:, 1:], y[:, 1:], settings).per_region
    other = temporal_terms(x[:, :5], y[:, :5], settings).per_region
    torch.testing.assert_close(found.per_region[:, 5], one[:, 4])
    torch.testing.assert_close(found.per_region[:, 3], (one[:, 2] + other[:, 3]) / 2)


@pytest.mark.parametrize("temporal", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
def test_released_code_equals_its_description(temporal: bool, adaptive: bool) -> None:
    # Mapping, scaling to unit length, one positive and S - 1 negatives among all sampled positions
    # of an image, averaged; in space times 0.3 and the mean weight of the anchor's raw disparities.
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)).double()
    centres = rep.sample_centres(7, 9, 5, torch.Generator().manual_seed(3))
    settings = ContrastSettings(definition="released-code", adaptive=adaptive)
    chance = torch.Generator().manual_seed(5)
    if temporal:
        x, y = 20 * doubles(2, 5, 6, 7, 9), 20 * doubles(2, 5, 6, 7, 9, seed=1)
        found = temporal_terms(x, y, settings, centres, head=head, generator=chance)
        images = [
            tuple(
                [m[b, t, :, r, c] - m[b, s, :, r, c] for r, c in centres.tolist()] for m in (x, y)
            )
            for b in range(2)
            for t, s in combinations(range(5), 2)
        ]
    else:
        x, y = 20 * doubles(2, 6, 7, 9), 20 * doubles(2, 6, 7, 9, seed=1)
        found = spatial_terms(x, y, settings, centres, head=head, generator=chance)
        images = [
            tuple(
                [d for r, c in centres.tolist() for d in slow_neighbours(m[b], r, c)]
                for m in (x, y)
            )
            for b in range(2)
        ]
    order = torch.randperm(len(images[0][0]), generator=torch.Generator().manual_seed(5)).tolist()
    losses, weights, positives, negatives = [], [], [], []
    for sources, targets in images:
        mapped = [head(v).detach() for v in sources]
        keys = [v / math.sqrt(float((v * v).sum())) for v in mapped]
        queries = [head(v).detach() for v in targets]
        queries = [v / math.sqrt(float((v * v).sum())) for v in queries]
        for j, query in enumerate(queries):
            logits = [float((query * key).sum()) / 0.07 for key in keys]
            losses.append(entropy(logits, j))
        for v in targets:
            for number in v.abs().tolist():
                gate = sigmoid(number)
                weights.append(2 * gate**2 if gate > 0.8 else 1.0)
        for channel in range(4):
            a = torch.stack([key[channel] for key in keys])
            b = torch.stack([query[channel] for query in queries])
            positives.append(slow_cosine(a, b))
            negatives.append(slow_cosine(a[order], b))
    assert 1.1 < sum(weights) / len(weights) < 2.0  # the gate is really at work here
    loss = sum(losses) / len(losses)
    if not temporal:
        loss = 0.3 * loss * (sum(weights) / len(weights) if adaptive else 1)
    expected = (loss, sum(positives) / len(positives), sum(negatives) / len(negatives))
    assert [v.item() for v in found[:3]] == pytest.approx(expected, abs=1e-5, rel=0)
    single = [maps.float() for maps in (x, y)]
    terms = temporal_terms if temporal else spatial_terms
    found = terms(*single, settings, centres, head=head.float())
    assert found.loss.item() == pytest.approx(loss, abs=1e-5, rel=1e-5)


# ---- What must not change a number ----------------------------------------------------------

EVERY = [
    ContrastSettings(),
    ContrastSettings(form="cm"),
    ContrastSettings(form="cm", rows="cosine"),
    ContrastSettings(definition="released-code"),
    ContrastSettings(pairs="window", size="norm"),
    ContrastSettings(spatial_negatives="positions", temporal_negatives="regions", size="channels"),
]


def both(x: Tensor, y: Tensor, settings: ContrastSettings, **options: object) -> list[Terms]:
    """Return spatial terms of the first frames and temporal terms of all, with one seed."""
    chance = torch.Generator().manual_seed(0)
    return [
        spatial_terms(x[:, 0], y[:, 0], settings, generator=chance, **options),  # type: ignore[arg-type]
        temporal_terms(x, y, settings, generator=chance, **options),  # type: ignore[arg-type]
    ]


def same(found: list[Terms], expected: list[Terms], fields: slice = slice(None)) -> None:
    for a, b in zip(found, expected, strict=True):
        for one, other in zip(a[fields], b[fields], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("settings", EVERY)
def test_order_of_channels_is_of_no_matter(settings: ContrastSettings) -> None:
    x, y = doubles(2, 5, 4, 4, 5), doubles(2, 5, 4, 4, 5, seed=1)
    order = torch.tensor([2, 0, 3, 1])
    same(both(x[:, :, order], y[:, :, order], settings), both(x, y, settings))


@pytest.mark.parametrize("settings", EVERY)
def test_scale_leaves_similarities(settings: ContrastSettings) -> None:
    x, y = doubles(2, 5, 4, 4, 5), doubles(2, 5, 4, 4, 5, seed=1)
    same(both(3 * x, 0.2 * y, settings), both(x, y, settings), slice(1, None))


def test_a_constant_map_leaves_disparities() -> None:
    x, y = doubles(2, 5, 4, 4, 5), doubles(2, 5, 4, 4, 5, seed=1)
    shift = doubles(4, 1, 1, seed=2)
    torch.testing.assert_close(
        rep.spatial_disparity(x[:, 0] + shift), rep.spatial_disparity(x[:, 0])
    )
    # In time whatever stays the same falls out, be it different at each position.
    still = doubles(4, 4, 5, seed=3)
    torch.testing.assert_close(rep.temporal_disparity(x + still), rep.temporal_disparity(x))
    same(both(x + shift, y - shift, EVERY[0]), both(x, y, EVERY[0]))


@pytest.mark.parametrize("settings", EVERY[:3])
def test_a_rotation_of_channels_is_of_no_matter(settings: ContrastSettings) -> None:
    x, y = doubles(2, 5, 4, 4, 5), doubles(2, 5, 4, 4, 5, seed=1)
    turn, _ = torch.linalg.qr(doubles(4, 4, seed=2))
    other, _ = torch.linalg.qr(doubles(4, 4, seed=3))
    turned = torch.einsum("cd,btdhw->btchw", turn, x)
    same(both(turned, torch.einsum("cd,btdhw->btchw", turn, y), settings), both(x, y, settings))
    if settings.form == "cm":
        # A matrix has no axes of its own: even different rotations change nothing.
        apart = torch.einsum("cd,btdhw->btchw", other, y)
        same(both(turned, apart, settings), both(x, y, settings))


@pytest.mark.parametrize("settings", [s for s in EVERY if s.definition == "paper"])
def test_similarities_do_not_know_source_from_generated(settings: ContrastSettings) -> None:
    x, y = doubles(2, 5, 4, 4, 5), doubles(2, 5, 4, 4, 5, seed=1)
    found, swapped = both(x, y, settings), both(y, x, settings)
    if settings.temporal_negatives == "regions":
        # A border region is a neighbour and never a centre: no symmetry of negatives.
        assert found[1].positive.item() == pytest.approx(swapped[1].positive.item())
        found, swapped = found[:1], swapped[:1]
    same(swapped, found, slice(1, None))


@pytest.mark.parametrize("settings", EVERY)
def test_identical_maps_are_wholly_alike(settings: ContrastSettings) -> None:
    x = doubles(2, 5, 4, 4, 5)
    for terms in both(x, x, settings):
        assert terms.positive.item() == pytest.approx(1.0)
        torch.testing.assert_close(terms.per_region, torch.ones_like(terms.per_region))


# ---- Gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", EVERY)
def test_gradients_are_those_of_finite_differences(settings: ContrastSettings) -> None:
    x, y = doubles(1, 5, 2, 3, 4), doubles(1, 5, 2, 3, 4, seed=1).requires_grad_()
    warm = settings.model_copy(update={"temperature": 0.5})
    frame = y[:, 0].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda g: spatial_terms(x[:, 0], g, warm).loss, frame)
    assert torch.autograd.gradcheck(lambda g: temporal_terms(x, g, warm).loss, y)


@pytest.mark.parametrize("settings", EVERY)
def test_gradients_reach_generated_and_never_source(settings: ContrastSettings) -> None:
    x, y = (doubles(1, 5, 4, 4, 5, seed=s).requires_grad_() for s in (0, 1))
    head = nn.Linear(4, 3).double()
    found = both(x, y, settings, head=head)
    parts(found[:1], found[1:])["loss"].backward()
    assert x.grad is None
    assert y.grad is not None and bool(y.grad.abs().sum() > 0)
    assert head.weight.grad is not None and bool(head.weight.grad.abs().sum() > 0)
    for terms in found:
        assert not any(v.requires_grad for v in terms[1:])


@pytest.mark.parametrize("settings", EVERY)
def test_frozen_and_flat_maps_give_finite_gradients(settings: ContrastSettings) -> None:
    x = doubles(1, 1, 3, 4, 5).float().expand(1, 5, 3, 4, 5)
    y = torch.ones(1, 5, 3, 4, 5, requires_grad=True)
    for terms in both(x, y, settings):
        assert bool(torch.isfinite(torch.stack(terms[:3])).all())
        terms.loss.backward()
    assert y.grad is not None and bool(torch.isfinite(y.grad).all())


def test_weights_act_inside_the_average() -> None:
    x, y = doubles(2, 3, 6, 7), doubles(2, 3, 6, 7, seed=1)
    x[..., :3] *= 5  # one half of the face moves more
    disparity = [rep.spatial_disparity(m) for m in (x, y)]
    weights = region_weights(disparity[0], ContrastSettings())
    assert weights is not None
    each = info_nce(rep.cosine_grid(*disparity))
    found = spatial_terms(x, y).loss
    torch.testing.assert_close(found, (weights * each).mean())
    assert abs(found - weights.mean() * each.mean()) > 1e-3
    torch.testing.assert_close(spatial_terms(x, y, PLAIN).loss, each.mean())
    torch.testing.assert_close(contrast_terms(*disparity, weights).loss, found)


# ---- Precision ------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", EVERY)
def test_half_precision_is_close_to_float32(settings: ContrastSettings) -> None:
    x, y = doubles(2, 5, 8, 6, 5).float(), doubles(2, 5, 8, 6, 5, seed=1).float()
    full = both(x, x + 0.5 * y, settings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = both(x, x + 0.5 * y, settings)
    for a, b in zip(cast, full, strict=True):
        assert a.loss.dtype == torch.float32
        assert all(torch.equal(one, other) for one, other in zip(a, b, strict=True))
    # bfloat16 keeps 8 bits, about 0.4 percent of a feature; float16 ten times better.
    for dtype, near in ((torch.bfloat16, 0.05), (torch.float16, 0.01)):
        half = both(x.to(dtype), (x + 0.5 * y).to(dtype), settings)
        for a, b in zip(half, full, strict=True):
            assert a.loss.item() == pytest.approx(b.loss.item(), rel=near, abs=near)
            assert a.positive.item() == pytest.approx(b.positive.item(), abs=near)
            assert a.negative.item() == pytest.approx(b.negative.item(), abs=near)
    head = nn.Linear(8, 8)
    full = both(x, x + 0.5 * y, settings, head=head)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = both(x, x + 0.5 * y, settings, head=head)
    for a, b in zip(cast, full, strict=True):
        assert a.loss.dtype == torch.float32
        assert a.loss.item() == pytest.approx(b.loss.item(), rel=0.05, abs=0.05)


# ---- Centres, windows, parts ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "low", "high"), [(112, 3, 108), (56, 2, 53), (7, 1, 5), (3, 1, 1)]
)
def test_centres_lie_in_the_middle_95_percent(side: int, low: int, high: int) -> None:
    # 2.5 percent of 112 is 2.8: cells 3 to 108 lie between 2.8 and 109.2. Of 56: 1.4 and
    # 54.6, cells 2 to 53. Of 7: 0.175 and 6.825, cells 1 to 5, which have neighbours too.
    count = (high - low + 1) ** 2
    every = rep.sample_centres(side, side, count, torch.Generator().manual_seed(0))
    assert every.dtype == torch.int64 and every.shape == (count, 2)
    assert every.min() == low and every.max() == high
    assert len({tuple(p) for p in every.tolist()}) == count
    again = rep.sample_centres(side, side, count, torch.Generator().manual_seed(0))
    assert torch.equal(every, again)
    with pytest.raises(StcclError, match=f"has {count}"):
        rep.sample_centres(side, side, count + 1)


def test_every_interior_centre_is_the_dense_case() -> None:
    x, y = doubles(2, 3, 5, 6), doubles(2, 3, 5, 6, seed=1)
    dense, listed = (spatial_terms(x, y, None, c) for c in (None, rep.grid_centres(5, 6)))
    torch.testing.assert_close(dense.loss, listed.loss)
    torch.testing.assert_close(dense.per_region.flatten(1), listed.per_region)
    assert rep.grid_centres(7, 9, 3).tolist() == [[r, c] for r in (1, 4) for c in (1, 4, 7)]


def test_a_long_sequence_is_the_mean_of_its_windows() -> None:
    x, y = doubles(2, 9, 3, 4, 4), doubles(2, 9, 3, 4, 4, seed=1)
    for settings in (EVERY[0], EVERY[1], EVERY[4]):
        whole = temporal_terms(x, y, settings)
        first, second = (
            temporal_terms(x[:, w], y[:, w], settings) for w in ([*range(5)], [*range(4, 9)])
        )
        torch.testing.assert_close(whole.loss, (first.loss + second.loss) / 2)
        torch.testing.assert_close(whole.negative, (first.negative + second.negative) / 2)


def test_parts_are_means_of_stages() -> None:
    def terms(loss: float, positive: float) -> Terms:
        return Terms(*(torch.tensor(v) for v in (loss, positive, 0.25, 0.0)))

    found = parts([terms(1.0, 0.5), terms(3.0, 0.75)], [terms(4.0, 1.0)])
    # scc (1 + 3) / 2, tcc 4, loss 2 + 4.
    assert {name: value.item() for name, value in found.items()} == {
        "loss": 6.0,
        "scc": 2.0,
        "scc_positive": 0.625,
        "scc_negative": 0.25,
        "scc_stage1": 1.0,
        "scc_stage1_positive": 0.5,
        "scc_stage1_negative": 0.25,
        "scc_stage2": 3.0,
        "scc_stage2_positive": 0.75,
        "scc_stage2_negative": 0.25,
        "tcc": 4.0,
        "tcc_positive": 1.0,
        "tcc_negative": 0.25,
        "tcc_stage1": 4.0,
        "tcc_stage1_positive": 1.0,
        "tcc_stage1_negative": 0.25,
    }
    assert parts([terms(1.0, 0.5)])["loss"].item() == 1.0
    with pytest.raises(StcclError, match="no stage"):
        parts()


# ---- Bad input ------------------------------------------------------------------------------

MAPS, FRAMES = torch.rand(1, 2, 4, 4), torch.rand(1, 5, 2, 4, 4)
BROKEN = MAPS.clone()
BROKEN[0, 0, 0, 0] = torch.nan


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spatial_terms(MAPS, MAPS[..., :3]), "differ in shape"),
        (lambda: temporal_terms(FRAMES, FRAMES[:, :4]), "differ in shape"),
        (lambda: spatial_terms(MAPS, MAPS.double()), "one device and floating type"),
        (lambda: spatial_terms(MAPS, BROKEN), "not finite"),
        (lambda: spatial_terms(BROKEN, MAPS, EVERY[1]), "not finite"),
        (lambda: temporal_matrix(BROKEN.expand(1, 3, 2, 4, 4)), "not finite"),
        (lambda: spatial_terms(MAPS.int(), MAPS.int()), "floating type"),
        (lambda: rep.temporal_disparity(FRAMES.long()), "floating type"),
        (lambda: spatial_matrix(MAPS[0]), r"Allowed: \(B, C, H, W\)"),
        (lambda: temporal_terms(MAPS, MAPS), r"Allowed: \(B, T, C, H, W\)"),
        (lambda: rep.spatial_disparity(MAPS[:0]), "no axis of length 0"),
        (lambda: temporal_terms(FRAMES[:, :1], FRAMES[:, :1]), "no change in time"),
        (lambda: temporal_terms(FRAMES[:, :3], FRAMES[:, :3]), "5 frames on a sequence of 3"),
        (lambda: rep.spatial_disparity(MAPS[..., :2]), "larger than the map of 4 x 2"),
        (lambda: rep.spatial_disparity(MAPS, neighbours=6), "Allowed: 4, 8"),
        (lambda: temporal_terms(FRAMES[..., :2], FRAMES[..., :2], EVERY[5]), "larger than the map"),
        (lambda: spatial_terms(MAPS, MAPS, None, torch.tensor([[0, 1]])), "rows 1 to 2"),
        (lambda: spatial_matrix(MAPS, torch.tensor([[0, 4]])), "columns 0 to 3"),
        (lambda: spatial_matrix(MAPS, torch.tensor([[0.5, 1.0]])), "int64"),
        (lambda: spatial_matrix(MAPS, torch.zeros(0, 2, dtype=torch.int64)), "no centres"),
        (lambda: spatial_terms(MAPS, MAPS, EVERY[1], torch.tensor([[1, 1]])), "at least 3 regions"),
        (lambda: rep.temporal_disparity(FRAMES, "all"), "adjacent, window"),  # type: ignore[arg-type]
        (lambda: rep.sample_centres(4, 4, 0), "at least 1"),
        (lambda: rep.grid_centres(4, 2), "larger than its borders"),
        (lambda: released_terms(MAPS[0, :, :1], MAPS[0, :, :1], EVERY[3]), "at least 2"),
    ],
)
def test_bad_input_is_told_in_one_line(call: object, message: str) -> None:
    with pytest.raises(StcclError, match=message) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"form": "vdd"}, "'form'"),
        ({"temprature": 0.1}, "temperature"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"window": 2}, "no negatives"),
        ({"definition": "released-code", "form": "cm"}, "no correlation matrices"),
    ],
)
def test_settings_that_cannot_be_are_refused(content: dict[str, object], message: str) -> None:
    with pytest.raises(CardError, match=message):
        validate(ContrastSettings, content, "train.toml")
