"""A puppet's face as geometry: its identity, its expression, and where each of its lines lies.

Lengths are in half face widths; x points to the picture's right, y down, z towards the camera.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from spfem_bench.puppets.tables import numbers, outline, read_table

Points = npt.NDArray[np.float64]  # points of a contour, float64 (N, 2) or (N, 3)
Colour = tuple[float, float, float]  # RGB, 0 to 255


@dataclass(frozen=True)
class Look:
    """An identity: proportions (1 is average) and colours."""

    width: float = 1.0
    jaw: float = 1.0
    chin: float = 1.0
    cheeks: float = 1.0
    forehead: float = 1.0
    eye_distance: float = 1.0
    eye_size: float = 1.0
    eye_tilt: float = 0.0
    lid: float = 1.0
    brow_weight: float = 1.0
    brow_height: float = 1.0
    brow_arch: float = 1.0
    nose_length: float = 1.0
    nose_width: float = 1.0
    mouth_width: float = 1.0
    mouth_height: float = 0.0
    upper_lip: float = 1.0
    lower_lip: float = 1.0
    ears: float = 1.0
    skin: Colour = (224, 172, 140)
    lips: Colour = (178, 92, 88)
    hair: Colour = (60, 40, 30)
    iris: Colour = (90, 60, 40)
    shirt: Colour = (70, 90, 120)
    backdrop: Colour = (190, 196, 200)
    hair_style: str = "short"
    glasses: bool = False
    beard: float = 0.0
    freckles: float = 0.0
    spots: int = 0


def draw_look(rng: np.random.Generator) -> Look:
    """Draw an identity: spreads and means of proportions.csv, RGB of colours.csv."""

    def near(spread: float, mean: float) -> float:
        return float(mean + spread * np.clip(rng.normal(), -1.9, 1.9))

    def one_of(kind: str) -> npt.NDArray[np.float64]:
        return palette[kind][rng.integers(len(palette[kind]))]

    palette: dict[str, list[npt.NDArray[np.float64]]] = {}
    for row in read_table("colours"):
        palette.setdefault(row["of"], []).append(np.array(list(numbers(row).values())))
    feminine = rng.random() < 0.5
    gender = "feminine" if feminine else "masculine"
    tone = rng.random()  # from light to dark
    light, dark = np.array([246, 206, 178.0]), np.array([104, 66, 46.0])
    skin = light + (dark - light) * tone**1.2 + rng.normal(0, 5, 3)
    lips = skin * np.array([0.86, 0.56, 0.58]) + np.array([14, 4, 8.0])
    if feminine:
        lips = lips * 0.72 + np.array([190, 50, 70]) * 0.28 * rng.uniform(0.3, 1.4)
    hair = one_of("hair") * rng.uniform(0.85, 1.15)
    if rng.random() < 0.05:
        hair = _hsv(rng.random(), 0.55, 0.65)
    beard = 0.0 if feminine or rng.random() < 0.6 else float(rng.uniform(0.25, 0.9))
    styles = ("bob", "long", "bun", "fringe", "curly", "parted")
    if not feminine:
        styles = ("short", "parted", "short", "fringe", "curly", "bald")
    table = read_table("proportions")
    proportions = {r["proportion"]: near(float(r["spread"]), float(r[gender])) for r in table}
    return Look(
        **proportions,
        skin=_colour(skin),
        lips=_colour(lips),
        hair=_colour(hair),
        iris=_colour(one_of("iris") * rng.uniform(0.8, 1.2)),
        shirt=_colour(_hsv(rng.random(), rng.uniform(0.15, 0.6), rng.uniform(0.3, 0.8))),
        backdrop=_colour(_hsv(rng.random(), rng.uniform(0.03, 0.22), rng.uniform(0.55, 0.92))),
        hair_style=styles[rng.integers(len(styles))],
        glasses=bool(rng.random() < 0.16),
        beard=beard,
        freckles=float(rng.uniform(0.3, 1)) if rng.random() < 0.18 and tone < 0.6 else 0.0,
        spots=int(rng.integers(1 << 30)),
    )


def _hsv(hue: float, saturation: float, value: float) -> npt.NDArray[np.float64]:
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value)) * 255


def _colour(values: npt.NDArray[np.float64]) -> Colour:
    r, g, b = (float(v) for v in np.clip(values, 8, 250).round(2))
    return r, g, b


@dataclass(frozen=True)
class Expression:
    """Muscles of a face, 0 at rest and 1 at the strongest; action units (FACS) in brackets."""

    brow_inner: float = 0.0  # inner brows up (AU1), negative: down and together (AU4)
    brow_outer: float = 0.0  # outer brows up (AU2), negative: down
    lids: float = 0.0  # upper lids raised (AU5), negative: drooping (AU43)
    squint: float = 0.0  # lower lids tightened (AU7), cheeks raised (AU6)
    nose: float = 0.0  # nose wrinkled (AU9), upper lip raised (AU10)
    corners: float = 0.0  # mouth corners up (AU12), negative: down (AU15)
    stretch: float = 0.0  # lips stretched sideways (AU20), negative: drawn together (AU18)
    tight: float = 0.0  # lips tightened, thin (AU23)
    jaw: float = 0.0  # jaw dropped (AU26), in addition to speech
    blush: float = 0.0  # colour of the cheeks; negative: pale

    def scaled(self, intensity: float) -> Expression:
        """Return the same expression at an intensity, 0 to 1."""
        return Expression(*(value * intensity for value in astuple(self)))


EXPRESSIONS: Mapping[str, Expression] = {
    row["emotion"]: Expression(**numbers(row)) for row in read_table("expressions")
}
"""Each emotion at its strongest, after Ekman's prototypes."""


@dataclass(frozen=True)
class Mouth:
    """The mouth in speech (see ``spfem_bench.puppets.speech.VISEMES``)."""

    jaw: float = 0.0
    width: float = 0.0
    rounding: float = 0.0
    closure: float = 0.0
    teeth: float = 0.0
    tongue: float = 0.0


@dataclass(frozen=True)
class FaceState:
    """The movements of a face in one frame."""

    expression: Expression = Expression()  # the emotion's muscles
    mouth: Mouth = Mouth()  # its movements in speech
    blink: float = 0.0  # 0 open, 1 closed
    gaze: tuple[float, float] = (0.0, 0.0)  # shift of the irises, in iris radii


@dataclass(frozen=True)
class Pose:
    """The head's place: turns in radians, shift in half face widths, scale in pixels."""

    yaw: float = 0.0  # to the picture's right
    pitch: float = 0.0  # chin up is negative
    roll: float = 0.0  # clockwise in the picture
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    centre: tuple[float, float] = (0.0, 0.0)  # of the picture, pixels

    def project(self, points: Points, depth: float = 0.0) -> Points:
        """Return the pixels, float64 (N, 2), of points on the surface (N, 2), or in space (N, 3).

        *depth* is added to the surface's, as of a nose.
        """
        x, y = points[:, 0], points[:, 1]
        z = points[:, 2] if points.shape[1] == 3 else surface(x, y) + depth
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        x, z = x * c + z * s, z * c - x * s
        y = y * np.cos(self.pitch) + z * np.sin(self.pitch)
        c, s = np.cos(self.roll), np.sin(self.roll)
        x, y = x * c - y * s + self.shift[0], x * s + y * c + self.shift[1]
        return np.asarray(np.stack([x, y], axis=1) * self.scale + np.asarray(self.centre))


def surface(x: Points, y: Points) -> Points:
    """Return the depth of the face, an ellipsoid."""
    return np.asarray(0.75 * np.sqrt(np.clip(1 - (x / 1.25) ** 2 - (y / 1.7) ** 2, 0, 1)))


@dataclass
class Geometry:
    """All lines of one face in one frame, in pixels."""

    pose: Pose
    contours: dict[str, Points] = field(default_factory=dict)  # float64 (N, 2) by name
    looks: dict[str, float] = field(default_factory=dict)  # such as the depth of a fold

    def add(self, name: str, points: Points, depth: float = 0.0) -> None:
        """Project points and keep them."""
        self.contours[name] = self.pose.project(points, depth)

    def join(self, name: str, top: str, bottom: str) -> None:
        """Keep the outline between two contours that run in the same direction."""
        self.contours[name] = np.concatenate([self.contours[top], self.contours[bottom][::-1]])


_LANDMARKS = [(r["landmark"], r["contour"], int(r["point"])) for r in read_table("landmarks")]
LANDMARKS = tuple(name for name, _, _ in _LANDMARKS)  # right and left are the puppet's own


def geometry(look: Look, state: FaceState, pose: Pose) -> Geometry:
    """Lay out one frame of a face."""
    g = Geometry(pose)
    e, mouth = state.expression, state.mouth
    drop = 0.30 * min(1.15, mouth.jaw * (1 - 0.55 * mouth.closure) + e.jaw * (1 - mouth.closure))
    _outline(g, look, drop, e)
    _eyes(g, look, e, state.blink, state.gaze)
    _brows(g, look, e)
    _nose(g, look, e)
    _mouth(g, look, e, mouth, drop)
    points = [g.contours[contour][point] for _, contour, point in _LANDMARKS]
    g.contours["landmarks"] = np.stack(points)
    return g


def _outline(g: Geometry, look: Look, drop: float, e: Expression) -> None:
    w, j = look.width, look.width * look.jaw
    c = look.width * look.cheeks
    chin = 1.26 * look.chin + drop * 0.8
    top = -1.22 * look.forehead
    x = [0.0, 0.52 * w, 0.88 * w, 0.98 * w, (0.965 + 0.02 * e.squint) * c, 0.84 * j, 0.56 * j]
    y = [top, top + 0.09, -0.72, -0.25, 0.22, 0.68 + drop * 0.45, 1.06 * look.chin + drop * 0.72]
    right = _points([*x, 0.25 * j, 0.0], [*y, chin - 0.03, chin])
    g.add("face", closed(np.concatenate([right, right[-2:0:-1] * [-1, 1]])))
    g.add("chin", np.array([[0.0, chin]]))
    g.add("jaw", np.stack([right[5] * [-1, 1], right[5]]))
    jawline, cheek = right[4:] * [0.99, 1], outline("beard_edge")
    under_nose = np.array([[0.0, 0.53]])
    ring = [jawline, jawline[-2::-1] * [-1, 1], cheek[::-1] * [-1, 1], under_nose, cheek]
    g.add("beard", closed(np.concatenate(ring), 3))
    for side in (-1, 1):
        ear = (outline("ear") - [0.96, 0]) * look.ears + [0.96 * w, 0.02]
        g.add(f"ear{side}", closed(np.c_[ear * [side, 1], np.full(5, -0.02)]))
        inner = (ear - ear.mean(0)) * 0.5 + ear.mean(0)
        g.add(f"ear_inner{side}", closed(np.c_[inner * [side, 1], np.full(5, -0.02)]))


def _eyes(g: Geometry, look: Look, e: Expression, blink: float, gaze: tuple[float, float]) -> None:
    distance, half = 0.42 * look.eye_distance * look.width, 0.225 * look.eye_size
    upper = 0.125 * look.eye_size * look.lid * (1 + 0.5 * max(e.lids, 0) + 0.45 * min(e.lids, 0))
    upper *= 1 - 0.22 * e.squint
    lower = 0.085 * look.eye_size * (1 - 0.75 * e.squint + 0.1 * max(e.lids, 0))
    shut = upper + (lower * 0.6)
    upper -= shut * blink
    g.looks["squint"] = e.squint
    sorrow = 0.035 * max(e.brow_inner, 0) * max(-e.lids, 0)  # lids follow raised inner brows
    t = np.linspace(0, 1, 15)
    arch = np.sin(np.pi * t**0.86)
    radius = 0.118 * look.eye_size**0.5
    g.looks["iris"] = radius * g.pose.scale
    for side, name in ((-1, "right"), (1, "left")):
        # From the inner corner to the outer one.
        x = distance - half + 2 * half * t
        tilt = -look.eye_tilt * (t - 0.5) * 2 + sorrow * (t - 0.5) * 2
        top = -0.2 + tilt - upper * arch
        bottom = -0.2 + tilt + lower * np.sin(np.pi * t**1.15)
        g.add(f"lid_{name}", _points(side * x, top), 0.02)
        g.add(f"under_{name}", _points(side * x, bottom), 0.02)
        g.join(f"eye_{name}", f"lid_{name}", f"under_{name}")
        crease = side * (distance + (x - distance) * 1.06)
        g.add(f"crease_{name}", _points(crease, top - 0.055 + 0.03 * blink), 0.02)
        bag = _points(side * x, bottom + 0.06 - 0.02 * e.squint)
        g.add(f"bag_{name}", bag[3:-3], 0.02)
        centre = np.array([[side * distance + gaze[0] * radius, -0.215 + gaze[1] * radius]])
        g.add(f"iris_{name}", centre, 0.02)


def _brows(g: Geometry, look: Look, e: Expression) -> None:
    t = np.linspace(0, 1, 9)
    base = -0.2 - 0.30 * look.brow_height
    together = 0.055 * max(-e.brow_inner, 0)
    weight = 0.05 * look.brow_weight * np.sqrt(np.clip(1 - t, 0, 1) * 0.9 + 0.06)
    weight[0] *= 0.75
    for side, name in ((-1, "right"), (1, "left")):
        x = (0.17 - together + 0.5 * look.eye_distance * t) * look.width
        y = base - 0.075 * look.brow_arch * np.sin(np.pi * np.clip(t * 0.86 + 0.05, 0, 1))
        y = y + 0.05 * t
        lift = np.where(e.brow_inner > 0, 0.17, 0.135) * e.brow_inner * (1 - t) ** 1.2
        lift = lift + 0.165 * e.brow_outer * np.sin(np.pi / 2 * t) ** 1.2
        y = y - lift + 0.03 * e.nose
        g.add(f"brow_{name}", _points(side * x, y), 0.04)
        edge = np.concatenate([_points(x, y - weight), _points(x, y + weight)[::-1]])
        g.add(f"brow_area_{name}", edge * [side, 1], 0.04)
        g.add(f"furrow{side}", outline("furrow") * [side, 1], 0.05)
    g.looks["furrow"] = max(-e.brow_inner, 0)
    g.looks["raised"] = max(e.brow_inner, 0) * 0.6 + max(e.brow_outer, 0) * 0.4
    for k in (0, 1, 2):
        x = np.linspace(-0.46, 0.46, 11) * look.width
        y = -0.78 - 0.1 * k - 0.05 * np.cos(x * 3.0) - 0.05 * g.looks["raised"]
        g.add(f"forehead{k}", _points(x, y), 0.03)


def _nose(g: Geometry, look: Look, e: Expression) -> None:
    w, length = 0.165 * look.nose_width * (1 + 0.12 * e.nose), 0.335 * look.nose_length
    tip = length - 0.05 * e.nose
    g.add("nose_bridge", np.array([[0.0, -0.2], [0.0, 0.05], [0.0, tip - 0.07]]), 0.12)
    g.add("nose_tip", np.array([[0.0, tip]]), 0.3)
    g.add("nose_shine", np.array([[0.0, tip - 0.055], [0.0, -0.12]]), 0.28)
    wing, hole = outline("nose_wing"), outline("nostril")
    for side in (-1, 1):
        g.add(f"wing{side}", curve(_points(side * w * wing[:, 0], tip + wing[:, 1])), 0.12)
        g.add(f"nostril{side}", closed(_points(side * w * hole[:, 0], tip + hole[:, 1])), 0.2)
        ridge = outline("nose_side") * [side * w * 1.3, 1]
        g.add(f"nose_side{side}", ridge + np.array([0, tip - 0.12]), 0.1)
        wrinkle = outline("nose_wrinkle") * [side * w, 1]
        g.add(f"wrinkle{side}", wrinkle + np.array([0, tip - 0.02]), 0.08)
    g.looks["wrinkle"] = e.nose


def _mouth(g: Geometry, look: Look, e: Expression, m: Mouth, drop: float) -> None:
    free, smile = 1 - m.closure, max(e.corners, 0)
    half = 0.385 * look.mouth_width
    half *= 1 + 0.17 * m.width + 0.16 * e.stretch + 0.17 * smile
    half *= 1 - 0.40 * m.rounding * (1 - 0.25 * smile)
    middle = 0.70 + look.mouth_height
    biting = min(1.0, m.teeth) * (1 - min(1.0, m.jaw * 2.2))  # f and v: lower lip to the teeth
    gap = max(drop * 1.12, 0.0) * free
    gap += free * (0.028 * abs(m.teeth) + 0.02 * smile * max(m.width, 0))
    raised = 0.065 * e.nose + 0.02 * smile
    inner_top = -0.30 * gap - raised * free * (0.35 + min(1.0, gap * 4))
    inner_bottom = 0.70 * gap - 0.03 * biting
    press = max(m.closure, 0.75 * e.tight)
    upper = 0.082 * look.upper_lip * (1 + 0.5 * m.rounding) * (1 - 0.42 * press)
    lower = 0.108 * look.lower_lip * (1 + 0.45 * m.rounding) * (1 - 0.38 * press)
    lower *= 1 - 0.35 * biting
    stretch = 1 - 0.18 * max(e.stretch, 0) - 0.15 * smile
    upper, lower = upper * stretch, lower * stretch
    corner = -0.115 * e.corners - 0.012 * e.nose + 0.25 * gap
    t = np.linspace(-1, 1, 25)
    bow = 1 - np.abs(t) ** (2.2 - 0.5 * m.rounding)  # 0 in the corners
    sag = np.abs(t) ** 2.1 * corner
    x = half * np.sin(t * np.pi / 2)
    thin = np.clip(1 - np.abs(t) ** 3, 0, 1)
    dip = 0.16 * np.exp(-((t / 0.16) ** 2)) - 0.10 * np.exp(-(((np.abs(t) - 0.33) / 0.2) ** 2))
    # Raised cheeks pull the middle of a smile's upper lip straight.
    top_in = sag + inner_top * bow
    bottom_in = sag + inner_bottom * bow + 0.03 * smile * bow
    top_out = top_in - upper * thin * (1 - dip)
    bottom_out = bottom_in + lower * thin
    depth = 0.06 + 0.10 * m.rounding
    g.add("lip_top_out", _points(x, top_out + middle), depth)
    g.add("lip_top_in", _points(x, top_in + middle), depth - 0.01)
    g.add("lip_bottom_in", _points(x, np.maximum(bottom_in, top_in) + middle), depth - 0.01)
    g.add("lip_bottom_out", _points(x, bottom_out + middle), depth)
    g.join("lips", "lip_top_out", "lip_bottom_out")
    g.join("mouth", "lip_top_in", "lip_bottom_in")
    g.add("lip_shadow", _points(x * 0.62, middle + bottom_out + 0.055)[6:-6], 0.02)
    g.add("lip_shine", _points(x * 0.8, middle + (bottom_in + bottom_out) / 2)[8:-8], depth)
    # Teeth hang from the skull, not from the lip; the lower ones go down with the jaw.
    hang = 0.075 + middle - 0.03
    across = np.linspace(-0.36, 0.36, 11) * look.mouth_width
    edge = hang - 0.35 * across**2 - 0.03 * e.corners * np.abs(across)
    g.add("teeth", _strip(across, np.full(11, middle - 0.3), edge), 0.02)
    base = middle + drop * 1.1 + 0.035
    g.add("teeth_lower", _strip(across * 0.85, np.full(11, base), np.full(11, base + 0.25)), 0.0)
    tip = middle + drop * 1.0 + 0.06 - m.tongue * (drop * 0.55 + 0.05)
    around = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    g.add("tongue", _points(0.23 * np.cos(around), tip + 0.13 + 0.13 * np.sin(around)), -0.05)
    g.looks |= {"gap": gap, "smile": smile, "frown": max(-e.corners, 0), "blush": e.blush}
    fold_x = half + 0.06 + 0.03 * smile
    fold_y = [0.26, 0.42, 0.62, middle + corner + 0.05]
    fold = _points([0.23, 0.40, fold_x + 0.02, fold_x + 0.01], fold_y)
    dimple_x, dimple_y = np.array([0.02, 0.05, 0.02]), np.array([-0.05, 0.0, 0.06])
    dimple = _points(half + dimple_x, middle + corner + dimple_y)
    for side in (-1, 1):
        g.add(f"fold{side}", curve(fold * [side, 1]), 0.05)
        g.add(f"cheek{side}", np.array([[side * 0.58, 0.25 - 0.06 * e.squint]]), 0.05)
        g.add(f"dimple{side}", curve(dimple * [side, 1]), 0.05)


def _points(x: npt.ArrayLike, y: npt.ArrayLike) -> Points:
    return np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)], 1)


def _strip(x: Points, top: Points, bottom: Points) -> Points:
    """Return the outline of what lies between two lines over the same x."""
    return np.concatenate([_points(x, top), _points(x, bottom)[::-1]])


@cache
def _spline(count: int, closed_: bool, steps: int) -> npt.NDArray[np.float64]:
    """Return the weights from control points to a curve through them (Catmull-Rom)."""
    spans = count if closed_ else count - 1
    weights = np.zeros((spans * steps + (not closed_), count))
    for row in range(len(weights)):
        span, u = row // steps, row % steps / steps
        if span == spans:
            weights[row, count - 1] = 1
            continue
        near = -u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, u**3 - u**2
        for k, part in zip(range(span - 1, span + 3), near, strict=True):
            index = k % count if closed_ else min(max(k, 0), count - 1)
            weights[row, index] += part / 2
    return weights


def closed(points: Points, steps: int = 5) -> Points:
    """Return a smooth closed curve through points (N, D), as (N * steps, D)."""
    return _spline(len(points), True, steps) @ points


def curve(points: Points, steps: int = 4) -> Points:
    """Return a smooth open curve through points (N, D), as ((N - 1) * steps + 1, D)."""
    return _spline(len(points), False, steps) @ points
