"""`bodyfit track`: a recording followed frame by frame; one shape, every pose, and what was lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bodyfit.cli.fit import (
    NOT_BELIEVED,
    Clothing,
    ClothingOption,
    DeviceOption,
    FramesOption,
    JsonOption,
    ModelOption,
    PersonOption,
    SensorsOption,
    Sex,
    SexOption,
    VideoOption,
    parse_device,
    parse_frames,
    parse_names,
    positions_of,
    write_result,
)
from bodyfit.errors import InputError

if TYPE_CHECKING:
    from bodyfit.fit.result import FitResult
    from bodyfit.fit.track_estimate import TrackEstimate

MOST_EVENTS = 20
BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--budget-ms",
        metavar="MS",
        help="Time that a frame may take: where it is short, fewer pixels and steps are used.",
    ),
]
ColorOption = Annotated[
    bool,
    typer.Option(
        "--color/--no-color",
        help="Learn what the person looks like, and let their colours move poses within what depth leaves open.",
    ),
]


def track_command(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="Folder of the recording.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for the results; made if need be.")],
    model: ModelOption = None,
    sex: SexOption = Sex.neutral,
    clothing: ClothingOption = Clothing.auto,
    frames: FramesOption = None,
    sensors: SensorsOption = None,
    person: PersonOption = None,
    device: DeviceOption = "auto",
    budget_ms: BudgetOption = None,
    color: ColorOption = False,
    video: VideoOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the fit that OUT already holds.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Follow a person through a recording, frame by frame, and write the motion to OUT.

    OUT holds what `bodyfit fit` writes of a motion, without a mesh for each frame: fit.npz, measurements.json and .csv,
    rest.ply, motion.npz, joints.csv, motion.bvh, motion.glb, overlay.mp4, some overlays and summary.png.
    """
    from bodyfit.body.model import load_body_model
    from bodyfit.cli.screen import progress_bar
    from bodyfit.export.folder import check_out_folder
    from bodyfit.fit.track_config import ColorTracking, TrackConfig
    from bodyfit.fit.track_recording import track
    from bodyfit.recording.formats import open_recording

    if budget_ms is not None and not 1 <= budget_ms <= 10_000:
        raise InputError("--budget-ms", "milliseconds from 1 to 10000", f"{budget_ms:g}")
    if video:
        from bodyfit.picture.video import check_video

        check_video()
    chosen, names = parse_frames(frames), parse_names("--sensors", sensors)
    computes = parse_device(device)
    check_out_folder(out, force=force)
    source = open_recording(recording)
    body = load_body_model(model)
    came: list[Seen] = []
    with progress_bar(quiet=as_json) as progress:
        result = track(
            source,
            model=body,
            sex=sex.value,
            clothing=clothing.value,
            frames=None if chosen is None else positions_of(source, chosen),
            sensors=names,
            person=person,
            device=computes,
            config=TrackConfig(
                budget_s=None if budget_ms is None else budget_ms / 1e3, color=ColorTracking() if color else None
            ),
            progress=progress,
            on_estimate=lambda e: came.append(seen_of(e)),
        )
    written = write_result(result, out, force=force, recording=recording, video=video, sensors=names, meshes=False)
    show(result, came, out, written, as_json=as_json)
    if not result.converged:
        raise typer.Exit(NOT_BELIEVED)


Seen = tuple[int, str, float, tuple[str, ...]]
"""Index, state, seconds and what was told of a frame."""


def seen_of(e: TrackEstimate) -> Seen:
    """What is kept of an estimate for the report."""
    return e.index, e.state.name.lower(), float(e.times_s["all"]), e.told


def report(result: FitResult, came: list[Seen]) -> dict[str, Any]:
    """How it went: frames by state, milliseconds a frame (median and 95th percentile), events."""
    import numpy as np

    followed = np.array([s for _, state, s, _ in came if state == "tracked"] or [np.nan])
    return {
        "frames": len(came),
        "states": {state: sum(s == state for _, s, _, _ in came) for state in ("found", "tracked", "coasting", "lost")},
        "median_ms": round(float(np.median(followed)) * 1e3, 2),
        "p95_ms": round(float(np.percentile(followed, 95)) * 1e3, 2),
        "events": [{"frame": index, "state": state, "told": list(told)} for index, state, _, told in came if told],
        "color": result.provenance.get("color"),
    }


def color_line(color: dict[str, int], frames: int) -> str:
    """How much colours had to say."""
    said = f"colours moved the pose in {color['frames']} of {frames} frames"
    if color["refused"]:
        said += f", depth refused them in {color['refused']}"
    if color["limbs_forgotten"]:
        said += f"; limbs whose colours were learnt anew: {color['limbs_forgotten']}"
    return said


def show(result: FitResult, came: list[Seen], out: Path, names: list[str], *, as_json: bool) -> None:
    """Tells what came out and where it is."""
    from bodyfit.cli.screen import print_json, print_lines, print_measurements, print_quality
    from bodyfit.export.tables import measurements_document

    how = report(result, came)
    if as_json:
        print_json({**measurements_document(result), "track": how, "out": str(out), "files": sorted(names)})
        return
    print_measurements(result.measurements)
    print_lines("")
    print_quality(result)
    states = ", ".join(f"{n} {state}" for state, n in how["states"].items() if n)
    print_lines("", f"{how['frames']} frames: {states}; {how['median_ms']} ms a frame (95 %: {how['p95_ms']} ms)")
    if how["color"] is not None:
        print_lines(color_line(how["color"], how["frames"]))
    for event in how["events"][:MOST_EVENTS]:
        print_lines(f"  frame {event['frame']}: {event['state']}: {'; '.join(event['told'])}")
    if len(how["events"]) > MOST_EVENTS:
        print_lines(f"  … and {len(how['events']) - MOST_EVENTS} more events: --json tells all")
    print_lines(f"results in {out}: look at {out / ('overlay.mp4' if 'overlay.mp4' in names else 'summary.png')}")
