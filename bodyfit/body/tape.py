"""Takes every measurement on one standing body; `measure.py` is the way in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.measure_definitions import BODY_DENSITY
from bodyfit.body.sections import UP, Slices, bridged_path, extremum, outline, slices
from bodyfit.body.standing import ARM_ANGLE, HANGING_ARM_ANGLE, Standing

SIDES = (("left", 1.0), ("right", -1.0))
THIGH_BELOW_CROTCH = 0.02
"""Of the stature: where a tape lies highest on the thigh."""
_HIP_TOP = 2 / 3
"""Hips end here on the way from crotch to waist; above it a belly can be wider than they are."""
_TORSO_LEVELS, _LEG_LEVELS, _ARM_LEVELS, _NECK_LEVELS, _HEAD_LEVELS = 27, 18, 6, 8, 6

Point = NDArray[np.float64]
Lines = dict[str, list[Point]]


class Tape:
    """Measures one body.

    Args:
        prepared: the model's landmarks, regions and joints.
        points: (V + J, 3) metres, float64 and contiguous: the standing vertices, then the joints; y up.
        faces: (F, 3) of the closed surface.
        lines: filled with what was measured, name to polylines (K, 3); None saves the work.
    """

    def __init__(self, prepared: Standing, points: Point, faces: NDArray[np.int32], lines: Lines | None = None) -> None:
        self.prepared, self.points, self.faces, self.lines = prepared, points, faces, lines
        self.vertices = points[: prepared.num_vertices]
        self.floor = float(self.vertices[:, 1].min())
        self.at: Mapping[str, Point] = prepared.landmark_points(points)
        self.values: dict[str, float] = {}

    def take_all(self) -> dict[str, float]:
        """Every measurement by name: metres, cubic metres, kilograms."""
        self._heights()
        self._trunk()
        self._neck_and_head()
        self._legs()
        self._arms()
        self._whole()
        return self.values

    # --- the tools -----------------------------------------------------------------------------------------------

    def _joint(self, name: str) -> Point:
        return self.points[self.prepared.joints[name]]

    def _both(self, name: str) -> Point:
        """The point midway between the left and the right landmark."""
        return (self.at[f"left_{name}"] + self.at[f"right_{name}"]) / 2

    def _draw(self, name: str, *line: Point) -> None:
        if self.lines is not None and len(line):
            self.lines.setdefault(name.rpartition(":")[2], []).append(np.stack(line))

    def _girth(self, name: str, region: str, origin: Point, normal: Point = UP) -> Slices:
        """Puts the tape round a region once; several sides under one name are averaged at the end."""
        edges = self.prepared.edges[region]
        cut = slices(self.points, edges, origin, normal)
        self._add(name, float(cut.girths[0]))
        if self.lines is not None:
            self._draw(name, *outline(self.points, edges, origin, normal))
        return cut

    def _extreme_girth(self, name: str, region: str, scan: Slices, sign: float, first: int, last: int) -> None:
        """The largest or smallest girth among a scan's slices first … last - 1."""
        value, index = extremum(scan.girths[first:last], sign)
        self._add(name, value)
        if self.lines is not None:
            place = scan.origin + scan.offset(first + index) * scan.normal
            self._draw(name, *outline(self.points, self.prepared.edges[region], place, scan.normal))

    def _add(self, name: str, value: float) -> None:
        """A measurement, or one side of a limb's: sides count half each."""
        side, _, rest = name.partition(":")
        if rest:
            self.values[rest] = self.values.get(rest, 0.0) + 0.5 * value
        else:
            self.values[side] = value

    def _height(self, name: str, point: Point) -> None:
        self.values[name] = float(point[1]) - self.floor
        self._draw(name, np.array([point[0], self.floor, point[2]]), point)

    def _distance(self, name: str, *way: Point) -> None:
        """The length of a way with straight pieces."""
        self._draw(name, *way)
        self._add(name, sum(math.dist(a, b) for a, b in pairwise(way)))

    # --- the measurements ----------------------------------------------------------------------------------------

    def _heights(self) -> None:
        top = self.vertices[self.vertices[:, 1].argmax()]
        self._height("stature", top)
        self._height("cervicale_height", self.at["neck_base_back"])
        self._height("chin_height", self.at["chin"])
        self._height("shoulder_height", self._both("acromion"))
        self._height("chest_height", self._both("bust_point"))
        # lowest rib and top of the hip bone are not on the surface: the trunk's narrowest level lies about the one,
        # the navel about the other
        waist = (self._both("waist_side") + self.at["navel"]) / 2
        self.waist_level = float(waist[1])
        self._height("waist_height", waist)
        self._height("hip_height", self._both("buttock"))
        self._height("trochanter_height", self._both("trochanterion"))
        edges, t = self.prepared.midline
        a, b = self.points[edges[:, 0]], self.points[edges[:, 1]]
        seam = a + t[:, None] * (b - a)
        self.crotch = seam[seam[:, 1].argmin()] if len(seam) else self.at["crotch"]
        self._height("crotch_height", self.crotch)
        self._height("knee_height", self._both("patella"))
        self._height("ankle_height", self._both("lateral_malleolus"))

    def _level(self, y: float) -> Point:
        return np.array([0.0, y, 0.0])

    def _trunk(self) -> None:
        bust = self._girth("chest_girth", "torso", self._level(self._both("bust_point")[1]))
        front, back = bust.extents[0, 3], bust.extents[0, 2]
        self._distance("chest_depth", np.array([0, bust.origin[1], back]), np.array([0, bust.origin[1], front]))
        self._girth("underbust_girth", "torso", self._level(self.at["underbust_front"][1]))
        waist = self._girth("waist_girth", "torso", self._level(self.waist_level))
        self._girth("abdomen_girth", "torso", self._level(self.at["navel"][1]))

        low = float(self.crotch[1]) + THIGH_BELOW_CROTCH * self.values["stature"]
        scan = slices(self.points, self.prepared.edges["torso"], self._level(low), UP,
                      (0.0, max(self.waist_level - low, 0.05)), _TORSO_LEVELS)  # fmt: skip
        hips = int(_HIP_TOP * _TORSO_LEVELS)
        self._extreme_girth("hip_girth", "torso", scan, 1.0, 0, hips)
        right, left = scan.extents[:, 0], scan.extents[:, 1]
        breadth, k = extremum((left - right)[:hips], 1.0)
        self.values["hip_breadth"] = breadth
        k, y = round(k), low + scan.offset(k)
        self._draw("hip_breadth", np.array([right[k], y, 0.0]), np.array([left[k], y, 0.0]))

        # down the back from the cervicale to the waist's tape, which bridges the hollow of the spine
        neck = self.at["neck_base_back"]
        end = np.array([waist.extents[0, 2], self.waist_level])
        edges, t = self.prepared.midline
        a, b = self.points[edges[:, 0], 1:], self.points[edges[:, 1], 1:]
        seam = (a + t[:, None] * (b - a))[:, ::-1]
        seam = seam[(seam[:, 1] < neck[1]) & (seam[:, 1] > end[1])]
        length, way = bridged_path(np.concatenate([[[neck[2], neck[1]]], seam, [end]]))
        self.values["back_waist_length"] = length
        self._draw("back_waist_length", *np.column_stack([np.zeros(len(way)), way[:, 1], way[:, 0]]))

        levels = low + scan.first + scan.step * np.arange(_TORSO_LEVELS)
        for side, sign in SIDES:
            out = sign * scan.extents[:, 1 if sign > 0 else 0]
            out = np.append(out[:-1], sign * waist.extents[0, 1 if sign > 0 else 0])
            profile = np.column_stack([out, levels])[::-1]  # from the waist down
            widest = int(np.argmax(out[::-1][_TORSO_LEVELS - hips :])) + _TORSO_LEVELS - hips
            # going down, the left leg's outside is on the left: mirrored, it is on the right
            length, way = bridged_path(profile[: widest + 1] * (-1.0, 1.0))
            way = np.vstack([way * (-1.0, 1.0), [profile[widest, 0], self.floor]])
            self._add(f"{side}:outside_leg_length", length + float(profile[widest, 1]) - self.floor)
            self._draw("outside_leg_length", *np.column_stack([sign * way[:, 0], way[:, 1], np.zeros(len(way))]))

    def _neck_and_head(self) -> None:
        base, head = self._joint("neck"), self._joint("head")
        axis = head - base
        length = float(np.linalg.norm(axis))
        scan = slices(self.points, self.prepared.edges["neck"], base, axis, (0.2 * length, 1.1 * length), _NECK_LEVELS)
        self._extreme_girth("neck_girth", "neck", scan, -1.0, 0, _NECK_LEVELS)
        nose, top = float(self.at["nose_tip"][1]), float(self.at["head_top"][1])
        brow = nose + 0.40 * (top - nose)
        scan = slices(
            self.points, self.prepared.edges["head"], self._level(brow), UP, (0.0, 0.3 * (top - nose)), _HEAD_LEVELS
        )
        self._extreme_girth("head_girth", "head", scan, 1.0, 0, _HEAD_LEVELS)

    def _legs(self) -> None:
        thigh = float(self.crotch[1]) - THIGH_BELOW_CROTCH * self.values["stature"]
        crotch_height = self.values["crotch_height"]
        for side, sign in SIDES:
            leg, knee = f"{side}_leg", float(self.at[f"{side}_patella"][1])
            ankle = float(self.at[f"{side}_lateral_malleolus"][1])
            self._girth(f"{side}:thigh_girth", leg, self._level(thigh))
            self._girth(f"{side}:mid_thigh_girth", leg, self._level((float(self.crotch[1]) + knee) / 2))
            self._girth(f"{side}:knee_girth", leg, self._level(knee))
            shin = knee - ankle
            scan = slices(
                self.points, self.prepared.edges[leg], self._level(ankle), UP, (0.06 * shin, 0.86 * shin), _LEG_LEVELS
            )
            self._extreme_girth(f"{side}:calf_girth", leg, scan, 1.0, _LEG_LEVELS // 3, _LEG_LEVELS)
            self._extreme_girth(f"{side}:ankle_girth", leg, scan, -1.0, 0, _LEG_LEVELS // 2)
            down = self._joint(f"{side}_ankle") - self._joint(f"{side}_hip")
            slope = np.array([sign * abs(down[0]), down[1], 0.0])
            end = self.crotch + slope * (crotch_height / -slope[1])
            self._distance(f"{side}:inside_leg_length", self.crotch, end)
            self._foot(side)

    def _foot(self, side: str) -> None:
        heel, toe = self.at[f"{side}_heel"], self.at[f"{side}_toe_tip"]
        way = (toe - heel) * (1.0, 0.0, 1.0)
        way /= np.linalg.norm(way)
        along = self.points[self.prepared.feet[side]] @ way
        low, high = float(along.min()), float(along.max())
        self._add(f"{side}:foot_length", high - low)
        self._draw("foot_length", heel + (low - heel @ way) * way, heel + (high - heel @ way) * way)

    def _arms(self) -> None:
        for side, _ in SIDES:
            arm = f"{side}_arm"
            acromion, olecranon, styloid = (self.at[f"{side}_{n}"] for n in ("acromion", "olecranon", "ulnar_styloid"))
            tip, neck = self.at[f"{side}_fingertip"], self.at[f"{side}_neck_side"]
            shoulder, elbow, wrist = (self._joint(f"{side}_{n}") for n in ("shoulder", "elbow", "wrist"))
            self._girth(f"{side}:upper_arm_girth", arm, (acromion + olecranon) / 2, elbow - shoulder)
            self._girth(f"{side}:elbow_girth", arm, olecranon, wrist - shoulder)
            self._girth(f"{side}:wrist_girth", arm, styloid, wrist - elbow)
            length = float(np.linalg.norm(wrist - elbow))
            scan = slices(
                self.points, self.prepared.edges[arm], elbow, wrist - elbow, (0.05 * length, 0.5 * length), _ARM_LEVELS
            )
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
            offset = self.points[rows] - self._joint(f"{side}_shoulder")
            x = np.cos(angle) * offset[:, 0] - np.sin(angle) * offset[:, 1] - offset[:, 0]
            across = sign * (self.points[rows, 0] + weight * x)
            k = int(across.argmax())
            ends.append((float(across[k]), float(self.points[rows[k], 1])))
        (left, y0), (right, y1) = ends
        self.values["bideltoid_breadth"] = left + right
        y = (y0 + y1) / 2
        self._draw("bideltoid_breadth", np.array([-right, y, 0.0]), np.array([left, y, 0.0]))

    def _whole(self) -> None:
        from bodyfit.kernels.sections import enclosed_volume

        self.values["volume"] = float(enclosed_volume(self.points, self.faces))
        self.values["mass"] = self.values["volume"] * BODY_DENSITY
