"""Nothing is seen twice: links and copies of one file are one clip, in one call or in several."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import Role, profile_card
from spfem_bench.execution.processes import Processes, ThisProcess
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import video
from spfem_bench.networks.weights import WeightsStore

BOTH: frozenset[Role] = frozenset({"identity", "expression"})
ONE: frozenset[Role] = frozenset({"identity"})


def extractor(store: Path) -> Extractor:
    return Extractor(profile_card("compact"), WeightsStore(), FeatureStore(store), faces="aligned")


@pytest.fixture
def named(tmp_path: Path, run_ffmpeg: Callable[..., None]) -> dict[str, Clip]:
    """One second under five names, another second, and a broken file under two names."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, picture in (("first", "testsrc2"), ("other", "mandelbrot")):
        run_ffmpeg(
            "-f", "lavfi", "-i", f"{picture}=s=112x112:r=25", "-t", "1", folder / f"{name}.mp4"
        )
    first = folder / "first.mp4"
    shutil.copyfile(first, folder / "copy.mp4")
    (folder / "link.mp4").symlink_to(first)
    os.link(first, folder / "hard.mp4")
    os.utime(folder / "copy.mp4", (1, 1))
    for name in ("broken", "broken-copy"):
        (folder / f"{name}.mp4").write_bytes(b"no video")
    return {path.stem: Clip(path) for path in sorted(folder.iterdir())}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The clips that are decoded, one entry each time."""
    names: list[str] = []
    real = video.frames

    def frames(clip: Clip, *more: Any, **how: Any) -> Iterator[np.ndarray]:
        names.append(clip.path.stem)
        return real(clip, *more, **how)

    monkeypatch.setattr(video, "frames", frames)
    return names


def test_links_and_copies_are_decoded_once_for_all_networks(
    named: dict[str, Clip], decoded: list[str], tmp_path: Path
) -> None:
    requests = {clip: ONE if name == "first" else BOTH for name, clip in named.items()}
    x = extractor(tmp_path / "store")
    failures = x.ensure(requests)
    good = [name for name in decoded if not name.startswith("broken")]
    assert sorted(good) == ["copy", "other"]  # in the order of names: the copy comes first
    assert {clip.path.stem for clip, _ in failures} == {"broken", "broken-copy"}
    for (clip, _), error in failures.items():
        assert f"{clip.path.stem}.mp4" in str(error)  # each by its own name
    same = [x.load(named[name], "identity") for name in ("copy", "first", "hard", "link")]
    for features in same:
        assert features is not None and same[0] is not None
        np.testing.assert_array_equal(features.outputs["embedding"], same[0].outputs["embedding"])


def test_a_later_run_decodes_no_name_of_what_an_earlier_one_saw(
    named: dict[str, Clip], decoded: list[str], tmp_path: Path
) -> None:
    """A study's second method: the same sources and real clips under other names."""
    store = tmp_path / "store"
    assert extractor(store).ensure({named["link"]: BOTH}) == {}
    assert decoded == ["link"]
    again = {named[name]: BOTH for name in ("first", "copy", "hard", "link")}
    assert ThisProcess().compute(extractor(store), again) == {}
    assert decoded == ["link"]
    changed = named["copy"].path
    changed.write_bytes(changed.read_bytes() + bytes(8))
    assert extractor(store).ensure({Clip(changed): ONE}) == {}
    assert decoded == ["link", "copy"]  # the bytes decide, not the name


def test_processes_share_one_clip_of_each_content(
    named: dict[str, Clip], decoded: list[str], tmp_path: Path
) -> None:
    names = ("copy", "first", "hard", "link")
    x = extractor(tmp_path / "store")
    # Of one content, there is no work for two: this process decodes it, once.
    assert Processes(2).compute(x, {named[name]: BOTH for name in names}) == {}
    assert decoded == ["copy"]
