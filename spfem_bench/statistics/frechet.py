"""Frechet distance between two sets of embeddings (FAD)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import METRIC_KINDS, MetricCard
from spfem_bench.definitions.protocols import Item
from spfem_bench.errors import CardError
from spfem_bench.features.store import arrays_digest
from spfem_bench.machine import processors
from spfem_bench.statistics.base import GroupScore, ItemFeatures, MetricKind, NoPartsError
from spfem_bench.statistics.intervals import pseudo_values

_Float64 = npt.NDArray[np.float64]

BYTES = 1 << 25
"""Of matrices that a thread works on at once: 16 of 512 dimensions."""

NOTED = 0.01
"""Bias that a number carries a note for, as a share of the variance of the real frames."""


@dataclass(frozen=True)
class Moments:
    """Sums over a set of D-dimensional vectors.

    ``total`` float64 (D,) is their sum, ``outer`` float64 (D, D) the sum of their outer products.
    """

    count: int
    total: _Float64
    outer: _Float64

    @classmethod
    def of(cls, vectors: npt.NDArray[np.floating]) -> Moments:
        """Sum up vectors, shape (N, D)."""
        v = np.asarray(vectors, np.float64)
        return cls(len(v), v.sum(axis=0), v.T @ v)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.count - other.count, self.total - other.total, self.outer - other.outer)

    def __iadd__(self, other: Moments) -> Moments:
        """Return both sets joined, in this one's arrays (sums of floats depend on the order)."""
        outer, total = self.outer, self.total
        outer += other.outer
        total += other.total
        return Moments(self.count + other.count, total, outer)

    @classmethod
    def nothing(cls, dimensions: int) -> Moments:
        """Return the moments of no vector."""
        return cls(0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))

    def mean(self) -> _Float64:
        """Return the mean, (D,)."""
        return self.total / self.count

    def covariance(self) -> _Float64:
        """Return the unbiased covariance, (D, D); needs two vectors at least."""
        scatter = np.multiply.outer(self.total, self.total / -self.count)
        scatter += self.outer
        scatter /= self.count - 1
        return scatter


@dataclass(frozen=True)
class FrechetPart:
    """One item's part of a Frechet distance: moments of its own and of its real frames.

    *clips* are the moments of each real clip, and *names* are their addresses, once the item is
    known; both only where a real clip that several items share counts once.
    """

    output: Moments
    real: Moments
    clips: tuple[Moments, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def n_frames(self) -> int:
        """Frames of the output that count."""
        return self.output.count


@METRIC_KINDS.register("frechet")
class FrechetKind(MetricKind[FrechetPart]):
    """Frechet distance between sets of frame embeddings.

    Attributes:
        normalise: each embedding is scaled to length 1.
        square_root: ``sqrtm`` computes the root of the product of covariances as pytorch-fid does
            (:func:`sqrtm_distance`); exact when absent (:func:`frechet_distance`).
        shared_real: ``once`` counts a real clip that several items share once in a group; once for
            each of them when absent.
    """

    pools_frames: ClassVar[bool] = True
    reports: ClassVar[frozenset[str]] = frozenset({"square_root"})
    later: ClassVar[frozenset[str]] = frozenset({"square_root", "shared_real"})

    kind: Literal["frechet"]
    normalise: bool = False
    square_root: Literal["sqrtm"] | None = None
    shared_real: Literal["once"] | None = None

    def libraries(self) -> frozenset[str]:
        """Return SciPy, whose versions differ in the root's last digits."""
        return frozenset({"scipy"}) if self.square_root else frozenset()

    def part(self, card: MetricCard, clip: Clip, features: ItemFeatures) -> FrechetPart:
        """Sum up an item's embeddings: of the output, and of all its real clips, or none."""
        outputs = [[f.outputs[card.output] for f in features[role]] for role in card.compare]
        own = np.concatenate(outputs[0])
        real = np.concatenate([own[:0], *outputs[1]])
        part = frechet_part(own, real, normalise=self.normalise)
        if self.shared_real is None:
            return part
        clips = [frechet_part(own[:0], r, normalise=self.normalise).real for r in outputs[1]]
        return replace(part, clips=tuple(clips))

    def held_bytes(self, part: FrechetPart) -> int:
        """Return the bytes of all matrices."""
        return (2 + len(part.clips)) * part.output.outer.nbytes

    def of_item(self, part: FrechetPart, item: Item) -> FrechetPart:
        """Return a part with the addresses of its real clips."""
        if not part.clips:
            return part
        return replace(part, names=tuple(map(str, (item.clips["real"], *item.more_real))))

    def kept(self, part: FrechetPart) -> dict[str, Any]:
        """Return the real frames' count, and a hash of the sums, which are too large."""
        sums: dict[str, npt.NDArray[np.generic]] = {}
        for side, moments in (("output", part.output), ("real", part.real)):
            sums |= {f"{side}.total": moments.total, f"{side}.outer": moments.outer}
        return {"n_frames_real": part.real.count, "moments_sha256": arrays_digest(sums)}

    def score(self, parts: Sequence[FrechetPart]) -> GroupScore:
        """Return the distance between all outputs' frames and all real frames.

        Each item brings its real frames with it: a real clip that several items share counts
        once for each. The record keeps each clip's ``without``: the distance of all others, from
        which alone the errors of differences between methods can be computed.

        Raises:
            ValueError: no items.
        """
        left_out = without(parts)
        output, real, _ = _joined(parts)
        value, reason = math.nan, ""
        if min(output.count, real.count) >= 2:
            root = sqrtm_distance if self.square_root else frechet_distance
            try:
                value = root(output, real)
            except ArithmeticError as error:
                reason = str(error)
        if len(parts) == 1:
            of_clips = np.array([value])
        elif None in left_out:
            of_clips = np.full(len(parts), math.nan)
        else:  # clips drawn again would lie too high (docs/statistics.md)
            of_clips = pseudo_values(value, np.array(left_out, np.float64))
        return GroupScore(value, of_clips, tuple({"without": one} for one in left_out), reason)

    def values(self, score: float, kept: Sequence[Mapping[str, Any]]) -> list[float]:
        """Return the clips' pseudo-values."""
        if not all("without" in one for one in kept):
            raise NoPartsError(
                "is of an earlier version: it cannot say what a clip does to {metric}"
            )
        left_out = [one["without"] for one in kept]
        if len(kept) == 1:
            return [score]
        if None in left_out:
            raise NoPartsError("cannot say what each clip does to {metric}: too few frames")
        try:
            return [float(v) for v in pseudo_values(score, left_out)]
        except (TypeError, ValueError) as error:
            raise CardError(str(error)) from None

    def note(self, groups: Sequence[Sequence[FrechetPart]], *, same_clips: bool) -> str:
        """Return by how much the mean of the groups' distances is biased upwards."""
        if same_clips:
            return "the output is the real clip itself"
        dimensions = len(groups[0][0].output.total)
        few, biases, shares = [], [], []
        for parts in groups:
            output, real, _ = _joined(parts)
            frames = min(output.count, real.count)
            if frames <= dimensions:
                few.append(frames)
                continue
            shares.append(bias_share(output.count, real.count, dimensions))
            biases.append(shares[-1] * float(np.trace(real.covariance())))
        if few and len(groups) == 1:
            return f"{few[0]} frames for {dimensions} dimensions: biased upwards"
        if few:
            where = f"in {len(few)} of {len(groups)} emotions"
            return f"biased upwards {where}: no more frames than dimensions"
        if max(shares) < NOTED:
            return ""
        return f"biased upwards, by up to {np.mean(biases):.2g} if frames were independent"


def frechet_part(
    output: npt.NDArray[np.floating], real: npt.NDArray[np.floating], *, normalise: bool
) -> FrechetPart:
    """Sum up an item's embeddings: of the method's frames (N, D), and of its real frames (M, D)."""
    sides = [np.asarray(vectors, np.float64) for vectors in (output, real)]
    if normalise:
        sides = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in sides]
    return FrechetPart(Moments.of(sides[0]), Moments.of(sides[1]))


class _Whole(NamedTuple):
    """The moments of a group's outputs and real frames, and how often each real clip is named."""

    output: Moments
    real: Moments
    uses: Counter[str]


def _joined(parts: Sequence[FrechetPart]) -> _Whole:
    """Join a group's parts in one pass, once: each may be computed again at every use."""
    if not parts:
        raise ValueError("a Frechet distance of no items")
    memo: dict[str, _Whole] = getattr(parts, "memo", {})
    if "whole" not in memo:
        uses: Counter[str] = Counter()
        output, real = (Moments.nothing(len(parts[0].output.total)) for _ in range(2))
        for part in parts:
            output += part.output
            for name, clip in _clips(part).items():
                if name not in uses:
                    real += clip
                uses[name] += 1
            if not part.names:
                real += part.real
        memo["whole"] = _Whole(output, real, uses)
    return memo["whole"]


def _clips(part: FrechetPart) -> dict[str, Moments]:
    return dict(zip(part.names, part.clips, strict=True))


def _own_real(part: FrechetPart, uses: Mapping[str, int]) -> Moments:
    """Return the moments of the real frames that leave the group with a part."""
    if not uses:
        return part.real
    own = Moments.nothing(len(part.real.total))
    for name, clip in _clips(part).items():
        if uses[name] == 1:
            own += clip
    return own


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`` (Dowson and Landau, 1982).

    The trace of the root is taken from a symmetric product ``R' C_b R`` with ``R R' = C_a``,
    which has the same eigenvalues as ``C_a C_b`` and none below zero. So nothing needs to be
    added to the diagonal when there are fewer vectors than dimensions.

    Raises:
        ValueError: fewer than two vectors on a side.
    """
    if min(a.count, b.count) < 2:
        raise ValueError("a covariance needs two frames at least")
    return _distances([(a, b)])[0]


def _distances(pairs: Iterable[tuple[Moments, Moments]]) -> list[float]:
    """Return the distance of each pair. One call gives all eigenvalues, which lets threads run."""
    inner, rest = [], []
    for a, b in pairs:
        cov_a, cov_b = a.covariance(), b.covariance()
        root = _root(cov_a)
        inner.append(root.T @ cov_b @ root)  # symmetric: half of it is used
        apart = ((a.mean() - b.mean()) ** 2).sum()
        rest.append(apart + (np.trace(cov_a) + np.trace(cov_b)))
    if not inner:
        return []
    values = np.linalg.eigvalsh(np.stack(inner))
    traces = np.sqrt(np.clip(values, 0, None)).sum(axis=1)
    distances: list[float] = np.maximum(0.0, np.array(rest) - 2 * traces).tolist()
    return distances


def sqrtm_distance(a: Moments, b: Moments) -> float:
    """Return the distance by pytorch-fid's formula and steps, with ``scipy.linalg.sqrtm``.

    Where the root is not finite, 1e-6 is added to both diagonals; of a complex root the real part
    is taken. With fewer vectors than dimensions the root is not unique in practice: the result is
    off by about 1e-6 of it, and below zero for identical sets.

    Raises:
        ArithmeticError: an imaginary part of 0.001 or more on the root's diagonal, where
            pytorch-fid stops; or no finite root.

    Source: mseitzer/pytorch-fid, ``calculate_frechet_distance``.
    """
    from scipy import linalg

    apart = a.mean() - b.mean()
    cov_a, cov_b = a.covariance(), b.covariance()
    root = np.asarray(linalg.sqrtm(cov_a.dot(cov_b)))
    if not np.isfinite(root).all():
        offset = np.eye(len(cov_a)) * 1e-6
        root = np.asarray(linalg.sqrtm((cov_a + offset).dot(cov_b + offset)))
    if not np.isfinite(root).all():
        raise ArithmeticError("scipy's sqrtm returned no finite matrix")
    if np.iscomplexobj(root):
        imaginary = float(np.abs(np.diagonal(root).imag).max())
        if imaginary > 1e-3:
            raise ArithmeticError(f"sqrtm's imaginary part is {imaginary:.2g}: pytorch-fid stops")
        root = root.real
    return float(apart.dot(apart) + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(root))


def _root(covariance: _Float64) -> _Float64:
    """Return an ``R`` with ``R R'`` the covariance: by Cholesky, where it has full rank."""
    try:
        return np.asarray(np.linalg.cholesky(covariance), np.float64)
    except np.linalg.LinAlgError:
        values, axes = np.linalg.eigh(covariance)
        return np.asarray(axes * np.sqrt(np.clip(values, 0, None)))


def without(parts: Sequence[FrechetPart]) -> list[float | None]:
    """Return the distance with each item left out in turn, for pseudo-values.

    None where nothing, or too few frames, would be left.

    Raises:
        ValueError: no items.
    """
    output, real, uses = _joined(parts)

    def left(some: Sequence[FrechetPart]) -> list[float | None]:
        pairs = [(output - part.output, real - _own_real(part, uses)) for part in some]
        enough = [min(a.count, b.count) >= 2 for a, b in pairs]
        distances = iter(_distances(pair for pair, can in zip(pairs, enough, strict=True) if can))
        return [next(distances) if can else None for can in enough]

    share = -(-len(parts) // processors())
    size = max(1, min(share, BYTES // output.outer.nbytes))
    groups = (parts[i : i + size] for i in range(0, len(parts), size))
    return [value for values in _threads().map(left, groups) for value in values]


@cache
def _threads() -> ThreadPoolExecutor:
    """Return threads that stay: starting new ones takes milliseconds."""
    return ThreadPoolExecutor(processors())


def bias_share(n: int, m: int, dimensions: int) -> float:
    """Return the bias of a distance between independent samples, as a share of tr(C).

    Samples of *n* and *m* independent vectors of one Gaussian with covariance C have the true
    distance 0 and, to first order in dimensions / n, the expected distance
    ``h tr(C) + h/2 (sum_ij c_i c_j / (c_i + c_j) + tr(C) / 2)``, with ``h = 1/n + 1/m`` and the
    eigenvalues c of C. It is largest where all c are equal: ``h (1 + (dimensions + 1) / 4)``,
    which is returned.
    """
    return (1 / n + 1 / m) * (1 + (dimensions + 1) / 4)
