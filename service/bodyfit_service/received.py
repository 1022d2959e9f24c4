"""What a client hands on: answers as the library's own types."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import BodyfitError, ModelFileError
from bodyfit_service.channel import TIMES

if TYPE_CHECKING:
    from bodyfit.body.measure import Measurement
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.result import FitResult
    from bodyfit.fit.track_estimate import TrackEstimate
    from bodyfit_protos.v1 import bodyfit_pb2 as pb


@dataclass(frozen=True, eq=False)
class FitAnswer:
    """A fit with what was asked for besides.

    Attributes:
        result: as the library's own fit gives it; its observations stay with the server.
        meshes: by the instant's index, a PLY file's bytes.
        overlays: by the instant's index and the sensor's name, a PNG file's bytes.
        glb: a binary glTF file's bytes; empty where it was not asked for.
        joints_world: (T, J, 3) metres; None where not asked for. vertices_world (T, V, 3), rest_vertices (V, 3).
        request_id: by which the server's log names the call.
        times_ms: the server's milliseconds by stage: queue, transfer, decode, fit, pack.
    """

    result: FitResult
    meshes: Mapping[int, bytes]
    overlays: Mapping[int, Mapping[str, bytes]]
    glb: bytes
    joints_world: NDArray[np.float64] | None
    vertices_world: NDArray[np.float64] | None
    rest_vertices: NDArray[np.float64] | None
    request_id: str
    times_ms: Mapping[str, float]


@dataclass(frozen=True)
class InstantRefusal:
    """Why an instant of a track was not followed.

    Attributes:
        index: its number. field: what is wrong, as `frames[0].depth`. description: in one sentence.
    """

    index: int
    field: str
    description: str


@dataclass(frozen=True, eq=False)
class TrackAnswer:
    """What came back for one instant.

    Attributes:
        estimate: the body; None where the instant was refused: `error` says why then, and the track goes on.
        dropped: instants dropped since the answer before, because a newer one had come; dropped_in_all since the start.
        latency_ms: from the instant's arrival at the server to the answer.
        round_trip_ms: from when this client handed the instant over to when it had the answer.
    """

    estimate: TrackEstimate | None
    dropped: int
    dropped_in_all: int
    latency_ms: float
    round_trip_ms: float
    error: InstantRefusal | None = None

    @property
    def index(self) -> int:
        """The instant's number."""
        if self.estimate is not None:
            return self.estimate.index
        return self.error.index if self.error is not None else -1


@dataclass(frozen=True)
class ServedModel:
    """A body model that the server fits: sizes, licence, and the hash of its file's arrays."""

    name: str
    sha256: str
    family: str
    licence: str
    num_vertices: int
    num_joints: int
    num_betas: int
    default: bool
    origin: str


@dataclass(frozen=True)
class ServerInfo:
    """Version, limits and load of a server; see GetServerInfoResponse in bodyfit.proto."""

    version: str
    device: str
    state: str
    fit_workers: int
    fit_workers_ready: int
    max_streams: int
    queue_size: int
    queued: int
    max_message_bytes: int
    max_image_pixels: int
    max_instants: int
    max_recording_bytes: int
    upload_kept_s: float


@dataclass
class LocalModels:
    """Body models of this machine, read once: answers carry parameters, whose body has to be here."""

    _known: dict[str, BodyModel] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def model_for(self, info: pb.BodyModelInfo, asked: str | BodyModel | None = None) -> BodyModel:
        """The local body that the server fitted.

        Args:
            info: as the answer names it.
            asked: what the request asked for: a name, or the body itself.

        Raises:
            ModelFileError: there is none of this name, or it is another file.
        """
        from bodyfit.body.model import BodyModel

        with self._lock:
            if info.sha256 in self._known:
                return self._known[info.sha256]
            if isinstance(asked, BodyModel):
                candidates: list[Any] = [asked]
            else:
                candidates = list(dict.fromkeys(name for name in (asked, info.name) if name))
            found, missing = _same(candidates, info.sha256)
            if found is None:
                hint = "the answer's parameters belong to the server's body: bring its file here, or ask for another"
                expected = f"the server's {info.name} (sha256 {info.sha256[:12]}…) on this machine too"
                raise ModelFileError("model", expected, missing, hint)
            self._known[info.sha256] = found
            return found


def _same(candidates: Iterable[Any], sha256: str) -> tuple[BodyModel | None, str]:
    """The candidate of that hash; else what there is instead."""
    from bodyfit.body.files import find_model
    from bodyfit.body.model import BodyModel, load_body_model

    missing = "nothing of that name"
    for candidate in candidates:
        if isinstance(candidate, BodyModel):
            body = candidate
        else:
            try:
                find_model(candidate)
            except ModelFileError:
                continue
            body = load_body_model(candidate)
        if body.sha256 == sha256:
            return body, ""
        missing = f"another file of that name (sha256 {body.sha256[:12]}…)"
    return None, missing


def fit_answer(
    message: pb.FitResult, model: BodyModel, *, request_id: str = "", metadata: Iterable[Any] | None = None
) -> FitAnswer:
    """The answer of a fit.

    Args:
        message: as it came.
        model: the body that it names, from this machine.
        metadata: the call's trailing metadata, which has the times.
    """
    from bodyfit_service.results_wire import read_result

    result = read_result(message, model)
    J, V = model.num_joints, model.num_vertices
    instants = message.instants
    return FitAnswer(
        result=result,
        meshes={i.index: i.mesh for i in instants if i.mesh},
        overlays={i.index: {o.sensor: o.png for o in i.overlays} for i in instants if i.overlays},
        glb=message.glb,
        joints_world=_stacked([i.joints for i in instants], (J, 3)),
        vertices_world=_stacked([i.vertices for i in instants], (V, 3)),
        rest_vertices=_array(message.rest_vertices, (V, 3)),
        request_id=request_id,
        times_ms=times_of(metadata),
    )


def times_of(metadata: Iterable[Any] | None) -> dict[str, float]:
    """The server's milliseconds by stage, of a call's trailing metadata; empty where it tells none."""
    for key, value in metadata or ():
        if key == TIMES:
            try:
                document = json.loads(value)
            except ValueError:
                return {}
            if isinstance(document, dict):
                return {str(k): float(v) for k, v in document.items() if isinstance(v, (int, float))}
    return {}


def _array(values: Any, shape: tuple[int, int]) -> NDArray[np.float64] | None:
    if not len(values):
        return None
    array = np.array(values, dtype=np.float64)
    if array.size != shape[0] * shape[1]:
        raise BodyfitError(f"the server's answer has {array.size} numbers where {shape} are expected")
    return array.reshape(shape)


def _stacked(rows: list[Any], shape: tuple[int, int]) -> NDArray[np.float64] | None:
    arrays = [_array(row, shape) for row in rows]
    there = [a for a in arrays if a is not None]
    return np.stack(there) if there and len(there) == len(arrays) else None


class Departures:
    """When each instant of a track was handed over, until its answer or a later one's came."""

    def __init__(self) -> None:
        self._sent: deque[tuple[int, float]] = deque()

    def note(self, message: pb.TrackRequest) -> None:
        """This message is handed over now."""
        if message.HasField("instant"):
            self._sent.append((message.instant.index, time.monotonic()))

    def answer(self, message: pb.TrackResponse) -> TrackAnswer:
        """One answer of the track, with how long it took; NaN where that is not known."""
        from bodyfit_service.results_wire import read_estimate

        error = None
        if message.HasField("error"):
            error = InstantRefusal(message.error.index, message.error.field, message.error.description)
        estimate = read_estimate(message.estimate) if message.HasField("estimate") else None
        took = self._took_ms(message.error.index if estimate is None else message.estimate.index)
        return TrackAnswer(estimate, message.dropped, message.dropped_in_all, message.latency_ms, took, error)

    def _took_ms(self, index: int) -> float:
        while self._sent and self._sent[0][0] <= index:
            first, at = self._sent.popleft()
            if first == index:
                return 1e3 * (time.monotonic() - at)
        return float("nan")


def server_info(message: pb.GetServerInfoResponse) -> ServerInfo:
    """GetServerInfo's answer."""
    return ServerInfo(**{name: getattr(message, name) for name in ServerInfo.__dataclass_fields__})


def served_models(message: pb.ListBodyModelsResponse) -> list[ServedModel]:
    """ListBodyModels' answer."""
    return [ServedModel(**{n: getattr(m, n) for n in ServedModel.__dataclass_fields__}) for m in message.models]


def measured(message: pb.MeasureResponse) -> dict[str, Measurement]:
    """Measure's answer, by name; sd is NaN where no covariance was given."""
    from bodyfit.body.measure import Measurement

    return {
        m.name: Measurement(
            m.name, m.value, m.sd if m.HasField("sd") else float("nan"), m.seen, m.definition, m.unit
        )
        for m in message.measurements
    }  # fmt: skip
