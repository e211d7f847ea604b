"""Options that several commands share, and their progress bars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from spfem_bench.evaluation.plan import Plan
    from spfem_bench.features.extract import Progress

FOLDER = click.Path(file_okay=False, path_type=Path)

weights_dir = click.option(
    "--weights-dir",
    type=FOLDER,
    help="Folder searched first for weights, by hash. [env: SPFEM_BENCH_WEIGHTS]",
)
data_dir = click.option(
    "--data-dir",
    type=FOLDER,
    help="Folder searched first for data sets, each in a folder of its name. "
    "[env: SPFEM_BENCH_DATA]",
)
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress bars, no remarks.")


def progress_bars(clips: int) -> Progress:
    """Return bars on standard error for clips, decoded frames and crops seen by networks."""
    from tqdm import tqdm

    from spfem_bench.features.extract import Progress

    class Bars(Progress):
        def __init__(self) -> None:
            def bar(position: int, **options: Any) -> tqdm[Any]:
                # disable=None: no bars in a file or a pipe.
                return tqdm(position=position, leave=False, disable=None, **options)

            self.clips = bar(0, total=clips, desc="clips   ", unit="clip")
            self.frames = bar(1, desc="decode  ", unit="frame")
            self.crops = bar(2, desc="networks", unit="crop")

        def decoded(self, frames: int) -> None:
            self.frames.update(frames)

        def embedded(self, samples: int) -> None:
            self.crops.update(samples)

        def finished(self, clips: int) -> None:
            self.clips.update(clips)

        def close(self) -> None:
            for bar in (self.crops, self.frames, self.clips):
                bar.close()

    return Bars()


def rendering(quiet: bool) -> Callable[[int], Callable[[], None]]:
    """Return what shows, on standard error, how rendering a world's clips goes on."""
    return counting("render", "clip", quiet)


def counting(what: str, unit: str, quiet: bool) -> Callable[[int], Callable[[], None]]:
    """Return what shows, on standard error, how many of a known number are done."""
    from tqdm import tqdm

    def start(count: int) -> Callable[[], None]:
        bar = tqdm(total=count, desc=what, unit=unit, leave=False,
                   disable=True if quiet else None)  # fmt: skip

        def done() -> None:
            bar.update(1)
            if bar.n == count:
                bar.close()

        return done

    return start


def check_device(device: str) -> None:
    """Refuse a device that torch does not have here."""
    if device == "cpu":
        return
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise click.BadParameter(
            f"'{device}' is not available here: {str(error).splitlines()[0]}", param_hint="--device"
        ) from None


def count_clips(plan: Plan) -> int:
    """Return how many different clips an evaluation looks at."""
    return len({c for item in plan.items for c in (*item.clips.values(), *item.more_real)})
