"""Features: one network's outputs for one clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spfem_bench.features.store import Arrays


@dataclass(frozen=True)
class Features:
    """One network's outputs for one clip, by name, first axis over *frames*, int64 (N,).

    A frame is the first of a row's window. *n_frames* are all frames, with or without a face; in
    *n_interpolated* the face was not detected but interpolated.
    """

    outputs: Mapping[str, npt.NDArray[np.float32]]
    frames: npt.NDArray[np.int64]
    n_frames: int
    n_interpolated: int = 0

    def to_arrays(self) -> Arrays:
        """Return named arrays for the store."""
        named: Arrays = {f"output.{k}": v for k, v in self.outputs.items()}
        counts = np.array([self.n_frames, self.n_interpolated], np.int64)
        return {**named, "frames": self.frames, "counts": counts}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Features:
        """Rebuild features from the store's arrays."""
        names = [name for name in arrays if name.startswith("output.")]
        outputs = {n.removeprefix("output."): np.asarray(arrays[n], np.float32) for n in names}
        n_frames, n_interpolated = (int(n) for n in np.asarray(arrays["counts"]))
        return cls(outputs, np.asarray(arrays["frames"], np.int64), n_frames, n_interpolated)
