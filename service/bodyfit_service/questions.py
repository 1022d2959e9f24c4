"""What a client asks, checked before it is sent: one place for the blocking and the asyncio client."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bodyfit.errors import InputError
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.material import Material, make_material

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.frame import Frame
    from bodyfit.recording.source import FrameSource
    from bodyfit_service.received import ServerInfo

MESHES = {None: pb.MESH_FORMAT_UNSPECIFIED, "ply": pb.MESH_FORMAT_PLY, "glb": pb.MESH_FORMAT_GLB}
SHARE_OF_MESSAGE = 0.95
"""a request that fills more of the server's largest message than this goes as a stream: the rest is its envelope"""


@dataclass(frozen=True)
class FitQuestion:
    """A fit that is to be asked for.

    Attributes:
        model: as the caller named it; the server's default where None.
        stream: whether it must go as FitRecording (True) or Fit (False); None: as it fits.
    """

    material: Material
    options: pb.FitOptions
    outputs: pb.FitOutputs
    model: str | BodyModel | None
    stream: bool | None

    def start(self) -> pb.FitRecordingStart:
        """The first message of FitRecording."""
        return pb.FitRecordingStart(header=self.material.header, options=self.options, outputs=self.outputs)

    def request(self, limits: ServerInfo | None) -> pb.FitRequest | None:
        """The message of Fit; None where it has to go as a stream.

        Args:
            limits: the server's, where they decide; None: the caller has decided.
        """
        if self.stream is True:
            return None
        if limits is not None and self.material.num_instants > limits.max_instants:
            return None
        request = pb.FitRequest(header=self.material.header, options=self.options, outputs=self.outputs)
        room = math.inf if limits is None else SHARE_OF_MESSAGE * limits.max_message_bytes
        size = 0
        for instant in self.material.instants():
            size += instant.ByteSize()
            if size > room:
                return None
            request.instants.append(instant)
        return request


def fit_question(
    recording: FrameSource | str | Path | Sequence[Frame],
    *,
    model: str | BodyModel | None = None,
    sex: str = "neutral",
    clothing: str = "auto",
    frames: Sequence[int] | None = None,
    sensors: Sequence[str] | None = None,
    person: int | None = None,
    refine_extrinsics: bool = False,
    gravity_world: Any = None,
    joints: bool = False,
    vertices: bool = False,
    mesh: str | None = None,
    overlays: bool = False,
    stream: bool | None = None,
) -> FitQuestion:
    """Checks what is asked and opens the recording.

    Raises:
        InputError: an option that does not exist, or a recording, frame or sensor.
    """
    from bodyfit.fit.fit import check_options

    check_options(sex, clothing, "cpu")
    if mesh not in MESHES:
        raise InputError("mesh", "ply, glb or None", repr(mesh))
    material = make_material(recording, frames, sensors, gravity_world)
    if refine_extrinsics:
        from bodyfit.fit.extrinsics import check_sensors

        check_sensors(list(material.sensors))
    options = pb.FitOptions(
        model=model_name(model), sex=sex_value(sex), clothing=clothing_value(clothing), person=person_value(person),
        refine_extrinsics=bool(refine_extrinsics),
    )  # fmt: skip
    outputs = pb.FitOutputs(joints=joints, vertices=vertices, mesh=MESHES[mesh], overlays=overlays)
    return FitQuestion(material, options, outputs, model, stream)


def track_start(
    *,
    model: str | BodyModel | None = None,
    sex: str = "neutral",
    clothing: str = "auto",
    person: int | None = None,
    every_instant: bool = False,
) -> pb.TrackStart:
    """The first message of a track, without its sensors.

    Raises:
        InputError: an option that does not exist.
    """
    from bodyfit.fit.fit import check_options

    check_options(sex, clothing, "cpu")
    return pb.TrackStart(
        model=model_name(model), sex=sex_value(sex), clothing=clothing_value(clothing), person=person_value(person),
        every_instant=every_instant,
    )  # fmt: skip


def is_recording(source: object) -> bool:
    """Whether it is a recording or its folder, and not frames that come live."""
    return isinstance(source, (str, Path)) or hasattr(source, "num_frames")


def recorded_messages(
    start: pb.TrackStart,
    recording: Any,
    frames: Sequence[int] | None,
    sensors: Sequence[str] | None,
    *,
    paced: bool,
) -> Iterator[pb.TrackRequest]:
    """The messages of a track through a recording, which is opened at once.

    Args:
        paced: each instant's message comes when its time has come, by the recording's clock.

    Raises:
        InputError: a recording, frame or sensor that does not exist.
    """
    material = make_material(recording, frames, sensors)
    start.header.CopyFrom(material.header)

    def messages() -> Iterator[pb.TrackRequest]:
        yield pb.TrackRequest(start=start)
        began: float | None = None
        for instant in material.instants():
            if paced:
                now = time.monotonic()
                began = now - instant.timestamp_s if began is None else began
                time.sleep(max(0.0, began + instant.timestamp_s - now))
            yield pb.TrackRequest(instant=instant)

    return messages()


class LiveMessages:
    """The messages of a track through frames that come live: the first instant says what the sensors are.

    Args:
        start: without its sensors.
        gravity_world: (3,), or None: estimated by the server.
    """

    def __init__(self, start: pb.TrackStart, gravity_world: Any) -> None:
        self._start, self._gravity = start, gravity_world
        self._known: set[str] = set()
        self._count = 0

    def of(self, instant: Sequence[Frame] | Frame) -> list[pb.TrackRequest]:
        """The messages of the next instant; none where no sensor saw anything.

        Raises:
            InputError: a sensor that the first instant did not have.
        """
        from bodyfit.frame import Frame
        from bodyfit_service.frames_wire import instant_message

        frames = [instant] if isinstance(instant, Frame) else list(instant)
        if not frames:
            return []
        out = [] if self._known else [self._opening(frames)]
        for frame in frames:
            if frame.sensor not in self._known:
                expected = f"sensors of the first instant ({', '.join(sorted(self._known))})"
                raise InputError(f"instant {self._count}", expected, repr(frame.sensor))
        message = instant_message(frames, index=self._count, timestamp_s=float(frames[0].timestamp_s))
        self._count += 1
        return [*out, pb.TrackRequest(instant=message)]

    def _opening(self, frames: list[Frame]) -> pb.TrackRequest:
        from bodyfit.recording.memory import frames_recording
        from bodyfit_service.frames_wire import header_message

        # sensors that are not triggered together have times of their own
        about = frames_recording([replace(f, index=0, timestamp_s=0.0) for f in frames], self._gravity)
        self._start.header.CopyFrom(header_message(about.sensors, about.gravity_world))
        self._known = {s.name for s in about.sensors}
        return pb.TrackRequest(start=self._start)


def live_messages(
    start: pb.TrackStart, instants: Iterable[Sequence[Frame] | Frame], gravity_world: Any
) -> Iterator[pb.TrackRequest]:
    """The messages of a track through frames that come live."""
    live = LiveMessages(start, gravity_world)
    for instant in instants:
        yield from live.of(instant)


def measure_question(betas: Any, betas_cov: Any, model: str | BodyModel | None) -> pb.MeasureRequest:
    """Measure's message.

    Args:
        betas: (S,) or fewer. betas_cov: (S, S) or None.

    Raises:
        InputError: arrays of another shape, or numbers that are not finite.
    """
    shape = np.asarray(betas, dtype=np.float64)
    if shape.ndim != 1 or not np.isfinite(shape).all():
        raise InputError("betas", "(S,) finite numbers", f"shape {shape.shape}")
    request = pb.MeasureRequest(model=model_name(model), betas=shape.tolist())
    if betas_cov is not None:
        cov = np.asarray(betas_cov, dtype=np.float64)
        if cov.shape != (len(shape), len(shape)) or not np.isfinite(cov).all():
            raise InputError("betas_cov", f"({len(shape)}, {len(shape)}) finite numbers", f"shape {cov.shape}")
        request.betas_cov.extend(cov.ravel().tolist())
    return request


def model_name(model: str | BodyModel | None) -> str:
    """The name that goes over the wire; never a path, which the server would not open."""
    if model is None:
        return ""
    if isinstance(model, Path) or (isinstance(model, str) and ("/" in model or model.endswith(".npz"))):
        raise InputError("model", "a name of the server's models", repr(str(model)), "bodyfit client models lists them")
    return model if isinstance(model, str) else model.name


def sex_value(sex: str) -> pb.Sex:
    """The enum of the library's word."""
    return pb.Sex.Value(f"SEX_{sex.upper()}")  # type: ignore[return-value] # protobuf's stubs call it an int


def clothing_value(clothing: str) -> pb.Clothing:
    """The enum of the library's word."""
    return pb.Clothing.Value(f"CLOTHING_{clothing.upper()}")  # type: ignore[return-value] # as above


def person_value(person: int | None) -> int:
    """0 for None.

    Raises:
        InputError: not a person's number.
    """
    if person is None:
        return 0
    if not isinstance(person, int) or not 1 <= person <= 1000:
        raise InputError("person", "a number from 1, counted from the left", repr(person))
    return person
