"""What a tracker does, as frozen tables: each number has a unit and one effect."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bodyfit.fit.config import FitConfig, Stage
from bodyfit.fit.online_shape import AlikeErrors
from bodyfit.fit.photometric import ColorConfig


@dataclass(frozen=True)
class Effort:
    """How much is done for one frame: the tracker goes down the table where a frame's time is short."""

    name: str
    pixels: int
    """person pixels aimed at, over all sensors"""
    evaluations: int
    """at most so often the normal equations are set up"""


EFFORTS = (
    Effort("full", 2000, 4),
    Effort("usual", 1300, 3),
    Effort("light", 800, 3),
    Effort("least", 450, 2),
)


def _follow() -> Stage:
    return Stage(
        "follow", 1, 1300, 3, 1, 0.06, 0.12, 0.06, sensor_noise=True, max_turn_rad=0.5, damping=1e-3,
        robust_floor_m=0.015, learned=True, solid=True,
    )  # fmt: skip


def _tell() -> Stage:
    # the prior pulls every keyframe's pose the same way: as evidence of the shape that adds up and does not average out
    return replace(
        _follow(), name="tell", level=0, pixels=4000, robust_depth_m=0.04, robust_outline_m=0.08, window_m=0.03,
        learned=False, pose_prior=3.0,
    )  # fmt: skip


def _regain() -> Stage:
    return Stage(
        "regain", 2, 700, 6, 1, 0.15, 0.25, 0.15, pose_prior=0.8, sensor_noise=True, damping=1e-2, learned=True
    )


def track_on_device(config: TrackConfig, device: str) -> TrackConfig:
    """The configuration with a device's solver, for following and for searching.

    Raises:
        DeviceError, MissingExtraError: see `bodyfit.fit.open_device.open_solver`.
    """
    from bodyfit.fit.open_device import on_device

    return replace(config, fit=on_device(config.fit, device), search=on_device(config.search, device))


def _search_again() -> FitConfig:
    return FitConfig(survivors=2, generations=0, limb_rounds=1)


@dataclass(frozen=True)
class ColorTracking:
    """How colours are learnt while a person is followed, and how much they may say (`bodyfit.fit.track_color`)."""

    color: ColorConfig = field(default_factory=lambda: ColorConfig(most_frames=60.0))
    """the photometric term; what is learnt fades sooner than in a film that is seen whole"""
    settle_frames: int = 5
    """nothing is learnt before depth has explained so many frames in a row as well as usual"""
    learn_every: int = 2
    """colours are learnt from every so-manieth frame"""
    rounds: int = 2
    """so often the colours are looked at again while they move a pose"""
    most_rise: float = 0.5
    """by so much a limb's colours may raise the depth's cost as its second order has it: one standard deviation of what
    depth leaves open"""
    most_real_rise: float = 8.0
    """and the cost may really rise by so much with all limbs together: pixels change their partners, which is its
    noise (4 either way where a person is followed well)"""
    memory_frames: int = 20
    """the mean of the colours' pull is over the last so many frames"""
    most_bias: float = 2.0
    """a limb's colours are forgotten where depth without what was expected would gain so much: two standard
    deviations"""


@dataclass(frozen=True)
class TrackConfig:
    """Settings of a tracker."""

    fit: FitConfig = field(default_factory=FitConfig)
    """noise of the terms, and the settings of the fit to the first frame"""
    stage: Stage = field(default_factory=_follow)
    """how a frame is fitted from where the one before ended"""
    regain: Stage = field(default_factory=_regain)
    """the same where that was not enough: wider, on a coarser mesh"""
    search: FitConfig = field(default_factory=_search_again)
    """how a person who was lost is searched: their shape is known, so that few hypotheses do"""
    effort: int = 1
    """row of `EFFORTS` that is used where there is no budget, and the first one where there is"""
    budget_s: float | None = None
    """seconds of wall time that a frame may take; None: always the same effort, and so the same result"""
    color: ColorTracking | None = None
    """how colours are used where frames have them; None: depth alone"""
    velocity_share: float = 0.8
    """of the last motion this share goes on: more overshoots, less is left behind"""
    longest_prediction_s: float = 0.1
    """a motion is believed to go on no longer than this"""
    longest_gap_s: float = 0.2
    """a motion is known from two frames no further apart"""
    sigma_turn_rad: float = 0.06
    """how far a joint turns from where it was expected in 1/30 s; longer gaps in proportion"""
    sigma_move_m: float = 0.05
    """and how far the root moves"""
    still_rad: float = 0.004
    """a step that turns no joint further than this is taken unseen and is the last"""
    still_m: float = 0.001
    """and moves the root no further than this"""
    least_person: float = 0.25
    """with less than this share of the usual person pixels in sight the body is not moved"""
    worst_gap_m: float = 0.035
    """mean distance between body and readings beyond which nobody is followed"""
    least_overlap: float = 0.55
    """share of the pixels of person and body that both have, below which nobody is followed"""
    unusual: float = 8.0
    """and so many mean deviations beyond what was usual until now count as loss too"""
    odd: float = 3.0
    """and so many make a frame odd: a limb may have been left behind, and is looked for wider"""
    odd_every: int = 3
    """in the first odd frame and in every third"""
    arms_after: int = 4
    """after so many odd frames an arm is tried elsewhere"""
    poor: float = 0.07
    """an overlap this much below the usual one may belong to quite another pose"""
    search_when_odd: int = 15
    """which is looked for in the whole picture after so many odd frames"""
    search_every_odd_s: float = 2.0
    """but no more often than this: it takes as long as many frames"""
    search_when_bad: int = 5
    """where it is twice as far below, likely ways to stand are tried after so many odd frames"""
    search_every_bad_s: float = 0.4
    """and again after so long"""
    search_after_s: float = 0.15
    """who was not seen for so long is searched where they are seen again: their limbs went on"""
    ways_tried: int = 3
    """so many of the likeliest ways to stand there are followed to the end"""
    lost_after_s: float = 0.4
    """after so long without the person a tracker searches the whole picture"""
    whole_after_s: float = 0.7
    """where somebody has stood before the room for so long and is not the person in any likely way, the whole picture
    is searched: that takes a second or two"""
    search_every_s: float = 1.0
    """and then again after so long"""
    wait_at_border_s: float = 1.0
    """so long a person whom the picture's border cuts is waited for before that"""
    tell: Stage = field(default_factory=_tell)
    """how a frame tells of the shape: only from what is near, since the pose is known"""
    shape_betas: int = 999
    """how many shape components are told by later frames; the others follow them as the prior expects"""
    novel_rad: float = 0.3
    """a frame tells something new of the shape when a joint or the heading differs by this from all that did before"""
    keyframes: int = 20
    """so many frames of new poses tell of the shape, and before a noisy sensor as many of known ones"""
    alike: AlikeErrors = field(default_factory=AlikeErrors)
    """how much they tell together: clothes and what the model cannot be err in all of them alike"""
    tell_at_once: int = 4
    """where the sensor is noisy the first so many frames tell at once, however alike they are"""
    tell_every: int = 3
    """every so-manieth frame may tell of the shape, or one of those that did is looked at again while some are new"""
    relinearize_every: int = 12
    """frames until the next of them is looked at again with the shape found since, once none is new"""
    frozen_m: float = 0.0012
    """the shape is frozen when its vertices' standard deviation is below this, metres, in the median"""
