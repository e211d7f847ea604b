"""The papers' discovery, with controls: how alike are local disparities across emotions?

Figures 2 of ASCCL and the overview of STCCL compare *corresponding* disparities of two
recordings of one sentence in two emotions with *non-corresponding* ones, and find the first
alike and the second not. Beside them stand here two controls that the papers do not show:
another speaker's frames, and the same speaker's at a wrong time. What they reach is plain face
structure; only what exceeds them is about this speaker, or about what is being said.

Non-corresponding (our choice, since the papers' words and numbers differ):

* ``elsewhere`` (reported as the negative): disparities of any other regions of the two frames.
  This is the papers' "non-corresponding adjacent local regions", and about 0 as theirs is. In
  space it must be: every disparity is there with its reverse, so the mean cancels, whatever the
  pictures show. It says little, which is why the controls are needed.
* ``near``: other neighbours of the same region, as equation 1 has it, and in time other
  moments of the same region. Well above 0 in space, because both disparities share a region.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor

from spfem_bench.datasets.pairs import Pair
from spfem_bench.definitions.protocols import AVERAGE, EMOTIONS
from spfem_bench.errors import StcclError
from spfem_bench.statistics.intervals import SEED, drawn, interval
from spfem_bench.stccl import contrast, dense
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.backbone import Backbone
from spfem_bench.stccl.contrast import ContrastSettings, Head
from spfem_bench.stccl.metric import GRID, Form, Heads

Definition = Literal["paper", "released-code"]
Space = Literal["spatial", "temporal"]
Measure = Literal["cosine", "pearson"]
Kind = Literal[
    "positive",
    "elsewhere",
    "near",
    "other speaker",
    "wrong time",
    "above other speaker",
    "above wrong time",
]

KINDS: tuple[Kind, ...] = get_args(Kind)
SPACES: tuple[Space, ...] = get_args(Space)
MEASURES: tuple[Measure, ...] = get_args(Measure)

CONTROLS: dict[Kind, Kind] = {
    "other speaker": "above other speaker",
    "wrong time": "above wrong time",
}
"""Controls, and by what name the positive less each of them goes."""

WINDOW = dense.WINDOW
"""Consecutive frames that are looked at together."""

RESAMPLES = 1000

SIZE = 112
"""Side in pixels of the pictures."""

Key = tuple[str, Space, int, Measure, Kind]
"""Which network, space, stage, measure and kind a value belongs to."""

Values = dict[Key, float]


# ---- what is compared ---------------------------------------------------------------------


class Subject(NamedTuple):
    """One pair of recordings with its controls, as pictures.

    Attributes:
        pair: whose.
        source: uint8 (n, 5, 112, 112, 3), windows of consecutive frames.
        target: the same moments in the other emotion.
        wrong_time: the other emotion's at another time; None when the recording is too short.
        other_speaker: another speaker's; None when there is nobody.
    """

    pair: Pair
    source: npt.NDArray[np.uint8]
    target: npt.NDArray[np.uint8]
    wrong_time: npt.NDArray[np.uint8] | None
    other_speaker: npt.NDArray[np.uint8] | None


def starts(pair: Pair, count: int) -> npt.NDArray[np.int64]:
    """Return where up to *count* windows begin, evenly spread over a pair.

    In each, both recordings go on by a frame at every entry of the first.
    """
    possible = pair.windows(WINDOW, moving=True)
    steps = np.diff(pair.numbers[:, 0]) == 1
    possible = np.array([s for s in possible if steps[s : s + WINDOW - 1].all()], np.int64)
    if len(possible) <= count:
        return possible
    return possible[((np.arange(count) + 0.5) * len(possible) / count).astype(np.int64)]


def wrong_times(pair: Pair, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """Return, for each window, the start of one half a recording away; None when too short.

    Half the possible windows further, from the beginning again: the shift is as large as it
    can be for all windows alike, and at least a window's length.
    """
    possible = starts(pair, len(pair))
    if not len(possible):
        return None
    place = np.searchsorted(possible, chosen)
    shifted = possible[(place + len(possible) // 2) % len(possible)]
    far = np.abs(pair.numbers[shifted, 1] - pair.numbers[chosen, 1]) >= WINDOW
    return shifted if far.all() else None


def stand_in(pairs: Sequence[Pair], index: int) -> Pair | None:
    """Return the pair whose second recording serves as another speaker's.

    The next in the list, from the beginning again, of another speaker in the same emotion;
    if there is none, in any emotion; None when all are of one speaker. So no speaker stands
    in for everybody.
    """
    own = pairs[index]
    order = [*pairs[index + 1 :], *pairs[:index]]
    others = [p for p in order if p.speaker != own.speaker]
    return next((p for p in others if p.emotion == own.emotion), others[0] if others else None)


def subject(pairs: Sequence[Pair], index: int, windows: int) -> Subject | None:
    """Draw or read one pair's pictures and its controls'; None when it has no whole window.

    All are put in the pose of the source's frame (see `Pair.pictures`), so that a control
    is not worse for its pose.

    Args:
        pairs: all, among which another speaker is sought.
        index: of this one.
        windows: how many windows at most.

    Raises:
        ClipError: a frame is absent, unreadable or without a face.
    """
    pair = pairs[index]
    chosen = starts(pair, windows)
    if not len(chosen):
        return None
    entries = (chosen[:, None] + np.arange(WINDOW)).ravel()
    shape = (len(chosen), WINDOW, SIZE, SIZE, 3)
    both = [pair.pictures(int(k), SIZE) for k in entries]
    source, target = (np.stack(side).reshape(shape) for side in zip(*both, strict=True))

    def beside(other: Pair, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        columns = np.stack([pair.numbers[entries, 0], numbers], axis=1)
        made = replace(pair, emotional=other.emotional, numbers=columns)
        return np.stack([made.pictures(k, SIZE)[1] for k in range(len(entries))]).reshape(shape)

    shifted, wrong, stranger = wrong_times(pair, chosen), None, None
    if shifted is not None:
        late = (shifted[:, None] + np.arange(WINDOW)).ravel()
        wrong = beside(pair, pair.numbers[late, 1])
    other = stand_in(pairs, index)
    if other is not None and len(theirs := starts(other, windows)):
        theirs = np.resize(theirs, len(chosen))
        at = (theirs[:, None] + np.arange(WINDOW)).ravel()
        stranger = beside(other, other.numbers[at, 1])
    return Subject(pair, source, target, wrong, stranger)


# ---- how alike they are -------------------------------------------------------------------


class Lens(NamedTuple):
    """What disparities are looked at through.

    Attributes:
        name: ``untrained``, or the learnt metric's.
        heads: its mappings.
        form: ``vd``; or ``cm`` for correlation matrices, of which only cosines of centred rows
            (which are Pearson's) are known.
        settings: for ``cm``.
    """

    name: str = "untrained"
    heads: Heads | None = None
    form: Form = "vd"
    settings: ContrastSettings | None = None


class _Alike(NamedTuple):
    positive: float
    elsewhere: float
    near: float


def values(
    of: Subject,
    network: Backbone,
    lenses: Sequence[Lens],
    *,
    definition: Definition = "paper",
    seed: int = SEED,
    device: str = "cpu",
) -> Values:
    """Compare one pair and its controls at all stages.

    Args:
        of: its pictures.
        network: whose stages are compared.
        lenses: without heads, with a metric's, or both.
        definition: ``released-code`` for the authors' own (see `released`).
        seed: of the positions that it samples.
        device: where it is computed.

    Returns:
        one number for each key, a mean over windows and regions; kinds that the pair does
        not have are left out.
    """
    shape = of.source.shape[:2]

    def maps(pictures: npt.NDArray[np.uint8]) -> list[Tensor]:
        batch = torch.from_numpy(pictures.reshape(-1, SIZE, SIZE, 3)).to(device)
        stages = network.stages(batch.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return [torch.unflatten(m, 0, shape) for m in stages]

    found: Values = {}
    with torch.inference_mode():
        source = maps(of.source)
        against: dict[Kind, npt.NDArray[np.uint8] | None] = {
            "positive": of.target,
            "other speaker": of.other_speaker,
            "wrong time": of.wrong_time,
        }
        for kind, pictures in against.items():
            if pictures is None:
                continue
            other = maps(pictures)
            for lens in lenses:
                for stage, (x, y) in enumerate(zip(source, other, strict=True), start=1):
                    for space, measure, alike in _compared(x, y, lens, stage, definition, seed):
                        key = lens.name, space, stage, measure
                        found[(*key, kind)] = alike.positive
                        if kind == "positive":
                            found[(*key, "elsewhere")] = alike.elsewhere
                            if np.isfinite(alike.near):
                                found[(*key, "near")] = alike.near
    for network_name, space, stage, measure, kind in list(found):
        of_it = network_name, space, stage, measure
        for control in CONTROLS:
            if kind == control:
                above = found[(*of_it, "positive")] - found[(*of_it, control)]
                found[(*of_it, CONTROLS[control])] = above
    return found


def _compared(
    x: Tensor, y: Tensor, lens: Lens, stage: int, definition: Definition, seed: int
) -> Iterator[tuple[Space, Measure, _Alike]]:
    """Yield what one stage says of sequences ``(n, 5, C, H, W)``."""
    for space in SPACES:
        head: Head | None = None
        if lens.heads is not None:
            head = getattr(lens.heads, space)[stage - 1]
        if lens.form == "cm":
            alike = _matrices(x, y, space, head, lens.settings or ContrastSettings(form="cm"))
            yield space, "pearson", alike
            continue
        for measure in MEASURES:
            if definition == "released-code":
                yield space, measure, _released(x, y, space, stage, head, measure, seed)
            else:
                yield space, measure, _dense(x, y, space, head, measure)


def _dense(x: Tensor, y: Tensor, space: Space, head: Head | None, measure: Measure) -> _Alike:
    if measure == "pearson":
        if head is None:
            x, y = (torch.unflatten(dense.centred(m.flatten(0, 1)), 0, m.shape[:2]) for m in (x, y))
        else:
            head = _centred_head(head)
    if space == "spatial":
        parts = [dense.spatial(x.flatten(0, 1), y.flatten(0, 1), head)]
    else:
        parts = [dense.temporal(a, b, head) for a, b in zip(x, y, strict=True)]
    return _Alike(
        *(
            float(torch.cat([v.flatten() for v in each]).double().mean())
            for each in (
                [p.positive for p in parts],
                [p.elsewhere for p in parts],
                [p.near for p in parts],
            )
        )
    )


def _centred_head(head: Head) -> Head:
    def mapped(rows: Tensor) -> Tensor:
        out = rep.widened(head(rows))
        return out - out.mean(-1, keepdim=True)

    return mapped


def _matrices(
    x: Tensor, y: Tensor, space: Space, head: Head | None, settings: ContrastSettings
) -> _Alike:
    """Compare correlation matrices of at most 7 x 7 regions in even distances."""
    height, width = x.shape[-2:]
    step = max(1, -(-(max(height, width) - 2) // GRID))
    centres = rep.grid_centres(height, width, step).to(x.device)
    if space == "spatial":
        terms = contrast.spatial_terms(
            x.flatten(0, 1), y.flatten(0, 1), settings, centres, head=head
        )
    else:
        terms = contrast.temporal_terms(x, y, settings, centres, head=head)
    return _Alike(float(terms.positive), float(terms.negative), np.nan)


def _released(
    x: Tensor,
    y: Tensor,
    space: Space,
    stage: int,
    head: Head | None,
    measure: Measure,
    seed: int,
) -> _Alike:
    # The same places for a pair's controls: they differ from the positive by frames alone.
    generator = torch.Generator().manual_seed(seed)
    height, width = x.shape[-2:]
    centres = rep.sample_centres(height, width, rep.CENTRES_PER_STAGE[stage - 1], generator)
    centres = centres.to(x.device)
    if space == "spatial":
        dx, dy = (rep.spatial_disparity(m.flatten(0, 1), centres).flatten(1, 2) for m in (x, y))
    else:
        pairs = rep.frame_pairs(x.shape[1], "window").to(x.device)
        dx, dy = (
            rep.disparity_of_frames(rep.region_rows(m, centres), pairs).flatten(0, 1)
            for m in (x, y)
        )
    positive, negative = released(
        head(dx) if head else dx, head(dy) if head else dy, generator, measure
    )
    return _Alike(positive, negative, np.nan)


def released(
    source: Tensor, generated: Tensor, generator: torch.Generator, measure: Measure = "cosine"
) -> tuple[float, float]:
    """Return similarity as the authors' released code logs it.

    Each vector is scaled to length 1 over channels; then each channel is compared over the
    sampled positions, and channels are averaged. The negative has the generated positions in
    a random order (see `contrast.released_terms`). With ``pearson`` the mean over positions is
    taken away first.

    Args:
        source: ``(B, S, D)``.
        generated: of the same shape.
        generator: chance for the order, on the CPU.
        measure: ``cosine`` or ``pearson``.
    """
    x, y = rep.unit(rep.widened(source)), rep.unit(rep.widened(generated))
    if measure == "pearson":
        x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    order = torch.randperm(y.shape[1], generator=generator).to(y.device)
    return (
        float(F.cosine_similarity(x, y, dim=1).mean()),
        float(F.cosine_similarity(x, y[:, order], dim=1).mean()),
    )


# ---- over all pairs -----------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One number of the figure.

    Attributes:
        network: ``untrained``, or the learnt metric's name.
        stage: of the network, from 1.
        kind: see the module; ``above ...`` is the positive less that control, pair by pair.
        emotion: of the second recording; ``avg`` for the plain mean over emotions.
        low: lower end of the 95 % bootstrap interval over pairs; None with a single pair.
        high: its upper end.
        pairs: that it stands on.
        frames: of each side.
        disparities: that were compared.
    """

    network: str
    space: Space
    stage: int
    measure: Measure
    kind: Kind
    emotion: str
    value: float
    low: float | None
    high: float | None
    pairs: int
    frames: int
    disparities: int


class Refused(NamedTuple):
    """A pair that could not be compared, and why."""

    name: str
    reason: str


def discover(
    pairs: Sequence[Pair],
    network: Backbone,
    lenses: Sequence[Lens] = (Lens(),),
    *,
    windows: int = 3,
    definition: Definition = "paper",
    device: str = "cpu",
    done: Callable[[], object] = lambda: None,
) -> tuple[list[Row], list[Refused]]:
    """Compare all pairs, and average them by emotion.

    Args:
        pairs: recordings of one sentence by one speaker, the second with an emotion; a pair
            in which both show the same is not among them.
        network: whose stages are compared.
        lenses: without heads, with a metric's, or both.
        windows: of five consecutive frames, for each pair.
        definition: ``paper``, or ``released-code``.
        device: where it is computed.
        done: called after each pair.

    Returns:
        the rows, and what was left out.

    Raises:
        StcclError: no pairs, no window at all, or correlation matrices of the released code.
        ClipError: a frame is absent, unreadable or without a face.
    """
    if not pairs:
        raise StcclError("no pairs of recordings to compare", "Give at least one")
    if windows < 1:
        raise StcclError(f"{windows} windows for each pair", "Give at least 1")
    if definition == "released-code" and any(lens.form == "cm" for lens in lenses):
        raise StcclError("the released code has no correlation matrices", "Use the form vd")
    found: list[tuple[str, int, Values]] = []
    refused = []
    sizes: dict[int, tuple[int, int]] = {}
    for index, pair in enumerate(pairs):
        shown = subject(pairs, index, windows)
        if shown is None:
            refused.append(
                Refused(
                    f"{pair.neutral.name} and {pair.emotional.name}",
                    f"no {WINDOW} frames in a row in which both go on",
                )
            )
        else:
            if not sizes:
                with torch.inference_mode():
                    blank = torch.zeros(1, 3, SIZE, SIZE, device=device)
                    shapes = [tuple(m.shape[-2:]) for m in network.stages(blank)]
                sizes = dict(enumerate(shapes, start=1))  # type: ignore[arg-type]
            got = values(
                shown, network, lenses, definition=definition, seed=SEED + index, device=device
            )
            found.append((pair.emotion, len(shown.source), got))
        done()
    if not found:
        raise StcclError(f"no pair can be compared: {refused[0].reason}", "Give longer recordings")
    forms = {lens.name: lens.form for lens in lenses}
    there = dict.fromkeys(emotion for emotion, _, _ in found)
    emotions = [e for e in EMOTIONS if e in there] + [e for e in there if e not in EMOTIONS]
    rows: list[Row] = []
    for key in dict.fromkeys(key for _, _, got in found for key in got):
        name, space, stage, _, _ = key
        each = per_frame(space, sizes[stage], stage, definition, forms[name])
        rows += _rows(key, emotions, found, each)
    return rows, refused


def per_frame(
    space: Space, size: tuple[int, int], stage: int, definition: Definition, form: Form
) -> float:
    """Return how many disparities (or rows of matrices) are compared for each frame."""
    height, width = size
    if form == "cm":
        step = max(1, -(-(max(height, width) - 2) // GRID))
        return float(len(rep.grid_centres(height, width, step)))
    if definition == "released-code":
        centres = rep.CENTRES_PER_STAGE[stage - 1]
        return centres * (8.0 if space == "spatial" else (WINDOW - 1) / 2)
    if space == "spatial":
        return 8.0 * (height - 2) * (width - 2)
    return height * width * (WINDOW - 1) / WINDOW


def _rows(
    key: Key, emotions: Sequence[str], found: Sequence[tuple[str, int, Values]], each: float
) -> Iterator[Row]:
    """Yield a key's row for each emotion and for their mean, with bootstraps over pairs."""
    network, space, stage, measure, kind = key
    means, draws, counts, varies = [], [], [], False

    def row(
        emotion: str, value: float, again: npt.NDArray[np.float64] | None, n: int, w: int
    ) -> Row:
        low, high = (None, None) if again is None else interval(again)
        frames = w * WINDOW
        return Row(
            network,
            space,
            stage,
            measure,
            kind,
            emotion,
            value,
            low,
            high,
            n,
            frames,
            round(frames * each),
        )

    for stream, emotion in enumerate(emotions):
        own = [(w, got[key]) for e, w, got in found if e == emotion and key in got]
        if not own:
            continue
        numbers = np.array([v for _, v in own])
        again = numbers[drawn(len(own), RESAMPLES, stream)].mean(axis=1)
        means.append(float(numbers.mean()))
        draws.append(again)
        counts.append((len(own), sum(w for w, _ in own)))
        varies = varies or len(own) > 1
        yield row(emotion, means[-1], again if len(own) > 1 else None, *counts[-1])
    total = np.sum(counts, axis=0)
    mean = np.mean(draws, axis=0)
    yield row(
        AVERAGE, float(np.mean(means)), mean if varies else None, int(total[0]), int(total[1])
    )
