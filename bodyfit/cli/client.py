"""`bodyfit client`: what `bodyfit fit` and `bodyfit track` do, computed by a server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bodyfit.cli.connection import (
    DEFAULT_ADDRESS,
    AddressOption,
    PlainTokenOption,
    TimeoutOption,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
    TlsNameOption,
    TlsOption,
    TokenFileOption,
    connect,
)
from bodyfit.cli.fit import (
    NOT_BELIEVED,
    Clothing,
    ClothingOption,
    FramesOption,
    JsonOption,
    PersonOption,
    RefineExtrinsicsOption,
    SensorsOption,
    Sex,
    SexOption,
    VideoOption,
    parse_frames,
    parse_names,
    positions_of,
    show_result,
    write_result,
)

if TYPE_CHECKING:
    from bodyfit.fit.result import FitResult
    from bodyfit_service.received import TrackAnswer

FAILED = 1

commands = typer.Typer(help="Ask a bodyfit server, over gRPC, instead of this machine.", no_args_is_help=True)

ModelNameOption = Annotated[
    str | None, typer.Option("--model", metavar="M", help="Body model: a name of `bodyfit client models`.")
]


@commands.command("fit")
def fit_command(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="Folder of the recording.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for the results; made if need be.")],
    address: AddressOption = DEFAULT_ADDRESS,
    model: ModelNameOption = None,
    sex: SexOption = Sex.neutral,
    clothing: ClothingOption = Clothing.auto,
    frames: FramesOption = None,
    sensors: SensorsOption = None,
    person: PersonOption = None,
    refine_extrinsics: RefineExtrinsicsOption = False,
    video: VideoOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the fit that OUT already holds.")] = False,
    token_file: TokenFileOption = None,
    plain_token: PlainTokenOption = False,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_name: TlsNameOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a body to a recording on a server, and write to OUT what `bodyfit fit` writes."""
    from bodyfit.cli.screen import progress_bar
    from bodyfit.export.folder import check_out_folder
    from bodyfit.recording.native import open_recording

    check_film(video)
    chosen, names = parse_frames(frames), parse_names("--sensors", sensors)
    check_out_folder(out, force=force)
    source = open_recording(recording)
    positions = None if chosen is None else positions_of(source, chosen)
    server = connect(address, token_file, plain_token, tls, tls_ca, tls_cert, tls_key, tls_name, timeout)
    with server as client, progress_bar(quiet=as_json) as progress:
        result = client.fit(
            source, model=model, sex=sex.value, clothing=clothing.value, frames=positions, sensors=names,
            person=person, refine_extrinsics=refine_extrinsics, progress=progress,
        )  # fmt: skip
    from bodyfit_service.local_result import with_observations

    result = with_observations(result, source, names, person)
    written = write_result(result, out, force=force, recording=recording, video=video, sensors=names)
    show_result(result, out, written, as_json=as_json)
    if not result.converged:
        raise typer.Exit(NOT_BELIEVED)


@commands.command("track")
def track_command(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="Folder of the recording.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for the results; made if need be.")],
    address: AddressOption = DEFAULT_ADDRESS,
    live: Annotated[
        bool,
        typer.Option(
            "--live/--every",
            help="Send the frames as fast as they were taken, the newest wins; or follow every frame, however late.",
        ),
    ] = False,
    model: ModelNameOption = None,
    sex: SexOption = Sex.neutral,
    clothing: ClothingOption = Clothing.auto,
    frames: FramesOption = None,
    sensors: SensorsOption = None,
    person: PersonOption = None,
    video: VideoOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the fit that OUT already holds.")] = False,
    token_file: TokenFileOption = None,
    plain_token: PlainTokenOption = False,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_name: TlsNameOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a person through a recording on a server, and write the motion to OUT.

    OUT holds what `bodyfit track` writes; its poses are those that came back frame by frame, not solved together
    afterwards.
    """
    from bodyfit.cli.screen import progress_bar
    from bodyfit.export.folder import check_out_folder
    from bodyfit.recording.native import open_recording
    from bodyfit_service.local_result import Followed

    check_film(video)
    chosen, names = parse_frames(frames), parse_names("--sensors", sensors)
    check_out_folder(out, force=force)
    source = open_recording(recording)
    positions = list(range(source.num_frames)) if chosen is None else positions_of(source, chosen)
    followed = Followed({int(source.indices[i]): i for i in positions})
    came: list[TrackAnswer] = []
    with connect(address, token_file, plain_token, tls, tls_ca, tls_cert, tls_key, tls_name, timeout) as client:
        body = client.local_model(model)  # refused before the work where it is not here
        about: dict[str, Any] = {"model": model, "sex": sex.value, "clothing": clothing.value, "person": person}
        began = time.monotonic()
        with progress_bar(quiet=as_json) as progress:
            for answer in client.track(source, frames=positions, sensors=names, paced=live, **about):
                followed.take(answer)
                came.append(answer)
                progress("following", len(came) / len(positions))
        seconds = time.monotonic() - began
    result = followed.result(
        source, body, sex=sex.value, clothing=clothing.value, sensors=names, person=person
    )  # fmt: skip
    written = write_result(result, out, force=force, recording=recording, video=video, sensors=names, meshes=False)
    show_track(result, came, len(positions), seconds, out, written, as_json=as_json)
    if not result.converged:
        raise typer.Exit(NOT_BELIEVED)


@commands.command("info")
def info_command(
    address: AddressOption = DEFAULT_ADDRESS,
    token_file: TokenFileOption = None,
    plain_token: PlainTokenOption = False,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_name: TlsNameOption = None,
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Show a server's version, limits and load."""
    from dataclasses import asdict

    from bodyfit.cli.screen import print_json, print_table

    with connect(address, token_file, plain_token, tls, tls_ca, tls_cert, tls_key, tls_name, timeout) as client:
        data = asdict(client.info())
    if as_json:
        print_json(data)
        return
    print_table([("", "left"), ("", "left")], [(name.replace("_", " "), str(value)) for name, value in data.items()])


@commands.command("models")
def models_command(
    address: AddressOption = DEFAULT_ADDRESS,
    token_file: TokenFileOption = None,
    plain_token: PlainTokenOption = False,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_name: TlsNameOption = None,
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """List the body models that a server can fit."""
    from dataclasses import asdict

    from bodyfit.cli.screen import print_json, print_table

    with connect(address, token_file, plain_token, tls, tls_ca, tls_cert, tls_key, tls_name, timeout) as client:
        models = client.models()
    if as_json:
        print_json({"models": [asdict(m) for m in models]})
        return
    rows = [
        (m.name + (" (default)" if m.default else ""), m.origin, m.family, m.licence, *map(str, _sizes(m)))
        for m in models
    ]
    headings = ("model", "origin", "family", "licence", "vertices", "joints", "betas")
    print_table([(h, "right" if h in headings[4:] else "left") for h in headings], rows)


@commands.command("health")
def health_command(
    address: AddressOption = DEFAULT_ADDRESS,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_name: TlsNameOption = None,
    timeout: TimeoutOption = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Say whether a server serves; exit code 1 where it does not (yet). Needs no token."""
    from bodyfit.cli.screen import print_json, print_lines

    with connect(address, None, False, tls, tls_ca, tls_cert, tls_key, tls_name, timeout) as client:
        serves = client.healthy(timeout or 5.0)
    if as_json:
        print_json({"serving": serves})
    else:
        print_lines("serving" if serves else "not serving")
    if not serves:
        raise typer.Exit(FAILED)


def check_film(video: bool | None) -> None:
    """Says before long work that a film could not be written."""
    if video:
        from bodyfit.picture.video import check_video

        check_video()


def track_report(came: list[TrackAnswer], sent: int, seconds: float) -> dict[str, Any]:
    """How it went: frames by state, what was dropped and refused, milliseconds a frame (median, 95th percentile)."""
    import numpy as np

    estimates = [a.estimate for a in came if a.estimate is not None]
    server = np.array([a.latency_ms for a in came] or [np.nan])
    here = np.array([a.round_trip_ms for a in came if a.round_trip_ms == a.round_trip_ms] or [np.nan])
    states = ("found", "tracked", "coasting", "lost")
    return {
        "sent": sent,
        "answered": len(came),
        "dropped": max((a.dropped_in_all for a in came), default=0),
        "refused": sum(a.error is not None for a in came),
        "states": {s: sum(e.state.name.lower() == s for e in estimates) for s in states},
        "seconds": round(seconds, 3),
        "latency_ms": {"median": _ms(server, 50), "p95": _ms(server, 95)},
        "round_trip_ms": {"median": _ms(here, 50), "p95": _ms(here, 95)},
        "frames": [
            {
                "frame": a.index,
                "state": None if a.estimate is None else a.estimate.state.name.lower(),
                "latency_ms": round(a.latency_ms, 2),
                "round_trip_ms": round(a.round_trip_ms, 2),
                "dropped_before": a.dropped,
            }
            for a in came
        ],
    }


def _ms(values: Any, percent: float) -> float:
    import numpy as np

    return round(float(np.percentile(values, percent)), 2)


def show_track(
    result: FitResult, came: list[TrackAnswer], sent: int, seconds: float, out: Path, names: list[str], *,
    as_json: bool,
) -> None:  # fmt: skip
    """Tells what came back and where it is."""
    from bodyfit.cli.screen import print_json, print_lines, print_measurements, print_quality
    from bodyfit.export.tables import measurements_document

    how = track_report(came, sent, seconds)
    if as_json:
        print_json({**measurements_document(result), "track": how, "out": str(out), "files": sorted(names)})
        return
    print_measurements(result.measurements)
    print_lines("")
    print_quality(result)
    states = ", ".join(f"{n} {state}" for state, n in how["states"].items() if n)
    lines = [
        f"{sent} frames sent, {how['answered']} answered ({states}), {how['dropped']} dropped, "
        f"{how['refused']} refused",
        f"server: {how['latency_ms']['median']} ms a frame (95 %: {how['latency_ms']['p95']} ms); "
        f"round trip: {how['round_trip_ms']['median']} ms (95 %: {how['round_trip_ms']['p95']} ms)",
        f"results in {out}: look at {out / ('overlay.mp4' if 'overlay.mp4' in names else 'summary.png')}",
    ]
    print_lines("", *lines)


def _sizes(model: Any) -> tuple[int, int, int]:
    return model.num_vertices, model.num_joints, model.num_betas
