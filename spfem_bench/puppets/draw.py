"""A puppet's frame as pixels: the geometry painted at twice the size, with light on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from spfem_bench.faces.crop import opencv
from spfem_bench.media.video import Frame
from spfem_bench.puppets.face import Colour, Geometry, Look, Points, closed, surface
from spfem_bench.puppets.tables import outline

OVERSAMPLING = 2
_SHIFT = 4  # polygons' coordinates are in sixteenths of a pixel
_Paint = Callable[[Frame, Points], None]  # fills a patch of the picture, whose corner it receives


class Painter:
    """Paints frames, *size* pixels wide, of one identity in one light.

    *light* points towards the light, *contrast* is its fall-off; positive *warmth* is a warm light.
    """

    def __init__(
        self, look: Look, size: int, light: tuple[float, float], contrast: float, warmth: float
    ) -> None:
        self.look, self.size = look, size
        self.side = size * OVERSAMPLING
        self.unit = self.side * 0.305  # half a face width in pixels
        self.tint = np.array([1 + 0.025 * warmth, 1, 1 - 0.03 * warmth])
        self.shading = self._shading(light, contrast)
        self.backdrop = self._backdrop(light)
        self.spots = _spots(look)

    def _shading(self, light: tuple[float, float], contrast: float) -> npt.NDArray[np.float32]:
        """Return the light on a head in a picture twice as wide, to be moved with the head."""
        side = self.side * 2
        axis = (np.arange(side) - side / 2) / self.unit
        x, y = axis[None, :], axis[:, None]
        nx, ny = x / 1.18, y / 1.55
        inside = np.clip(1 - nx**2 - ny**2, 0, 1)
        lit = 0.88 + (0.17 + 1.7 * contrast * (nx * light[0] + ny * light[1])) * inside**1.5
        return np.asarray(lit, np.float32)

    def _backdrop(self, light: tuple[float, float]) -> Frame:
        axis = np.linspace(-1, 1, self.side)
        x, y = axis[None, :], axis[:, None]
        glow = 1.05 - 0.16 * ((x - 0.4 * light[0]) ** 2 + (y - 0.4 * light[1]) ** 2)
        picture = glow[:, :, None] * np.array(self.look.backdrop) * self.tint
        return np.asarray(np.clip(picture, 0, 255), np.uint8)

    def paint(self, g: Geometry, brightness: float, noise: np.random.Generator) -> Frame:
        """Return one painted frame: uint8 (size, size, 3), RGB.

        *g* is in pixels of the oversampled picture; a *brightness* of 1 is normal.
        """
        cv2 = opencv()
        canvas = self.backdrop.copy()
        self._hair_behind(canvas, g)
        self._body(canvas, g)
        self._skin(canvas, g)
        self._mouth(canvas, g)
        self._eyes(canvas, g)
        self._nose_and_folds(canvas, g)
        self._hair_in_front(canvas, g)
        brow = _mix(self.look.hair, (30, 22, 18), 0.35)
        for name in ("right", "left"):
            self._fill(canvas, g.contours[f"brow_area_{name}"], brow)
        if self.look.glasses:
            self._glasses(canvas, g)
        self._light(canvas, g, brightness)
        small = cv2.resize(canvas, (self.size, self.size), interpolation=cv2.INTER_AREA)
        grain = noise.standard_normal(small.shape, np.float32) * 1.6
        return np.asarray(np.clip(small + grain + 0.5, 0, 255), np.uint8)

    def _light(self, canvas: Frame, g: Geometry, brightness: float) -> None:
        cv2 = opencv()
        x, y = g.pose.project(np.zeros((1, 2)))[0]
        move = np.array([[1, 0, x - self.side], [0, 1, y - self.side]], np.float32)
        size, edge = (self.side, self.side), cv2.BORDER_REPLICATE
        lit = cv2.warpAffine(self.shading, move, size, borderMode=edge)
        parts = [lit * np.float32(brightness * t) for t in self.tint]
        cv2.multiply(canvas, cv2.merge(parts), dst=canvas, dtype=cv2.CV_8U)

    def _fill(self, canvas: Frame, points: Points, colour: Colour) -> None:
        opencv().fillPoly(canvas, [_fixed(points)], colour, opencv().LINE_AA, _SHIFT)

    def _stroke(self, canvas: Frame, points: Points, colour: Colour, width: float) -> None:
        cv2 = opencv()
        thick = max(1, round(width * self.unit))
        cv2.polylines(canvas, [_fixed(points)], False, colour, thick, cv2.LINE_AA, _SHIFT)

    def _disc(self, canvas: Frame, centre: Points, radius: float, colour: Colour) -> None:
        cv2 = opencv()
        size = round(radius * (1 << _SHIFT))
        cv2.circle(canvas, _fixed(centre).tolist(), size, colour, -1, cv2.LINE_AA, _SHIFT)

    def _soft(
        self,
        canvas: Frame,
        points: Points,
        colour: Colour,
        alpha: float,
        spread: float,
        width: float = 0.0,
    ) -> None:
        """Blend a blurred area (or with *width*, a blurred line) into the canvas."""
        if alpha <= 0.01:
            return
        cv2 = opencv()
        reach = int(3 * spread * self.unit + width * self.unit) + 2
        x0, y0 = np.maximum(np.floor(points.min(0)).astype(int) - reach, 0)
        x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + reach, self.side)
        if x1 <= x0 or y1 <= y0:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        here = points - [x0, y0]
        if width:
            self._stroke(mask, here, (255, 255, 255), width)
        else:
            self._fill(mask, here, (255, 255, 255))
        mask = cv2.GaussianBlur(mask, (0, 0), spread * self.unit)
        weight = (mask.astype(np.float32) * (alpha / 255))[:, :, None]
        part = canvas[y0:y1, x0:x1]
        part[:] = (part + (np.array(colour, np.float32) - part) * weight + 0.5).astype(np.uint8)

    def _body(self, canvas: Frame, g: Geometry) -> None:
        look, scale = self.look, g.pose.scale
        base = np.asarray(g.pose.centre)
        # Shoulders follow the head half way.
        corner = base + (g.pose.project(np.zeros((1, 2)))[0] - base) * [0.55, 0.4]
        shoulders = outline("shoulders", 1.0 if look.jaw < 1 else 1.12)
        self._fill(canvas, shoulders * scale + corner, look.shirt)
        neck = outline("neck") * scale + corner
        self._fill(canvas, neck, _mix(look.skin, (90, 40, 30), 0.22))
        collar = outline("collar") * scale + corner
        self._stroke(canvas, collar, _mix(look.shirt, (0, 0, 0), 0.3), 0.06)

    def _skin(self, canvas: Frame, g: Geometry) -> None:
        look, c = self.look, g.contours
        deep = _mix(look.skin, (110, 40, 30), 0.25)
        chin = c["face"] + [0, 0.12 * self.unit]
        self._soft(canvas, chin, (30, 14, 12), 0.35, 0.08)
        for side in (-1, 1):
            self._fill(canvas, c[f"ear{side}"], _mix(look.skin, (150, 50, 40), 0.10))
            self._fill(canvas, c[f"ear_inner{side}"], deep)
        self._fill(canvas, c["face"], look.skin)
        blush = g.looks["blush"]
        rosy = _mix(look.skin, (214, 70, 70) if blush >= 0 else (210, 210, 190), 0.5)
        for side in (-1, 1):
            area = closed(c[f"cheek{side}"] + self.unit * _OVAL)
            self._soft(canvas, area, rosy, 0.12 + 0.42 * abs(blush), 0.11)
        if look.beard:
            hairy = _mix(look.skin, look.hair, 0.55 + 0.4 * look.beard)
            self._soft(canvas, c["beard"], hairy, 0.25 + 0.7 * look.beard, 0.05)
        for x, y, r in self.spots:
            centre = g.pose.project(np.array([[x, y]]))[0]
            self._disc(canvas, centre, r * self.unit, _mix(look.skin, (120, 60, 30), 0.35))

    def _mouth(self, canvas: Frame, g: Geometry) -> None:
        look, c = self.look, g.contours
        self._soft(canvas, c["lip_shadow"], _mix(look.skin, (70, 25, 20), 0.5), 0.55, 0.045, 0.07)
        self._fill(canvas, c["lips"], look.lips)
        top = np.concatenate([c["lip_top_out"], c["lip_top_in"][::-1]])
        self._fill(canvas, top, _mix(look.lips, (60, 10, 20), 0.2))
        self._soft(canvas, c["lip_shine"], _mix(look.lips, (255, 235, 230), 0.6), 0.5, 0.025, 0.03)
        if g.looks["gap"] > 0.008:

            def inside(patch: Frame, corner: Points) -> None:
                patch[:] = (52, 14, 18)
                self._fill(patch, c["tongue"] - corner, (176, 82, 84))
                self._fill(patch, c["teeth_lower"] - corner, (206, 198, 186))
                self._fill(patch, c["teeth"] - corner, (240, 236, 226))

            # The lip's shadow on the teeth.
            self._behind(canvas, c["mouth"], inside, c["lip_top_in"][12, 1], 0.09, 0.62)
        dark = _mix(look.lips, (40, 6, 10), 0.62)
        self._stroke(canvas, c["lip_top_in"], dark, 0.018)
        if g.looks["gap"] > 0.02:
            self._stroke(canvas, c["lip_bottom_in"], _mix(look.lips, (40, 6, 10), 0.35), 0.012)

    def _eyes(self, canvas: Frame, g: Geometry) -> None:
        look, c = self.look, g.contours
        for name in ("right", "left"):
            eye, lid = c[f"eye_{name}"], c[f"lid_{name}"]
            socket = np.concatenate([c[f"crease_{name}"], c[f"under_{name}"][::-1]])
            self._soft(canvas, socket, _mix(look.skin, (90, 40, 40), 0.5), 0.5, 0.05)

            def ball(patch: Frame, corner: Points, name: str = name) -> None:
                radius, centre = g.looks["iris"], c[f"iris_{name}"][0] - corner
                low, high = np.array([0, radius * 0.3]), radius * np.array([-0.34, -0.38])
                patch[:] = (236, 234, 230)
                self._disc(patch, centre, radius, _mix(look.iris, (10, 8, 8), 0.55))
                self._disc(patch, centre, radius * 0.86, look.iris)
                glow = _mix(look.iris, (255, 240, 200), 0.25)
                self._disc(patch, centre + low, radius * 0.55, glow)
                self._disc(patch, centre, radius * 0.46, (12, 10, 12))
                self._disc(patch, centre + high, radius * 0.22, (255, 255, 255))

            self._behind(canvas, eye, ball, lid[:, 1].min(), 0.085, 0.66)
            crease = _mix(look.skin, (70, 25, 20), 0.55)
            self._stroke(canvas, c[f"crease_{name}"][2:-1], crease, 0.014)
            self._stroke(canvas, c[f"under_{name}"], _mix(look.skin, (80, 30, 25), 0.5), 0.014)
            lash = 0.034 if look.jaw < 1 else 0.024
            self._stroke(canvas, lid, (34, 22, 20), lash)
            bag = 0.12 + 0.5 * g.looks["squint"]
            puffy = _mix(look.skin, (80, 30, 30), 0.6)
            self._soft(canvas, c[f"bag_{name}"], puffy, bag, 0.02, 0.02)

    def _behind(
        self, canvas: Frame, opening: Points, paint: _Paint, top: float, depth: float, dark: float
    ) -> None:
        """Paint a patch behind an opening; light rises from *dark* at *top* to 1 at *depth*."""
        x0, y0 = np.maximum(np.floor(opening.min(0)).astype(int) - 2, 0)
        x1, y1 = np.minimum(np.ceil(opening.max(0)).astype(int) + 3, self.side)
        if x1 <= x0 or y1 <= y0:
            return
        corner = np.array([x0, y0])
        patch = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
        paint(patch, corner)
        mask = np.zeros(patch.shape[:2], np.uint8)
        self._fill(mask, opening - corner, (255, 255, 255))
        weight = mask.astype(np.float32)[:, :, None] / 255
        fall = np.clip((np.arange(y0, y1) - top) / (depth * self.unit), 0, 1)
        shaded = patch * (dark + (1 - dark) * fall[:, None, None])
        part = canvas[y0:y1, x0:x1]
        part[:] = (part + (shaded - part) * weight + 0.5).astype(np.uint8)

    def _nose_and_folds(self, canvas: Frame, g: Geometry) -> None:
        look, c, v = self.look, g.contours, g.looks
        shade, dark = _mix(look.skin, (90, 35, 25), 0.5), _mix(look.skin, (50, 15, 10), 0.7)
        pale = _mix(look.skin, (255, 244, 232), 0.6)
        self._soft(canvas, c["nose_side1"], shade, 0.42, 0.035, 0.05)
        self._soft(canvas, c["nose_side-1"], shade, 0.22, 0.035, 0.05)
        self._soft(canvas, c["nose_shine"], pale, 0.5, 0.03, 0.04)
        for side in (-1, 1):
            self._soft(canvas, c[f"wing{side}"], dark, 0.8, 0.012, 0.02)
            self._fill(canvas, c[f"nostril{side}"], dark)
            fold = 0.10 + 0.55 * v["smile"] + 0.7 * v["wrinkle"] + 0.18 * v["frown"]
            self._soft(canvas, c[f"fold{side}"], dark, min(fold, 0.8), 0.016, 0.02)
            dimple = 0.15 + 0.45 * v["smile"] + 0.3 * v["frown"]
            self._soft(canvas, c[f"dimple{side}"], dark, dimple, 0.012, 0.02)
            self._soft(canvas, c[f"wrinkle{side}"], dark, 0.7 * v["wrinkle"], 0.014, 0.018)
            self._soft(canvas, c[f"furrow{side}"], dark, 0.75 * v["furrow"], 0.012, 0.018)
        for k in (0, 1, 2):
            self._soft(canvas, c[f"forehead{k}"], dark, 0.5 * v["raised"], 0.014, 0.018)

    def _hair_behind(self, canvas: Frame, g: Geometry) -> None:
        look = self.look
        top, dark = -1.22 * look.forehead, _mix(look.hair, (0, 0, 0), 0.25)
        if look.hair_style in ("long", "bob"):
            half = outline(f"back_{look.hair_style}", look.width, top=top)
            ring = np.concatenate([half, half[:0:-1] * [-1, 1]])
            self._fill(canvas, closed(g.pose.project(np.c_[ring, np.full(len(ring), -0.25)])), dark)
        if look.hair_style == "bun":
            bun = g.pose.project(np.array([[0.0, top - 0.34, -0.2]]))[0]
            self._disc(canvas, bun, 0.36 * self.unit, dark)

    def _hair_in_front(self, canvas: Frame, g: Geometry) -> None:
        look = self.look
        if look.hair_style == "bald":
            return
        w, top = look.width, -1.22 * look.forehead
        right = np.concatenate([outline("crown", w, top=top), outline("temple", w)])
        front = outline(f"front_{look.hair_style}", w, hairline=top + 0.38)
        ring = np.concatenate([right, front, right[::-1][:-1] * [-1, 1]])
        outer = np.isin(np.arange(len(ring)), [*range(5), *range(len(ring) - 4, len(ring))])
        flat = np.c_[ring, np.where(outer, -0.05, 0.0)]
        flat[:, 2] += surface(ring[:, 0], ring[:, 1]) * np.where(outer, 0.3, 1.0)
        points = closed(g.pose.project(flat))
        if look.hair_style == "curly":
            curl = _mix(look.hair, (0, 0, 0), 0.12)
            for centre in points[::3]:
                self._disc(canvas, centre, 0.15 * self.unit, curl)
        self._fill(canvas, points, look.hair)
        for k, x in enumerate(np.linspace(-0.72, 0.72, 7)):  # strands
            y = [top - 0.14 + 0.1 * abs(x), top + 0.03 + 0.12 * abs(x), top + 0.17 + 0.35 * x**2]
            line = g.pose.project(np.stack([x * np.array([0.55, 0.85, 1.08]), y], 1), 0.1)
            tone = (255, 236, 210) if k % 2 else (0, 0, 0)
            self._soft(canvas, line, _mix(look.hair, tone, 0.35), 0.4, 0.025, 0.03)

    def _glasses(self, canvas: Frame, g: Geometry) -> None:
        centres = []
        for name, side in (("right", -1), ("left", 1)):
            centre = (g.contours[f"lid_{name}"][0] + g.contours[f"lid_{name}"][-1]) / 2
            ring = centre + [side * 0.02 * self.unit, 0.02 * self.unit] + _RIM * self.unit
            self._stroke(canvas, np.concatenate([ring, ring[:1]]), (38, 34, 36), 0.032)
            centres.append(ring)
        ends = [centres[0][:, 0].argmax(), centres[1][:, 0].argmin()]
        bridge = np.stack([ring[end] for ring, end in zip(centres, ends, strict=True)])
        self._stroke(canvas, bridge, (38, 34, 36), 0.03)
        for ring, side in zip(centres, (-1, 1), strict=True):
            edge = ring[np.argmax(ring[:, 0] * side)]
            ear = g.contours[f"ear{side}"].mean(0) - [0, 0.12 * self.unit]
            self._stroke(canvas, np.stack([edge, ear]), (38, 34, 36), 0.026)


_ANGLES = np.linspace(0, 2 * np.pi, 12, endpoint=False)
_OVAL = np.stack([0.24 * np.cos(_ANGLES), 0.15 * np.sin(_ANGLES)], 1)
_AROUND = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_AROUND), np.sin(_AROUND)], 1)
_RIM = np.array([0.33, 0.25]) * np.sign(_CIRCLE) * np.abs(_CIRCLE) ** 0.7


def _fixed(points: Points) -> npt.NDArray[np.int32]:
    return np.round(points * (1 << _SHIFT)).astype(np.int32)


def _mix(a: Colour, b: Colour, part: float) -> Colour:
    r, g, bl = (x + (y - x) * part for x, y in zip(a, b, strict=True))
    return r, g, bl


def _spots(look: Look) -> npt.NDArray[np.float64]:
    """Return freckles and a mole: x, y, radius."""
    rng = np.random.default_rng(look.spots)
    count = round(34 * look.freckles)
    spots = np.c_[rng.normal(0, 0.38, count), rng.normal(0.14, 0.11, count), np.full(count, 0.013)]
    if rng.random() < 0.3:
        mole = [[rng.choice([-1, 1]) * rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.9), 0.028]]
        spots = np.concatenate([spots, mole])
    return np.asarray(spots)
