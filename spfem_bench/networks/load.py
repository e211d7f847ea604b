"""From a network's card to functions on batches; only torch's modules are wrapped here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.architectures import ARCHITECTURES
from spfem_bench.definitions.computing import Precision as Precision
from spfem_bench.definitions.networks import InnerInput, NetworkCard, SyncInput
from spfem_bench.errors import CardError, SpfemBenchError
from spfem_bench.machine import steady_threads
from spfem_bench.networks.weights import WeightsStore, safetensors_state, wrong_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

_Array = npt.NDArray[np.float32]
BatchFunction = Callable[[npt.NDArray[np.generic]], Mapping[str, _Array]]
"""From a batch of samples to named outputs, one row per sample."""


class Detections(NamedTuple):
    """The faces in one picture, best score first.

    Boxes are float32 (N, 4), left, top, right, bottom; points float32 (N, 5, 2), as a face's.
    """

    boxes: _Array
    points: _Array
    scores: _Array


@dataclass(frozen=True)
class DetectorNetwork:
    """A face detector: the detections in each picture, uint8 (height, width, 3) RGB.

    The second argument of *run* is the longer side, in pixels, that pictures are resized to.
    """

    run: Callable[[Sequence[npt.NDArray[np.uint8]], int], list[Detections]]
    batched: bool = False


def network_libraries(card: NetworkCard) -> frozenset[str]:
    """Return the modules that a network computes with: its runtime."""
    return frozenset({ARCHITECTURES.runtime(card.architecture)})


def precision_of(card: NetworkCard, wanted: Precision) -> Precision:
    """Return the precision that a network runs in: float32 for all but torch's."""
    return wanted if ARCHITECTURES.runtime(card.architecture) == "torch" else "float32"


def autocast(device: str, precision: Precision) -> AbstractContextManager[object]:
    """Return torch's context in which networks compute in a precision, weights kept as they are."""
    import torch

    half = precision != "float32"
    kind = getattr(torch, precision if half else "bfloat16")
    context: AbstractContextManager[object]
    context = torch.autocast(device.partition(":")[0], kind, enabled=half)
    return context


def load_network(
    card: NetworkCard, weights: WeightsStore, device: str = "cpu", precision: Precision = "float32"
) -> Mapping[str, BatchFunction]:
    """Load a network, in eval mode, as functions on batches; raise WeightsError for wrong weights.

    Returns:
        For image networks ``{"crops": f}``, f on uint8 (B, height, width, channels). For lip sync
            ``{"frames": f, "sound": g}``: f on uint8 (B, T, size, size, 3) RGB gives ``visual`` (B,
            T - 4, D); g on float32 (B, 1, 13, 20) gives ``audio`` (B, D).
    """
    steady_threads()
    if ARCHITECTURES.runtime(card.architecture) != "torch":
        functions: Mapping[str, BatchFunction] = load_by_function(card, weights, device)
        return functions

    import torch

    from spfem_bench.networks.quick import Tower, quickened
    from spfem_bench.networks.toom_cook import PooledWindows

    module = load_module(card, weights, device)

    def run(tower: nn.Module, batch: torch.Tensor) -> Any:
        with torch.inference_mode(), autocast(device, precision):
            return tower(batch)

    def to_device(batch: npt.NDArray[np.generic]) -> torch.Tensor:
        tensor = torch.from_numpy(batch)
        if device.startswith("cuda"):
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=True)

    def to_array(output: torch.Tensor) -> _Array:
        return np.asarray(output.float().cpu().numpy())

    if isinstance(card.input, (SyncInput, InnerInput)):
        video_encoder = quickened(Tower(module, "visual"), precision)
        audio_encoder = quickened(Tower(module, "audio"), precision)
        takes_bytes = any(isinstance(m, PooledWindows) for m in video_encoder.modules())

        def frames(batch: npt.NDArray[np.generic]) -> Mapping[str, _Array]:
            # RGB to BGR; unlike batch[..., ::-1], channels stay last in memory.
            runs = to_device(np.take(batch, [2, 1, 0], axis=-1)).permute(0, 4, 1, 2, 3)
            output = run(video_encoder, runs if takes_bytes else runs.float())
            return {"visual": to_array(output)}

        def sound(batch: npt.NDArray[np.generic]) -> Mapping[str, _Array]:
            return {"audio": to_array(run(audio_encoder, to_device(batch)))}

        return {"frames": frames, "sound": sound}

    whole = quickened(module, precision)
    numbers = (card.input.mean, card.input.std)
    mean, std = (torch.tensor(n, device=device).reshape(-1, 1, 1) for n in numbers)

    def crops(batch: npt.NDArray[np.generic]) -> Mapping[str, _Array]:
        pictures = to_device(batch).permute(0, 3, 1, 2).float()
        return {k: to_array(v) for k, v in run(whole, (pictures - mean) / std).items()}

    return {"crops": crops}


def load_by_function(card: NetworkCard, weights: WeightsStore, device: str) -> Any:
    """Return what the function of a network's architecture makes of its files.

    Raises CardError for a torch module, WeightsError for wrong weights.
    """
    if ARCHITECTURES.runtime(card.architecture) == "torch":
        raise CardError(f"{card.path}: '{card.architecture}' is no {card.role}")
    load = ARCHITECTURES.get(card.architecture)  # first: a missing package is named at once
    return load(card, weights.read(card), device)


def load_module(card: NetworkCard, weights: WeightsStore, device: str = "cpu") -> nn.Module:
    """Load a torch module in eval mode and without gradients.

    Raises CardError for another architecture, WeightsError for wrong weights.
    """
    if ARCHITECTURES.runtime(card.architecture) != "torch":
        raise CardError(f"'{card.name}' ({card.architecture}) is no network that PyTorch holds")
    import torch

    # Full float32 on every device: TF32 would move scores in the third digit.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    ARCHITECTURES.get(card.architecture)  # first: a missing package is named at once
    module = _build(card, weights.read(card)[0])
    module.eval().requires_grad_(False).to(device)
    return module


def check_contents(card: NetworkCard, contents: list[bytes]) -> None:
    """Raise WeightsError where the bytes of a network's files do not hold its architecture."""
    if ARCHITECTURES.runtime(card.architecture) == "torch":
        _build(card, contents[0])
    else:
        ARCHITECTURES.get(card.architecture)(card, contents, "cpu")


def _build(card: NetworkCard, content: bytes) -> nn.Module:
    """Return a torch module with the state in a file's bytes; raise WeightsError for another."""
    architecture = ARCHITECTURES.get(card.architecture)
    read_state = getattr(architecture, "read_state", safetensors_state)
    module: nn.Module | None = None
    state: object = None
    try:
        module = architecture()
        state = read_state(content, card)
        module.load_state_dict(state)
        return module
    except SpfemBenchError:
        raise
    except Exception as error:  # files of any kind may be here: h5py and torch raise many kinds
        lines = str(error).splitlines() or [type(error).__name__]
        reason = lines[-1].strip()
        if module is not None and isinstance(state, dict):
            reason = _first_wrong(module.state_dict(), state) or reason
        raise wrong_weights(card, ValueError(reason)) from error


def _first_wrong(expected: Mapping[str, torch.Tensor], state: Mapping[str, object]) -> str | None:
    """Return what is wrong with the first tensor that a module cannot take; None for none."""
    for name, tensor in expected.items():
        shape = tuple(getattr(state.get(name), "shape", ()))
        if name not in state and not name.endswith("num_batches_tracked"):
            return f"there is no {name} {tuple(tensor.shape)}"
        if name in state and shape != tuple(tensor.shape):
            return f"{name} has the shape {shape}, not {tuple(tensor.shape)}"
    unknown = next((name for name in state if name not in expected), None)
    return None if unknown is None else f"it also holds {unknown}"
