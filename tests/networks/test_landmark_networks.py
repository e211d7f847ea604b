"""PFLD-GhostOne against its file alone; the compact network against the truth of puppets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.networks import LandmarksInput, network_card, profile_card
from spfem_bench.errors import CardError
from spfem_bench.faces import crop
from spfem_bench.faces.landmarks import eye_distance
from spfem_bench.faces.track import Face, FaceTrack
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media.write import write_clip
from spfem_bench.networks.load import load_network
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets.world import World
from spfem_bench.statistics.base import kind_of


def test_points_are_those_of_the_file_run_alone(
    samples: Path, weights_folder: Path, tmp_path: Path
) -> None:
    """Crops and the way back are written here anew, with other functions."""
    clip = Clip.parse(
        f"{samples}/stccl-page/video_result/M012_source_happy_037.mp4#xywh=0,0,256,256&t=0,0.6"
    )
    x = Extractor(profile_card("light"), WeightsStore(weights_folder), FeatureStore(tmp_path))
    assert x.ensure({clip: frozenset({"landmarks"})}) == {}
    features = x.load(clip, "landmarks")
    assert features is not None and len(features.frames) == 15
    session = onnxruntime.InferenceSession(weights_folder / "PFLD_GhostOne_112_1_opt_sim.onnx")
    for row, (picture, face) in enumerate(x.tracked_frames(clip, FaceTrack())):
        assert face is not None
        left, top, right, bottom = face.box.astype(np.float64)
        side = round(max(right - left, bottom - top))
        x0, y0 = (left + right) / 2 - side / 2, (top + bottom) / 2 - side / 2
        move = np.array([[1, 0, x0], [0, 1, y0]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cut = cv2.warpAffine(picture, move, (side, side), flags=flags)
        # getRectSubPix rounds a grey level otherwise, so the crop itself is the package's.
        ours, _ = crop.landmarks_crop(
            picture,
            (left + right) / 2,
            (top + bottom) / 2,
            side / 2,
            x.profile.network("landmarks").input,
        )
        apart = np.abs(cv2.resize(cut, (112, 112), interpolation=cv2.INTER_AREA).astype(int) - ours)
        assert apart.max() <= 3
        pixels = ours.astype(np.float64) / 255
        batch = ((pixels - 0.5) / 0.5).transpose(2, 0, 1)[None].astype(np.float32)
        (flat,) = session.run(None, {"input": batch})
        expected = flat.reshape(98, 2).astype(np.float64) * side + [x0, y0]
        found = features.outputs["points"][row].reshape(98, 2)
        assert np.abs(found - expected).max() < 1e-4
        # The detector's eyes and mouth corners are where the landmarks' are.
        near = np.linalg.norm(found[[96, 97, 76, 82]] - face.points[[0, 1, 3, 4]], axis=1)
        assert near.max() < 0.12 * np.linalg.norm(found[72] - found[60])


SETTINGS = LandmarksInput(
    crop="landmarks", size=50, scale=1.0, smoothing=3, padding=0, mean=0.0, std=1.0
)


def face_at(x: float, y: float, half: float) -> Face:
    box = np.array([x - half, y - half, x + half, y + half], np.float32)
    return Face(box, np.zeros((5, 2), np.float32), 0.9)


@pytest.mark.parametrize(("x", "y"), [(60, 50), (60.5, 50.25), (10, 5), (118, 90)])
def test_a_crop_is_placed_between_pixels_and_led_back(x: float, y: float) -> None:
    """A bright square in the frame is found in the crop, and led back to where it was."""
    picture = np.zeros((100, 120, 3), np.uint8)
    left, top = min(max(round(x) - 4, 0), 112), min(max(round(y) - 3, 0), 92)
    picture[top : top + 7, left : left + 7] = 255
    cut, region = crop.landmarks_crop(picture, x, y, 25, SETTINGS)
    assert cut.shape == (50, 50, 3)
    light = cut[:, :, 0].astype(np.float64)
    grid = np.arange(50)
    centre = np.array([(light.sum(0) * grid).sum(), (light.sum(1) * grid).sum()]) / light.sum()
    back = region.in_frame((centre / 50).astype(np.float32))
    assert back == pytest.approx([left + 3, top + 3], abs=0.02)


def test_boxes_are_averaged_over_neighbours_and_never_across_a_gap() -> None:
    cropper = crop.LandmarksCropper(SETTINGS)
    picture = np.zeros((100, 100, 3), np.uint8)
    places = {0: 30.0, 1: 36.0, 2: 33.0, 5: 60.0, 6: 70.0}
    made = []
    for index, x in places.items():
        made += cropper.push(index, picture, face_at(x, 50, 10))
    made += cropper.finish()
    middles = {index: region.left + region.width / 2 for index, _, _, region in made}
    assert middles == pytest.approx({0: 30, 1: 33, 2: 33, 5: 60, 6: 70})


def test_the_compact_network_finds_the_landmarks_of_unseen_puppets(tmp_path: Path) -> None:
    """Puppets and sentences of the test split, as files that ffmpeg coded."""
    world = World()
    take = world.take("P002", "happy", "029")
    path = tmp_path / "take.mp4"
    frames = [take.frame(i) for i in range(0, min(take.n_frames, 40))]
    write_clip(path, frames, take.sound()[: 640 * len(frames)])
    x = Extractor(
        profile_card("compact"), WeightsStore.locate(), FeatureStore(tmp_path), faces="aligned"
    )
    clip = Clip.parse(str(path))
    assert x.ensure({clip: frozenset({"landmarks"})}) == {}
    features = x.load(clip, "landmarks")
    assert features is not None
    found = features.outputs["points"].astype(np.float64).reshape(-1, 25, 2)
    truth = take.landmarks_at(range(len(found)))
    error = np.linalg.norm(found - truth, axis=2) / eye_distance(truth)[:, None]
    assert error.mean() < 0.03


def test_the_record_of_the_training_says_the_error_on_unseen_puppets() -> None:
    from spfem_bench.networks.weights import shipped_folder
    from spfem_bench.stored import read_json

    card = network_card("compact-landmarks")
    record, _ = read_json(shipped_folder(card) / "compact-landmarks.json")
    assert record["sha256"] == card.files[0].sha256
    assert record["held_out"]["mean_error"] < 0.03
    assert record["held_out"]["opening_r"] > 0.9


def test_a_profile_without_landmarks_says_which_have_them() -> None:
    bare = profile_card("light").model_copy(update={"landmarks": None})
    assert "landmarks" not in bare.roles and "landmarks" not in bare.settings()
    with pytest.raises(CardError, match="no network for landmarks") as caught:
        bare.network("landmarks")
    assert "light" in caught.value.remedy


def test_a_batch_has_the_points_of_its_pictures(weights_folder: Path) -> None:
    card = network_card("pfld-ghostone")
    run = load_network(card, WeightsStore(weights_folder))["crops"]
    pictures = np.random.default_rng(0).integers(0, 255, (3, 112, 112, 3), np.uint8)
    alone = np.concatenate([run(pictures[i : i + 1])["points"] for i in range(3)])
    assert np.array_equal(run(pictures)["points"], alone)


def test_a_published_output_follows_its_source_and_no_other(
    samples: Path, weights_folder: Path, tmp_path: Path
) -> None:
    """NED and STCCL-VD against their source; controls: the same strip's source of another clip."""
    x = Extractor(profile_card("light"), WeightsStore(weights_folder), FeatureStore(tmp_path))
    folder = samples / "stccl-page" / "video_result"
    columns = {"source": ("M030_source_angry_037", 0), "ned": ("M030_source_angry_037", 1024)}
    columns |= {"vd": ("M030_source_angry_037", 512), "other": ("M003_source_sad_033", 1024)}
    clips = {
        name: Clip.parse(f"{folder}/{strip}.mp4#xywh={left},0,256,256&t=0,3.4")
        for name, (strip, left) in columns.items()
    }
    assert x.ensure({clip: frozenset({"landmarks"}) for clip in clips.values()}) == {}
    loaded = {name: x.load(clip, "landmarks") for name, clip in clips.items()}
    card = metric_card("lip-corr")
    kind = kind_of(card)
    r, lag = {}, {}
    for name in ("ned", "vd", "other"):
        part = kind.part(
            card, clips[name], {"output": [loaded[name]], "source": [loaded["source"]]}
        )
        r[name], lag[name] = kind.value(part), part.lag
    assert 0.55 < r["ned"] < r["vd"] < 0.9
    assert abs(r["other"]) < 0.4  # one pair of clips, by chance; the mean over clips is below 0.1
    assert lag["ned"] in (1, 2) and lag["vd"] in (1, 2)
