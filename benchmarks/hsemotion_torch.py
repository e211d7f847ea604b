"""HSEmotion's own recogniser (package ``hsemotion``, torchvision and timm) beside our path.

    python -m benchmarks.hsemotion_torch cut FOLDER CLIP [CLIP ...]   # real face boxes
    OTHER/bin/python benchmarks/hsemotion_torch.py theirs FOLDER      # in an environment of its own
    python -m benchmarks.hsemotion_torch ours FOLDER

The package cannot share our environment: OTHER needs ``pip install torch torchvision timm
hsemotion onnx onnxscript`` (5.5 GB). The network is timm's ``tf_efficientnet_b0``, as in the
official files, with random (seeded) weights and normalisations fitted to the faces; it is saved as
the pickled module that the package loads, and exported as ONNX for us. ``theirs`` is given the face
boxes as cut from the frame, and once more our 224 x 224 crops, so that the networks and the two
ways to resize (Pillow there, OpenCV here) are told apart.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from unittest import mock

import numpy as np

MODEL = "enet_b0_8_best_vgaf"


def cut(folder: Path, clips: list[Path], step: int = 5) -> None:
    """Keep the face boxes of every fifth frame as they are, and as ``hsemotion-vgaf`` cuts them."""
    from spfem_bench.definitions.clips import Clip
    from spfem_bench.definitions.networks import FaceBoxInput, network_card
    from spfem_bench.faces import crop
    from spfem_bench.faces.detect import load_detector
    from spfem_bench.media import video
    from spfem_bench.networks.weights import WeightsStore

    settings = network_card("hsemotion-vgaf").input
    assert isinstance(settings, FaceBoxInput)
    detector = load_detector(network_card("scrfd-500m"), WeightsStore.locate())
    made: dict[str, np.ndarray] = {}
    for clip in clips:
        for i, frame in enumerate(video.frames(Clip(clip))):
            if i % step or not (faces := detector(frame)):
                continue
            left, top, right, bottom = (max(int(v), 0) for v in faces[0].box)
            made[f"raw/{len(made) // 2:04}"] = frame[top:bottom, left:right]
            made[f"crop/{len(made) // 2:04}"] = crop.box(frame, faces[0], settings)
    np.savez(folder / "faces.npz", allow_pickle=False, **made)
    print(len(made) // 2, "faces of", len(clips), "clips")


def theirs(folder: Path) -> None:
    """Write features and probabilities of the package, and its network as an ONNX file."""
    import hsemotion
    import timm
    import torch
    import torchvision
    from hsemotion import facial_emotions

    torch.manual_seed(1)
    network = timm.create_model("tf_efficientnet_b0", num_classes=8)
    stored = dict(np.load(folder / "faces.npz"))
    pictures = np.stack([v for name, v in stored.items() if name.startswith("crop/")])[::2]
    normalize = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    batch = normalize(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.normal_(norm.weight, 1, 0.1)
        torch.nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = None  # the mean of all batches
    with torch.inference_mode():  # else all faces would give nearly the same features
        network.train()(batch)
    torch.nn.init.normal_(network.classifier.weight, std=0.2)
    torch.save(network.eval(), folder / f"{MODEL}.pt")
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, 224, 224),),
        str(folder / f"{MODEL}.onnx"),
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "batch_size"}, "output": {0: "batch_size"}},
        dynamo=False,
    )
    path = str(folder / f"{MODEL}.pt")
    with mock.patch.object(facial_emotions, "get_model_path", lambda name: path):
        # A pickled module: torch 2.6 and later load none unless it is asked to.
        os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
        recogniser = facial_emotions.HSEmotionRecognizer(MODEL, device="cpu")
    made: dict[str, np.ndarray] = {}
    for name, picture in stored.items():
        made[f"{name}/features"] = recogniser.extract_features(picture)[0]
        made[f"{name}/probabilities"] = recogniser.predict_emotions(picture, logits=False)[1]
    np.savez(folder / "theirs.npz", allow_pickle=False, **made)
    print("torch", torch.__version__, "torchvision", torchvision.__version__, end=" ")
    print("timm", timm.__version__, "hsemotion", Path(hsemotion.__file__).parent)


def ours(folder: Path) -> None:
    """Print the largest differences of our path from the package."""
    from spfem_bench.definitions.networks import network_card
    from spfem_bench.definitions.pins import PinnedFile
    from spfem_bench.hashes import sha256_of
    from spfem_bench.networks.load import load_network
    from spfem_bench.networks.weights import WeightsStore

    file = folder / f"{MODEL}.onnx"
    pinned = PinnedFile(name=file.name, sha256=sha256_of(file), url="https://example.org/x")
    card = network_card("hsemotion-vgaf").model_copy(update={"files": (pinned,)})
    run = load_network(card, WeightsStore(folder))["crops"]
    faces, expected = np.load(folder / "faces.npz"), np.load(folder / "theirs.npz")
    numbers = sorted(n.partition("/")[2] for n in faces.files if n.startswith("crop/"))
    crops = np.stack([faces[f"crop/{n}"] for n in numbers])
    parts = [run(crops[i : i + 16]) for i in range(0, len(crops), 16)]
    for kind, what in (("crop", "on our crops"), ("raw", "with its own resize")):
        for output in ("features", "probabilities"):
            mine = np.concatenate([part[output] for part in parts])
            other = np.stack([expected[f"{kind}/{n}/{output}"] for n in numbers])
            apart = np.abs(mine - other).max(axis=1)
            print(f"{what}, {output}: largest {apart.max():.2e}", end="")
            print(f" ({apart.max() / np.abs(other).max():.2e} of the largest value)", end="")
            if output == "features":
                a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (mine, other))
                print(f", smallest cosine {(a * b).sum(1).min():.9f}", end="")
                spread = np.abs(other[:, None] - other[None]).max(axis=2)
                print(f"; two faces differ by {np.median(spread[spread > 0]):.2e}", end="")
            else:
                print(f", same class {np.mean(mine.argmax(1) == other.argmax(1)):.1%}", end="")
            print()


def main() -> None:
    """Run one of the three steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("cut", "theirs", "ours"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("clips", type=Path, nargs="*")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.step == "cut":
        cut(given.folder, given.clips)
    elif given.step == "theirs":
        theirs(given.folder)
    else:
        ours(given.folder)


if __name__ == "__main__":
    sys.exit(main())
