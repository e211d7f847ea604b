"""Relations of local regions, in space and in time: pure functions on feature maps.

A region is one position of a map (ASCCL, section 4.1). Visual disparity (VD) is the difference of
the features of two, ``x_i - x_j`` (equation 3, before the mapping ``f``). Correlation matrices
(CM; STCCL, figure of the algorithm) are cosines between regions of an image, or of one region
over frames. Half precision is widened to float32, and ``torch.autocast`` is off inside.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from spfem_bench.errors import StcclError

Pairs = Literal["adjacent", "window"]

#: Row and column steps to the neighbours, row by row: all eight, or the four that share an edge.
STEPS: dict[int, tuple[tuple[int, int], ...]] = {
    8: ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)),
    4: ((-1, 0), (0, -1), (0, 1), (1, 0)),
}

#: Centres per stage, first to last, of the authors' released code.
CENTRES_PER_STAGE = (32, 16, 8, 4)

#: Positions per stage of its temporal model, drawn with replacement.
RELEASED_POSITIONS = (256, 128, 64, 32)


def spatial_disparity(maps: Tensor, centres: Tensor | None = None, neighbours: int = 8) -> Tensor:
    """Return the disparities of regions and their neighbours, ``x_i - x_j`` (equation 3).

    Only positions with all eight neighbours inside the map ``(B, C, H, W)`` are centres, by default
    all, row by row. The result is ``(B, R, neighbours, C)``, neighbours in the order of `STEPS`.

    Raises:
        StcclError: the maps or the centres ``(N, 2)`` do not fit, or a value is not finite.
    """
    maps = checked_maps(maps)
    height, width = maps.shape[-2:]
    if neighbours not in STEPS:
        raise StcclError(f"{neighbours} neighbours were asked for", "Allowed: 4, 8")
    check_neighbours(maps)
    grid = maps.permute(0, 2, 3, 1)
    if centres is None:
        inner = grid[:, 1:-1, 1:-1]
        shifted = [
            inner - grid[:, 1 + down : height - 1 + down, 1 + right : width - 1 + right]
            for down, right in STEPS[neighbours]
        ]
        return torch.stack(shifted, dim=3).flatten(1, 2)
    centres = checked_centres(centres, height, width, border=1).to(maps.device)
    around = centres[:, None] + torch.tensor(STEPS[neighbours], device=maps.device)
    flat = grid.flatten(1, 2)
    centre = flat.index_select(1, _flat_index(centres, width))
    other = flat.index_select(1, _flat_index(around.flatten(0, 1), width))
    return centre[:, :, None] - torch.unflatten(other, 1, (len(centres), neighbours))


def temporal_disparity(
    maps: Tensor, pairs: Pairs = "adjacent", *, window: int | None = None
) -> Tensor:
    """Return the change of each region between two frames, ``x_t - x_s`` with t before s.

    Equation 3 with frames in the place of regions (STCCL). Sequences ``(B, T, C, H, W)``, T at
    least 2, give ``(B, P, H * W, C)``; pairs and windows are those of `frame_pairs`.

    Raises:
        StcclError: the sequences are not as above, or a value is not finite.
    """
    maps = checked_sequence(maps)
    chosen = frame_pairs(maps.shape[1], pairs, window=window).to(maps.device)
    return disparity_of_frames(feature_rows(maps), chosen)


def feature_rows(maps: Tensor, centres: Tensor | None = None) -> Tensor:
    """Return all regions, or those at centres ``(N, 2)``, as rows: ``(..., R, C)``."""
    height, width = maps.shape[-2:]
    rows = maps.flatten(-2).transpose(-2, -1)
    if centres is None:
        return rows
    centres = checked_centres(centres, height, width, border=0).to(maps.device)
    return rows.index_select(-2, _flat_index(centres, width))


def disparity_of_frames(rows: Tensor, pairs: Tensor) -> Tensor:
    """Return ``(B, P, R, C)`` for rows ``(B, T, R, C)`` and pairs ``(P, 2)`` of frames."""
    return rows.index_select(1, pairs[:, 0]) - rows.index_select(1, pairs[:, 1])


def gram(rows: Tensor) -> Tensor:
    """Return cosines between all rows: ``(..., N, C)`` to ``(..., N, N)``, in [-1, 1]."""
    return cosine_grid(rows, rows)


def cosine_grid(x: Tensor, y: Tensor) -> Tensor:
    """Return cosines of each row of *x* with each of *y*: ``(..., N, M)`` in [-1, 1]."""
    with torch.autocast(x.device.type, enabled=False):
        return unit(widened(x)) @ unit(widened(y)).transpose(-2, -1)


def unit(rows: Tensor, flat: float = 1e-6) -> Tensor:
    """Scale the last axis to length 1, or to 0 (with gradient 0) where it is shorter than *flat*.

    Such a vector has no direction in float32.
    """
    square = rows.square().sum(-1, keepdim=True)
    solid = square > flat * flat
    return rows * (torch.where(solid, square, 1.0).rsqrt() * solid)


def widened(values: Tensor) -> Tensor:
    """Return half precision as float32, other floating types unchanged."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def sample_centres(
    height: int, width: int, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw distinct centres, int64 ``(count, 2)``, row and column, as the released code does.

    All positions whose cell lies in the middle 95 percent of height and width, and which have
    eight neighbours, are equally likely (our choice).

    Raises:
        StcclError: the map has fewer such positions than *count*, or *count* is below 1.
    """
    rows, columns = _middle(height), _middle(width)
    available = len(rows) * len(columns)
    if not 1 <= count <= available:
        raise StcclError(
            f"{count} centres were asked of a map of {height} x {width}, which has {available}",
            "Ask for at least 1 and at most as many as there are, or give larger images",
        )
    drawn = torch.randperm(available, generator=generator)[:count]
    return torch.stack([rows[drawn // len(columns)], columns[drawn % len(columns)]], dim=1)


def sample_positions(
    height: int, width: int, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw positions of a map with replacement: int64 ``(count, 2)``, row and column.

    Source: ``uniform_sampling`` of the released temporal model.
    """
    drawn = torch.randint(0, height * width, (count,), generator=generator)
    return torch.stack([drawn // width, drawn % width], dim=1)


def grid_centres(height: int, width: int, step: int = 1) -> Tensor:
    """Return every *step*-th position with eight neighbours, row by row: int64 ``(N, 2)``.

    Raises:
        StcclError: no position is left, or *step* is below 1.
    """
    if step < 1 or min(height, width) <= 2:
        raise StcclError(
            f"a grid of step {step} inside a border of 1 on a map of {height} x {width}",
            "Allowed: a step of 1 or more, and a map larger than its borders",
        )
    rows, columns = (torch.arange(1, length - 1, step) for length in (height, width))
    return torch.cartesian_prod(rows, columns)


def frame_windows(frames: int, window: int | None = None) -> Tensor:
    """Return the frames of each window of a sequence: int64 ``(n, window)``.

    Each window begins with the last frame of the one before, so that every adjacent pair is in
    one. One more window ends with the sequence where needed. Without *window* the sequence is one.

    >>> frame_windows(6, 5).tolist()
    [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]

    Raises:
        StcclError: fewer than two frames, or a window longer than the sequence.
    """
    if frames < 2:
        raise StcclError(
            f"a sequence of {frames} frame(s) has no change in time",
            "Give at least 2 frames, or use the spatial terms alone",
        )
    window = frames if window is None else window
    if not 2 <= window <= frames:
        raise StcclError(
            f"a window of {window} frames on a sequence of {frames}",
            f"Allowed: 2 to {frames}; give more frames or set a smaller window",
        )
    starts = list(range(0, frames - window + 1, window - 1))
    if starts[-1] + window < frames:
        starts.append(frames - window)
    return torch.tensor(starts)[:, None] + torch.arange(window)


def frame_pairs(frames: int, pairs: Pairs = "adjacent", *, window: int | None = None) -> Tensor:
    """Return the pairs of frames whose disparity is taken: int64 ``(P, 2)``, sorted, none twice.

    Pairs are ``adjacent``, or ``window`` for all pairs inside one of the `frame_windows`.

    Raises:
        StcclError: as `frame_windows`, or another word for *pairs*.
    """
    return grouped_pairs(frames, pairs, window)[0]


def grouped_pairs(frames: int, pairs: Pairs, window: int | None) -> tuple[Tensor, Tensor]:
    """Return `frame_pairs`, and the numbers ``(n, K)`` of the K pairs in each window."""
    if pairs not in ("adjacent", "window"):
        raise StcclError(f"pairs of frames '{pairs}'", "Allowed: adjacent, window")
    groups = frame_windows(frames, window)
    within = torch.combinations(torch.arange(groups.shape[1]))
    if pairs == "adjacent":
        within = within[within[:, 1] - within[:, 0] == 1]
    every = groups[:, within]
    chosen, number = torch.unique(every.flatten(0, 1), dim=0, return_inverse=True)
    return chosen, number.view(every.shape[:2])


def checked_maps(maps: Tensor) -> Tensor:
    """Return feature maps ``(B, C, H, W)`` in float32 or float64.

    Raises:
        StcclError: another shape or type, an empty axis, NaN or infinity.
    """
    return _checked(maps, "feature maps", "(B, C, H, W)", 4)


def checked_sequence(maps: Tensor) -> Tensor:
    """Return sequences ``(B, T, C, H, W)``, T at least 2; see `checked_maps`."""
    maps = _checked(maps, "sequences of feature maps", "(B, T, C, H, W)", 5)
    frame_windows(maps.shape[1])
    return maps


def checked_centres(centres: Tensor, height: int, width: int, *, border: int) -> Tensor:
    """Return centres ``(N, 2)`` that lie inside the map and off its border.

    Raises:
        StcclError: another shape or type, none at all, or one that lies outside.
    """
    if centres.dtype != torch.int64 or centres.ndim != 2 or centres.shape[1] != 2:
        raise StcclError(
            f"centres of type {centres.dtype} and shape {tuple(centres.shape)}",
            "Allowed: int64 (N, 2), row and column, as sample_centres returns them",
        )
    if not len(centres):
        raise StcclError("no centres were given", "Give at least one, or None for all")
    low, high = centres.amin(dim=0).tolist(), centres.amax(dim=0).tolist()
    if min(low) < border or high[0] >= height - border or high[1] >= width - border:
        raise StcclError(
            f"centres in rows {low[0]} to {high[0]} and columns {low[1]} to {high[1]} "
            f"of a map of {height} x {width}",
            f"Allowed: rows {border} to {height - 1 - border}, "
            f"columns {border} to {width - 1 - border}; draw them for this map",
        )
    return centres


def check_same_shape(source: Tensor, generated: Tensor) -> None:
    """Raise StcclError when the shapes of two maps differ."""
    if source.shape != generated.shape:
        raise StcclError(
            f"source {tuple(source.shape)} and generated {tuple(generated.shape)} differ in shape",
            "Give the same frames of both, at one size",
        )


def check_neighbours(
    maps: Tensor, remedy: str = "Use larger images or an earlier stage of the network"
) -> None:
    """Raise StcclError when maps have no region with eight neighbours."""
    height, width = maps.shape[-2:]
    if min(height, width) < 3:
        raise StcclError(
            f"a region with its neighbours is 3 x 3, larger than the map of {height} x {width}",
            remedy,
        )


def _checked(maps: Tensor, what: str, axes: str, ndim: int) -> Tensor:
    if not maps.is_floating_point():
        raise StcclError(f"{what} of type {maps.dtype}", "Convert them to a floating type first")
    if maps.ndim != ndim or 0 in maps.shape:
        raise StcclError(
            f"{what} of shape {tuple(maps.shape)}", f"Allowed: {axes}, no axis of length 0"
        )
    if not bool(torch.isfinite(maps.detach()).all()):
        raise StcclError(
            f"{what} with values that are not finite (NaN or infinite)",
            "Look for such pixels in the images, or lower the learning rate",
        )
    return widened(maps)


def _middle(length: int) -> Tensor:
    # Cell p covers p to p + 1; whole numbers, so that no rounding moves a limit.
    first = max(1, -(-25 * length // 1000))
    last = min(length - 2, 975 * length // 1000 - 1)
    return torch.arange(first, max(first, last + 1))


def _flat_index(positions: Tensor, width: int) -> Tensor:
    return positions[:, 0] * width + positions[:, 1]
