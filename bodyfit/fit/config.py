"""What a fit does, as frozen tables: each number has a unit and one effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bodyfit.fit.device import Solver


@dataclass(frozen=True)
class Clothing:
    """What is worn, as a Gaussian over the thickness between skin and the surface that the sensor sees, metres."""

    name: str
    shirt_m: tuple[float, float]
    """mean and standard deviation over the trunk and the upper arms"""
    trousers_m: tuple[float, float]
    """over the pelvis, thighs and calves"""
    shoes_m: tuple[float, float]
    """over the feet; their soles lift the body by about as much"""
    hair_m: tuple[float, float]
    """over the scalp"""
    sigma_behind_m: float
    """how far the skin may lie behind the seen surface, beyond those means, before it counts as wrong"""


CLOTHING = {
    "tight": Clothing("tight", (0.0015, 0.0010), (0.0017, 0.0010), (0.001, 0.001), (0.003, 0.002), 0.010),
    "casual": Clothing("casual", (0.0125, 0.0040), (0.0140, 0.0040), (0.008, 0.003), (0.013, 0.005), 0.012),
    "loose": Clothing("loose", (0.030, 0.012), (0.028, 0.012), (0.010, 0.005), (0.018, 0.008), 0.025),
}

UNDECIDED = Clothing("undecided", (0.007, 0.007), (0.008, 0.008), (0.004, 0.005), (0.008, 0.006), 0.012)
"""holds until the fit has shown what is worn"""


@dataclass(frozen=True)
class Stage:
    """One row of the table of stages: on which mesh and grid, with which noise, and how firmly priors hold."""

    name: str
    level: int
    """0 the full mesh, 1 and 2 the decimated ones"""
    pixels: int
    """person pixels aimed at: the grid takes every n-th pixel"""
    iterations: int
    """at most this many steps"""
    num_betas: int
    """how many shape components move"""
    robust_depth_m: float
    """Geman-McClure scale of the depth gap"""
    robust_outline_m: float
    """Geman-McClure scale of the outline's distance"""
    window_m: float = 0.0
    """how far around a gaping pixel the nearest surface is looked for; 0 = only in the pixel itself"""
    pose_prior: float = 1.0
    """factor on the pose prior's standard deviations; below 1 holds firmer"""
    shape_prior: float = 1.0
    """factor on the shape prior's standard deviations"""
    sensor_noise: bool = False
    """whether the sensor's own noise widens the depth residual's sigma; a search wants sharp differences"""
    max_turn_rad: float = 0.6
    """no joint turns further in one step"""
    damping: float = 1e-2
    """first damping of Levenberg-Marquardt"""
    robust_floor_m: float = 0.030
    """a sole higher than this is a lifted foot: wide as long as the body may be centimetres off"""
    learned: bool = False
    """whether the learned pose prior holds here, where `FitConfig.learned_prior` has it on. It says where limbs may be;
    a search about stances of its own has no use for it, and where all is found the data know better"""
    solid: bool = False
    """whether parts that go through each other cost something here, where `FitConfig.self_penetration` has that on"""


@dataclass(frozen=True)
class SequenceConfig:
    """How the poses of a moving person are solved together (`bodyfit.fit.sequence`)."""

    most_gap_s: float = 0.2
    """instants further apart in time say nothing about each other"""
    level: int = 1
    """the mesh: 0 the full one, 1 and 2 the decimated ones"""
    pixels: int = 2000
    """person pixels aimed at"""
    iterations: int = 8
    """steps at most, once without feet and once with them"""
    looseness: float = 1.0
    """factor on the accelerations' scales; above 1 lets people move more abruptly"""
    retrace: bool = True
    """whether limbs that leap are followed again from both sides"""
    retrace_steps: int = 4
    """steps at most in an instant that is followed again"""
    feet: bool = True
    """whether feet that stand are kept from sliding"""
    window: int = 64
    """so many instants are solved at once and then settled"""
    ahead: int = 12
    """and so many more after them, which the next window solves again; covariances look as far back"""


_refining = partial(Stage, sensor_noise=True, damping=1e-3, robust_floor_m=0.015, solid=True)
_settling = partial(Stage, learned=True, solid=True)


@dataclass(frozen=True)
class FitConfig:
    """Settings of the whole fit."""

    sigma_depth_m: float = 0.010
    """standard deviation of a depth residual, model error included"""
    sigma_outline_m: float = 0.015
    """standard deviation of an outline residual"""
    effective_pixels: float = 2000.0
    """how many independent residuals a view counts as, whatever its resolution: neighbouring pixels err together"""
    smooth_noise_weight: float = 0.5
    """of a stereo matcher's pixels this share counts in the last stages: they err together over whole parts of a limb,
    and what is weakly seen (twists, sliding along a limb) would follow their noise"""
    sigma_floor_m: float = 0.010
    """how well the soles lie on the floor"""
    sigma_sunk_m: float = 0.003
    """how far a sole may sink into the floor: no further than the floor's own error"""
    effective_soles: float = 4.0
    """how many independent points the two soles count as, whatever their vertices: those of one foot err together"""
    sigma_keypoint_px: float = 6.0
    """standard deviation of a keypoint, detector and skeleton together, of full confidence"""
    robust_keypoint_px: float = 30.0
    """Geman-McClure scale of a keypoint's distance; wider in a stage whose outline scale covers more pixels"""
    prior_widening: float = 1.3
    """factor on the shape prior's standard deviations: people vary more than the sample behind the prior"""
    learned_prior: bool = True
    """whether poses like those of motion capture are likelier (`bodyfit.fit.learned_prior`), instead of each joint's
    angles alone"""
    self_penetration: bool = True
    """whether parts of the body that go through each other cost something (`bodyfit.fit.collide`)"""
    threads: int = 2
    """how many views are worked on at once"""
    solver: Solver | None = field(default=None, repr=False, compare=False)
    """who solves: None is the CPU here, else a device's (`bodyfit.fit.device`)"""
    headings: int = 8
    """how many headings a cold start tries"""
    survivors: int = 4
    """how many different hypotheses are refined to the end"""
    generations: int = 8
    """how often a start that is plainly wrong is changed by chance"""
    offspring: int = 20
    """into how many each time"""
    sequence: SequenceConfig | None = field(default_factory=SequenceConfig)
    """how a moving person's poses are solved together; None leaves every instant alone"""
    search: Stage = field(
        default_factory=lambda: Stage("search", 2, 350, 4, 4, 0.25, 0.30, 0.20, pose_prior=0.35, shape_prior=0.7)
    )
    arms: Stage = field(
        default_factory=lambda: Stage("arms", 2, 450, 3, 6, 0.20, 0.25, 0.20, pose_prior=0.6, shape_prior=0.7)
    )
    limbs: Stage = field(
        default_factory=lambda: _settling("limbs", 1, 1000, 4, 12, 0.10, 0.15, 0.15, sensor_noise=True)
    )
    reach: Stage = field(default_factory=lambda: Stage("reach", 1, 5000, 0, 12, 0.10, 0.15))
    """only drawn, to see what a body leaves unexplained: fine enough for a finger"""
    limbs_again: Stage = field(
        default_factory=lambda: _settling(
            "limbs again", 1, 1800, 5, 1, 0.06, 0.12, 0.08, sensor_noise=True, damping=1e-3
        )
    )
    """once the shape and what is worn are known: sharper, with the shape held"""
    arms_tasted: int = 16
    """then so many of an arm's ways to reach for what is unexplained are followed a little, and the best of them on"""
    limb_rounds: int = 3
    """how often single limbs are put elsewhere once the body has settled"""
    settle: tuple[Stage, ...] = field(
        default_factory=lambda: (
            _settling("settle", 2, 700, 10, 8, 0.12, 0.20, 0.15, pose_prior=0.8, shape_prior=0.8),
            _settling("settle fine", 1, 1200, 8, 12, 0.08, 0.15, 0.10),
        )
    )
    refine: tuple[Stage, ...] = field(
        default_factory=lambda: (
            _refining("refine", 1, 1800, 12, 24, 0.06, 0.12, 0.06, max_turn_rad=0.3),
            _refining("finish", 0, 4000, 8, 999, 0.04, 0.08, 0.03, max_turn_rad=0.1),
        )
    )
