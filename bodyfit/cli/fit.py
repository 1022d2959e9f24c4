"""`bodyfit fit`: a recording in; a body, its measurements and its pictures out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bodyfit.batch.results import write_result
from bodyfit.errors import DeviceError, InputError

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.result import FitResult
    from bodyfit.fit.rig_prior import RigConfig
    from bodyfit.recording.recording import Recording

MAX_FRAMES = 1_000_000
NOT_BELIEVED = 4


class Sex(StrEnum):
    """Whose measurements are taken as usual where the recording says nothing."""

    female = "female"
    male = "male"
    neutral = "neutral"


class Clothing(StrEnum):
    """How far the cloth may stand off the body."""

    auto = "auto"
    tight = "tight"
    casual = "casual"
    loose = "loose"


class Solver(StrEnum):
    """What refines the start that was found."""

    lm = "lm"
    gradient = "gradient"


class Backend(StrEnum):
    """Whose images the gradient is of."""

    native = "native"
    redner = "redner"
    mitsuba = "mitsuba"


ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="M", help="Body model: a name of `bodyfit models list`, or a file.")
]
SexOption = Annotated[Sex, typer.Option(help="Whose measurements are usual.")]
ClothingOption = Annotated[Clothing, typer.Option(help="What the person wears; auto judges it by the fit.")]
FramesOption = Annotated[
    str | None,
    typer.Option("--frames", metavar="0,2,5-9", help="Only these frames, by their files' numbers."),
]
MaxFramesOption = Annotated[
    int | None,
    typer.Option(
        "--max-frames", min=1, metavar="N", help="Of a longer recording, the N frames that tell most of the shape."
    ),
]
SensorsOption = Annotated[str | None, typer.Option("--sensors", metavar="A,B", help="Only these sensors.")]
PersonOption = Annotated[
    int | None, typer.Option("--person", min=1, metavar="N", help="Which of several people, counted from the left.")
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="D", help="What computes: cpu, cuda, cuda:N, or auto (cuda where it can be).")
]
SolverOption = Annotated[
    Solver, typer.Option(help="Levenberg-Marquardt, or following the gradient of rendered images (slower).")
]
RendererOption = Annotated[Backend, typer.Option(help="Which renderer's gradient is followed.")]
RefineExtrinsicsOption = Annotated[
    bool,
    typer.Option("--refine-extrinsics", help="Find the sensors' places and clocks from the person; the first's stay."),
]
ExtrinsicsSigmaOption = Annotated[
    str | None,
    typer.Option("--extrinsics-sigma", metavar="CM,DEG", help="How roughly the places are known: 5,3 where not given."),
]
VideoOption = Annotated[
    bool | None,
    typer.Option(
        "--video/--no-video", help="overlay.mp4 of a motion; without either, where PyAV (the extra video) is installed."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@dataclass(frozen=True)
class FitRequest:
    """What was asked for, checked as far as it can be without the recording."""

    recording: Path
    model: str | BodyModel | None = None
    sex: str = "neutral"
    clothing: str = "auto"
    frames: tuple[int, ...] | None = None
    sensors: tuple[str, ...] | None = None
    person: int | None = None
    device: str = "cpu"
    solver: str = "lm"
    renderer: str = "native"
    refine_extrinsics: bool = False
    extrinsics_sigma: tuple[float, float] | None = None
    max_frames: int | None = None


def fit_command(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="Folder of the recording.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for the results; made if need be.")],
    model: ModelOption = None,
    sex: SexOption = Sex.neutral,
    clothing: ClothingOption = Clothing.auto,
    frames: FramesOption = None,
    max_frames: MaxFramesOption = None,
    sensors: SensorsOption = None,
    person: PersonOption = None,
    device: DeviceOption = "auto",
    solver: SolverOption = Solver.lm,
    renderer: RendererOption = Backend.native,
    refine_extrinsics: RefineExtrinsicsOption = False,
    extrinsics_sigma: ExtrinsicsSigmaOption = None,
    video: VideoOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the fit that OUT already holds.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a body to a recording and write it to OUT.

    OUT holds fit.npz, measurements.json and .csv, rest.ply, mesh/NNNNNN.ply, overlay/NNNNNN.png and summary.png, and of
    a motion (frames at most 0.2 s apart) motion.npz, joints.csv, motion.bvh, motion.glb and overlay.mp4 besides;
    it is written whole or not at all.
    """
    from bodyfit.export.folder import check_out_folder

    if video:
        from bodyfit.picture.video import check_video

        check_video()

    request = FitRequest(
        recording=recording,
        model=model,
        sex=sex.value,
        clothing=clothing.value,
        frames=parse_frames(frames),
        max_frames=max_frames,
        sensors=parse_names("--sensors", sensors),
        person=person,
        device=parse_device(device),
        solver=solver.value,
        renderer=renderer.value,
        refine_extrinsics=refine_extrinsics,
        extrinsics_sigma=parse_sigma(extrinsics_sigma, refine=refine_extrinsics),
    )
    check_out_folder(out, force=force)
    result = run_fit(request, quiet=as_json)
    names = write_result(result, out, force=force, recording=recording, video=video, sensors=request.sensors)
    show_result(result, out, names, as_json=as_json)
    if not result.converged:
        raise typer.Exit(NOT_BELIEVED)


def run_fit(request: FitRequest, *, quiet: bool) -> FitResult:
    """Opens the recording, fits, and shows how far it is."""
    from bodyfit.body.model import BodyModel, load_body_model
    from bodyfit.cli.screen import progress_bar
    from bodyfit.fit.fit import fit
    from bodyfit.recording.formats import open_recording

    recording = open_recording(request.recording)
    body = load_body_model(request.model) if not isinstance(request.model, BodyModel) else request.model
    with progress_bar(quiet=quiet) as progress:
        return fit(
            recording,
            model=body,
            sex=request.sex,
            clothing=request.clothing,
            frames=_frames_of(recording, request),
            sensors=request.sensors,
            person=request.person,
            device=request.device,
            solver=request.solver,
            renderer=request.renderer,
            refine_extrinsics=_rig_config(request),
            progress=progress,
        )


def _frames_of(recording: Recording, request: FitRequest) -> list[int] | None:
    """Positions of the frames to fit; None for all."""
    if request.frames is not None and request.max_frames is not None:
        raise InputError("--max-frames", "--frames or --max-frames", "both")
    if request.frames is not None:
        return positions_of(recording, request.frames)
    if request.max_frames is None or recording.num_frames <= request.max_frames:
        return None
    from bodyfit.fit.choose_frames import choose_frames

    return choose_frames(recording, request.max_frames, sensors=request.sensors, person=request.person)


def _rig_config(request: FitRequest) -> bool | RigConfig:
    """How roughly the sensors' places are known, where they are to be found."""
    if request.extrinsics_sigma is None:
        return request.refine_extrinsics
    from bodyfit.fit.rig_prior import RigConfig

    centimetres, degrees = request.extrinsics_sigma
    return RigConfig(sigma_place_m=centimetres / 100, sigma_turn_deg=degrees)


def positions_of(recording: Recording, indices: tuple[int, ...]) -> list[int]:
    """Where the frames of these numbers are in the recording."""
    where = {int(index): i for i, index in enumerate(recording.indices)}
    missing = [index for index in indices if index not in where]
    if missing:
        there = f"{len(where)} frames, {min(where)} to {max(where)}"
        raise InputError("--frames", f"numbers of frames that the recording has ({there})", str(missing[0]))
    return [where[index] for index in indices]


def show_result(result: FitResult, out: Path, names: list[str], *, as_json: bool) -> None:
    """Tells what came out and where it is."""
    from bodyfit.cli.screen import print_json, print_lines, print_measurements, print_quality, print_sensors
    from bodyfit.export.tables import measurements_document, sensors_document

    if as_json:
        document: dict[str, Any] = measurements_document(result)
        if result.sensors:
            document["sensors"] = sensors_document(result)["sensors"]
        print_json({**document, "out": str(out), "files": sorted(names)})
        return
    print_measurements(result.measurements)
    print_lines("")
    print_quality(result)
    if result.sensors:
        print_lines("")
        print_sensors(result)
    print_lines("", f"results in {out}: look at {out / 'summary.png'}")


def parse_device(name: str) -> str:
    """The device to compute on, `auto` decided; refused before anything is read."""
    from bodyfit.fit.open_device import check_device, chosen_device, usable

    check_device(name, "--device")
    device = chosen_device(name)
    why = usable(device)
    if why is not None:
        raise DeviceError("--device", "a device that can be used", f"{name} ({why})", "--device cpu needs nothing more")
    return device


def parse_frames(text: str | None) -> tuple[int, ...] | None:
    """`0,2,5-9` as frame indices in rising order, each once; None for all."""
    if text is None:
        return None
    indices: set[int] = set()
    for item in text.split(","):
        first, dash, last = (part.strip() for part in item.partition("-"))
        last = last if dash else first
        if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit()):
            raise InputError("--frames", "indices and ranges like 0,2,5-9", repr(text))
        low, high = int(first), int(last)
        if high < low:
            raise InputError("--frames", "ranges that rise, like 5-9", repr(item.strip()))
        if high - low + len(indices) >= MAX_FRAMES:
            raise InputError("--frames", f"at most {MAX_FRAMES} frames", repr(text))
        indices.update(range(low, high + 1))
    return tuple(sorted(indices))


def parse_sigma(text: str | None, *, refine: bool) -> tuple[float, float] | None:
    """`5,3` as centimetres and degrees; None where nothing was given."""
    if text is None:
        return None
    if not refine:
        raise InputError("--extrinsics-sigma", "--refine-extrinsics beside it", "none")
    try:
        centimetres, degrees = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError("--extrinsics-sigma", "centimetres and degrees like 5,3", repr(text)) from None
    if not (0 < centimetres <= 100 and 0 < degrees <= 45):
        raise InputError("--extrinsics-sigma", "up to 100 cm and 45 degrees, more than 0", repr(text))
    return centimetres, degrees


def parse_names(option: str, text: str | None) -> tuple[str, ...] | None:
    """`a,b` as names; None for all."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise InputError(option, "different names with commas between them", repr(text))
    return names
