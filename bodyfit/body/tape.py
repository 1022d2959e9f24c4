"""Takes every measurement on standing bodies of one model; `measure.py` is the way in.

All bodies are measured at once: on one alone most of the time would go into calling numpy, not into what it does, and
an uncertainty needs dozens of bodies.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.measure_definitions import BODY_DENSITY
from bodyfit.body.sections import UP, Slices, bridged_lengths, bridged_path, extremum, outline, slices
from bodyfit.body.standing import ARM_ANGLE, HANGING_ARM_ANGLE, Standing

SIDES = (("left", 1.0), ("right", -1.0))
THIGH_BELOW_CROTCH = 0.02
"""Of the stature: where a tape lies highest on the thigh."""
_HIP_TOP = 2 / 3
"""Hips end here on the way from crotch to waist; above it a belly can be wider than they are."""
_TORSO_LEVELS, _LEG_LEVELS, _ARM_LEVELS, _NECK_LEVELS, _HEAD_LEVELS = 27, 18, 6, 8, 6

Point = NDArray[np.float64]
"""(D, 3) a place on each of the bodies"""
Value = NDArray[np.float64]
"""(D,) a number for each of the bodies"""
Lines = dict[str, list[NDArray[np.float64]]]


class Tape:
    """Measures bodies of one model.

    Args:
        prepared: the model's landmarks, regions and joints.
        points: (D, V + J, 3) metres, float64 and contiguous: the standing vertices, then the joints; y up.
        faces: (F, 3) of the closed surface.
        lines: filled with what was measured, name to polylines (K, 3), of the one body that there is then; None saves
            the work.
    """

    def __init__(
        self, prepared: Standing, points: NDArray[np.float64], faces: NDArray[np.int32], lines: Lines | None = None
    ) -> None:
        if lines is not None and len(points) != 1:
            raise ValueError(f"lines are drawn of one body, not of {len(points)}")
        self.prepared, self.points, self.faces, self.lines = prepared, points, faces, lines
        self.all = np.arange(len(points))
        self.heights = np.ascontiguousarray(points[:, : prepared.num_vertices, 1])
        self.floor: Value = self.heights.min(1)
        self.at: Mapping[str, Point] = prepared.landmark_points(points)
        self.values: dict[str, Value] = {}

    def take_all(self) -> dict[str, Value]:
        """Every measurement of each body by name (D,): metres, cubic metres, kilograms."""
        self._heights()
        self._trunk()
        self._neck_and_head()
        self._legs()
        self._arms()
        self._whole()
        return self.values

    # --- the tools -----------------------------------------------------------------------------------------------

    def _joint(self, name: str) -> Point:
        return self.points[:, self.prepared.joints[name]]

    def _both(self, name: str) -> Point:
        """The point midway between the left and the right landmark."""
        return (self.at[f"left_{name}"] + self.at[f"right_{name}"]) / 2

    def _draw(self, name: str, line: NDArray[np.float64]) -> None:
        """A polyline (K, 3) of the one body that is drawn."""
        if self.lines is not None and len(line):
            self.lines.setdefault(name.rpartition(":")[2], []).append(np.asarray(line, np.float64))

    def _draw_points(self, name: str, *way: Point) -> None:
        if self.lines is not None:
            self._draw(name, np.concatenate(way))

    def _girth(self, name: str, region: str, origin: Point, normal: NDArray[np.float64] = UP) -> Slices:
        """Puts the tape round a region once; several sides under one name are averaged at the end."""
        cut = slices(self.points, self.prepared.regions[region], origin, normal)
        self._add(name, cut.girths[:, 0])
        if self.lines is not None:
            edges = self.prepared.regions[region].edges
            self._draw(name, outline(self.points[0], edges, cut.origin[0], cut.normal[0]))
        return cut

    def _extreme_girth(self, name: str, region: str, scan: Slices, sign: float, first: int, last: int) -> None:
        """The largest or smallest girth among a scan's slices first … last - 1."""
        value, index = extremum(scan.girths[:, first:last], sign)
        self._add(name, value)
        if self.lines is not None:
            place = scan.origin + scan.offset(first + index)[:, None] * scan.normal
            self._draw(name, outline(self.points[0], self.prepared.regions[region].edges, place[0], scan.normal[0]))

    def _add(self, name: str, value: Value) -> None:
        """A measurement, or one side of a limb's: sides count half each."""
        side, _, rest = name.partition(":")
        if rest:
            self.values[rest] = self.values.get(rest, 0.0) + 0.5 * value
        else:
            self.values[side] = value

    def _height(self, name: str, point: Point) -> None:
        self.values[name] = point[:, 1] - self.floor
        if self.lines is not None:
            self._draw_points(name, np.column_stack([point[:, 0], self.floor, point[:, 2]]), point)

    def _distance(self, name: str, *way: Point) -> None:
        """The length of a way with straight pieces."""
        self._draw_points(name, *way)
        self._add(name, sum((_length(b - a) for a, b in pairwise(way)), np.zeros(len(self.all))))

    # --- the measurements ----------------------------------------------------------------------------------------

    def _heights(self) -> None:
        self._height("stature", self.points[self.all, self.heights.argmax(1)])
        self._height("cervicale_height", self.at["neck_base_back"])
        self._height("chin_height", self.at["chin"])
        self._height("shoulder_height", self._both("acromion"))
        self._height("chest_height", self._both("bust_point"))
        # lowest rib and top of the hip bone are not on the surface: the trunk's narrowest level lies about the one,
        # the navel about the other
        waist = (self._both("waist_side") + self.at["navel"]) / 2
        self.waist_level: Value = waist[:, 1]
        self._height("waist_height", waist)
        self._height("hip_height", self._both("buttock"))
        self._height("trochanter_height", self._both("trochanterion"))
        edges, t = self.prepared.midline
        a, b = self.points[:, edges[:, 0]], self.points[:, edges[:, 1]]
        self.seam = a + t[:, None] * (b - a)
        lowest = self.seam[self.all, self.seam[:, :, 1].argmin(1)] if len(edges) else self.at["crotch"]
        self.crotch: Point = lowest
        self._height("crotch_height", self.crotch)
        self._height("knee_height", self._both("patella"))
        self._height("ankle_height", self._both("lateral_malleolus"))

    def _level(self, y: Value) -> Point:
        out = np.zeros((len(y), 3))
        out[:, 1] = y
        return out

    def _trunk(self) -> None:
        bust = self._girth("chest_girth", "torso", self._level(self._both("bust_point")[:, 1]))
        front, back = bust.extents[:, 0, 3], bust.extents[:, 0, 2]
        level = np.zeros_like(front), bust.origin[:, 1]
        self._distance("chest_depth", np.column_stack([*level, back]), np.column_stack([*level, front]))
        self._girth("underbust_girth", "torso", self._level(self.at["underbust_front"][:, 1]))
        waist = self._girth("waist_girth", "torso", self._level(self.waist_level))
        self._girth("abdomen_girth", "torso", self._level(self.at["navel"][:, 1]))

        low = self.crotch[:, 1] + THIGH_BELOW_CROTCH * self.values["stature"]
        scan = slices(self.points, self.prepared.regions["torso"], self._level(low), UP,
                      (0.0, np.maximum(self.waist_level - low, 0.05)), _TORSO_LEVELS)  # fmt: skip
        hips = int(_HIP_TOP * _TORSO_LEVELS)
        self._extreme_girth("hip_girth", "torso", scan, 1.0, 0, hips)
        right, left = scan.extents[:, :, 0], scan.extents[:, :, 1]
        breadth, place = extremum((left - right)[:, :hips], 1.0)
        self.values["hip_breadth"] = breadth
        if self.lines is not None:
            k = round(place[0])
            y = (low + scan.offset(np.array([k])))[0]
            self._draw("hip_breadth", np.array([[right[0, k], y, 0.0], [left[0, k], y, 0.0]]))
        self._back_waist_length(waist)
        self._outside_legs(waist, scan, low, hips)

    def _back_waist_length(self, waist: Slices) -> None:
        """Down the back from the cervicale to the waist's tape, which bridges the hollow of the spine."""
        neck = self.at["neck_base_back"][:, None, [2, 1]]
        end = np.stack([waist.extents[:, 0, 2], self.waist_level], 1)[:, None]
        seam = self.seam[:, :, [2, 1]]
        use = np.ones((len(seam), seam.shape[1] + 2), bool)
        use[:, 1:-1] = (seam[:, :, 1] < neck[:, :, 1]) & (seam[:, :, 1] > end[:, :, 1])
        line = np.concatenate([neck, seam, end], 1)
        self.values["back_waist_length"] = bridged_lengths(line, use)
        if self.lines is not None:
            _, way = bridged_path(line[0, use[0]])
            self._draw("back_waist_length", np.column_stack([np.zeros(len(way)), way[:, 1], way[:, 0]]))

    def _outside_legs(self, waist: Slices, scan: Slices, low: Value, hips: int) -> None:
        levels = (low + scan.first)[:, None] + scan.step[:, None] * np.arange(_TORSO_LEVELS)
        for side, sign in SIDES:
            out = sign * scan.extents[:, :, 1 if sign > 0 else 0]
            out = np.column_stack([out[:, :-1], sign * waist.extents[:, 0, 1 if sign > 0 else 0]])
            profile = np.stack([out, levels], 2)[:, ::-1]  # from the waist down
            widest = np.argmax(out[:, ::-1][:, _TORSO_LEVELS - hips :], 1) + _TORSO_LEVELS - hips
            # going down, the left leg's outside is on the left: mirrored, it is on the right
            mirrored, use = profile * (-1.0, 1.0), np.arange(_TORSO_LEVELS) <= widest[:, None]
            end = profile[self.all, widest]
            self._add(f"{side}:outside_leg_length", bridged_lengths(mirrored, use) + end[:, 1] - self.floor)
            if self.lines is not None:
                _, way = bridged_path(mirrored[0, use[0]])
                way = np.vstack([way * (-1.0, 1.0), [end[0, 0], self.floor[0]]])
                self._draw("outside_leg_length", np.column_stack([sign * way[:, 0], way[:, 1], np.zeros(len(way))]))

    def _neck_and_head(self) -> None:
        base, head = self._joint("neck"), self._joint("head")
        axis = head - base
        length = _length(axis)
        neck = self.prepared.regions["neck"]
        scan = slices(self.points, neck, base, axis, (0.2 * length, 1.1 * length), _NECK_LEVELS)
        self._extreme_girth("neck_girth", "neck", scan, -1.0, 0, _NECK_LEVELS)
        nose, top = self.at["nose_tip"][:, 1], self.at["head_top"][:, 1]
        brow = nose + 0.40 * (top - nose)
        scan = slices(
            self.points, self.prepared.regions["head"], self._level(brow), UP, (0.0, 0.3 * (top - nose)), _HEAD_LEVELS
        )
        self._extreme_girth("head_girth", "head", scan, 1.0, 0, _HEAD_LEVELS)

    def _legs(self) -> None:
        thigh = self.crotch[:, 1] - THIGH_BELOW_CROTCH * self.values["stature"]
        crotch_height = self.values["crotch_height"]
        for side, sign in SIDES:
            leg, knee = f"{side}_leg", self.at[f"{side}_patella"][:, 1]
            ankle = self.at[f"{side}_lateral_malleolus"][:, 1]
            self._girth(f"{side}:thigh_girth", leg, self._level(thigh))
            self._girth(f"{side}:mid_thigh_girth", leg, self._level((self.crotch[:, 1] + knee) / 2))
            self._girth(f"{side}:knee_girth", leg, self._level(knee))
            shin, region = knee - ankle, self.prepared.regions[leg]
            scan = slices(self.points, region, self._level(ankle), UP, (0.06 * shin, 0.86 * shin), _LEG_LEVELS)
            self._extreme_girth(f"{side}:calf_girth", leg, scan, 1.0, _LEG_LEVELS // 3, _LEG_LEVELS)
            self._extreme_girth(f"{side}:ankle_girth", leg, scan, -1.0, 0, _LEG_LEVELS // 2)
            down = self._joint(f"{side}_ankle") - self._joint(f"{side}_hip")
            slope = np.column_stack([sign * np.abs(down[:, 0]), down[:, 1], np.zeros(len(down))])
            end = self.crotch + slope * (crotch_height / -slope[:, 1])[:, None]
            self._distance(f"{side}:inside_leg_length", self.crotch, end)
            self._foot(side)

    def _foot(self, side: str) -> None:
        heel, toe = self.at[f"{side}_heel"], self.at[f"{side}_toe_tip"]
        way = (toe - heel) * (1.0, 0.0, 1.0)
        way /= _length(way)[:, None]
        foot = self.points[:, self.prepared.feet[side]]
        along = foot[:, :, 0] * way[:, 0, None] + foot[:, :, 2] * way[:, 2, None]
        low, high = along.min(1), along.max(1)
        self._add(f"{side}:foot_length", high - low)
        if self.lines is not None:
            start = (heel * way).sum(1)
            ends = (heel + (x - start)[:, None] * way for x in (low, high))
            self._draw_points("foot_length", *ends)

    def _arms(self) -> None:
        for side, _ in SIDES:
            arm = f"{side}_arm"
            acromion, olecranon, styloid = (self.at[f"{side}_{n}"] for n in ("acromion", "olecranon", "ulnar_styloid"))
            tip, neck = self.at[f"{side}_fingertip"], self.at[f"{side}_neck_side"]
            shoulder, elbow, wrist = (self._joint(f"{side}_{n}") for n in ("shoulder", "elbow", "wrist"))
            self._girth(f"{side}:upper_arm_girth", arm, (acromion + olecranon) / 2, elbow - shoulder)
            self._girth(f"{side}:elbow_girth", arm, olecranon, wrist - shoulder)
            self._girth(f"{side}:wrist_girth", arm, styloid, wrist - elbow)
            length, region = _length(wrist - elbow), self.prepared.regions[arm]
            scan = slices(self.points, region, elbow, wrist - elbow, (0.05 * length, 0.5 * length), _ARM_LEVELS)
            self._extreme_girth(f"{side}:forearm_girth", arm, scan, 1.0, 0, _ARM_LEVELS)
            self._distance(f"{side}:shoulder_length", neck, acromion)
            self._distance(f"{side}:upper_arm_length", acromion, olecranon)
            self._distance(f"{side}:forearm_length", olecranon, styloid)
            self._distance(f"{side}:arm_length", acromion, olecranon, styloid)
            self._distance(f"{side}:hand_length", wrist, tip)
        ways = [[self.at[f"{s}_fingertip"], *(self._joint(f"{s}_{n}") for n in ("wrist", "elbow", "shoulder"))]
                for s in ("left", "right")]  # fmt: skip
        self._distance("arm_span", *ways[0], *ways[1][::-1])
        self._distance("shoulder_breadth", self.at["left_acromion"], self.at["right_acromion"])
        self._bideltoid_breadth()

    def _bideltoid_breadth(self) -> None:
        """The arms are lowered from their standing angle to hanging, skinned as the model skins them."""
        ends = []
        for side, sign in SIDES:
            rows, weight = self.prepared.deltoids[side]
            angle = sign * (HANGING_ARM_ANGLE - ARM_ANGLE)
            shoulder, deltoid = self._joint(f"{side}_shoulder"), self.points[:, rows, :2]
            ox, oy = deltoid[:, :, 0] - shoulder[:, 0, None], deltoid[:, :, 1] - shoulder[:, 1, None]
            x = np.cos(angle) * ox - np.sin(angle) * oy - ox
            across = sign * (deltoid[:, :, 0] + weight * x)
            k = across.argmax(1)
            ends.append((across[self.all, k], deltoid[self.all, k, 1]))
        (left, y0), (right, y1) = ends
        self.values["bideltoid_breadth"] = left + right
        if self.lines is not None:
            y = (y0[0] + y1[0]) / 2
            self._draw("bideltoid_breadth", np.array([[-right[0], y, 0.0], [left[0], y, 0.0]]))

    def _whole(self) -> None:
        from bodyfit.kernels.sections import enclosed_volumes

        self.values["volume"] = np.empty(len(self.all))
        enclosed_volumes(self.points, self.faces, self.values["volume"])
        self.values["mass"] = self.values["volume"] * BODY_DENSITY


def _length(way: Point) -> Value:
    """(D,) lengths of vectors (D, 3)."""
    return np.sqrt(way[:, 0] ** 2 + way[:, 1] ** 2 + way[:, 2] ** 2)
