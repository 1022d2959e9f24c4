"""`bodyfit inspect` and `bodyfit convert`: what a recording holds, and any format made our own."""

from __future__ import annotations

import math
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bodyfit.cli.fit import FramesOption, JsonOption, SensorsOption, parse_frames, parse_names, positions_of
from bodyfit.errors import DepthUnitError, InputError, OutputError

if TYPE_CHECKING:
    from bodyfit.frame import Frame
    from bodyfit.recording.inspect import RecordingReport, SensorReport
    from bodyfit.recording.recording import Recording

MOST_TOLD = 8


class ColorFormat(StrEnum):
    """How colour is written that is neither JPEG nor PNG in the recording."""

    jpg = "jpg"
    png = "png"


def inspect_command(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="Folder or file, of any format.")],
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="PNG", help="Write a contact sheet: frames of every sensor.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=1000, help="How many frames of each sensor to read.")] = 12,
    as_json: JsonOption = False,
) -> None:
    """Tell what a recording holds: sensors, sizes, lenses, rate, gaps, what its depth is like, and what is odd."""
    from bodyfit.cli.screen import print_json
    from bodyfit.recording.formats import open_recording
    from bodyfit.recording.inspect import inspect_recording

    if sheet is not None:
        _check_sheet(sheet)
    with open_recording(recording) as source:
        report, frames = inspect_recording(source, samples=samples)
        people = {name: person_line(seen, source) for name, seen in frames.items()}
        if sheet is not None:
            _write_sheet(sheet, f"{recording.name}: {report.format}, {report.num_frames} frames", frames)
        if as_json:
            print_json({**document(source, report, people), "sheet": None if sheet is None else str(sheet)})
            return
        show(recording, report, people)
    if sheet is not None:
        from bodyfit.cli.screen import print_lines

        print_lines(f"contact sheet in {sheet}")


def convert_command(
    recording: Annotated[Path, typer.Argument(metavar="SRC", help="Folder or file, of any format.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to make: a native recording.")],
    frames: FramesOption = None,
    sensors: SensorsOption = None,
    color: Annotated[ColorFormat, typer.Option(help="For colour that is neither JPEG nor PNG yet.")] = ColorFormat.jpg,
    force: Annotated[bool, typer.Option("--force", help="Replace the recording that DST already is.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a recording of any format as a native one; images that are JPEG or PNG already go over as they are."""
    from bodyfit.cli.screen import print_json, print_lines, progress_bar
    from bodyfit.recording.convert import convert_recording
    from bodyfit.recording.formats import open_recording

    chosen, names = parse_frames(frames), parse_names("--sensors", sensors)
    color_format: Literal["jpg", "png"] = "png" if color is ColorFormat.png else "jpg"
    with open_recording(recording) as source, progress_bar(quiet=as_json) as progress:
        done = convert_recording(
            source,
            target,
            frames=None if chosen is None else positions_of(source, chosen),
            sensors=names,
            color_format=color_format,
            overwrite=force,
            progress=progress,
        )
        notes = source.notes
    if as_json:
        counts = {"instants": done.instants, "images": done.images, "skipped": done.skipped}
        print_json({"out": str(target), **counts, "notes": list(notes)})
        return
    print_lines(f"{done.instants} instants, {done.images} images in {target}")
    print_lines(*(f"note: {note}" for note in notes))
    for place, why in list(done.skipped.items())[:MOST_TOLD]:
        print_lines(f"left out: {place}: {why}")
    if len(done.skipped) > MOST_TOLD:
        print_lines(f"… and {len(done.skipped) - MOST_TOLD} more left out: --json tells all")


def person_line(frames: list[Frame], source: Recording) -> str:
    """Whether a person of human size stands in the frames, which is how a wrong depth unit shows."""
    import numpy as np

    from bodyfit.observe.observation import PERSON, observe

    if not frames:
        return "no frame to look at"
    found, first = [], ""
    for frame in frames[:: max(1, len(frames) // 3)]:
        try:
            observation = observe(frame, gravity_world=source.gravity_world)
        except DepthUnitError as problem:
            return f"the depth unit is wrong: {problem}"
        except InputError as problem:
            first = first or str(problem)
            continue
        own = observation.depth[(observation.label == PERSON) & (observation.depth > 0)]
        found.append(float(np.median(own)))
    if not found:
        return f"nobody found ({first})"
    near, far = min(found), max(found)
    away = f"{near:.1f}" if far - near < 0.1 else f"{near:.1f} to {far:.1f}"
    return f"of human size, {away} m away: the depth unit is right"


def document(source: Recording, report: RecordingReport, people: dict[str, str]) -> dict[str, Any]:
    """The report as plain data; NaN is null."""
    longest = report.gaps[:MOST_TOLD]
    return {
        "format": report.format,
        "frames": report.num_frames,
        "duration_s": report.duration_s,
        "rate_hz": _number(report.rate_hz),
        "gaps": {
            "count": report.num_gaps,
            "lost_frames": report.lost,
            "longest": [{"after": g.after_index, "at_s": g.at_s, "seconds": g.seconds} for g in longest],
        },
        "gravity_world": None if source.gravity_world is None else source.gravity_world.tolist(),
        "notes": list(report.notes),
        "sensors": [_sensor_document(one, people[one.sensor.name]) for one in report.sensors],
    }


def _sensor_document(one: SensorReport, person: str) -> dict[str, Any]:
    from bodyfit.recording.native_files import camera_document

    sensor = one.sensor
    return {
        "name": sensor.name,
        "depth_camera": camera_document(sensor.depth_camera),
        "color_camera": None if sensor.color_camera is None else camera_document(sensor.color_camera),
        "field_of_view_deg": list(one.field_of_view_deg),
        "baseline_m": _number(one.baseline_m),
        "depth_unit_m": sensor.depth_unit_m,
        "depth_step_m": _number(one.step_m),
        "readings": one.readings,
        "depth_m": {
            "nearest": _number(one.nearest_m), "typical": _number(one.typical_m), "farthest": _number(one.farthest_m)
        },
        "looked_at": len(one.looked_at),
        "without_depth": one.without_depth,
        "without_color": one.without_color,
        "broken": {str(index): why for index, why in one.broken.items()},
        "moves_m": one.moves_m,
        "person": person,
    }  # fmt: skip


def show(recording: Path, report: RecordingReport, people: dict[str, str]) -> None:
    """The report for people."""
    from bodyfit.cli.screen import print_lines, print_table

    rate = f", {report.rate_hz:.1f} a second" if math.isfinite(report.rate_hz) else ""
    print_lines(f"{recording}: {report.format}; {report.num_frames} frames in {report.duration_s:.2f} s{rate}")
    if report.num_gaps:
        longest = report.gaps[0]
        said = f"the longest {longest.seconds:.3f} s after frame {longest.after_index}"
        print_lines(f"{report.num_gaps} gaps, {report.lost} frames lost by the usual interval; {said}")
    print_lines(f"which way is down is {'known' if report.gravity_known else 'not said: the floor tells'}", "")
    for one in report.sensors:
        print_table([("sensor", "left"), (one.sensor.name, "left")], _rows(one, people[one.sensor.name]))
        print_lines("")
    print_lines(*(f"note: {note}" for note in report.notes))


def _rows(one: SensorReport, person: str) -> list[tuple[str, str]]:
    sensor = one.sensor
    across, down = one.field_of_view_deg
    rows = [("depth", f"{_camera_words(sensor.depth_camera)}; {across:.0f}° × {down:.0f}°")]
    if sensor.color_camera is None:
        rows.append(("colour", "none"))
    else:
        rows.append(("colour", f"{_camera_words(sensor.color_camera)}; {one.baseline_m * 1000:.1f} mm from depth"))
    rows.append(("depth unit", f"{sensor.depth_unit_m * 1000:g} mm a count; steps of {one.step_m * 1000:.3g} mm seen"))
    reach = f"{one.nearest_m:.2f} to {one.farthest_m:.2f} m, typically {one.typical_m:.2f} m"
    rows.append(("readings", f"{one.readings * 100:.0f} % of pixels, {reach}"))
    rows.append(("person", person))
    if one.moves_m > 0:
        rows.append(("moves", f"{one.moves_m:.2f} m from where it was at first"))
    looked = len(one.looked_at)
    if one.without_depth:
        rows.append(("", f"{one.without_depth} of the {looked} frames looked at have no depth"))
    if one.without_color and sensor.color_camera is not None:
        rows.append(("", f"{one.without_color} of the {looked} frames looked at have no colour"))
    rows += [("broken", f"frame {index}: {why}") for index, why in list(one.broken.items())[:MOST_TOLD]]
    return rows


def _camera_words(camera: Any) -> str:
    lens = camera.distortion
    bent = "no distortion" if lens.model == "none" else lens.model.replace("_", "-")
    return f"{camera.width} × {camera.height}, f {camera.fx:.1f} {camera.fy:.1f}, {bent}"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _check_sheet(sheet: Path) -> None:
    if sheet.suffix.lower() != ".png":
        raise OutputError("--sheet", "a name that ends .png", sheet.name)
    if not sheet.parent.is_dir():
        raise OutputError(str(sheet), "a parent folder that exists", f"no folder {sheet.parent}")


def _write_sheet(sheet: Path, title: str, frames: dict[str, list[Frame]]) -> None:
    from bodyfit.picture.contact_sheet import contact_sheet
    from bodyfit.recording.native_files import encoded_image

    image = encoded_image(".png", contact_sheet(title, frames)[..., ::-1])
    part = sheet.with_name(f".{sheet.name}.{os.getpid()}.part")
    try:
        part.write_bytes(image)
        os.replace(part, sheet)
    except OSError as problem:
        raise OutputError(str(sheet), "a place to write to", problem.strerror or str(problem)) from None
    finally:
        part.unlink(missing_ok=True)
