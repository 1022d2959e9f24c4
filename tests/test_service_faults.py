"""What goes wrong under a server in production, each with real processes: one request pays, and the server goes on."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from server_process import DEMO, ServerProcess, status, wait_for

from bodyfit.recording.native import open_recording
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_protos.v1 import bodyfit_pb2_grpc
from bodyfit_service.frames_wire import recording_messages

ONE = ("--fit-workers", "1", "--track-workers", "1")
pytestmark = pytest.mark.slow


def demo_request(times: int = 1) -> pb.FitRequest:
    """The shipped recording's instant, several times over: longer requests are longer fits."""
    header, instants = recording_messages(open_recording(DEMO))
    first = next(iter(instants))
    request = pb.FitRequest(header=header)
    for i in range(times):
        instant = request.instants.add()
        instant.CopyFrom(first)
        instant.index, instant.timestamp_s = i, float(i)
    return request


def measure(stub: Any) -> pb.MeasureResponse:
    return stub.Measure(pb.MeasureRequest(betas=[0.5]), timeout=60)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess(*ONE, "--queue-size", "2") as server:
        yield server


@contextmanager
def _stub(server: ServerProcess) -> Iterator[Any]:
    with grpc.insecure_channel(server.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield bodyfit_pb2_grpc.BodyFitServiceStub(channel)


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as channel:
        yield bodyfit_pb2_grpc.BodyFitServiceStub(channel)


def busy(stub: Any) -> bool:
    """Whether the one fit worker has something to do: a fit was taken from the queue and not answered yet."""
    return stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10).fit_workers_busy > 0


def error_info(problem: grpc.RpcError) -> dict[str, Any]:
    """The details of a status by their kinds."""
    found = rpc_status.from_call(problem)  # type: ignore[arg-type]
    assert found is not None
    out: dict[str, Any] = {}
    for detail in found.details:
        kind = getattr(error_details_pb2, detail.TypeName().rsplit(".", 1)[1])
        out[kind.__name__] = kind.FromString(detail.value)
    return out


def test_worker_killed_in_a_fit_costs_that_fit_alone(server: ServerProcess, stub: Any) -> None:
    call = stub.Fit.future(demo_request(4), timeout=120)
    assert wait_for(lambda: busy(stub), 20)
    before = server.worker_pid("fit-0")
    os.kill(before, signal.SIGKILL)
    with pytest.raises(grpc.RpcError) as caught:
        call.result()
    assert caught.value.code() == grpc.StatusCode.ABORTED
    assert error_info(caught.value)["ErrorInfo"].reason == "WORKER_DIED"
    assert len(measure(stub).measurements) > 20
    assert server.worker_pid("fit-0") != before


def test_client_that_goes_stops_the_work_and_frees_the_slot(server: ServerProcess, stub: Any) -> None:
    call = stub.Fit.future(demo_request(8), timeout=120)
    assert wait_for(lambda: busy(stub), 20)
    call.cancel()
    # how fast: benchmarks/cancel.py
    assert wait_for(lambda: not busy(stub), 10, every=0.005)
    assert server.process.poll() is None


def test_deadline_in_a_fit(server: ServerProcess, stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Fit(demo_request(8), timeout=0.8)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert wait_for(lambda: not busy(stub), 10)
    assert len(measure(stub).measurements) > 20


def test_full_queue_says_when_to_come_again(server: ServerProcess, stub: Any) -> None:
    request = demo_request(4)
    calls = [stub.Fit.future(request, timeout=200) for _ in range(8)]
    codes, later = [], []
    for call in calls:
        try:
            call.result()
            codes.append(grpc.StatusCode.OK)
        except grpc.RpcError as problem:
            codes.append(problem.code())
            later.append(error_info(problem)["RetryInfo"].retry_delay.ToMilliseconds())
    assert codes.count(grpc.StatusCode.OK) == 3  # one at work and two that waited
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 5
    assert all(ms > 0 for ms in later)


def test_message_that_declares_3_gb(server: ServerProcess, stub: Any) -> None:
    """A call by hand: no gRPC client would send the five bytes that announce three gigabytes."""
    from h2.connection import H2Connection
    from h2.events import ResponseReceived, StreamEnded, StreamReset, TrailersReceived

    host, port = server.address.rsplit(":", 1)
    told: dict[str, str] = {}
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        http = H2Connection()
        http.initiate_connection()
        path = "/bodyfit.v1.BodyFitService/Fit"
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", server.address)]
        http.send_headers(1, [*head, ("te", "trailers"), ("content-type", "application/grpc")])
        http.send_data(1, b"\x00" + struct.pack(">I", 3_000_000_000) + b"\x00" * 1000)
        sock.sendall(http.data_to_send())
        ended = False
        while not ended:
            data = sock.recv(65536)
            assert data, "the server closed the connection without a word"
            for event in http.receive_data(data):
                if isinstance(event, TrailersReceived | ResponseReceived):
                    told.update((k.decode(), v.decode()) for k, v in event.headers or ())
                ended = ended or isinstance(event, StreamEnded | StreamReset)
            sock.sendall(http.data_to_send())
    assert told["grpc-status"] == str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    assert len(measure(stub).measurements) > 20


def test_slow_reader_of_a_live_stream_holds_up_nobody(server: ServerProcess, stub: Any) -> None:
    header, instants = recording_messages(open_recording(DEMO))
    first = next(iter(instants))
    sent = 0

    def requests() -> Iterator[pb.TrackRequest]:
        nonlocal sent
        yield pb.TrackRequest(start=pb.TrackStart(header=header))
        for i in range(40):
            instant = pb.Instant()
            instant.CopyFrom(first)
            instant.index, instant.timestamp_s = i, i / 30
            sent += 1
            yield pb.TrackRequest(instant=instant)
            time.sleep(0.02)

    answers = stub.Track(requests(), timeout=120)
    assert wait_for(lambda: sent == 40, 60)  # nothing was read yet, and all was taken
    assert len(measure(stub).measurements) > 20
    seen = list(answers)
    indices = [a.estimate.index for a in seen]
    assert indices == sorted(set(indices))
    assert len(seen) + seen[-1].dropped_in_all == 40
    assert sum(a.dropped for a in seen) == seen[-1].dropped_in_all
    assert indices[-1] == 39  # the newest one wins


def test_half_open_stream_is_ended_and_its_place_is_free() -> None:
    with ServerProcess(*ONE, "--streams-per-worker", "1", "--stream-idle-s", "2") as server, _stub(server) as stub:
        header, _ = recording_messages(open_recording(DEMO))
        hold = threading.Event()

        def silent() -> Iterator[pb.TrackRequest]:
            yield pb.TrackRequest(start=pb.TrackStart(header=header))
            hold.wait(60)

        first = stub.Track(silent(), timeout=60)
        with pytest.raises(grpc.RpcError) as caught:
            next(first)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        hold.set()

        def one() -> Iterator[pb.TrackRequest]:
            yield pb.TrackRequest(start=pb.TrackStart(header=header))

        assert list(stub.Track(one(), timeout=60)) == []


def test_worker_out_of_memory_costs_that_fit_alone() -> None:
    """A limit that the shipped recording's fit keeps well and a picture of sixteen million pixels does not."""
    with ServerProcess(*ONE, "--worker-memory-mb", "600") as server, _stub(server) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            stub.Fit(huge_request(), timeout=120)
        assert caught.value.code() == grpc.StatusCode.ABORTED
        assert len(measure(stub).measurements) > 20
        assert stub.Fit(demo_request(), timeout=120).result.converged


def huge_request() -> pb.FitRequest:
    """The shipped recording's depth, each pixel repeated, in the largest picture that is let in."""
    import numpy as np
    import zstandard

    request = demo_request()
    camera = request.header.sensors[0].depth_camera
    recording = open_recording(DEMO)
    frame = recording.frame(0, recording.sensors[0].name)
    assert frame is not None
    k = int((16_777_216 / frame.depth.size) ** 0.5)
    depth = np.repeat(np.repeat(frame.depth, k, 0), k, 1)
    camera.width, camera.height = depth.shape[1], depth.shape[0]
    camera.fx, camera.fy = camera.fx * k, camera.fy * k
    camera.cx, camera.cy = (camera.cx + 0.5) * k - 0.5, (camera.cy + 0.5) * k - 0.5
    seen = request.instants[0].frames[0]
    seen.ClearField("mask")
    seen.depth.encoding = pb.DEPTH_ENCODING_ZSTD_FLOAT32
    seen.depth.data = zstandard.ZstdCompressor().compress(depth.astype("<f4").tobytes())
    return request


def test_sigterm_under_load_loses_nothing_that_was_accepted() -> None:
    with ServerProcess("--fit-workers", "2", "--track-workers", "0", "--queue-size", "16") as server:
        with grpc.insecure_channel(server.address) as channel:
            stub = bodyfit_pb2_grpc.BodyFitServiceStub(channel)
            calls = [stub.Fit.future(demo_request(), timeout=120) for _ in range(8)]
            assert wait_for(lambda: busy(stub), 20)
            # initial metadata says that a request was accepted
            accepted = [c for c in calls if any(k == "x-request-id" for k, _ in c.initial_metadata())]
            server.signal(signal.SIGTERM)
            assert wait_for(lambda: status(channel) != 1, 5)
            late = stub.Fit.future(demo_request(), timeout=60)
            assert late.code() == grpc.StatusCode.UNAVAILABLE
            assert all(c.code() == grpc.StatusCode.OK for c in accepted)
            assert len(accepted) == 8
        assert server.process.wait(60) == 0


def test_live_stream_is_told_when_the_server_drains() -> None:
    """It does not hold up the end of the server until the grace period is over."""
    header, instants = recording_messages(open_recording(DEMO))
    first = next(iter(instants))
    with ServerProcess(*ONE, "--grace-s", "30") as server, _stub(server) as stub:

        def requests() -> Iterator[pb.TrackRequest]:
            yield pb.TrackRequest(start=pb.TrackStart(header=header))
            for i in range(10_000):
                instant = pb.Instant()
                instant.CopyFrom(first)
                instant.index, instant.timestamp_s = i, i / 30
                yield pb.TrackRequest(instant=instant)
                time.sleep(0.02)

        answers = stub.Track(requests(), timeout=120)
        next(answers)
        server.signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            list(answers)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert server.process.wait(20) == 0


def test_restart_with_clients_that_retry() -> None:
    from bodyfit_service.client import BodyFitClient, Retries

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    retries = Retries(attempts=60, longest_wait_s=1.0)
    first = ServerProcess(*ONE, address=address)
    with first, BodyFitClient(address, retries=retries) as client, ThreadPoolExecutor(4) as pool:
        assert client.fit(DEMO).converged
        first.stop()
        fits = [pool.submit(client.fit, DEMO) for _ in range(4)]
        with ServerProcess(*ONE, address=address):
            assert all(f.result(120).converged for f in fits)
