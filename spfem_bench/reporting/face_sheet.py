"""What ``spfem-bench faces`` draws and prints: a clip's face track."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.faces.draw import contact_sheet
from spfem_bench.faces.track import FaceTrack
from spfem_bench.features.extract import Extractor


def face_sheet(extractor: Extractor, clip: Clip, count: int) -> tuple[bytes, str]:
    """Return a PNG of *count* frames with faces, landmarks and the networks' crops, and the counts.

    Raises ClipError when the clip cannot be read, or has no face that can be followed.
    """
    track, n_faces = FaceTrack(), 0
    for _, face in extractor.tracked_frames(clip, track):
        n_faces += face is not None
    n, n_detected = len(track.faces), sum(track.detected)
    drawn = {round((i + 0.5) * n / count - 0.5) for i in range(min(count, n))}
    rows = [
        (index, picture, face, track.detected[index])
        for index, (picture, face) in enumerate(extractor.tracked_frames(clip, FaceTrack()))
        if index in drawn
    ]
    networks = [extractor.profile.network(r) for r in ("identity", "expression", "sync")]
    points = _landmarks(extractor, clip) if extractor.profile.landmarks else {}
    sheet = contact_sheet(rows, [n.input for n in networks if n.input.crop != "frame"], points)
    _, png = cv2.imencode(".png", sheet[:, :, ::-1])
    line = (
        f"{clip}: {n} frames, a face in {n_faces} ({n_detected} detected, "
        f"{n_faces - n_detected} interpolated), another of similar size in {track.rivals}"
    )
    return png.tobytes(), line


def _landmarks(extractor: Extractor, clip: Clip) -> dict[int, npt.NDArray[np.float32]]:
    """Return each frame's landmarks; nothing where the network's weights are not at hand."""
    if extractor.weights.check(extractor.profile.network("landmarks")).problem:
        return {}
    failures = extractor.ensure({clip: frozenset({"landmarks"})})
    features = None if failures else extractor.load(clip, "landmarks")
    if features is None:
        return {}
    points = features.outputs["points"]
    return dict(zip(features.frames.tolist(), points.reshape(len(points), -1, 2), strict=True))
