"""From a network's card to a function on batches of crops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.networks import NetworkCard, SyncInput
from spfem_bench.errors import CardError, WeightsError
from spfem_bench.networks.weights import WeightsStore, remedy, safetensors_state, torch_state

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[np.float32]
BatchFunction = Callable[[npt.NDArray[np.generic]], Mapping[str, Array]]
"""From a batch of samples to named outputs, one row per sample."""

COMPACT = {
    "compact-identity": "CompactIdentity",
    "compact-expression": "CompactExpression",
    "compact-sync": "CompactSync",
}
"""Architectures in :mod:`spfem_bench.networks.compact`."""

ONNX = ("arcface-onnx", "hsemotion-onnx")
"""Architectures whose graph is in the file itself."""


def libraries(card: NetworkCard) -> frozenset[str]:
    """Return the modules that a network computes with: its runtime."""
    return frozenset({"onnxruntime" if card.architecture in ONNX else "torch"})


Precision = Literal["float32", "bfloat16", "float16"]
"""What a network's convolutions and matrix products are computed in."""


def precision_of(card: NetworkCard, wanted: Precision) -> Precision:
    """Return the precision that a network runs in: ONNX files stay as they are, in float32."""
    return "float32" if card.architecture in ONNX else wanted


def autocast(device: str, precision: Precision) -> AbstractContextManager[object]:
    """Return torch's context in which networks compute in a precision, weights kept as they are."""
    import torch

    half = precision != "float32"
    kind = getattr(torch, precision if half else "bfloat16")
    context: AbstractContextManager[object]
    context = torch.autocast(device.partition(":")[0], kind, enabled=half)
    return context


def load_network(
    card: NetworkCard,
    weights: WeightsStore,
    device: str = "cpu",
    precision: Precision = "float32",
) -> Mapping[str, BatchFunction]:
    """Load a network, in eval mode, as functions on batches.

    Args:
        card: its card; weights are verified now.
        weights: where its files are looked for.
        device: a torch device.
        precision: see :func:`precision_of`; outputs are float32 in any.

    Returns:
        For image networks ``{"crops": f}``, f on uint8 (B, height, width, channels).
        For lip sync ``{"frames": f, "sound": g}``: f on uint8 (B, T, size, size, 3) RGB
        gives ``visual`` (B, T - 4, D); g on float32 (B, 1, 13, 20) gives ``audio`` (B, D).
        The card's input says the size (224 for SyncNet), its outputs D (1024).

    Raises:
        WeightsError: missing, not the pinned ones, or of another architecture.
    """
    if card.architecture in ONNX:
        from spfem_bench.networks import onnx_files

        return {"crops": onnx_files.crops(weights.read(card)[0], card, device)}

    import torch

    from spfem_bench.networks.quick import Tower, quickened
    from spfem_bench.networks.toom_cook import PooledWindows

    module = load_module(card, weights, device)

    def run(tower: nn.Module, batch: torch.Tensor) -> Any:
        with torch.inference_mode(), autocast(device, precision):
            return tower(batch)

    def given(batch: npt.NDArray[np.generic]) -> torch.Tensor:
        """Bring samples to the device: as bytes, where they are bytes."""
        tensor = torch.from_numpy(batch)
        if device.startswith("cuda"):
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=True)

    def rows(output: torch.Tensor) -> Array:
        return np.asarray(output.float().cpu().numpy())

    if isinstance(card.input, SyncInput):
        lips, ears = (quickened(Tower(module, name), precision) for name in ("visual", "audio"))
        bytes_do = any(isinstance(m, PooledWindows) for m in lips.modules())

        def frames(batch: npt.NDArray[np.generic]) -> Mapping[str, Array]:
            # RGB to BGR; unlike batch[..., ::-1], channels stay last in memory.
            runs = given(np.take(batch, [2, 1, 0], axis=-1)).permute(0, 4, 1, 2, 3)
            return {"visual": rows(run(lips, runs if bytes_do else runs.float()))}

        def sound(batch: npt.NDArray[np.generic]) -> Mapping[str, Array]:
            return {"audio": rows(run(ears, given(batch)))}

        return {"frames": frames, "sound": sound}

    whole = quickened(module, precision)
    mean, std = (
        torch.tensor(v, device=device).reshape(-1, 1, 1) for v in (card.input.mean, card.input.std)
    )

    def crops(batch: npt.NDArray[np.generic]) -> Mapping[str, Array]:
        pictures = given(batch).permute(0, 3, 1, 2).float()
        return {k: rows(v) for k, v in run(whole, (pictures - mean) / std).items()}

    return {"crops": crops}


def load_module(card: NetworkCard, weights: WeightsStore, device: str = "cpu") -> nn.Module:
    """Load a network as it is, in eval mode and without gradients.

    Raises:
        WeightsError: missing, not the pinned ones, or of another architecture.
    """
    import torch

    # Full float32 on every device: TF32 would move scores in the third digit.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    content = weights.read(card)[0]
    module: nn.Module
    module, state = _architecture(card, content)
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise WeightsError(
            f"the weights of '{card.name}' are not a {card.architecture}'s: {reason[:120]}",
            remedy(card),
        ) from error
    module.eval().requires_grad_(False).to(device)
    return module


def _architecture(card: NetworkCard, content: bytes):  # type: ignore[no-untyped-def]
    """Return an empty network of the card's architecture, and its weights by our names."""
    if card.architecture == "mobilefacenet":
        from spfem_bench.networks.mobilefacenet import MobileFaceNet

        state = torch_state(content, card)
        return MobileFaceNet(), state.get("net_state_dict", state)
    if card.architecture == "iresnet50":
        from spfem_bench.networks.iresnet import IResNet50

        return IResNet50(), torch_state(content, card)
    if card.architecture == "mini-xception":
        from spfem_bench.networks.mini_xception import MiniXception, state_from_hdf5

        try:
            return MiniXception(), state_from_hdf5(content)
        except Exception as error:  # any HDF5 file may be here: h5py and permute raise many kinds
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise WeightsError(
                f"the weights of '{card.name}' are not a mini-xception's: {reason[:120]}",
                remedy(card),
            ) from error
    if card.architecture == "syncnet":
        from spfem_bench.networks.syncnet import SyncNet

        return SyncNet(), torch_state(content, card)
    if card.architecture in COMPACT:
        from spfem_bench.networks import compact

        network = getattr(compact, COMPACT[card.architecture])
        return network(), safetensors_state(content, card)
    raise CardError(f"'{card.name}' ({card.architecture}) is no network that PyTorch holds")
