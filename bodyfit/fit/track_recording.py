"""A recording followed from its first frame to its last: one shape, a pose for every frame, what was lost and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.errors import BodyfitError, InputError, PersonNotFoundError
from bodyfit.fit.blas import one_blas_thread
from bodyfit.fit.config import Clothing
from bodyfit.fit.fit import check_options
from bodyfit.fit.joint import FitSetup, Instant, spheres_for
from bodyfit.fit.outcome import advice, frame_quality, provenance, sides_seen
from bodyfit.fit.photometric import ColorPull
from bodyfit.fit.quality import seen_counts
from bodyfit.fit.result import FitResult, FrameQuality
from bodyfit.fit.sequence import Chain, is_sequence, solve_chain
from bodyfit.fit.solver import StopReason
from bodyfit.fit.track import Tracker
from bodyfit.fit.track_config import TrackConfig, track_on_device
from bodyfit.fit.track_estimate import TrackEstimate, TrackState
from bodyfit.fit.track_hidden import BEHIND, UNSEEN, large_of, names_of
from bodyfit.fit.view import View
from bodyfit.frame import Frame
from bodyfit.observe.observation import observe
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle

if TYPE_CHECKING:
    from bodyfit.recording.source import FrameSource

EXAMINED = 12
"""so many instants, spread over the recording, are looked at closely: which parts were seen, and for the pictures"""
BELIEVED_GAP_M = 0.030
LEAST_TOGETHER = 3
MOST_AT_ONCE = 1800
"""so many frames are solved together at most, a minute: their views take 0.1 MB each"""
AHEAD = 4
"""so many frames are read before they are needed"""


@dataclass(frozen=True)
class Step:
    """What is kept of an estimate: a track of an hour has a hundred thousand."""

    index: int
    position: int
    timestamp_s: float
    state: TrackState
    pose: NDArray[np.float32]
    pose_sd: NDArray[np.float32]
    transl: NDArray[np.float64]
    gap_m: float
    overlap: float
    covered: float
    stop_reason: StopReason
    told: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    """parts of the body, but for small ones, of which the frame shows too little"""
    behind_body: tuple[str, ...] = ()
    """those of them that the body itself hides"""


def read_ahead(
    recording: FrameSource, positions: Sequence[int], sensors: Sequence[str], *, color: bool = True
) -> Iterator[tuple[int, list[Frame]]]:
    """Position and frames of each instant, decoded in a thread of its own while the last one is worked on; without
    color nothing of that is decoded."""

    def read(i: int) -> list[Frame]:
        frames = [recording.frame(i, name, color=color) for name in sensors]
        return [f for f in frames if f is not None]

    with ThreadPoolExecutor(1, thread_name_prefix="bodyfit-read") as pool:
        waiting = [(i, pool.submit(read, i)) for i in positions[:AHEAD]]
        for n in range(len(positions)):
            if n + AHEAD < len(positions):
                i = positions[n + AHEAD]
                waiting.append((i, pool.submit(read, i)))
            i, job = waiting.pop(0)
            yield i, job.result()


def track(
    recording: FrameSource | str | Path,
    *,
    model: BodyModel | str | Path | None = None,
    sex: str = "neutral",
    clothing: str = "auto",
    frames: Sequence[int] | None = None,
    sensors: Sequence[str] | None = None,
    person: int | None = None,
    device: str = "cpu",
    config: TrackConfig | None = None,
    smooth: bool = True,
    progress: Callable[[str, float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    on_estimate: Callable[[TrackEstimate], None] | None = None,
) -> FitResult:
    """Follows one person through a recording.

    Args:
        recording, model, sex, clothing, frames, sensors, person, device: as for `bodyfit.fit.fit.fit`.
        config: settings of the tracker.
        smooth: solve the poses together at the end, with what is known of how people move: less tremble, feet that
            stand; costs about as much again.
        progress: called with what is done and the fraction of the whole.
        cancelled: asked after each frame; True ends the track with what it has.
        on_estimate: called with each frame's estimate as it comes.

    Returns:
        A result with a pose for every frame in which the person was followed; `skipped` names the others.

    Raises:
        InputError: bad input or options, with the field's name; or nobody was found in any frame.
    """
    check_options(sex, clothing, device)
    say = progress or (lambda _stage, _fraction: None)
    body = model if isinstance(model, BodyModel) else load_body_model(model)
    if isinstance(recording, (str, Path)):
        from bodyfit.recording.formats import open_recording

        recording = open_recording(Path(recording))
    names = _sensors(recording, sensors)
    chosen = _positions(recording, frames)
    if config is not None and config.color is not None:
        _check_color(recording, names)
    config = track_on_device(config or TrackConfig(), device)
    tracker = Tracker(
        body, sex=sex, clothing=clothing, config=config, gravity_world=recording.gravity_world, person=person
    )
    steps: list[Step] = []
    views: list[tuple[View, ...]] = []
    pulls: list[ColorPull | None] = []
    skipped: dict[int, str] = {}
    for n, (position, seen) in enumerate(read_ahead(recording, chosen, names, color=config.color is not None)):
        index = int(recording.indices[position])
        if cancelled is not None and cancelled():
            skipped.update({int(recording.indices[i]): "stopped on request" for i in chosen[n:]})
            break
        if not seen:
            skipped[index] = "no sensor has a frame"
            continue
        estimate = tracker.update(seen, index=index)
        if on_estimate is not None:
            on_estimate(estimate)
        if estimate.state is TrackState.LOST:
            skipped[index] = "; ".join(estimate.told) or TrackState.LOST.value
        else:
            steps.append(step_of(estimate, position))
            views.append(tracker.views)
            pulls.append(None if tracker.colors is None else tracker.colors.pull)
        if smooth and len(views) >= MOST_AT_ONCE:
            steps[-len(views) :] = together(tracker, steps[-len(views) :], views, pulls)
            views.clear()
            pulls.clear()
        say("following", 0.8 * (n + 1) / len(chosen))
    if not steps:
        first = next(iter(skipped.values()), "nothing")
        raise PersonNotFoundError("frames", "a person in one of them", first)
    if smooth and len(views) >= LEAST_TOGETHER:
        say("all poses together", 0.82)
        steps[-len(views) :] = together(tracker, steps[-len(views) :], views, pulls)
    say("measuring", 0.92)
    assert tracker.shape is not None
    about = Followed(
        tracker.setup,
        tracker.shape.clothing,
        *tracker.shape.betas(),
        tracker.shape.garments(),
        None if tracker.colors is None else tracker.colors.report(),
    )
    result = followed_result(about, recording, names, steps, skipped, person)
    say("done", 1.0)
    return result


def together(
    tracker: Tracker, steps: Sequence[Step], views: Sequence[tuple[View, ...]], pulls: Sequence[ColorPull | None] = ()
) -> list[Step]:
    """The same steps with their poses solved together (`bodyfit.fit.sequence`), the shape held as found by now.

    pulls: what each step's colours said; empty where colour is not used.
    """
    assert tracker.shape is not None
    how = tracker.config.fit.sequence
    times = np.array([s.timestamp_s for s in steps])
    if how is None or not is_sequence(times.tolist(), how):
        return list(steps)
    chain = Chain(
        views, times, tracker.shape.mesh(tracker.config.stage.level), tracker.prior,
        tracker.shape.clothing.sigma_behind_m, tracker.config.fit,
        spheres=spheres_for(tracker.setup, tracker.config.stage), pulls=pulls,
    )  # fmt: skip
    poses = np.stack([s.pose for s in steps]).astype(np.float64)
    with one_blas_thread():
        found = solve_chain(chain, matrix_from_axis_angle(poses), np.stack([s.transl for s in steps]), how)
    joints = poses.shape[1]
    sd = np.sqrt(np.maximum(np.diagonal(found.cov, axis1=1, axis2=2)[:, : 3 * joints], 0)).reshape(-1, joints, 3)
    turned = axis_angle_from_matrix(found.rotations)
    return [
        replace(
            s,
            pose=turned[t].astype(np.float32),
            pose_sd=sd[t].astype(np.float32),
            transl=found.transl[t],
            stop_reason=s.stop_reason if s.state is TrackState.COASTING else found.reason,
        )
        for t, s in enumerate(steps)
    ]


def _sensors(recording: FrameSource, sensors: Sequence[str] | None) -> list[str]:
    names = [s.name for s in recording.sensors]
    for name in sensors or ():
        if name not in names:
            raise InputError("sensors", f"names of this recording's sensors ({', '.join(names)})", repr(name))
    return list(sensors or names)


def _check_color(recording: FrameSource, names: Sequence[str]) -> None:
    if not any(s.color_camera is not None for s in recording.sensors if s.name in names):
        raise InputError("color", "a recording whose sensors have colour", "depth alone")


def _positions(recording: FrameSource, frames: Sequence[int] | None) -> list[int]:
    chosen = list(range(recording.num_frames)) if frames is None else sorted(set(frames))
    for i in chosen:
        if not 0 <= i < recording.num_frames:
            raise InputError("frames", f"positions from 0 to {recording.num_frames - 1}", str(i))
    return chosen


def step_of(e: TrackEstimate, position: int) -> Step:
    """What is kept of an estimate; position: of its instant in the recording."""
    return Step(
        e.index, position, e.timestamp_s, e.state, e.pose.astype(np.float32), e.pose_sd.astype(np.float32), e.transl,
        e.depth_residual_m, e.overlap, e.covered, e.stop_reason, e.told,
        tuple(large_of(e.hidden)), tuple(large_of(e.behind_body)),
    )  # fmt: skip


@dataclass(frozen=True)
class Followed:
    """What is known of a person who was followed, beside their poses.

    Attributes:
        clothing: what they were taken to wear.
        betas (S,), betas_cov (S, S): the shape at the end and its covariance.
        garments_m: estimated thickness by garment.
        color: how colours were used, where they were.
    """

    setup: FitSetup
    clothing: Clothing
    betas: NDArray[np.float64]
    betas_cov: NDArray[np.float64]
    garments_m: Mapping[str, float]
    color: Mapping[str, int] | None = None


def followed_result(
    followed: Followed, recording: FrameSource, names: Sequence[str], steps: Sequence[Step], skipped: Mapping[int, str],
    person: int | None,
) -> FitResult:  # fmt: skip
    """The result of a track: some of its instants are looked at closely, in the recording.

    Args:
        names: of the sensors that are looked at.
        steps: in the order of time, one at least.
        skipped: by index the instants without the person, and why.
        person: which one, as for `track`.
    """
    from bodyfit.body.measure import measure_with_sd
    from bodyfit.body.measure_definitions import model_errors

    setup, clothing, betas, cov = followed.setup, followed.clothing, followed.betas, followed.betas_cov
    model = setup.model
    T = len(steps)
    seen_ever = np.zeros(model.num_vertices, bool)
    observations: list[tuple] = [() for _ in range(T)]
    qualities = [_quality(s) for s in steps]
    examined = []
    good = [t for t, s in enumerate(steps) if s.state is not TrackState.COASTING] or list(range(T))
    for t in sorted({good[int(k)] for k in np.linspace(0, len(good) - 1, min(EXAMINED, len(good))).round()}):
        instant = _observed(recording, names, steps[t], person)
        if instant is None:
            continue
        observations[t] = instant.observations
        vertices, _ = model.forward(betas, steps[t].pose.astype(np.float64), steps[t].transl)
        quality, seen = frame_quality(setup, clothing, instant, vertices, steps[t].stop_reason, None, None)
        # the distance from the dressed body, as in all other frames
        qualities[t] = replace(quality, depth_residual_m=steps[t].gap_m)
        examined.append(quality)
        seen_ever |= seen
    coverage = seen_counts([q.coverage for q in examined])
    sides = sides_seen(model, seen_ever)
    lost = sorted(skipped)
    flags = [f"frame {q.frame_index}: {f}" for q in qualities for f in q.flags]
    if lost:
        flags.append(f"{len(lost)} frames without the person, from {lost[0]} to {lost[-1]}")
    return FitResult(
        model=model,
        sex=setup.sex,
        clothing=clothing.name,
        clothing_asked=setup.clothing,
        betas=betas,
        betas_cov=cov,
        poses=np.stack([s.pose for s in steps]).astype(np.float64),
        pose_sd=np.stack([s.pose_sd for s in steps]).astype(np.float64),
        transl=np.stack([s.transl for s in steps]),
        frame_indices=tuple(s.index for s in steps),
        timestamps_s=tuple(s.timestamp_s for s in steps),
        garments_m=followed.garments_m,
        frames=tuple(qualities),
        coverage=coverage,
        stop_reason=Counter(s.stop_reason for s in steps).most_common(1)[0][0],
        converged=sum(q.believed for q in qualities) >= 0.9 * (T + len(lost)),
        flags=tuple(flags),
        hints=tuple(advice(qualities, sides, skipped)),
        measurements=measure_with_sd(
            model, betas, cov, coverage, sides=sides, model_error=model_errors(clothing.name)
        ),
        provenance={
            **provenance(setup),
            "solver": "lm, followed",
            **({} if followed.color is None else {"color": dict(followed.color)}),
        },
        observations=tuple(observations),
        skipped=dict(skipped),
    )  # fmt: skip


def _quality(s: Step) -> FrameQuality:
    """A followed frame's quality, from what the tracker counted; how much of each part was seen is not known."""
    coasting = s.state is TrackState.COASTING
    if coasting:
        flags = [f"not seen well enough, held where it was expected: {t}" for t in s.told]
    else:
        # all that are hidden, not only those that were not before
        flags = [t for t in s.told if not t.startswith((UNSEEN, BEHIND))]
        away = [p for p in s.hidden if p not in s.behind_body]
        flags += [f"{what}: {names_of(parts)}" for what, parts in ((UNSEEN, away), (BEHIND, s.behind_body)) if parts]
    believed = not coasting and s.gap_m < BELIEVED_GAP_M
    return FrameQuality(
        s.index, float(s.gap_m), float(s.overlap), float(s.covered), {}, tuple(flags), s.stop_reason, None,
        believed,
    )  # fmt: skip


def _observed(recording: FrameSource, names: Sequence[str], step: Step, person: int | None) -> Instant | None:
    out = []
    for name in names:
        frame = recording.frame(step.position, name)
        if frame is None:
            continue
        try:
            out.append(observe(frame, gravity_world=recording.gravity_world, person=person))
        except BodyfitError:
            continue  # a frame in which the tracker held on to somebody whom nobody would find at first sight
    return Instant(step.index, step.timestamp_s, tuple(out)) if out else None
