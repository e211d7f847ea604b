"""A morphable model of puppets, and its picture: from coefficients to points to a render.

As in FLAME (Li et al., SIGGRAPH Asia 2017), a face is a mean, plus shape (who), plus
expression (what the face does: speech and emotion in *one* basis, which is what makes the
manipulation of emotion endanger speech). Both bases are principal components of the contours
of training puppets. The render takes the place of NED's shape images: coarse, in colours of
nobody, differentiable everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spfem_bench.puppets.draw import OVERSAMPLING
from spfem_bench.puppets.face import Expression, Look, Mouth, Pose, geometry
from spfem_bench.puppets.world import Take, World

Array = npt.NDArray[np.float64]

SHAPE, EXPRESSION, POSE = 20, 24, 5
"""Coefficients: who, what the face does, where it is (x, y, yaw, pitch, roll)."""

COEFFICIENTS = SHAPE + EXPRESSION + POSE

RENDER = 64
"""Side of a render in pixels."""

CONTOURS = {
    "face": 2,
    "lid_right": 2,
    "under_right": 2,
    "lid_left": 2,
    "under_left": 2,
    "iris_right": 1,
    "iris_left": 1,
    "brow_area_right": 1,
    "brow_area_left": 1,
    "wing-1": 4,
    "wing1": 4,
    "nostril-1": 5,
    "nostril1": 5,
    "nose_tip": 1,
    "lip_top_out": 2,
    "lip_top_in": 2,
    "lip_bottom_in": 2,
    "lip_bottom_out": 2,
    "teeth": 1,
    "teeth_lower": 1,
    "tongue": 3,
    "cheek-1": 1,
    "cheek1": 1,
    "fold-1": 3,
    "fold1": 3,
    "dimple-1": 4,
    "dimple1": 4,
    "wrinkle-1": 1,
    "wrinkle1": 1,
    "furrow-1": 1,
    "furrow1": 1,
    "forehead0": 2,
    "forehead1": 2,
    "forehead2": 2,
}
"""Contours of a puppet's geometry that the model has, and which of their points: each k-th."""

LOOKS = ("furrow", "raised", "wrinkle", "smile", "frown", "blush")
"""Numbers that no point shows: how deep folds are, how red cheeks."""


# ---- what it is fitted to -------------------------------------------------------------------


def measured(
    look: Look,
    expression: Expression,
    mouth: Mouth,
    *,
    blink: float = 0.0,
    gaze: tuple[float, float] = (0.0, 0.0),
) -> Array:
    """Return one face as the model sees it: float64 (points * 3 + looks,).

    Points are in half face widths, x, y and z one after the other; a second view, from the
    side, gives z.
    """
    front, side = (
        geometry(look, expression, mouth, Pose(yaw=yaw), blink=blink, gaze=gaze)
        for yaw in (0.0, np.pi / 2)
    )
    points = [
        np.c_[front.contours[name], side.contours[name][:, :1]][::step]
        for name, step in CONTOURS.items()
    ]
    looks = [front.looks[name] for name in LOOKS]
    return np.concatenate([np.concatenate(points).ravel(), looks])


def pose_of(take: Take, index: int) -> Array:
    """Return x, y, yaw, pitch and roll of one frame: half face widths and radians."""
    pose = take.geometry(index).pose
    return np.array([*pose.shift, pose.yaw, pose.pitch, pose.roll])


def measured_frame(take: Take, index: int) -> Array:
    """Return :func:`measured` of one frame of a take."""
    from spfem_bench.puppets.face import EXPRESSIONS

    feeling = EXPRESSIONS[take.emotion].scaled(float(take.emotion_track[index]))
    x, y, blink = (float(v) for v in take.eyes[index])
    mouth = Mouth(*(float(v) for v in take.mouth[index]))
    return measured(take.speaker.look, feeling, mouth, blink=blink, gaze=(x, y))


def components(rows: Array, count: int) -> tuple[Array, Array]:
    """Return the first principal components of rows, scaled to coefficients of deviation 1.

    Args:
        rows: float64 (N, D), already relative to what coefficients of 0 mean.
        count: how many.

    Returns:
        the basis (count, D) and the rows' coefficients (N, count).
    """
    left, sizes, right = np.linalg.svd(rows, full_matrices=False)
    deviation = sizes[:count] / np.sqrt(len(rows))
    return right[:count] * deviation[:, None], left[:, :count] * np.sqrt(len(rows))


# ---- the render's layers --------------------------------------------------------------------


class _Layer(NamedTuple):
    """One colour of the render: a cloud of soft dots.

    Attributes:
        weights: float64 (dots, points), each dot's place as a mixture of points.
        spread: of a dot, half face widths.
        colour: RGB, 0 to 1.
        within: the layer that bounds it, or none.
        strength: weights of looks, with a constant first; none for full strength.
    """

    name: str
    weights: Array
    spread: float
    colour: tuple[float, float, float]
    within: str = ""
    strength: tuple[float, ...] = ()


def _index() -> dict[str, npt.NDArray[np.int64]]:
    """Return where each contour's points lie."""
    sample = geometry(Look(), Expression(), Mouth(), Pose())
    found, start = {}, 0
    for name, step in CONTOURS.items():
        count = len(sample.contours[name][::step])
        found[name] = np.arange(start, start + count)
        start += count
    return found


PLACES = _index()
POINTS = sum(map(len, PLACES.values()))
_SKIN, _DARK = (0.88, 0.68, 0.55), (0.30, 0.16, 0.13)


def _dots(*names: str) -> Array:
    """Return dots on the contours themselves, and half way between their points."""
    rows = []
    for name in names:
        eye = np.eye(POINTS)[PLACES[name]]
        rows += [eye, (eye[1:] + eye[:-1]) / 2]
    return np.concatenate(rows)


def _between(upper: Array, lower: Array, parts: Sequence[float]) -> Array:
    return np.concatenate([upper * (1 - part) + lower * part for part in parts])


def _rows(name: str) -> Array:
    return np.eye(POINTS)[PLACES[name]]


def _halves(name: str) -> tuple[Array, Array]:
    """Return an outline's one side, and the other in the same order."""
    rows = _rows(name)
    half = len(rows) // 2
    return rows[:half], rows[half:][::-1]


def _layers() -> list[_Layer]:
    outline = _rows("face")
    middle = np.broadcast_to(outline.mean(0), outline.shape)
    inner = (0.12, 0.5, 0.88)
    lips = [
        _between(_rows("lip_top_out"), _rows("lip_top_in"), (0.2, 0.7)),
        _between(_rows("lip_bottom_in"), _rows("lip_bottom_out"), (0.3, 0.8)),
    ]
    eyes = [_between(_rows(f"lid_{s}"), _rows(f"under_{s}"), inner) for s in ("right", "left")]
    brows = [_between(*_halves(f"brow_area_{s}"), (0.3, 0.7)) for s in ("right", "left")]
    red, pale = (0.85, 0.33, 0.30), (0.86, 0.84, 0.76)
    # Strengths: 1, then LOOKS; how deep each fold is follows demo/draw.py.
    return [
        _Layer("face", _between(outline, middle, (0.06, 0.16, 0.28, 0.42, 0.6, 0.8)), 0.11, _SKIN),
        _Layer("blush", _dots("cheek-1", "cheek1"), 0.2, red, "", (0, 0, 0, 0, 0, 0, 1)),
        _Layer("pale", _dots("cheek-1", "cheek1"), 0.2, pale, "", (0, 0, 0, 0, 0, 0, -1)),
        _Layer(
            "nose",
            _dots("wing-1", "wing1", "nostril-1", "nostril1"),
            0.03,
            _DARK,
            "",
            (0.35, 0, 0, 0, 0, 0, 0),
        ),
        _Layer(
            "folds", _dots("fold-1", "fold1"), 0.035, _DARK, "", (0.1, 0, 0, 0.7, 0.55, 0.18, 0)
        ),
        _Layer(
            "dimples", _dots("dimple-1", "dimple1"), 0.03, _DARK, "", (0.15, 0, 0, 0, 0.45, 0.3, 0)
        ),
        _Layer(
            "wrinkles", _dots("wrinkle-1", "wrinkle1"), 0.03, _DARK, "", (0, 0, 0, 0.7, 0, 0, 0)
        ),
        _Layer("furrows", _dots("furrow-1", "furrow1"), 0.03, _DARK, "", (0, 0.75, 0, 0, 0, 0, 0)),
        _Layer(
            "forehead",
            _dots("forehead0", "forehead1", "forehead2"),
            0.03,
            _DARK,
            "",
            (0, 0, 0.5, 0, 0, 0, 0),
        ),
        _Layer("lips", np.concatenate(lips), 0.03, (0.70, 0.36, 0.35)),
        _Layer("seam", _dots("lip_top_in"), 0.015, _DARK),
        _Layer(
            "mouth",
            _between(_rows("lip_top_in"), _rows("lip_bottom_in"), (0.3, 0.5, 0.7)),
            0.025,
            (0.20, 0.06, 0.07),
        ),
        _Layer(
            "tongue",
            _between(
                _rows("tongue"),
                np.broadcast_to(_rows("tongue").mean(0), _rows("tongue").shape),
                (0.1, 0.6),
            ),
            0.06,
            (0.69, 0.32, 0.33),
            "mouth",
        ),
        _Layer(
            "teeth_lower",
            _between(*_halves("teeth_lower"), inner),
            0.05,
            (0.80, 0.77, 0.73),
            "mouth",
        ),
        _Layer(
            "teeth",
            _between(*_halves("teeth"), (0.3, 0.5, 0.7, 0.9)),
            0.04,
            (0.94, 0.92, 0.88),
            "mouth",
        ),
        _Layer("eyes", np.concatenate(eyes), 0.035, (0.92, 0.91, 0.90)),
        _Layer("irises", _dots("iris_right", "iris_left"), 0.075, (0.12, 0.10, 0.10), "eyes"),
        _Layer("lids", _dots("lid_right", "lid_left"), 0.022, (0.13, 0.09, 0.08)),
        _Layer("brows", np.concatenate(brows), 0.022, (0.20, 0.14, 0.12)),
    ]


_DETAILS = ("folds", "furrows", "lips", "eyes", "brows")


# ---- the model ------------------------------------------------------------------------------


class Face(NamedTuple):
    """Coefficients of frames: float32 (..., 20), (..., 24) and (..., 5).

    Shape and expression have a deviation of about 1 over training puppets; pose is x and y in
    half face widths, then yaw, pitch and roll in radians.
    """

    shape: Tensor
    expression: Tensor
    pose: Tensor


class Morphable(nn.Module):
    """From coefficients to points and renders; all its numbers are buffers.

    Attributes:
        mean: float32 (points * 3 + looks,).
        shapes: float32 (20, points * 3 + looks).
        expressions: float32 (24, points * 3 + looks).
        camera: float32 (3,): half face width, and the middle's x and y, in frame sides.
    """

    _face: Tensor
    mean: Tensor
    shapes: Tensor
    expressions: Tensor
    camera: Tensor

    def __init__(self) -> None:
        super().__init__()
        size = POINTS * 3 + len(LOOKS)
        for name, shape in (
            ("mean", (size,)),
            ("shapes", (SHAPE, size)),
            ("expressions", (EXPRESSION, size)),
            ("camera", (3,)),
        ):
            self.register_buffer(name, torch.zeros(shape))
        self.layers = _layers()
        for layer in self.layers:
            weights = torch.from_numpy(layer.weights).float()
            self.register_buffer(f"_{layer.name}", weights, persistent=False)

    @classmethod
    def fit(cls, takes: Sequence[tuple[Take, int]]) -> Morphable:
        """Fit mean and bases to frames of takes.

        Args:
            takes: takes and the frames of them that are looked at.
        """
        looks = {take.speaker.name: take.speaker.look for take, _ in takes}
        rest = {n: measured(look, Expression(), Mouth()) for n, look in looks.items()}
        faces = np.stack(list(rest.values()))
        moved = np.stack([measured_frame(t, i) - rest[t.speaker.name] for t, i in takes])
        model = cls()
        pose = takes[0][0].geometry(0).pose
        side = takes[0][0].world.size * OVERSAMPLING
        centre = (np.asarray(pose.centre) + 0.5) / side
        mean = faces.mean(0)
        values: Mapping[str, Array] = {
            "mean": mean,
            "shapes": components(faces - mean, SHAPE)[0],
            "expressions": components(moved, EXPRESSION)[0],
            "camera": np.array([pose.scale / side, *centre]),
        }
        for name, value in values.items():
            getattr(model, name).copy_(torch.from_numpy(value))
        return model

    def points(self, face: Face) -> tuple[Tensor, Tensor]:
        """Return where the points lie and how deep folds are.

        Returns:
            float32 (..., points, 2), x and y in frame sides, 0 to 1 inside the frame; and
            looks (..., 6).
        """
        values = self.mean + face.shape @ self.shapes + face.expression @ self.expressions
        flat, looks = values[..., : POINTS * 3], values[..., POINTS * 3 :]
        x, y, z = flat.reshape(*flat.shape[:-1], POINTS, 3).unbind(-1)
        across, down, yaw, pitch, roll = (p[..., None] for p in face.pose.unbind(-1))
        # As demo.face.Pose.project.
        x, z = x * yaw.cos() + z * yaw.sin(), z * yaw.cos() - x * yaw.sin()
        y = y * pitch.cos() + z * pitch.sin()
        x, y = (
            x * roll.cos() - y * roll.sin() + across,
            x * roll.sin() + y * roll.cos() + down,
        )
        return torch.stack([x, y], -1) * self.camera[0] + self.camera[1:], looks

    def gap(self, face: Face) -> Tensor:
        """Return how far the lips are apart: (...,), half face widths; what NED's jaw says."""
        values = self.mean + face.shape @ self.shapes + face.expression @ self.expressions
        top, bottom = (
            PLACES[n][len(PLACES[n]) // 2] * 3 + 1 for n in ("lip_top_in", "lip_bottom_in")
        )
        return values[..., bottom] - values[..., top]

    def render(self, face: Face, size: int = RENDER) -> Tensor:
        """Draw faces: float32 (B, 3, size, size), RGB, 0 to 1; (B, T, ...) for (B, T, ...)."""
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
            if layer.strength:
                strength = layer.strength[0] + looks @ looks.new_tensor(layer.strength[1:])
                cover = cover * strength.clamp(0, 1)[:, None, None]
            covers[layer.name] = cover
        # What is seen of each layer, from the top one down, and of the backdrop.
        free, seen = points.new_ones(len(points), size, size), []
        for layer in reversed(self.layers):
            seen.append(free * covers[layer.name])
            free = free - seen[-1]
        colours = points.new_tensor([*(k.colour for k in reversed(self.layers)), (0.45,) * 3])
        picture = colours.T @ torch.stack([*seen, free], 1).flatten(2)
        return picture.reshape(*lead, 3, size, size)

    def mask(self, face: Face, size: int) -> Tensor:
        """Return where the face is: float32 (B, size, size), 0 to 1."""
        points, _ = self.points(face)
        return self._cover(self._face @ points, 0.13, size)

    def details(self, face: Face, size: int) -> Tensor:
        """Return where mouth, eyes, brows and folds are: float32 (B, size, size), 0 to 1."""
        points, _ = self.points(face)
        dots = torch.cat([getattr(self, f"_{n}") @ points for n in _DETAILS], -2)
        return self._cover(dots, 0.05, size)

    def _cover(self, dots: Tensor, spread: float, size: int) -> Tensor:
        density = _splat(dots, spread * self.camera[0], size)[:, 0]
        return 1 - (-2.5 * density).exp()

    def flow(self, target: Face, reference: Face, size: int) -> Tensor:
        """Return where each pixel of the target comes from in the reference.

        Near points move as they do, far away nothing moves.

        Returns:
            float32 (B, size, size, 2), a grid for ``grid_sample`` with ``align_corners=False``.
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
    """Sum Gaussians at dots (B, N, 2), with heights (B, K, N) or 1: (B, K, size, size).

    A Gaussian is a product of one in x and one in y, so that the sum is a matrix product.
    """
    axis = (torch.arange(size, device=dots.device, dtype=dots.dtype) + 0.5) / size
    near = (-((dots[..., None] - axis) ** 2) / (2 * spread**2)).exp()
    x, y = (k[:, None] for k in near.unbind(-2))
    if weights is not None:
        x = x * weights[..., None]
    return y.transpose(2, 3) @ x


def training_faces(world: World, count: int, seed: int) -> list[tuple[Take, int]]:
    """Draw frames of training puppets saying training sentences, for :meth:`Morphable.fit`."""
    rng = np.random.default_rng([seed, 3])
    recordings = list(world.recordings("train"))
    found = []
    for i in rng.choice(len(recordings), count, replace=False):
        take = world.take(*recordings[int(i)], float(rng.uniform()))
        found.append((take, int(rng.integers(take.n_frames))))
    return found
