"""Positions in the report's plots: numbers only; templates draw them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spfem_bench.texts import fixed

_Float64 = npt.NDArray[np.float64]

WIDTH = 560  # of all plots, in SVG's units, which are pixels on a wide screen
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 26
ROW = 26  # height of one run's strip
MARKS = ("circle", "square", "up", "diamond", "down")


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and what is written there."""

    at: float
    text: str


class _Axis:
    """Where values lie between the first and the last of about *count* ticks of a plot."""

    def __init__(self, low: float, high: float, begin: float, end: float, count: int = 5) -> None:
        self.values = nice_ticks(low, high, count)
        self.begin = begin
        self.factor = (end - begin) / (self.values[-1] - self.values[0])

    def __call__(self, value: float) -> float:
        return self.begin + (value - self.values[0]) * self.factor

    @property
    def ticks(self) -> tuple[Tick, ...]:
        return tuple(Tick(_round(self(v)), tick_text(v, self.values)) for v in self.values)


@dataclass(frozen=True)
class Value:
    """A number of one run in one group, with its interval, and in words."""

    value: float
    low: float | None = None
    high: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Dot:
    """The position of a number of one run, and of its interval's ends."""

    run: int
    x: float
    y: float
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True)
class Dots:
    """Numbers of several runs in groups (emotions, speakers)."""

    height: int
    ticks: tuple[Tick, ...]
    groups: tuple[Tick, ...]
    edges: tuple[float, ...]
    dots: tuple[Dot, ...]


def dots(groups: Mapping[str, Mapping[int, Value]], runs: int) -> Dots:
    """Arrange numbers, by group's label and run: groups across, in each a place for every run."""
    height = 230
    values = [v for of in groups.values() for v in of.values()]
    ends = [n for v in values for n in (v.value, v.low, v.high) if n is not None]
    y = _Axis(min(ends, default=0.0), max(ends, default=1.0), height - BOTTOM, TOP)
    wide = (WIDTH - LEFT - RIGHT) / max(1, len(groups))
    step = wide * 0.8 / max(1, runs)
    middles = [LEFT + (i + 0.5) * wide for i in range(len(groups))]
    made = []
    for middle, of in zip(middles, groups.values(), strict=True):
        for run, v in of.items():
            low, high = (None if end is None else _round(y(end)) for end in (v.low, v.high))
            x = _round(middle + (run - (runs - 1) / 2) * step)
            made.append(Dot(run, x, _round(y(v.value)), low, high, v.text))
    names = tuple(Tick(_round(x), name) for x, name in zip(middles, groups, strict=True))
    edges = tuple(_round(LEFT + i * wide) for i in range(1, len(groups)))
    return Dots(height, y.ticks, names, edges, tuple(made))


@dataclass(frozen=True)
class Strip:
    """The values of one run's items: SVG path data of a cloud of points, and its quartiles.

    Every point is a line of no length, drawn with round ends.
    """

    run: int
    y: float
    path: str
    quartiles: tuple[float, float, float]


@dataclass(frozen=True)
class Strips:
    """The values of several runs' items, one below the other; the axis goes from low to high."""

    height: int
    left: float
    right: float
    low: float
    high: float
    ticks: tuple[Tick, ...]
    strips: tuple[Strip, ...]


def strips(
    values: Mapping[int, Sequence[float]], points: Mapping[int, Sequence[float]] | None = None
) -> Strips:
    """Arrange the distribution of items' values, by run number; *points* of them are drawn."""
    every = [v for of in values.values() for v in of]
    left, right = 112.0, float(WIDTH - RIGHT - 6)
    x = _Axis(min(every), max(every), left, right, 6)
    rows = []
    for row, (run, of) in enumerate(values.items()):
        middle = TOP + (row + 0.5) * ROW
        # Spread up and down so that equal values do not hide each other.
        path = "".join(
            f"M{x(v):.1f} {middle + (_reversed_bits(i) - 0.5) * 0.62 * ROW:.1f}h0"
            for i, v in enumerate(of if points is None else points[run])
        )
        first, second, third = (_round(x(float(q))) for q in np.percentile(of, [25, 50, 75]))
        rows.append(Strip(run, middle, path, (first, second, third)))
    height = TOP + ROW * len(values) + BOTTOM
    return Strips(height, left, right, x.values[0], x.values[-1], x.ticks, tuple(rows))


@dataclass(frozen=True)
class Curve:
    """Values of one clip over time: the first frame of each window, its value, its frames."""

    frames: npt.NDArray[np.int64]
    values: _Float64
    window: int = 5


@dataclass(frozen=True)
class Line:
    """A curve over time: ``own``, ``rival`` or ``source``, broken where windows have no face."""

    kind: str
    path: str
    mean: float


@dataclass(frozen=True)
class TimePlot:
    """Curves over time, with the waveform (SVG path data; empty without sound) under them."""

    height: int
    per_second: float
    ticks: tuple[Tick, ...]
    seconds: tuple[Tick, ...]
    lines: tuple[Line, ...]
    wave: str
    wave_middle: float


def time_plot(
    curves: Mapping[str, Curve], peaks: _Float64, sound_seconds: float, frame_rate: float
) -> TimePlot:
    """Arrange curves over time, by kind (``own``, ``rival``), above the waveform of the sound.

    *peaks* are the loudest of each of N equal parts of the sound: float64 (N,), 0 to 1.
    """
    height, floor, wave_at, tall = 178, 108, 134, 20
    ends = [float(n) for c in curves.values() for n in (c.values.min(), c.values.max())]
    y = _Axis(min(ends), max(ends), floor, TOP, 4)
    # A rival may be longer than the output.
    last = max(int(c.frames[-1]) + c.window for c in curves.values())
    seconds = max(sound_seconds, last / frame_rate)
    per_second = (WIDTH - LEFT - RIGHT) / seconds
    lines = []
    for kind, curve in curves.items():
        path, before = "", None
        for frame, value in zip(curve.frames.tolist(), curve.values.tolist(), strict=True):
            # A window is drawn at its middle.
            x = LEFT + (frame + curve.window / 2) / frame_rate * per_second
            path += f"{'L' if before == frame - 1 else 'M'}{x:.1f} {y(value):.1f}"
            before = frame
        lines.append(Line(kind, path, _round(y(float(curve.values.mean())))))
    step = sound_seconds * per_second / max(1, len(peaks))
    wave = "".join(
        f"M{LEFT + (i + 0.5) * step:.1f} {wave_at - tall * p:.1f}v{2 * tall * p:.1f}"
        for i, p in enumerate(peaks.tolist())
    )
    every = next(s for s in (0.5, 1, 2, 5, 10, 30, 60, 600, math.inf) if seconds / s <= 10)
    marks = [i * every for i in range(int(seconds / every) + 1)] if every < math.inf else [0.0]
    times = tuple(Tick(_round(LEFT + s * per_second), f"{s:g}") for s in marks)
    scale = _round(per_second)
    return TimePlot(height, scale, y.ticks, times, tuple(lines), wave, float(wave_at))


@dataclass(frozen=True)
class CurvesPlot:
    """What an output is compared in, over time, beside the other clip's (*other* is its role).

    Frame t of the output lies at frame ``t + lag`` of the other clip.
    """

    name: str
    other: str
    lag: int
    plot: TimePlot


@dataclass(frozen=True)
class ShiftPlot:
    """Mean distance at each shift of the sound, and where it is least."""

    height: int
    width: int
    ticks: tuple[Tick, ...]
    shifts: tuple[Tick, ...]
    path: str
    best: tuple[float, float]


def shift_plot(means: _Float64) -> ShiftPlot:
    """Arrange the mean distance at each shift, from the most negative on; 0 in the middle."""
    height, width, left = 178, 210, 38
    most = len(means) // 2
    y = _Axis(float(means.min()), float(means.max()), height - BOTTOM, TOP, 4)

    def x(i: float) -> float:
        return left + i * (width - left - RIGHT) / max(1, len(means) - 1)

    points = [f"{x(i):.1f} {y(m):.1f}" for i, m in enumerate(means.tolist())]
    best = int(means.argmin())
    named = ((0, f"−{most}"), (most, "0"), (2 * most, f"+{most}"))
    shifts = tuple(Tick(_round(x(i)), text) for i, text in named)
    least = (_round(x(best)), _round(y(float(means[best]))))
    return ShiftPlot(height, width, y.ticks, shifts, "M" + "L".join(points), least)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers that enclose a range, about *count* of them.

    >>> nice_ticks(0.12, 0.87)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        room = abs(low) * 0.1 or 0.5
        low, high = low - room, high + room
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """Return a tick's number with as many digits as the steps need."""
    step = abs(ticks[1] - ticks[0])
    digits = min(9, max(0, -math.floor(math.log10(step) + 1e-9)))
    return fixed(value, digits).replace("-", "−")


def _round(value: float) -> float:
    return round(value, 1) + 0.0


def _reversed_bits(number: int) -> float:
    """Return the number's binary digits mirrored at the point (van der Corput's sequence)."""
    return int(f"{number:b}"[::-1], 2) / 2.0 ** number.bit_length()
