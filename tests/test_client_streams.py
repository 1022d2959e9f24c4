"""Both clients against a server that fails on cue, over real sockets: what is tried again, what goes on where it broke,
what is told to the caller, and what is never done twice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.rpc import code_pb2
from scripted_service import Script, ScriptedServer, failure, full
from small_recording import frames as small_frames
from small_recording import write_small
from tiny_body import write_tiny_body
from tiny_result import tiny_result

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.errors import ImageError, InputError, ModelFileError
from bodyfit.recording import open_recording
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.aio import AsyncBodyFitClient
from bodyfit_service.client import BodyFitClient
from bodyfit_service.errors import DeadlineError, QueueFullError, ServiceError, UnavailableError, WorkerDiedError
from bodyfit_service.results_wire import result_message
from bodyfit_service.retries import Retries
from bodyfit_service.status import status_of

QUICK = Retries(attempts=4, first_wait_s=0.01, longest_wait_s=0.05, restarts=2)


class Asked:
    """One way to ask: the blocking client, or the asyncio client run to its end."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def fit_answer(self, server: ScriptedServer, recording: Any, *, client: Any = None, **asked: Any) -> Any:
        how = {"retries": QUICK, **(client or {})}
        if self.kind == "blocking":
            with BodyFitClient(server.address, **how) as c:
                return c.fit_answer(recording, **asked)

        async def ask() -> Any:
            async with AsyncBodyFitClient(server.address, **how) as c:
                return await c.fit_answer(recording, **asked)

        return asyncio.run(ask())

    def track(self, server: ScriptedServer, source: Any, **asked: Any) -> list[Any]:
        if self.kind == "blocking":
            with BodyFitClient(server.address, retries=QUICK) as c:
                return list(c.track(source, **asked))

        async def ask() -> list[Any]:
            async with AsyncBodyFitClient(server.address, retries=QUICK) as c:
                return [answer async for answer in c.track(source, **asked)]

        return asyncio.run(ask())


@pytest.fixture(params=["blocking", "asyncio"])
def asked(request: pytest.FixtureRequest) -> Asked:
    return Asked(request.param)


@pytest.fixture
def body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BodyModel:
    monkeypatch.setenv("BODYFIT_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    return load_body_model(write_tiny_body(tmp_path / "models" / "tiny.npz"))


@pytest.fixture
def script(body: BodyModel) -> Script:
    return Script(result=result_message(tiny_result(body), pb.FitOutputs()))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_small(tmp_path / "rec")


def test_a_fit_in_one_message(asked: Asked, script: Script, recording: Path, body: BodyModel) -> None:
    with ScriptedServer(script) as server:
        answer = asked.fit_answer(
            server, recording, sex="female", clothing="tight", person=2, sensors=["right", "left"]
        )
        assert server.service.calls == ["GetServerInfo", "Fit"]
        (sent,) = server.service.requests
    expected = tiny_result(body)
    assert np.array_equal(answer.result.betas, expected.betas) and np.array_equal(answer.result.poses, expected.poses)
    assert answer.result.model.sha256 == body.sha256 and answer.times_ms == {"queue": 1.5, "fit": 20.0}
    assert (sent.options.sex, sent.options.clothing) == (pb.SEX_FEMALE, pb.CLOTHING_TIGHT)
    assert sent.options.person == 2
    assert [s.name for s in sent.header.sensors] == ["right", "left"]  # the first is the one that is held
    assert [i.index for i in sent.instants] == [0, 10, 20]
    assert [len(i.frames) for i in sent.instants] == [1, 2, 1]


def test_frames_in_memory_are_a_recording(asked: Asked, script: Script) -> None:
    with ScriptedServer(script) as server:
        asked.fit_answer(server, small_frames(), gravity_world=(0, 0, -1), frames=[2, 1])
        (sent,) = server.service.requests
    assert [i.index for i in sent.instants] == [10, 20]
    assert sent.header.gravity_world.z == -1


def test_what_is_too_much_for_one_message_is_streamed(asked: Asked, script: Script, recording: Path) -> None:
    script.max_instants = 2
    with ScriptedServer(script) as server:
        asked.fit_answer(server, recording)
        assert server.service.calls == ["GetServerInfo", "FitRecording"]
        assert [pb.Instant.FromString(b).index for b in server.service.held] == [0, 10, 20]


def test_progress_is_told_as_the_library_tells_it(asked: Asked, script: Script, recording: Path) -> None:
    told: list[tuple[str, float]] = []
    with ScriptedServer(script) as server:
        asked.fit_answer(server, recording, progress=lambda stage, fraction: told.append((stage, fraction)))
        assert server.service.calls == ["FitRecording"]
    assert told == [("waiting, 2 before this one", 0.0), ("fine", 0.5)]


def test_broken_streams_go_on_where_they_broke(asked: Asked, script: Script, recording: Path) -> None:
    script.break_after = [1, 0, 1, 99]  # after an instant; at once; after another; while the fit runs
    with ScriptedServer(script) as server:
        answer = asked.fit_answer(server, recording, stream=True)
        service = server.service
        assert service.openings == ["start", "resume", "resume", "resume", "resume"]
        assert [pb.Instant.FromString(b).index for b in service.held] == [0, 10, 20]
        # the second stream breaks after a chunk too: it held that one already
        assert service.chunks == 3
        assert len({m["x-request-id"] for m in service.metadata}) == 1
    assert answer.result.converged


def test_a_stream_that_always_breaks_is_given_up(asked: Asked, script: Script, recording: Path) -> None:
    script.break_after = [99] * 50
    with ScriptedServer(script) as server, pytest.raises(UnavailableError):
        asked.fit_answer(server, recording, stream=True)
    assert 2 <= len(server.service.openings) <= QUICK.attempts + 1


def test_a_forgotten_recording_is_sent_again_but_not_for_ever(asked: Asked, script: Script, recording: Path) -> None:
    script.break_after, script.forget = [2], 1
    with ScriptedServer(script) as server:
        asked.fit_answer(server, recording, stream=True)
        assert server.service.openings == ["start", "resume", "start"]
        assert [pb.Instant.FromString(b).index for b in server.service.held] == [0, 10, 20]
    script.break_after, script.forget = [1] * 20, 20
    with ScriptedServer(script) as server, pytest.raises(ServiceError):
        asked.fit_answer(server, recording, stream=True)
    assert server.service.openings.count("start") == 1 + QUICK.restarts


def test_a_dead_worker_is_told_and_not_tried_again(asked: Asked, script: Script, recording: Path) -> None:
    script.die = True
    with ScriptedServer(script) as server:
        with pytest.raises(WorkerDiedError):
            asked.fit_answer(server, recording, stream=True)
        assert server.service.openings == ["start"]


def test_a_full_server_is_asked_again_when_it_says(asked: Asked, script: Script, recording: Path) -> None:
    script.failures = [full(0.3), full(0.2)]
    with ScriptedServer(script) as server:
        began = time.monotonic()
        asked.fit_answer(server, recording, stream=False)
        assert time.monotonic() - began >= 0.5
        assert server.service.calls == ["Fit"] * 3


def test_a_full_server_that_asks_for_too_long_is_told(asked: Asked, script: Script, recording: Path) -> None:
    script.failures = [full(3600.0)]
    with ScriptedServer(script) as server, pytest.raises(QueueFullError) as told:
        asked.fit_answer(server, recording, stream=False)
    assert told.value.retry_after_s == 3600.0


def test_an_unavailable_server_is_tried_again_before_it_took_the_call_only(
    asked: Asked, script: Script, recording: Path
) -> None:
    script.failures = [failure(code_pb2.UNAVAILABLE)] * 2
    with ScriptedServer(script) as server:
        asked.fit_answer(server, recording, stream=False)
        assert server.service.calls == ["Fit"] * 3
        script.failures, script.accept_first = [failure(code_pb2.UNAVAILABLE)], True
        with pytest.raises(UnavailableError):
            asked.fit_answer(server, recording, stream=False)
        assert server.service.calls == ["Fit"] * 4


@pytest.mark.parametrize(
    "code", [code_pb2.ABORTED, code_pb2.INTERNAL, code_pb2.INVALID_ARGUMENT, code_pb2.UNAUTHENTICATED]
)
def test_other_errors_are_never_tried_again(asked: Asked, script: Script, recording: Path, code: int) -> None:
    script.failures = [failure(code)]
    with ScriptedServer(script) as server:
        with pytest.raises(Exception) as told:
            asked.fit_answer(server, recording, stream=False)
        assert not isinstance(told.value, AssertionError)
        assert server.service.calls == ["Fit"]


def test_a_refusal_names_the_field(asked: Asked, script: Script, recording: Path) -> None:
    refused = ImageError("instants[3].frames[0].depth", "40 × 32 pixels", "1 × 1 pixels", "a hint")
    script.failures = [status_of(refused, "an-id")]
    with ScriptedServer(script) as server, pytest.raises(ImageError) as told:
        asked.fit_answer(server, recording, stream=False)
    assert told.value.__dict__ == refused.__dict__ and told.value.exit_code == 2


def test_no_server_is_told_after_the_attempts(asked: Asked, script: Script, recording: Path) -> None:
    with ScriptedServer(script) as server:
        pass
    with pytest.raises(UnavailableError):
        asked.fit_answer(server, recording, stream=False)


def test_the_deadline_ends_the_call_here_and_there(asked: Asked, script: Script, recording: Path) -> None:
    script.wait_s = 30.0
    with ScriptedServer(script) as server:
        with pytest.raises(DeadlineError):
            asked.fit_answer(server, recording, stream=False, timeout_s=0.4)
        assert server.service.cancelled.wait(5)


def test_retries_end_with_the_deadline(asked: Asked, script: Script, recording: Path) -> None:
    script.failures = [full(5.0)] * 9
    with ScriptedServer(script) as server:
        began = time.monotonic()
        with pytest.raises(QueueFullError):
            asked.fit_answer(server, recording, stream=False, timeout_s=2.0)
        assert time.monotonic() - began < 4.0 and server.service.calls == ["Fit"]


def test_a_broken_file_is_told_by_its_own_name(asked: Asked, script: Script, recording: Path) -> None:
    (recording / "left" / "depth" / "000020.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with ScriptedServer(script) as server:
        for stream in (False, True):
            with pytest.raises(ImageError, match="000020"):
                asked.fit_answer(server, recording, stream=stream)


def test_another_body_of_the_same_name_is_refused(
    asked: Asked, script: Script, recording: Path, tmp_path: Path, body: BodyModel
) -> None:
    other = load_body_model()
    script.result.model.sha256 = "0" * 64
    with ScriptedServer(script) as server, pytest.raises(ModelFileError, match="another file of that name"):
        asked.fit_answer(server, recording)
    script.result.model.name = "nobody"
    with ScriptedServer(script) as server, pytest.raises(ModelFileError, match="nothing of that name"):
        asked.fit_answer(server, recording)
    script.result.model.sha256 = body.sha256
    with ScriptedServer(script) as server:
        assert asked.fit_answer(server, recording, model=body).result.model is body
        assert server.service.requests[0].options.model == "tiny"
        with pytest.raises(ModelFileError):
            asked.fit_answer(server, recording, model=other)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"sex": "both"}, "sex"),
        ({"clothing": "none"}, "clothing"),
        ({"mesh": "obj"}, "mesh"),
        ({"model": "../tiny.npz"}, "model"),
        ({"person": 0}, "person"),
        ({"frames": [99]}, "frames"),
        ({"sensors": ["nobody"]}, "sensors"),
    ],
)
def test_what_cannot_be_is_not_sent(asked: Asked, recording: Path, wrong: dict[str, Any], field: str) -> None:
    with ScriptedServer() as server:
        with pytest.raises(InputError) as told:
            asked.fit_answer(server, recording, **wrong)
        assert told.value.field == field and server.service.calls == []


@pytest.mark.parametrize(
    ("client", "field"),
    [
        ({"address": "nowhere"}, "address"),
        ({"address": "host:0"}, "address"),
        ({"address": "h:1", "token": "abc"}, "token"),
        ({"address": "example.org:1", "token": "a-token-of-some-length"}, "token"),
    ],
)
def test_clients_that_cannot_be_are_refused(client: dict[str, Any], field: str) -> None:
    address = client.pop("address")
    for kind in (BodyFitClient, AsyncBodyFitClient):
        with pytest.raises(InputError) as told:
            kind(address, **client)
        assert told.value.field == field
        assert client.get("token", "a-token") not in str(told.value)


def test_a_token_goes_with_every_call_and_into_no_message(asked: Asked, script: Script, recording: Path) -> None:
    token = "tok-0123456789abcdef"
    script.failures = [failure(code_pb2.UNAUTHENTICATED, "unknown token")]
    with ScriptedServer(script) as server:
        with pytest.raises(ServiceError) as told:
            asked.fit_answer(server, recording, client={"token": token})
        assert all(m["authorization"] == f"Bearer {token}" for m in server.service.metadata)
    assert token not in str(told.value) and token not in repr(told.value.__dict__)


def test_a_track_keeps_order_and_counts(asked: Asked, recording: Path) -> None:
    def answer(instant: pb.Instant, n: int) -> pb.TrackResponse:
        error = pb.InstantError(index=instant.index, field="frames[0].depth", description="told")
        return pb.TrackResponse(error=error, dropped=n, dropped_in_all=2 * n, latency_ms=12.5)

    with ScriptedServer() as server:
        server.service.track_answer = answer
        answers = asked.track(server, open_recording(recording))
        assert server.service.track_start is not None and server.service.track_start.every_instant
        assert len(server.service.track_start.header.sensors) == 2
    assert [(a.index, a.dropped, a.dropped_in_all) for a in answers] == [(0, 0, 0), (10, 1, 2), (20, 2, 4)]
    assert all(a.latency_ms == 12.5 and 0 < a.round_trip_ms < 5000 for a in answers)
    assert all(a.error.field == "frames[0].depth" and a.estimate is None for a in answers)


def test_live_frames_are_tracked_newest_first(asked: Asked) -> None:
    left = [f for f in small_frames() if f.sensor == "left"]
    with ScriptedServer() as server:
        answers = asked.track(server, iter([left[0], [], [left[1]], [left[2]]]))
        start = server.service.track_start
        assert start is not None and not start.every_instant
        assert [s.name for s in start.header.sensors] == ["left"]
    assert [a.index for a in answers] == [0, 1, 2]


def test_live_frames_may_come_from_the_loop() -> None:
    left = [f for f in small_frames() if f.sensor == "left"]

    async def camera() -> AsyncIterator[Any]:
        for frame in left:
            await asyncio.sleep(0.01)
            yield frame

    async def ask(address: str) -> list[int]:
        async with AsyncBodyFitClient(address) as client:
            return [a.index async for a in client.track(camera())]

    with ScriptedServer() as server:
        assert asyncio.run(ask(server.address)) == [0, 1, 2]


def test_a_camera_that_fails_is_told_and_not_grpc(asked: Asked) -> None:
    def camera() -> Iterator[Any]:
        yield small_frames()[0]
        raise OSError("the cable is out")

    with ScriptedServer() as server, pytest.raises(OSError, match="cable"):
        asked.track(server, camera())


def test_a_sensor_that_comes_later_is_refused(asked: Asked) -> None:
    left = small_frames()[0]
    stranger = replace(left, sensor="stranger", index=1, timestamp_s=1.0)
    with ScriptedServer() as server, pytest.raises(InputError, match="stranger"):
        asked.track(server, iter([left, stranger]))


def test_a_track_that_breaks_is_told(asked: Asked, recording: Path) -> None:
    with ScriptedServer() as server:
        server.service.track_answer = lambda instant, n: None
        with pytest.raises(UnavailableError):
            asked.track(server, recording)
        assert server.service.calls == ["Track"]


def test_a_track_that_is_left_is_cancelled() -> None:
    stop = threading.Event()

    def camera() -> Iterator[Any]:
        for n in range(10_000):
            if stop.wait(0.005):
                return
            yield replace(small_frames()[0], index=n, timestamp_s=0.1 * n)

    with ScriptedServer() as server, BodyFitClient(server.address) as client:
        answers = client.track(camera())
        assert next(answers).index == 0
        answers.close()  # type: ignore[attr-defined] # a generator
        assert server.service.cancelled.wait(5)
        assert not server.service.instants or server.service.instants[-1].index < 9_999
        stop.set()


def test_a_fit_that_is_not_awaited_any_more_is_cancelled(script: Script, recording: Path) -> None:
    script.wait_s = 30.0

    async def ask(server: ScriptedServer) -> None:
        async with AsyncBodyFitClient(server.address) as client:
            task = asyncio.create_task(client.fit(recording, stream=False))
            while not server.service.calls:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.service.cancelled.wait, 5)

    with ScriptedServer(script) as server:
        asyncio.run(ask(server))


def test_nobody_answers_for_health() -> None:
    with ScriptedServer() as server, BodyFitClient(server.address) as client:
        assert client.healthy(1.0) is False  # this server has no health service
