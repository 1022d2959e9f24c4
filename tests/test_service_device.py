"""A server over a device, with real processes: jobs of several workers in one batch, and a device that is lost.

The device is the CPU's launchers in a process of their own (`cpu-gathered`); where a GPU is at hand, the tests marked
`gpu` have it in that place.
"""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from server_process import DEMO, SERVING, ServerProcess, status, wait_for

from bodyfit.body.model import load_body_model
from bodyfit.errors import DeviceError
from bodyfit.fit.config import FitConfig
from bodyfit.fit.fit import fit
from bodyfit.fit.open_device import usable
from bodyfit.fit.track import Tracker
from bodyfit.recording.formats import open_recording
from bodyfit.recording.memory import MemoryInstant, MemoryRecording
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_protos.v1 import bodyfit_pb2_grpc
from bodyfit_service.client import BodyFitClient
from bodyfit_service.errors import ServiceError, UnavailableError
from bodyfit_service.frames_wire import recording_messages
from bodyfit_service.settings import read_settings

pytestmark = pytest.mark.slow
METRICS = ("--metrics-address", "127.0.0.1:0")
GATHERED = "cpu-gathered:2"  # with memory for two jobs: what is gathered of three is split
DEVICES = [GATHERED, pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module", params=DEVICES)
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    why = usable(request.param)
    if why is not None:
        pytest.skip(why)
    workers = ("--fit-workers", "3", "--track-workers", "2", "--device-batch-ms", "20")
    with ServerProcess("--device", request.param, *workers, *METRICS) as server:
        yield server


@pytest.fixture(scope="module")
def expected() -> Any:
    """The shipped instant's fit by the library."""
    return fit(DEMO, frames=[0], config=FitConfig(threads=1))


def log_of(server: ServerProcess, message: str) -> list[dict[str, Any]]:
    return [record for record in server.logs if record.get("message") == message]


def device_metrics(server: ServerProcess) -> dict[str, float]:
    """What the device's process has done, as Prometheus reads it."""
    (told,) = log_of(server, "metrics")
    with urllib.request.urlopen(f"http://127.0.0.1:{told['port']}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = [line.split() for line in lines if line.startswith("bodyfit_device_")]
    return {name.removeprefix("bodyfit_device_").partition("{")[0]: float(value) for name, value in found}


def request() -> pb.FitRequest:
    header, instants = recording_messages(open_recording(DEMO))
    made = pb.FitRequest(header=header)
    made.instants.add().CopyFrom(next(iter(instants)))
    return made


def fitted(server: ServerProcess, **more: Any) -> Any:
    with BodyFitClient(server.address, **more) as client:
        return client.fit(DEMO, frames=[0])


def on_cpu(server: ServerProcess) -> bool:
    """Whether the device is the CPU: then results are equal to the last bit."""
    return "--device cpu-gathered" in " ".join(map(str, server.process.args))  # type: ignore[arg-type]


def assert_same(server: ServerProcess, ours: Any, theirs: Any) -> None:
    bodies = np.abs(ours.vertices - theirs.vertices).max() if hasattr(ours, "vertices") else 0.0
    assert bodies < 1e-4
    if on_cpu(server):
        np.testing.assert_array_equal(ours.poses, theirs.poses)
        np.testing.assert_array_equal(ours.betas, theirs.betas)
    np.testing.assert_allclose(ours.transl, theirs.transl, atol=1e-4)


def test_requests_at_once_share_batches_and_each_gets_its_own_result(server: ServerProcess, expected: Any) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: fitted(server), range(3)))
    for one in found:
        assert_same(server, one, expected)
    assert wait_for(lambda: device_metrics(server).get("jobs", 0) > 60, 20)
    counts = device_metrics(server)
    assert counts["largest"] >= 2 and counts["batches"] < counts["jobs"]
    if on_cpu(server):
        assert counts["largest"] == 2 and counts["splits"] > 0 and counts["on_cpu"] == 0


def test_one_of_several_that_is_cancelled_leaves_the_others_alone(server: ServerProcess, expected: Any) -> None:
    with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(2) as pool:
        stub = bodyfit_pb2_grpc.BodyFitServiceStub(channel)
        others = [pool.submit(fitted, server) for _ in range(2)]
        call = stub.Fit.future(request(), timeout=120)
        time.sleep(0.7)
        call.cancel()
        for other in others:
            assert_same(server, other.result(timeout=120), expected)
        info = lambda: stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10)  # noqa: E731
        assert wait_for(lambda: info().fit_workers_busy == 0, 10)
    assert_same(server, fitted(server), expected)


def followed() -> MemoryRecording:
    """The shipped instant, five times over at 30 frames a second."""
    source = open_recording(DEMO)
    frames = {s.name: f for s in source.sensors if (f := source.frame(0, s.name)) is not None}
    instants = [
        MemoryInstant(n, n / 30, {name: replace(f, index=n, timestamp_s=n / 30) for name, f in frames.items()})
        for n in range(5)
    ]
    return MemoryRecording(source.sensors, instants, gravity_world=source.gravity_world)


def test_two_streams_over_one_device_are_followed_as_by_the_library(server: ServerProcess) -> None:
    source = followed()
    tracker = Tracker(load_body_model(), gravity_world=source.gravity_world)
    poses = []
    for n in range(source.num_frames):
        seen = [f for s in source.sensors if (f := source.frame(n, s.name)) is not None]
        poses.append(tracker.update(seen, index=n).pose)

    def stream(_: int) -> list[Any]:
        with BodyFitClient(server.address) as client:
            return [a.estimate for a in client.track(source)]

    with ThreadPoolExecutor(2) as pool:
        for estimates in pool.map(stream, range(2)):
            assert [e.index for e in estimates] == list(range(5))
            for estimate, pose in zip(estimates, poses, strict=True):
                np.testing.assert_allclose(estimate.pose, pose, atol=1e-12 if on_cpu(server) else 1e-3)


def kill_device(server: ServerProcess) -> None:
    os.kill(log_of(server, "device ready")[-1]["pid"], signal.SIGKILL)


def test_a_lost_device_is_told_and_comes_back(server: ServerProcess, expected: Any) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = bodyfit_pb2_grpc.BodyFitServiceStub(channel)
        seen: list[int | None] = []
        call = stub.Fit.future(request(), timeout=120)
        time.sleep(0.5)
        kill_device(server)
        assert wait_for(lambda: (seen.append(status(channel)), seen[-1] not in (SERVING, None))[1], 20)
        with pytest.raises(grpc.RpcError) as caught:
            call.result()
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE, caught.value
        assert wait_for(lambda: status(channel) == SERVING, 120)
    assert_same(server, fitted(server), expected)
    assert log_of(server, "device's process ended")


def test_a_client_that_tries_again_gets_its_answer(server: ServerProcess, expected: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_until_answered, server)
        time.sleep(0.5)
        kill_device(server)
        assert_same(server, asked.result(timeout=180), expected)


def _until_answered(server: ServerProcess) -> Any:
    end = time.monotonic() + 150
    while True:
        try:
            return fitted(server)
        except (UnavailableError, ServiceError):
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def test_with_failover_the_cpu_answers_while_the_device_is_away(expected: Any) -> None:
    flags = ("--device", "cpu-gathered", "--device-failover", "--fit-workers", "1", "--track-workers", "0")
    with ServerProcess(*flags) as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(fitted, server)
        time.sleep(0.5)
        kill_device(server)
        found = asked.result(timeout=120)
        assert_same(server, found, expected)
        assert found.provenance["device"] == "cpu-gathered, in part cpu"
        with grpc.insecure_channel(server.address) as channel:
            assert status(channel) == SERVING
        assert wait_for(lambda: len(log_of(server, "device ready")) == 2, 120)
        assert_same(server, fitted(server), expected)
        assert server.stop() == 0


@pytest.mark.parametrize("device", ["tpu", "cuda,cuda", "cuda,cuda:0", "cuda:0,cpu", "cpu-gathered:0", ""])
def test_devices_that_make_no_sense_are_refused(device: str) -> None:
    with pytest.raises(DeviceError, match="--device: expected cpu, cuda"):
        read_settings({"device": device}, {})


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="there may be a GPU")
def test_a_server_without_its_device_does_not_start() -> None:
    with pytest.raises(DeviceError, match="--device: expected a device that can be used"):
        read_settings({"device": "cuda"}, {})
    assert read_settings({"device": "auto"}, {}).devices == []
