"""`bodyfit capture`: a sensor's frames into a recording, with advice to who stands there; or to a server, live."""

from __future__ import annotations

import sys
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bodyfit.cli.capture_sources import Kind, open_source
from bodyfit.cli.connection import (
    PlainTokenOption,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
    TlsNameOption,
    TlsOption,
    TokenFileOption,
    connect,
)
from bodyfit.cli.fit import JsonOption
from bodyfit.errors import BodyfitError, InputError, OutputError

if TYPE_CHECKING:
    from bodyfit.capture.protocol import TurnProtocol
    from bodyfit.capture.recorder import Recorder
    from bodyfit.capture.session import Session
    from bodyfit.capture.source import Source
    from bodyfit.capture.watching import Watcher
    from bodyfit.cli.capture_live import LiveTrack

TICK_S = 0.1
TOLD_EVERY_S = 2.0


class Protocol(Enum):
    """Which frames are recorded."""

    free = "free"
    turn = "turn"


def capture_command(
    source: Annotated[Kind, typer.Argument(metavar="SOURCE", help="realsense, orbbec, azure, synthetic or replay.")],
    recording: Annotated[
        Path | None, typer.Argument(metavar="[RECORDING]", help="What `replay` plays: any readable recording.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Folder of the recording; must not be there yet.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="S", min=0.05, help="Stop after so long; else Ctrl-C stops.")
    ] = None,
    protocol: Annotated[
        Protocol,
        typer.Option("--protocol", help="free records all; turn leads through views and records those alone."),
    ] = Protocol.free,
    views: Annotated[int, typer.Option("--views", metavar="N", help="Views of the protocol turn, 4 to 8.")] = 4,
    to: Annotated[
        str | None, typer.Option("--to", metavar="HOST:PORT", help="Stream to a bodyfit server and show its results.")
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview/--no-preview", help="Look at the frames and say what is wrong with them.")
    ] = True,
    preview_file: Annotated[
        Path | None, typer.Option("--preview-file", metavar="FILE.jpg", help="Keep the newest picture in this file.")
    ] = None,
    window: Annotated[
        bool, typer.Option("--window", help="Show the picture in a window; needs an OpenCV that has windows.")
    ] = False,
    follow: Annotated[
        bool | None,
        typer.Option("--follow/--no-follow", help="Fit a body while capturing, which tells the heading. [turn: yes]"),
    ] = None,
    serial: Annotated[
        str | None, typer.Option("--serial", metavar="N", help="The device of this serial number; never written down.")
    ] = None,
    sensor: Annotated[str | None, typer.Option("--sensor", metavar="NAME", help="Which sensor `replay` plays.")] = None,
    speed: Annotated[
        float, typer.Option("--speed", metavar="X", help="Of `replay`: times as fast as it was taken; 0: no waiting.")
    ] = 1.0,
    queue_frames: Annotated[
        int, typer.Option("--queue", metavar="N", min=1, max=1000, help="Frames that may wait to be written.")
    ] = 45,
    token_file: TokenFileOption = None,
    plain_token: PlainTokenOption = False,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_name: TlsNameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record what a depth sensor sees, or stream it to a server.

    DIR is a native recording from its first frame on and stays one whatever happens: capture.json in it says what was
    dropped, and why.
    """
    from bodyfit.capture.picture import has_windows
    from bodyfit.capture.protocol import TurnProtocol
    from bodyfit.capture.recorder import Recorder
    from bodyfit.capture.session import Session

    if out is None and to is None:
        raise InputError("capture", "-o DIR, --to HOST:PORT or both", "neither")
    if window and not has_windows():
        hint = "opencv-python has windows; --preview-file FILE.jpg needs none"
        raise InputError("--window", "an OpenCV with windows", "the headless build", hint)
    guide = TurnProtocol(views) if protocol is Protocol.turn else None
    looks = preview or preview_file is not None or window
    follow = guide is not None and looks if follow is None else follow
    tell = _Teller(quiet=as_json)
    device = open_source(source, recording, serial=serial, sensor=sensor, speed=speed, tell=tell.line)
    client = None
    if to is not None:
        client = connect(to, token_file, plain_token, tls, tls_ca, tls_cert, tls_key, tls_name, None)
    device.start()
    recorder: Recorder | None = None
    live: LiveTrack | None = None
    try:
        for note in device.notes:
            tell.line(f"note: {note}")
        if out is not None:
            settings = {**device.settings, "protocol": protocol.value, "views": views if guide else None}
            about = {"kind": device.kind, **device.device}
            recorder = Recorder(
                out, device.sensor, gravity_world=device.gravity_world, device=about, settings=settings,
                notes=device.notes, queue_frames=queue_frames,
            )  # fmt: skip
        if client is not None:
            from bodyfit.cli.capture_live import LiveTrack

            live = LiveTrack(client, device)
        session = Session(
            device, recorder=recorder, seconds=seconds, on_frame=None if live is None else live.offer
        )  # fmt: skip
        session.wanted = guide is None
        watcher = _watcher(session, device, follow=follow) if looks else None
        _run(session, watcher, recorder, guide, live, tell, preview_file, window)
    finally:
        device.stop()
        if live is not None:
            live.stop()
        if client is not None:
            client.close()
        if recorder is not None:
            recorder.finish("it failed")
    _report(session, recorder, guide, live, watcher, out, as_json=as_json)


def _watcher(session: Session, device: Source, *, follow: bool) -> Watcher:
    from bodyfit.body.model import load_body_model
    from bodyfit.capture.watching import Watcher

    return Watcher(session, device.gravity_world, load_body_model() if follow else None)


def _run(
    session: Session,
    watcher: Watcher | None,
    recorder: Recorder | None,
    guide: TurnProtocol | None,
    live: LiveTrack | None,
    tell: _Teller,
    preview_file: Path | None,
    window: bool,
) -> None:
    """Until it is over: what is seen is said, and the protocol told of the time."""
    from bodyfit.capture.picture import preview_image, write_preview

    marks = _Marks(session, recorder, guide)
    session.start()
    if watcher is not None:
        watcher.start()
    if live is not None:
        live.start()
    why = ""
    try:
        shown = -1
        with tell.screen():
            while not session.over.wait(TICK_S):
                look = None if watcher is None else watcher.latest
                said = marks.step(None if look is None else look.sight)
                lines = _lines(session, look, recorder, live, said)
                tell.show(lines)
                if look is not None and look.newest.count != shown:
                    shown = look.newest.count
                    if preview_file is not None:
                        write_preview(preview_file, look, lines)
                    if window:
                        import cv2

                        cv2.imshow("bodyfit capture", preview_image(look, lines))
                        cv2.waitKey(1)
                if marks.done:
                    why = "all views were taken"
                    break
                if live is not None and live.over:
                    why = "the server ended the stream"
                    break
    except KeyboardInterrupt:
        why = "stopped from the keyboard"
    except OSError as problem:
        raise OutputError(str(preview_file), "a file to write to", problem.strerror or str(problem)) from None
    finally:
        session.stop(why or "it failed")
        if live is not None:
            live.stop()
        if recorder is not None:
            recorder.finish(session.ended)
        if watcher is not None:
            watcher.stop()


class _Marks:
    """Steps the protocol, opens and shuts the recorder's gate, and notes which frames belong to which view."""

    def __init__(self, session: Session, recorder: Recorder | None, guide: TurnProtocol | None) -> None:
        self._session, self._recorder, self._guide = session, recorder, guide
        self._noted = 0
        self.done = False

    def step(self, sight: Any) -> str:
        """What is said to the person; empty without a protocol."""
        if self._guide is None or self._session.read == 0:
            return ""
        step = self._guide.step(time.monotonic(), sight)
        self._session.view = step.view if step.wanted else None
        self._session.wanted = step.wanted
        if len(self._guide.taken) > self._noted:
            view = dict(self._guide.taken[self._noted])
            self._noted += 1
            for key in ("from_s", "to_s"):
                del view[key]
            if self._recorder is not None:
                first, last = self._recorder.spans.get(view["view"], (None, None))
                self._recorder.mark_view(view | {"first": first, "last": last})
        self.done = step.done
        return step.say


def _lines(session: Session, look: Any, recorder: Recorder | None, live: LiveTrack | None, said: str) -> list[str]:
    """What the preview says at present."""
    dropped = "" if recorder is None else f", {recorder.counts.written} written, {recorder.counts.failed} dropped"
    lost = recorder.counts.lost_by_device if recorder is not None else 0
    lines = [f"{session.read} frames at {session.rate_hz:.1f}/s{dropped}" + (f", {lost} never came" if lost else "")]
    if said:
        lines.append(said)
    if look is not None:
        advice = "; ".join(a.value for a in look.advice) or "all well"
        distance = "" if look.sight.distance_m is None else f"{look.sight.distance_m:.2f} m away: "
        lines.append(distance + advice)
    if live is not None:
        lines.append(live.line())
    return lines


class _Teller:
    """Says on stderr how it goes: a picture of lines in a terminal, else a line when something changes."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._live, self._last, self._at = quiet, None, "", 0.0

    def line(self, text: str) -> None:
        """One line."""
        if not self._quiet:
            sys.stderr.write(f"{text}\n")

    def screen(self) -> Any:
        """A `with` in which `show` draws over what it drew."""
        from contextlib import nullcontext

        if self._quiet or not sys.stderr.isatty():
            return nullcontext()
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), refresh_per_second=8)
        return self._live

    def show(self, lines: list[str]) -> None:
        """The lines of now."""
        if self._quiet:
            return
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text("\n".join(lines)))
            return
        words, now = "\n".join(lines[1:]), time.monotonic()
        if words != self._last and now - self._at > TOLD_EVERY_S:
            self._last, self._at = words, now
            sys.stderr.write("; ".join(lines) + "\n")


def _report(
    session: Session,
    recorder: Recorder | None,
    guide: TurnProtocol | None,
    live: LiveTrack | None,
    watcher: Watcher | None,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Tells what came of it, and ends with the code of what went wrong."""
    from bodyfit.cli.screen import print_json, print_lines

    counts = None if recorder is None else recorder.counts
    problem: BodyfitError | None = session.problem
    if recorder is not None and recorder.problem is not None:
        hint = "what was written until then is readable" if recorder.counts.written else None
        problem = OutputError(str(out), "room for the recording", recorder.problem, hint)
    if problem is None and counts is not None and not counts.written and (guide is None or session.read == 0):
        problem = InputError("capture", "frames", f"none written of {counts.read} read; no recording was made")
    if problem is None and live is not None:
        problem = live.problem
    views = [] if guide is None else guide.taken
    document: dict[str, Any] = {
        "out": None if recorder is None or not recorder.counts.written else str(out),
        "ended": session.ended,
        "frames": {"read": session.read} if counts is None else counts.document(),
        "views": len(views),
        "live": None if live is None else live.document(),
    }
    if as_json and problem is None:
        print_json(document)
        return
    lines = [f"ended: {session.ended}"]
    lines += counts.sentences() if counts is not None else [f"{session.read} frames read"]
    if recorder is not None and recorder.clock.jumps:
        lines += [f"the device's clock jumped {recorder.clock.jumps} times", *recorder.clock.events[:5]]
    if watcher is not None and watcher.problem is not None:
        lines.append(f"no advice was given any more: {watcher.problem}")
    if guide is not None:
        lines.append(f"{len(views)} of {guide.views} views taken" + _by(views))
    if live is not None:
        lines += live.sentences()
    if document["out"] is not None:
        lines.append(f"recording in {out}: bodyfit fit {out} -o …, or bodyfit track for a motion")
    if not as_json:
        print_lines(*lines)
    if problem is not None:
        raise problem


def _by(views: list[dict[str, Any]]) -> str:
    by_time = sum(view["by"] == "time" for view in views)
    return f", {by_time} of them by time alone: which way they faced was not known" if by_time else ""
