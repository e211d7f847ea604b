"""Versions of the libraries whose arithmetic is in features; not those that read pinned files."""

from __future__ import annotations

from spfem_bench.definitions.networks import InnerInput, NetworkCard, SyncInput, WholeInput
from spfem_bench.faces import crop
from spfem_bench.faces.detect import detector_libraries
from spfem_bench.media import mfcc
from spfem_bench.media.chain import chain_libraries
from spfem_bench.networks.load import network_libraries

EVERY = (
    frozenset({"numpy", "torch", "onnxruntime", "ncnn"})
    | crop.LIBRARIES
    | crop.WHOLE_LIBRARIES
    | mfcc.LIBRARIES
)
"""Modules that some metric needs."""


def feature_libraries(network: NetworkCard | None, detector: NetworkCard | None) -> frozenset[str]:
    """Return the modules that a network's features are computed with, beside ffmpeg."""
    modules = frozenset({"numpy"})
    if detector is not None:
        modules |= detector_libraries(detector)
    if network is not None:
        modules |= network_libraries(network)
        if detector is not None:
            modules |= crop.LIBRARIES
        if isinstance(network.input, WholeInput):
            modules |= crop.WHOLE_LIBRARIES
        if isinstance(network.input, SyncInput):
            modules |= mfcc.LIBRARIES | chain_libraries(network.input.chain)
        if isinstance(network.input, InnerInput):
            modules |= mfcc.LIBRARIES | crop.LIBRARIES
    return modules
