"""How much of a cold evaluation's processor time is the networks' forward pass.

    python -m benchmarks.forward_share CLIP [CLIP ...] [--profiles light official]

A cold evaluation of all clips is measured as a whole: processor time, user and system, of this
process and of ffmpeg. While it runs, every outermost call of a PyTorch module, an onnxruntime
session and an ncnn network is counted by the shape of its input, and one input of each shape is
kept. Afterwards the same calls are made again, as many, with nothing around them, under the same
number of threads: their share is what the networks themselves take. What is left is decoding,
finding and cutting of faces, conversion to float, queues, statistics and the store.

Loading is not counted: a first clip has warmed everything up. Weights are random where they cannot
be had (:mod:`benchmarks.official_files`). The clips go through together, as in an evaluation.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import common
from benchmarks.common import Spent
from benchmarks.official_chain import EVERYTHING, prepare
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import profile_card
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.networks.weights import WeightsStore

TARGET = 0.85
"""The least share of the networks."""


@dataclass
class Call:
    """Calls of one network with inputs of one shape.

    Attributes:
        again: makes one more.
        batch: returns a call with so many samples, channels last in memory or first; None where
            a network takes one at a time.
    """

    name: str
    shape: str
    again: Callable[[], object]
    count: int = 0
    batch: Callable[[int, bool], Callable[[], object]] | None = None


@dataclass
class Calls:
    """Counts the calls of networks, whatever library holds them; inner calls are their outer's."""

    found: dict[tuple[object, ...], Call] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _depth: threading.local = field(default_factory=threading.local)

    def note(
        self,
        owner: object,
        name: str,
        shape: tuple[int, ...],
        again: Callable[[], object],
        batch: Callable[[int, bool], Callable[[], object]] | None = None,
    ) -> None:
        """Count one call."""
        new = Call(name, str(shape), again, batch=batch)
        with self._lock:
            call = self.found.setdefault((id(owner), name, shape), new)
            call.count += 1

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count all calls of the block."""
        import ncnn
        import onnxruntime
        import torch

        plain = torch.nn.Module.__call__
        session = onnxruntime.InferenceSession.run
        begin, feed, take = ncnn.Net.create_extractor, ncnn.Extractor.input, ncnn.Extractor.extract
        calls, depth = self, self._depth

        def module(net: Any, *given: Any, **named: Any) -> Any:
            level = getattr(depth, "level", 0)
            depth.level = level + 1
            try:
                out = plain(net, *given, **named)
            finally:
                depth.level = level
            if level == 0 and len(given) == 1 and not named:
                kept, kind = given[0], given[0].device.type
                half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
                name = str(half or kept.dtype).removeprefix("torch.")
                title = f"{torch_name(net)}, {name}"
                if (id(net), title, tuple(kept.shape)) in calls.found:
                    kept = None  # one of each shape stays in memory

                def again(x: Any = kept, net: Any = net, kind: str = kind, half: Any = half) -> Any:
                    with (
                        torch.inference_mode(),
                        torch.autocast(kind, half or torch.bfloat16, enabled=half is not None),
                    ):
                        return plain(net, x)

                def batch(size: int, last: bool, x: Any = kept, again: Any = again) -> Any:
                    samples = torch.cat([x[:1]] * size)
                    return partial(again, samples if last else samples.contiguous())

                calls.note(net, title, tuple(given[0].shape), again, batch)
            return out

        def run(held: Any, names: Any, given: Any, *more: Any) -> Any:
            (picture,) = given.values()
            again = partial(session, held, names, given, *more)
            (name,) = given

            def batch(size: int, last: bool) -> Any:
                return partial(session, held, names, {name: picture[:1].repeat(size, 0)}, *more)

            output = held.get_outputs()[0].name
            calls.note(held, f"onnxruntime, {output}", picture.shape, again, batch)
            return session(held, names, given, *more)

        open_nets: dict[int, Any] = {}

        def create(net: Any) -> Any:
            made = begin(net)
            open_nets[id(made)] = net
            return made

        def put(made: Any, name: str, mat: Any) -> Any:
            net = open_nets.pop(id(made))
            planes = np.array(mat)

            def again(net: Any = net, planes: Any = planes, name: str = name) -> None:
                one = begin(net)
                feed(one, name, ncnn.Mat(planes))
                for output in taken:
                    take(one, output)

            calls.note(net, "ncnn, SCRFD-500M", planes.shape, again)
            return feed(made, name, mat)

        taken: dict[str, None] = {}

        def extract(made: Any, name: str, *more: Any) -> Any:
            taken[name] = None
            return take(made, name, *more)

        with (
            mock.patch.object(torch.nn.Module, "__call__", module),
            mock.patch.object(onnxruntime.InferenceSession, "run", run),
            mock.patch.object(ncnn.Net, "create_extractor", create),
            mock.patch.object(ncnn.Extractor, "input", put),
            mock.patch.object(ncnn.Extractor, "extract", extract),
        ):
            yield


def torch_name(net: Any) -> str:
    """Name a module by its class, or a part of SyncNet by what it begins with."""
    if type(net).__name__ == "Tower":
        return f"Tower {net.name}"
    if type(net).__name__ != "Sequential":
        return str(type(net).__name__)
    layer = next(m for m in net.modules() if getattr(m, "weight", None) is not None)
    return f"Sequential from {type(layer).__name__}({layer.weight.shape[1]})"


def replayed(call: Call) -> Spent:
    """Make all calls of a kind again, after one to warm up."""
    call.again()
    with common.clock() as spent:
        for _ in range(call.count):
            call.again()
    return spent


def share(
    profile: str, clips: list[Clip], folder: Path, device: str, repeats: int, **how: Any
) -> list[list[str]]:
    """Return the rows of one profile."""
    store = FeatureStore(folder / f"store-{profile}-{len(how)}")
    x = Extractor(profile_card(profile), WeightsStore.locate(), store, device=device, **how)

    def cold() -> None:
        shutil.rmtree(store.folder, ignore_errors=True)
        for error in x.ensure(dict.fromkeys(clips, EVERYTHING)).values():
            raise error

    calls, wholes, parts = Calls(), [], []
    cold()
    with calls.watching():
        cold()
    found = list(calls.found.values())
    assert found, "no call of a network was seen"
    for _ in range(repeats):
        with common.clock() as spent:  # without the counting
            cold()
        wholes.append(spent)
        parts.append([replayed(call) for call in found])
    title = " ".join([profile.removesuffix("-random"), *map(str, how.values())])
    whole = Spent(*(median(getattr(w, k) for w in wholes) for k in ("wall", "cpu")))
    rows = []
    for call, turns in zip(found, zip(*parts, strict=True), strict=True):
        cpu, wall = median(t.cpu for t in turns), median(t.wall for t in turns)
        rows.append(
            [
                title,
                call.name,
                call.shape,
                str(call.count),
                f"{cpu:.2f}",
                f"{cpu / whole.cpu:.1%}",
                f"{wall:.2f}",
            ]
        )
    rows.sort(key=lambda row: -float(row[4]))
    sums = [Spent(*(sum(getattr(p, k) for p in turn) for k in ("wall", "cpu"))) for turn in parts]
    shares = [100 * s.cpu / w.cpu for s, w in zip(sums, wholes, strict=True)]
    rows.append(
        [
            title,
            "**forward, all networks**",
            "",
            "",
            f"{median(s.cpu for s in sums):.2f}",
            f"**{common.spread(shares, 1)} %**",
            f"{median(s.wall for s in sums):.2f}",
        ]
    )
    rows.append(
        [title, "the whole evaluation", "", "", f"{whole.cpu:.2f}", "100 %", f"{whole.wall:.2f}"]
    )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", nargs="+", type=Clip.parse, metavar="CLIP")
    parser.add_argument(
        "--profiles", nargs="+", choices=["light", "official"], default=["light", "official"]
    )
    parser.add_argument("--seconds", type=float, help="cut each clip to; whole by default")
    parser.add_argument(
        "--official-seconds",
        type=float,
        default=1.6,
        help="cut each clip to, for the large networks",
    )
    parser.add_argument("--threads", type=int, help="of every library; all cores by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--repeats", type=int, default=3, help="of the whole and of the calls alone"
    )
    parser.add_argument("--precision", nargs="+", default=["float32"])
    given = parser.parse_args()
    threads = common.use_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = prepare(given.clips, folder, given.official_seconds, seed=0)
        rows = []
        for profile in given.profiles:
            clips = bench.short if profile == "official" else bench.clips
            if given.seconds and profile != "official":
                clips = [
                    common.cut(c, c.path.with_stem(f"{c.path.stem}-cut"), given.seconds)
                    for c in clips
                ]
            for precision in given.precision:
                how = {} if precision == "float32" else {"precision": precision}
                rows += share(
                    f"{profile}-random", clips, folder, given.device, given.repeats, **how
                )
    print(common.machine(threads))
    headers = ["profile", "network", "input", "calls", "CPU s", "share of CPU", "wall s"]
    common.print_table(rows, headers)
    shares = {f"forward pass, {r[0]}:": r[5] for r in rows if r[1].startswith("**")}
    print(common.quotable(shares, threads))


if __name__ == "__main__":
    main()
