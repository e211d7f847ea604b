"""What ``spfem-bench faces`` draws and prints: a clip's face track."""

from __future__ import annotations

import cv2

from spfem_bench.definitions.clips import Clip
from spfem_bench.faces.draw import contact_sheet
from spfem_bench.faces.track import FaceTrack
from spfem_bench.features.extract import Extractor


def face_sheet(extractor: Extractor, clip: Clip, count: int) -> tuple[bytes, str]:
    """Return a PNG of *count* frames with their faces and the networks' crops, and the counts.

    Raises:
        ClipError: the clip cannot be read, or has no face that can be followed.
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
    sheet = contact_sheet(rows, [n.input for n in networks if n.input.crop != "frame"])
    _, png = cv2.imencode(".png", sheet[:, :, ::-1])
    line = (
        f"{clip}: {n} frames, a face in {n_faces} ({n_detected} detected, "
        f"{n_faces - n_detected} interpolated), another of similar size in {track.rivals}"
    )
    return png.tobytes(), line
