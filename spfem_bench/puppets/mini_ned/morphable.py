"""A morphable model of puppets, and its render: from coefficients to points to a picture.

As in FLAME (Li et al., SIGGRAPH Asia 2017): a mean, plus shape, plus expression (speech and emotion
in *one* basis). The coarse, differentiable render replaces NED's shape images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spfem_bench.puppets.draw import OVERSAMPLING
from spfem_bench.puppets.face import FaceState, Look, Pose, geometry
from spfem_bench.puppets.tables import TableRow, read_table
from spfem_bench.puppets.world import Take, World

_Floats = npt.NDArray[np.float64]
SHAPE, EXPRESSION, _POSE = SIZES = (20, 24, 5)  # numbers of coefficients
RENDER = 64  # side of a render in pixels
# Contours of a puppet's geometry that the model has; of their points each *step*-th.
CONTOURS = {row["contour"]: int(row["step"]) for row in read_table("contours")}
# Numbers of a geometry that no point shows: how deep folds are, how red cheeks.
LOOKS = ("furrow", "raised", "wrinkle", "smile", "frown", "blush")


def face_vector(look: Look, state: FaceState) -> _Floats:
    """Return one face as the model represents it: float64 (points * 3 + looks,).

    Points are x, y and z, one after the other, in half face widths; z comes from a side view.
    """
    front, side = (geometry(look, state, Pose(yaw=yaw)) for yaw in (0.0, np.pi / 2))
    points = []
    for name, step in CONTOURS.items():
        points.append(np.c_[front.contours[name], side.contours[name][:, :1]][::step].ravel())
    return np.concatenate([*points, [front.looks[name] for name in LOOKS]])


def frame_vector(take: Take, index: int) -> _Floats:
    """Return :func:`face_vector` of one frame of a take."""
    return face_vector(take.speaker.look, take.state(index))


def frame_pose(take: Take, index: int) -> _Floats:
    """Return x, y, yaw, pitch and roll of one frame: half face widths and radians."""
    pose = take.geometry(index).pose
    return np.array([*pose.shift, pose.yaw, pose.pitch, pose.roll])


def _principal_components(rows: _Floats, count: int) -> _Floats:
    """Return the first principal components of rows (N, D): (count, D), of deviation 1."""
    _, sizes, right = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(right[:count] * (sizes[:count] / np.sqrt(len(rows)))[:, None])


class _Layer(NamedTuple):
    """One colour of the render: a cloud of soft dots."""

    name: str
    weights: _Floats  # float64 (dots, points), each dot's place as a mixture of points
    spread: float  # of a dot, half face widths
    colour: list[float]  # RGB, 0 to 1
    within: str  # the layer that bounds it, or none
    strength: list[float]  # a constant, then a weight for each of :data:`LOOKS`


def _places() -> dict[str, npt.NDArray[np.int64]]:
    """Return the indices of each contour's points."""
    sample = geometry(Look(), FaceState(), Pose()).contours
    counts = [len(sample[name][::step]) for name, step in CONTOURS.items()]
    ends = np.cumsum(counts)
    ranges = (np.arange(end - count, end) for end, count in zip(ends, counts, strict=True))
    return dict(zip(CONTOURS, ranges, strict=True))


PLACES = _places()  # indices of each contour's points among the model's
POINTS = sum(map(len, PLACES.values()))


def _rows(name: str) -> _Floats:
    return np.eye(POINTS)[PLACES[name]]


def _dots(*names: str) -> _Floats:
    """Return dots on the contours themselves, and half way between their points."""
    each = [_rows(name) for name in names]
    return np.concatenate([part for rows in each for part in (rows, (rows[1:] + rows[:-1]) / 2)])


def _between(upper: _Floats, lower: _Floats, parts: Sequence[float]) -> _Floats:
    return np.concatenate([upper * (1 - part) + lower * part for part in parts])


def _inside(name: str, parts: Sequence[float]) -> _Floats:
    """Return dots between an outline and its centre."""
    rows = _rows(name)
    return _between(rows, np.broadcast_to(rows.mean(0), rows.shape), parts)


def _across(name: str, parts: Sequence[float]) -> _Floats:
    """Return dots between the two sides of an outline."""
    rows = _rows(name)
    half = len(rows) // 2
    return _between(rows[:half], rows[half:][::-1], parts)


def _layers() -> list[_Layer]:
    """Return the layers of layers.csv; fold depths follow :mod:`spfem_bench.puppets.draw`."""
    inner, cheeks = (0.12, 0.5, 0.88), _dots("cheek-1", "cheek1")
    top_out, top_in = _rows("lip_top_out"), _rows("lip_top_in")
    bottom_in, bottom_out = _rows("lip_bottom_in"), _rows("lip_bottom_out")
    lips = [_between(top_out, top_in, (0.2, 0.7)), _between(bottom_in, bottom_out, (0.3, 0.8))]
    eyes = [_between(_rows(f"lid_{s}"), _rows(f"under_{s}"), inner) for s in ("right", "left")]
    brows = [_across(f"brow_area_{s}", (0.3, 0.7)) for s in ("right", "left")]
    weights = {
        "face": _inside("face", (0.06, 0.16, 0.28, 0.42, 0.6, 0.8)),
        "blush": cheeks,
        "pale": cheeks,
        "nose": _dots("wing-1", "wing1", "nostril-1", "nostril1"),
        "folds": _dots("fold-1", "fold1"),
        "dimples": _dots("dimple-1", "dimple1"),
        "wrinkles": _dots("wrinkle-1", "wrinkle1"),
        "furrows": _dots("furrow-1", "furrow1"),
        "forehead": _dots("forehead0", "forehead1", "forehead2"),
        "lips": np.concatenate(lips),
        "seam": _dots("lip_top_in"),
        "mouth": _between(top_in, bottom_in, (0.3, 0.5, 0.7)),
        "tongue": _inside("tongue", (0.1, 0.6)),
        "teeth_lower": _across("teeth_lower", inner),
        "teeth": _across("teeth", (0.3, 0.5, 0.7, 0.9)),
        "eyes": np.concatenate(eyes),
        "irises": _dots("iris_right", "iris_left"),
        "lids": _dots("lid_right", "lid_left"),
        "brows": np.concatenate(brows),
    }

    def layer(row: TableRow) -> _Layer:
        colour = [float(row[c]) for c in ("red", "green", "blue")]
        strength = [float(row[c]) for c in ("constant", *LOOKS)]
        name, spread = row["layer"], float(row["spread"])
        return _Layer(name, weights[name], spread, colour, row["within"], strength)

    return [layer(row) for row in read_table("layers")]


_DETAILS = ("folds", "furrows", "lips", "eyes", "brows")


class Coefficients(NamedTuple):
    """Coefficients of frames: float32 (..., 20), (..., 24) and (..., 5).

    Shape and expression have a deviation of about 1; pose is x, y in half face widths, and radians.
    """

    shape: Tensor
    expression: Tensor
    pose: Tensor


class Morphable(nn.Module):
    """From coefficients to points and renders."""

    _face: Tensor
    mean: Tensor  # float32 (points * 3 + looks,)
    shapes: Tensor  # float32 (20, points * 3 + looks)
    expressions: Tensor  # float32 (24, points * 3 + looks)
    camera: Tensor  # float32 (3,): half face width, and the middle's x and y, in frame sides

    def __init__(self) -> None:
        super().__init__()
        size = POINTS * 3 + len(LOOKS)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("shapes", torch.zeros(SHAPE, size))
        self.register_buffer("expressions", torch.zeros(EXPRESSION, size))
        self.register_buffer("camera", torch.zeros(3))
        self.layers = _layers()
        for layer in self.layers:
            weights = torch.from_numpy(layer.weights).float()
            self.register_buffer(f"_{layer.name}", weights, persistent=False)

    @classmethod
    def fit(cls, takes: Sequence[tuple[Take, int]]) -> Morphable:
        """Return a model with mean and bases fitted to takes, by one frame of each."""
        looks = {take.speaker.name: take.speaker.look for take, _ in takes}
        rest = {name: face_vector(look, FaceState()) for name, look in looks.items()}
        faces = np.stack(list(rest.values()))
        moved = np.stack([frame_vector(t, i) - rest[t.speaker.name] for t, i in takes])
        model, mean = cls(), faces.mean(0)
        pose = takes[0][0].geometry(0).pose
        side = takes[0][0].world.size * OVERSAMPLING
        centre = (np.asarray(pose.centre) + 0.5) / side
        for buffer, value in (
            (model.mean, mean),
            (model.shapes, _principal_components(faces - mean, SHAPE)),
            (model.expressions, _principal_components(moved, EXPRESSION)),
            (model.camera, np.array([pose.scale / side, *centre])),
        ):
            buffer.copy_(torch.from_numpy(value))
        return model

    def points(self, face: Coefficients) -> tuple[Tensor, Tensor]:
        """Return places, float32 (..., points, 2), x and y in frame sides, and looks (..., 6)."""
        values = self._vector(face)
        flat, looks = values[..., : POINTS * 3], values[..., POINTS * 3 :]
        x, y, z = flat.reshape(*flat.shape[:-1], POINTS, 3).unbind(-1)
        across, down, yaw, pitch, roll = (p[..., None] for p in face.pose.unbind(-1))
        # As puppets.face.Pose.project.
        x, z = x * yaw.cos() + z * yaw.sin(), z * yaw.cos() - x * yaw.sin()
        y = y * pitch.cos() + z * pitch.sin()
        # A cosine for each use: sharing it would change how gradients round.
        x, y = (x * roll.cos() - y * roll.sin() + across, x * roll.sin() + y * roll.cos() + down)
        return torch.stack([x, y], -1) * self.camera[0] + self.camera[1:], looks

    def _vector(self, face: Coefficients) -> Tensor:
        return self.mean + face.shape @ self.shapes + face.expression @ self.expressions

    def gap(self, face: Coefficients) -> Tensor:
        """Return the distance of the lips: (...,), half face widths; NED's jaw opening."""
        values = self._vector(face)
        top, bottom = (PLACES[name] for name in ("lip_top_in", "lip_bottom_in"))
        middle = len(top) // 2
        return values[..., bottom[middle] * 3 + 1] - values[..., top[middle] * 3 + 1]

    def render(self, face: Coefficients, size: int = RENDER) -> Tensor:
        """Return pictures of faces (..., D): float32 (..., 3, size, size), RGB, 0 to 1."""
        points, looks = self.points(face)
        lead = points.shape[:-2]
        points, looks = points.flatten(0, -3), looks.flatten(0, -2)
        covers: dict[str, Tensor] = {}
        for layer in self.layers:
            dots = getattr(self, f"_{layer.name}") @ points
            cover = self._cover(dots, layer.spread, size)
            if layer.name == "mouth":  # dots are not smaller than their spread, a mouth may be
                cover = cover * (self.gap(face).reshape(-1, 1, 1) / 0.06).clamp(0, 1)
            if layer.within:
                cover = cover * covers[layer.within]
            if layer.strength[0] < 1:
                strength = layer.strength[0] + looks @ looks.new_tensor(layer.strength[1:])
                cover = cover * strength.clamp(0, 1)[:, None, None]
            covers[layer.name] = cover
        # The visible part of each layer, from the top one down, and of the backdrop.
        free, visible = points.new_ones(len(points), size, size), []
        for layer in reversed(self.layers):
            visible.append(free * covers[layer.name])
            free = free - visible[-1]
        colours = points.new_tensor([*(k.colour for k in reversed(self.layers)), (0.45,) * 3])
        picture = colours.T @ torch.stack([*visible, free], 1).flatten(2)
        return picture.reshape(*lead, 3, size, size)

    def mask(self, face: Coefficients, size: int) -> Tensor:
        """Return the mask of faces: float32 (B, size, size), 0 to 1."""
        points, _ = self.points(face)
        return self._cover(self._face @ points, 0.13, size)

    def details(self, face: Coefficients, size: int) -> Tensor:
        """Return the mask of mouth, eyes, brows and folds: float32 (B, size, size), 0 to 1."""
        points, _ = self.points(face)
        dots = torch.cat([getattr(self, f"_{n}") @ points for n in _DETAILS], -2)
        return self._cover(dots, 0.05, size)

    def _cover(self, dots: Tensor, spread: float, size: int) -> Tensor:
        density = _splat(dots, spread * self.camera[0], size)[:, 0]
        return 1 - (-2.5 * density).exp()

    def flow(self, target: Coefficients, reference: Coefficients, size: int) -> Tensor:
        """Return where in the reference each pixel comes from: float32 (B, size, size, 2).

        A grid for ``grid_sample`` with ``align_corners=False``; far from all points nothing moves.
        """
        to, _ = self.points(target)
        since, _ = self.points(reference)
        moved = torch.cat([torch.ones_like(to[..., :1]), since - to], -1)
        spread = 0.16 * self.camera[0]
        splat = _splat(to, spread, size, moved.transpose(1, 2))
        shift = (splat[:, 1:] / (splat[:, :1] + 0.01)).permute(0, 2, 3, 1)
        axis = (torch.arange(size, device=to.device, dtype=to.dtype) + 0.5) / size
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        return (torch.stack([x, y], -1) + shift) * 2 - 1


def _splat(dots: Tensor, spread: Tensor, size: int, weights: Tensor | None = None) -> Tensor:
    """Return the sum of Gaussians at dots (B, N, 2), heights (B, K, N) or 1: (B, K, size, size)."""
    axis = (torch.arange(size, device=dots.device, dtype=dots.dtype) + 0.5) / size
    near = (-((dots[..., None] - axis) ** 2) / (2 * spread**2)).exp()
    x, y = (k[:, None] for k in near.unbind(-2))
    if weights is not None:
        x = x * weights[..., None]
    return y.transpose(2, 3) @ x


def training_faces(world: World, count: int, seed: int) -> list[tuple[Take, int]]:
    """Return random frames of training speakers and sentences, for :meth:`Morphable.fit`."""
    rng = np.random.default_rng([seed, 3])
    recordings = list(world.recordings("train"))
    faces = []
    for i in rng.choice(len(recordings), count, replace=False):
        take = world.take(*recordings[int(i)], float(rng.uniform()))
        faces.append((take, int(rng.integers(take.n_frames))))
    return faces
