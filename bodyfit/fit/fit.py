"""The main job: a recording in, one person's body out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import SEXES, BodyModel, load_body_model
from bodyfit.errors import BodyfitError, FrameError, InputError, PersonNotFoundError
from bodyfit.fit.blas import one_blas_thread
from bodyfit.fit.config import CLOTHING, FitConfig
from bodyfit.fit.joint import FitSetup, Instant, fit_instants
from bodyfit.fit.open_device import check_device, on_device
from bodyfit.fit.result import FitResult
from bodyfit.observe.observation import Observation, observe

if TYPE_CHECKING:
    from bodyfit.fit.rig_prior import RigConfig
    from bodyfit.recording.source import FrameSource

Progress = Callable[[str, float], None]
MIN_PERSON_PIXELS = 300
SOLVERS = ("lm", "gradient")


def fit(
    recording: FrameSource | str | Path,
    *,
    model: BodyModel | str | Path | None = None,
    sex: str = "neutral",
    clothing: str = "auto",
    frames: Sequence[int] | None = None,
    sensors: Sequence[str] | None = None,
    person: int | None = None,
    device: str = "cpu",
    config: FitConfig | None = None,
    solver: str = "lm",
    renderer: str = "native",
    refine_extrinsics: bool | RigConfig = False,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> FitResult:
    """Fits one person's shape and poses to a recording.

    Args:
        recording: an open recording, one in memory (`bodyfit.recording.MemoryRecording`), or a folder.
        model: a body, its file or its name; the shipped default where None.
        sex: female, male or neutral: which prior over shapes holds.
        clothing: tight, casual, loose or auto.
        frames: positions in the recording, all where None.
        sensors: names, all where None.
        person: which one, from left to right, where several stand there.
        device: cpu, cuda or cuda:N (the inner loop on a GPU, extra `cuda`), or auto: cuda where it can be used.
        solver: lm (Levenberg-Marquardt) or gradient: what refines the start that was found.
        renderer: native, redner or mitsuba: whose images the gradient is of; lm takes no other than native.
        refine_extrinsics: find the sensors' places (and clocks, in a sequence) from the person, all but the first's;
            a RigConfig says how roughly they are known.
        progress: called with what is done and the fraction of the whole.
        cancelled: asked between steps; True ends the fit with what it has.

    Raises:
        InputError: bad input or options, with the field's name.
        DeviceError: the device cannot be used.
        MissingExtraError: the gradient's renderer, torch, or what the device needs is not installed.
    """
    check_options(sex, clothing, device)
    check_solver(solver, renderer)
    if refine_extrinsics and solver != "lm":
        raise InputError("refine_extrinsics", "the solver lm", repr(solver))
    say = progress or (lambda _stage, _fraction: None)
    body = model if isinstance(model, BodyModel) else load_body_model(model)
    if not isinstance(recording, (str, Path)):
        source = recording
    else:
        from bodyfit.recording.formats import open_recording

        source = open_recording(Path(recording))
    setup = FitSetup(body, sex, clothing, on_device(config or FitConfig(), device))
    if refine_extrinsics:
        from bodyfit.fit.extrinsics import check_sensors
        from bodyfit.fit.rig_prior import RigConfig

        check_sensors(list(sensors or (s.name for s in source.sensors)))
        setup = replace(setup, rig=RigConfig() if refine_extrinsics is True else refine_extrinsics)
    if solver == "gradient":
        setup = with_gradient(setup, renderer)
    with one_blas_thread():
        instants, skipped = look(source, frames, sensors, person, say)
        return fit_instants(
            setup,
            instants,
            skipped=skipped,
            progress=say,
            cancelled=cancelled,
        )


def check_options(sex: str, clothing: str, device: str) -> None:
    """Refuses options that do not exist."""
    if sex not in SEXES:
        raise InputError("sex", f"one of {', '.join(SEXES)}", repr(sex))
    if clothing not in (*CLOTHING, "auto"):
        raise InputError("clothing", f"one of auto, {', '.join(CLOTHING)}", repr(clothing))
    check_device(device)


def check_solver(solver: str, renderer: str) -> None:
    """Refuses solvers and renderers that do not exist, or not together."""
    from bodyfit.render.backends import RENDERERS

    if solver not in SOLVERS:
        raise InputError("solver", f"one of {', '.join(SOLVERS)}", repr(solver))
    if renderer not in RENDERERS:
        raise InputError("renderer", f"one of {', '.join(RENDERERS)}", repr(renderer))
    if solver == "lm" and renderer != "native":
        raise InputError("renderer", "native with the solver lm", repr(renderer), "--solver gradient takes any")


def with_gradient(setup: FitSetup, renderer: str) -> FitSetup:
    """The same fit, refined by the gradient of this renderer's images, on the gradient's own stages.

    Raises:
        MissingExtraError: torch or the renderer is not installed.
    """
    from bodyfit.render.backends import make_renderer

    drawing = make_renderer(renderer)
    from bodyfit.fit.gradient import GRADIENT_STAGES, GradientSolver

    config = setup.config
    if config.refine == FitConfig().refine:
        config = replace(config, refine=GRADIENT_STAGES[renderer])
    return replace(setup, config=config, refiner=GradientSolver(drawing), method=f"gradient, {renderer}")


def stamped_delays(recording: FrameSource, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """By sensor (T,) seconds from each instant to when its depth was taken, as its own stamps say; zero without stamps.

    A clock that is off by more than half of the usual gap started at another moment: of such a one only the
    jitter counts.
    """
    times = recording.timestamps_s
    half = 0.5 * float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    out = {}
    for name in names:
        stamps = recording.stream_timestamps_s.get(f"{name}.depth_s")
        late = np.zeros(len(times)) if stamps is None else stamps - times
        known = late[np.isfinite(late)]
        middle = float(np.median(known)) if len(known) else 0.0
        late = late - middle if abs(middle) > half else late
        out[name] = np.where(np.isfinite(late), late, 0.0)
    return out


def look(
    recording: FrameSource,
    frames: Sequence[int] | None,
    sensors: Sequence[str] | None,
    person: int | None,
    progress: Progress,
) -> tuple[list[Instant], dict[int, str]]:
    """Reads the chosen frames and finds the person in each; frames without the person are skipped and named.

    Raises:
        InputError: a frame or sensor that does not exist; or no frame shows the person (the first frame's reason).
    """
    names = [s.name for s in recording.sensors]
    for name in sensors or ():
        if name not in names:
            raise InputError("sensors", f"names of this recording's sensors ({', '.join(names)})", repr(name))
    chosen = list(range(recording.num_frames)) if frames is None else list(dict.fromkeys(frames))
    for i in chosen:
        if not 0 <= i < recording.num_frames:
            raise InputError("frames", f"positions from 0 to {recording.num_frames - 1}", str(i))
    late = stamped_delays(recording, sensors or names)
    instants: list[Instant] = []
    skipped: dict[int, str] = {}
    first: BodyfitError | None = None
    for n, i in enumerate(chosen):
        seen: list[Observation] = []
        for name in sensors or names:
            frame = recording.frame(i, name)
            if frame is None:
                continue
            try:
                found = observe(frame, gravity_world=recording.gravity_world, person=person)
                if int(((found.label == 1) & (found.depth > 0)).sum()) < MIN_PERSON_PIXELS:
                    raise PersonNotFoundError(
                        f"frame {i} of {name}", f"at least {MIN_PERSON_PIXELS} pixels with depth on the person", "fewer"
                    )
                seen.append(replace(found, timestamp_s=found.timestamp_s + float(late[name][i])))
            except (PersonNotFoundError, FrameError) as error:
                first = first or error
                skipped[i] = str(error)
        if seen:
            skipped.pop(i, None)
            instants.append(Instant(int(recording.indices[i]), float(recording.timestamps_s[i]), tuple(seen)))
        progress("looking for the person", 0.1 * (n + 1) / len(chosen))
    if not instants:
        raise first or InputError("frames", "at least one frame of the chosen sensors", "none")
    return instants, skipped
