"""Versions of the libraries whose arithmetic is in features, collected from their users.

Each of these modules declares what it computes with, beside the code that does: the networks'
loader, the detectors, the crops, the MFCCs, the chain of the field's scripts, and the reader of
pictures. A library that only reads what a hash pins (safetensors, h5py, onnx) is in none.
"""

from __future__ import annotations

from spfem_bench.definitions.networks import NetworkCard, SyncInput
from spfem_bench.faces import crop, detect
from spfem_bench.media import chain, mfcc
from spfem_bench.networks import load

EVERY = frozenset({"numpy", "torch", "onnxruntime", "ncnn"}) | crop.LIBRARIES | mfcc.LIBRARIES
"""Modules that some metric needs."""


def libraries(network: NetworkCard | None, detector: NetworkCard | None) -> frozenset[str]:
    """Return the modules that a network's features are computed with, beside ffmpeg.

    Args:
        network: None for the face track alone.
        detector: what finds the faces; None when frames are aligned faces.
    """
    used = {"numpy"}
    if detector is not None:
        used |= detect.libraries(detector)
    if network is not None:
        used |= load.libraries(network)
        if detector is not None:
            used |= crop.LIBRARIES
        if isinstance(network.input, SyncInput):
            used |= mfcc.LIBRARIES | chain.libraries(network.input.chain)
    return frozenset(used)
