"""What each round trip of the field's SyncNet scripts does to LSE-D, LSE-C and the AV offset.

    python benchmarks/compat_chain.py CLIP [CLIP ...] [--syncnet FILE]

The steps of ``metrics/networks/syncnet-v2-compat.toml`` are switched on one after the other, in
the order in which the scripts take them, and a Markdown table is printed. Faces are found by the
profile ``light``. Without --syncnet (the authors' ``syncnet_v2.model``) SyncNet has random,
seeded weights, its batch normalisation fitted to the clips so that it feels its input: then
only the sizes of the steps mean something.

A clip is written as everywhere, for example ``strip.mp4#xywh=0,0,256,256``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from tabulate import tabulate

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import SyncInput, network_card, profile_card
from spfem_bench.faces.crop import SyncCropper
from spfem_bench.faces.track import FaceTrack
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import audio
from spfem_bench.networks import syncnet
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.statistics import sync

STEPS: tuple[tuple[str, dict[str, str]], ...] = (
    ("as decoded (`syncnet-v2`)", {}),
    ("25 fps by ffmpeg's `-r 25`, in an AVI with an MP3 track", {"avi": "lossless"}),
    ("the AVI's pictures as MPEG-4", {"avi": "mpeg4"}),
    ("its frames as JPEG", {"frames": "jpeg"}),
    ("crops as MPEG-4 (XVID)", {"crops": "xvid"}),
    ("the crops' frames as JPEG", {"crops": "xvid-jpeg"}),
    ("sound from the MP3 track (`syncnet-v2-compat`)", {"sound": "avi"}),
)
"""Each step, and the field of ``[input.chain]`` that it changes."""


def random_syncnet(clips: Iterable[Clip], seed: int) -> bytes:
    """Return random weights in the official file format, batch normalisation fitted to clips."""
    import torch
    from syncnet_python.SyncNetModel import S

    torch.manual_seed(seed)
    net = S().train()
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean over all batches
    light = profile_card("light")
    contract = light.network("sync").input
    assert isinstance(contract, SyncInput)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        x = Extractor(light, WeightsStore.locate(), FeatureStore(Path(folder)))
        for clip in clips:
            cropper, cuts = SyncCropper(contract), []
            for index, (frame, face) in enumerate(x.tracked_frames(clip, FaceTrack())):
                cuts += [cut for _, cut in cropper.push(index, frame, face)] if face else []
            video = np.stack(cuts)[..., ::-1].transpose(3, 0, 1, 2)  # BGR
            steps = syncnet.mfcc(audio.samples(clip))
            count = min(video.shape[1], len(steps) // syncnet.STEPS_PER_FRAME) - syncnet.WINDOW
            sounds = torch.from_numpy(syncnet.sound_windows(steps, count))
            for start in range(0, count - 15, 16):
                batch = np.stack(
                    [video[:, n : n + syncnet.WINDOW] for n in range(start, start + 16)]
                )
                net.forward_lip(torch.from_numpy(batch.astype(np.float32)))
                net.forward_aud(sounds[start : start + 16])
    stream = io.BytesIO()
    torch.save(net.state_dict(), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def profiles(folder: Path, weights: bytes, chains: Mapping[str, Mapping[str, str]]) -> Path:
    """Write cards into a folder: for each name the profile ``light`` with SyncNet behind a chain.

    Returns:
        the folder that ``SPFEM_BENCH_CARDS`` has to name.
    """
    contract = network_card("syncnet-v2").path.read_text(encoding="utf-8").partition("[[files]]")[0]
    light = profile_card("light").path.read_text(encoding="utf-8")
    assert "syncnet-v2" in light
    networks, made = (folder / "cards" / "metrics" / kind for kind in ("networks", "profiles"))
    (networks / "weights").mkdir(parents=True)  # files without an address lie beside their card
    made.mkdir()
    (networks / "weights" / "syncnet.model").write_bytes(weights)
    pin = f'sha256 = "{hashlib.sha256(weights).hexdigest()}"\n'
    for name, steps in chains.items():
        chain = "[input.chain]\n" * bool(steps)
        chain += "".join(f'{key} = "{value}"\n' for key, value in steps.items())
        card = f'{contract}{chain}[[files]]\nname = "syncnet.model"\n{pin}'
        (networks / f"{name}.toml").write_text(card, encoding="utf-8")
        text = light.replace("syncnet-v2", name)
        (made / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder / "cards"


def lse(x: Extractor, clip: Clip) -> tuple[float, float, float, int]:
    """Return a clip's LSE-D, LSE-C, offset and number of windows.

    Raises:
        ClipError: it cannot be scored.
    """
    for error in x.ensure({clip: frozenset({"sync"})}).values():
        raise error
    found = x.load(clip, "sync")
    assert found is not None
    part = sync.components(
        found.outputs["visual"], found.outputs["audio"], found.frames, max_shift=15
    )
    distance, confidence, offset = (
        sync.value(part, report) for report in ("distance", "confidence", "offset")
    )
    return distance, confidence, offset, part.windows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", nargs="+", type=Clip.parse, metavar="CLIP")
    parser.add_argument("--syncnet", type=Path, help="the authors' syncnet_v2.model")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    options = parser.parse_args()
    if options.syncnet:
        weights = options.syncnet.read_bytes()
    else:
        weights = random_syncnet(options.clips, options.seed)
    taken: dict[str, str] = {}
    chains = {f"steps-{n}": dict(taken := taken | more) for n, (_, more) in enumerate(STEPS)}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SPFEM_BENCH_CARDS"] = str(profiles(folder, weights, chains))
        for chain, (title, _) in zip(chains, STEPS, strict=True):
            store = FeatureStore(folder / "store")
            x = Extractor(profile_card(chain), WeightsStore.locate(), store)
            cells = [title]
            for clip in options.clips:
                distance, confidence, offset, windows = lse(x, clip)
                cells.append(f"{distance:.3f} / {confidence:.3f} / {offset:+.0f} ({windows})")
            rows.append(cells)
    titles = [f"{c.path.stem}{f', x = {c.crop.x}' if c.crop else ''}" for c in options.clips]
    headers = ["steps so far: LSE-D / LSE-C / offset (windows)", *titles]
    print(tabulate(rows, headers, tablefmt="github"))


if __name__ == "__main__":
    main()
