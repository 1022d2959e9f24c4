"""What each body measurement is: its standard, its definition in one line, the body parts it needs, its model error.

Names follow ISO 8559-1:2017 (clothing), ISO 7250-1:2017 (design) or the ANSUR II survey; where a mesh asks for a rule
of its own (which slice, which point) the definition says so. Measurements of limbs are the mean of left and right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

ISO_8559 = "ISO 8559-1:2017"
ISO_7250 = "ISO 7250-1:2017"
ANSUR = "ANSUR II (2012)"

BODY_DENSITY = 985.0
"""kg/m³ of a whole living body with the air in its lungs, a value in common use for the body's mean density.

Without lung air a body has about 1020 (obese) to 1080 (lean) kg/m³ (W. E. Siri, "Body composition from fluid spaces and
density", 1961; Durnin and Womersley, Br. J. Nutr. 32, 1974); 2 to 5 litres of air in 70 take 3 to 7 % off that.
"""

SIDE_SEEN = 0.15
"""Share of a side of the trunk that has to be seen for the side to count as seen."""


@dataclass(frozen=True)
class Definition:
    """One measurement.

    Attributes:
        name: the key in results.
        standard: where the name comes from.
        text: the definition, one line.
        kind: "height", "girth", "length", "breadth", "volume" or "mass".
        parts: groups of body parts; a measurement was seen when of each group at least one part was.
        unit: "m", "m3" or "kg".
        model_error: one standard deviation in `unit` of what no covariance of the fit knows.
        sides: sides of the trunk without which only half of the thing was seen.
    """

    name: str
    standard: str
    text: str
    kind: str
    parts: tuple[tuple[str, ...], ...]
    model_error: float
    unit: str = "m"
    sides: tuple[str, ...] = ()

    def was_seen(self, parts: Mapping[str, float] | None, sides: Mapping[str, float] | None = None) -> bool:
        """Whether a sensor saw what this measures.

        Args:
            parts: body part to whether, how often or to what share it was seen; None: all were.
            sides: side of the trunk to the share of it that was seen; None: all were.
        """
        by_part = parts is None or all(any(parts.get(p, 0) > 0 for p in group) for group in self.parts)
        return by_part and (sides is None or all(sides.get(s, 0) >= SIDE_SEEN for s in self.sides))


def _sides(*parts: str) -> tuple[tuple[str, ...], ...]:
    return tuple((f"left_{p}", f"right_{p}") for p in parts)


def _of(*parts: str) -> tuple[tuple[str, ...], ...]:
    return tuple((p,) for p in parts)


_FEET = _sides("foot")
_ARM = _sides("upper_arm", "forearm")

# Model errors, chosen by `benchmarks/calibration.py --calibrate --judged` so that 90 % intervals hold the truth in 90 %
# of 104 synthetic fits of four frames that judged the clothes themselves: 57 times tight (this table), 47 times not
# (the one below); people 3 mm rms off the model's span, two kinds of time of flight and one of stereo. It is what
# neither the shape basis nor the fit's covariance knows; where the covariance alone is wide enough, the least that the
# table can say.

_TABLE = (
    Definition("stature", ISO_7250, "Vertical distance from the floor to the highest point of the head.",
               "height", (*_of("head"), *_FEET), 0.0024),
    Definition("cervicale_height", ISO_8559, "Vertical distance from the floor to the cervicale (lowest neck bone).",
               "height", (*_of("neck"), *_FEET), 0.0001),
    Definition("chin_height", "none", "Vertical distance from the floor to the lowest point of the chin.",
               "height", (*_of("head"), *_FEET), 0.0001),
    Definition("shoulder_height", ISO_7250, "Vertical distance from the floor to the acromion, mean of both sides.",
               "height", (*_sides("upper_arm"), *_FEET), 0.0001),
    Definition("chest_height", ISO_8559, "Vertical distance from the floor to the bust points (nipples).",
               "height", (*_of("chest"), *_FEET), 0.0001),
    Definition("waist_height", ISO_8559, "Vertical distance from the floor to the waist level.",
               "height", (*_of("abdomen"), *_FEET), 0.0001),
    Definition("hip_height", ISO_8559, "Vertical distance from the floor to the greatest protrusion of the buttocks.",
               "height", (*_of("pelvis"), *_FEET), 0.0001),
    Definition("trochanter_height", ANSUR,
               "Vertical distance from the floor to the greater trochanter, mean of both sides.",
               "height", (*_sides("thigh"), *_FEET), 0.0001),
    Definition("crotch_height", ISO_7250, "Vertical distance from the floor to the lowest point between the legs.",
               "height", (*_sides("thigh"), *_FEET), 0.0001),
    Definition("knee_height", ISO_8559, "Vertical distance from the floor to the kneecap's middle, mean of both sides.",
               "height", (*_sides("calf"), *_FEET), 0.0001),
    Definition("ankle_height", ISO_8559,
               "Vertical distance from the floor to the outer ankle bone (lateral malleolus), mean of both sides.",
               "height", _FEET, 0.0001),
    Definition("head_girth", ISO_7250, "Largest horizontal girth of the head above the brows.",
               "girth", _of("head"), 0.0189),
    Definition("neck_girth", ISO_8559, "Smallest girth of the neck across its axis, below the chin.",
               "girth", _of("neck"), 0.0212),
    Definition("chest_girth", ISO_8559, "Horizontal girth of the trunk, without the arms, at the bust points.",
               "girth", _of("chest"), 0.0094, sides=("front", "back")),
    Definition("underbust_girth", ISO_8559, "Horizontal girth of the trunk just below the breasts.",
               "girth", _of("chest"), 0.0032, sides=("front", "back")),
    Definition("waist_girth", ISO_8559,
               "Horizontal girth of the trunk at the waist, midway between the lowest ribs and the hip bone.",
               "girth", _of("abdomen"), 0.0001, sides=("front", "back")),
    Definition("abdomen_girth", ANSUR, "Horizontal girth of the trunk at the navel (omphalion).",
               "girth", _of("abdomen"), 0.0001, sides=("front", "back")),
    Definition("hip_girth", ISO_8559,
               "Largest horizontal girth of the trunk between the crotch and two thirds of the way up to the waist.",
               "girth", _of("pelvis"), 0.0086, sides=("front", "back")),
    Definition("thigh_girth", ISO_8559,
               "Horizontal girth of the thigh 2 % of the stature below the crotch, mean of both sides.",
               "girth", _sides("thigh"), 0.0138),
    Definition("mid_thigh_girth", ISO_8559,
               "Horizontal girth of the thigh midway between crotch and kneecap, mean of both sides.",
               "girth", _sides("thigh"), 0.0139),
    Definition("knee_girth", ISO_8559, "Horizontal girth of the knee at the middle of the kneecap, mean of both sides.",
               "girth", _sides("calf"), 0.0089),
    Definition("calf_girth", ISO_8559, "Largest horizontal girth of the lower leg, mean of both sides.",
               "girth", _sides("calf"), 0.0011),
    Definition("ankle_girth", ISO_8559,
               "Smallest horizontal girth of the lower leg above the ankle bones, mean of both sides.",
               "girth", _sides("calf"), 0.0067),
    Definition("upper_arm_girth", ISO_8559,
               "Girth across the upper arm midway between acromion and elbow, mean of both sides.",
               "girth", _sides("upper_arm"), 0.0067),
    Definition("elbow_girth", ISO_8559, "Girth across the straight arm at the tip of the elbow, mean of both sides.",
               "girth", _sides("forearm"), 0.0056),
    Definition("forearm_girth", ANSUR, "Largest girth across the upper half of the forearm, mean of both sides.",
               "girth", _sides("forearm"), 0.006),
    Definition("wrist_girth", ISO_8559, "Girth across the arm at the wrist bone (ulnar styloid), mean of both sides.",
               "girth", _sides("forearm"), 0.0137),
    Definition("shoulder_breadth", ISO_7250, "Straight distance between the acromia (biacromial breadth).",
               "breadth", _of("chest"), 0.008),
    Definition("bideltoid_breadth", ISO_7250, "Largest breadth across the upper arms near the shoulders, hanging.",
               "breadth", _sides("upper_arm"), 0.0088),
    Definition("hip_breadth", ISO_7250, "Largest horizontal breadth across the hips, standing.",
               "breadth", _of("pelvis"), 0.003),
    Definition("chest_depth", ISO_7250, "Horizontal depth of the trunk, front to back, at the bust points.",
               "breadth", _of("chest"), 0.0007, sides=("front", "back")),
    Definition("shoulder_length", ISO_8559,
               "Straight distance from the side of the neck's base to the acromion, mean of both sides.",
               "length", _of("chest", "neck"), 0.0031),
    Definition("upper_arm_length", ISO_8559,
               "Straight distance from the acromion to the tip of the elbow, mean of both sides.",
               "length", _ARM, 0.0096),
    Definition("forearm_length", ISO_8559,
               "Straight distance from the tip of the elbow to the wrist bone, mean of both sides.",
               "length", _sides("forearm"), 0.0019),
    Definition("arm_length", ISO_8559, "From the acromion by the elbow's tip to the wrist bone, mean of both sides.",
               "length", _ARM, 0.0031),
    Definition("hand_length", ISO_7250, "From the wrist joint straight to the middle finger's tip, mean of both sides.",
               "length", _sides("hand"), 0.0007),
    Definition("arm_span", ANSUR,
               "From fingertip to fingertip by wrists, elbows and shoulders: the span of arms stretched sideways.",
               "length", (*_ARM, *_sides("hand"), *_of("chest")), 0.0026),
    Definition("back_waist_length", ISO_8559,
               "From the cervicale down the middle of the back to the waist level, hollows bridged (torso length).",
               "length", _of("chest", "abdomen", "neck"), 0.0001, sides=("back",)),
    Definition("outside_leg_length", ISO_8559,
               "From the waist's side over the hip's widest point, then vertically to the floor, mean of both sides.",
               "length", (*_of("pelvis"), *_sides("thigh", "calf", "foot")), 0.0001),
    Definition("inside_leg_length", ISO_8559,
               "From the crotch to the floor along the direction of the leg, mean of both sides.",
               "length", _sides("thigh", "calf", "foot"), 0.0001),
    Definition("foot_length", ISO_7250, "Greatest extent of the foot along the line from heel to toes, mean of sides.",
               "length", _FEET, 0.0001),
    Definition("volume", "none", "Volume inside the closed body surface.",
               "volume", _of("chest", "abdomen", "pelvis"), 0.00284, "m3", sides=("front", "back")),
    Definition("mass", "none", f"Estimated body mass: the volume times {BODY_DENSITY:.0f} kg/m³.",
               "mass", _of("chest", "abdomen", "pelvis"), 2.79, "kg", sides=("front", "back")),
)  # fmt: skip

DEFINITIONS = MappingProxyType({d.name: d for d in _TABLE})
"""Every measurement by name, in the order in which results list them."""

MODEL_ERROR_M = MappingProxyType({d.name: d.model_error for d in _TABLE})
"""Standard deviation that no covariance knows, by name: metres, but cubic metres of volume and kilograms of mass."""

CLOTHED_ERROR_M = MappingProxyType({
    "stature": 0.0081,
    "cervicale_height": 0.0055,
    "chin_height": 0.0037,
    "shoulder_height": 0.003,
    "chest_height": 0.0001,
    "waist_height": 0.0001,
    "hip_height": 0.0021,
    "trochanter_height": 0.0018,
    "crotch_height": 0.0023,
    "knee_height": 0.0052,
    "ankle_height": 0.0001,
    "head_girth": 0.0191,
    "neck_girth": 0.0281,
    "chest_girth": 0.0301,
    "underbust_girth": 0.0243,
    "waist_girth": 0.0246,
    "abdomen_girth": 0.0239,
    "hip_girth": 0.0217,
    "thigh_girth": 0.0154,
    "mid_thigh_girth": 0.0146,
    "knee_girth": 0.0093,
    "calf_girth": 0.0133,
    "ankle_girth": 0.01,
    "upper_arm_girth": 0.0123,
    "elbow_girth": 0.0145,
    "forearm_girth": 0.0151,
    "wrist_girth": 0.0099,
    "shoulder_breadth": 0.0092,
    "bideltoid_breadth": 0.0111,
    "hip_breadth": 0.0076,
    "chest_depth": 0.0106,
    "shoulder_length": 0.0037,
    "upper_arm_length": 0.0126,
    "forearm_length": 0.0099,
    "arm_length": 0.0073,
    "hand_length": 0.0024,
    "arm_span": 0.0058,
    "back_waist_length": 0.0058,
    "outside_leg_length": 0.0001,
    "inside_leg_length": 0.0024,
    "foot_length": 0.0001,
    "volume": 0.00396,
    "mass": 3.9,
})  # fmt: skip
"""The same where clothes that are not tight lie between the body and the sensor."""


def model_errors(clothing: str) -> Mapping[str, float]:
    """Standard deviation that no covariance knows, by measurement, for what is worn: tight or looser."""
    return MODEL_ERROR_M if clothing == "tight" else CLOTHED_ERROR_M
