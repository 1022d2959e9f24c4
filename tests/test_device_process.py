"""A process that owns the device and others that ask it: real processes, with the CPU's launchers as the device."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_problems import follow_job, start_job
from tiny_body import write_tiny_body

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.camera import Camera
from bodyfit.errors import DeviceError, DeviceLostError, InputError
from bodyfit.fit.config import FitConfig
from bodyfit.fit.device import CpuBackend, DescendJob, LinearizeJob, SolveJob
from bodyfit.fit.device_host import DeviceHost
from bodyfit.fit.device_process import DeviceServer, RemoteSolver, backend_for, device_main
from bodyfit.fit.device_wire import Incoming, Outgoing, Unknown, packed, unpacked
from bodyfit.fit.problem import ShapeGaussian
from bodyfit.fit.solver import StopReason

CAMERA = Camera(48, 40, 34.0, 34.0, 23.5, 19.5)
STAGE = replace(FitConfig().settle[-1], pixels=120, num_betas=3)
SPAWN = multiprocessing.get_context("spawn")


@dataclass
class Device:
    """A device's process."""

    address: str
    process: Any

    def solver(self) -> RemoteSolver:
        return RemoteSolver(self.address, "cpu-gathered")


def started(address: str, device: str = "cpu-gathered", wait_s: float = 0.002) -> Device:
    ours, theirs = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=device_main, args=(address, device, theirs, wait_s), daemon=True)
    process.start()
    theirs.close()
    assert ours.poll(120), "the device's process says nothing"
    assert ours.recv_bytes() == b"ready"
    return Device(address, process)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    found = started(str(tmp_path_factory.mktemp("d") / "s"), "cpu-gathered:3", 0.02)
    yield found
    found.process.kill()
    found.process.join()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BodyModel:
    return load_body_model(write_tiny_body(Path(tmp_path_factory.mktemp("body")) / "tiny.npz"))


def job_of(model: BodyModel, seed: int) -> DescendJob:
    return follow_job(model, CAMERA, seed, level=0, pixels=100)


def assert_equal(ours: Any, theirs: Any) -> None:
    """All numbers of two results, to the last bit."""
    for name in ("rotations", "transl", "shape", "group"):
        np.testing.assert_array_equal(getattr(ours.state, name), getattr(theirs.state, name), err_msg=name)
    for name in ("A", "B", "C", "pose_gradient", "shape_gradient", "cost", "instant_cost", "stats"):
        np.testing.assert_array_equal(getattr(ours.equations, name), getattr(theirs.equations, name), err_msg=name)


def test_results_are_those_of_this_process_to_the_last_bit(model: BodyModel, device: Device) -> None:
    solver = device.solver()
    start = replace(start_job(model, CAMERA, 1, stage=STAGE, count=2, keypoints=True), iterations=3)
    ours, theirs = solver.solve(start), CpuBackend().solve([start])[0]
    assert_equal(ours, theirs)
    np.testing.assert_array_equal(ours.steps, theirs.steps)
    assert ours.reasons == theirs.reasons
    for seed in (0, 1):  # one of the two has an expected pose
        follow = job_of(model, seed)
        assert_equal(solver.descend(follow), CpuBackend().descend([follow])[0])
    active = np.array([False, True])
    look = LinearizeJob(start.problem, start.state, active, want_rows=False)
    np.testing.assert_array_equal(solver.linearize(look).cost, CpuBackend().linearize([look])[0].cost)


def test_what_comes_again_is_sent_once_and_again_where_it_was_lost(model: BodyModel) -> None:
    outgoing, incoming = Outgoing(), Incoming()
    first = outgoing.message({"what": "descend"}, job_of(model, 0))
    assert len(first) > 4
    for part in first[:-1]:
        assert incoming.take(part) is None
    assert incoming.take(first[-1]) is not None
    job = job_of(model, 0)
    outgoing.message({"what": "descend"}, job)
    again = outgoing.message({"what": "descend"}, job)
    assert len(again) == 1 and len(again[0]) < 0.5 * sum(map(len, first))
    with pytest.raises(Unknown) as caught:
        Incoming().take(again[0])
    outgoing.forget(caught.value.names)
    assert len(outgoing.message({"what": "descend"}, job)) == 1 + len(caught.value.names)


def _ask(address: str, seeds: list[int], folder: str, path: str) -> None:
    """In another process: follows some bodies over the device and writes what came."""
    solver, model = RemoteSolver(address, "cpu-gathered"), load_body_model(path)
    with ThreadPoolExecutor(len(seeds)) as pool:
        found = list(pool.map(lambda seed: solver.descend(job_of(model, seed)), seeds))
    for seed, one in zip(seeds, found, strict=True):
        np.savez(f"{folder}/{seed}.npz", R=one.state.rotations, t=one.state.transl, A=one.equations.A)


def test_processes_share_batches_and_a_batch_that_is_too_large_is_split(
    model: BodyModel, device: Device, tmp_path: Path
) -> None:
    before = device.solver().counts()
    path = str(write_tiny_body(tmp_path / "tiny.npz"))
    sets = [[0, 1, 2], [3, 4, 5]]
    asking = [SPAWN.Process(target=_ask, args=(device.address, seeds, str(tmp_path), path)) for seeds in sets]
    for process in asking:
        process.start()
    for process in asking:
        process.join(120)
        assert process.exitcode == 0
    for seed in range(6):
        expected = CpuBackend().descend([job_of(model, seed)])[0]
        with np.load(tmp_path / f"{seed}.npz") as found:
            np.testing.assert_array_equal(found["R"], expected.state.rotations)
            np.testing.assert_array_equal(found["A"], expected.equations.A)
    after = device.solver().counts()
    assert after["jobs"] - before["jobs"] == 6
    assert after["largest"] <= 3 and after["batches"] - before["batches"] < 6


def test_one_that_is_cancelled_ends_and_the_device_goes_on(model: BodyModel, device: Device) -> None:
    job = start_job(model, CAMERA, 0, stage=STAGE, count=2)
    found = device.solver().solve(replace(job, cancelled=lambda: True))
    assert set(found.reasons) <= {StopReason.CANCELLED, StopReason.CONVERGED, StopReason.STEPS_USED}
    follow = job_of(model, 2)
    assert_equal(device.solver().descend(follow), CpuBackend().descend([follow])[0])


def test_bytes_from_anywhere_are_refused(model: BodyModel, device: Device) -> None:
    good = Outgoing().message({"what": "descend"}, job_of(model, 0))[-1]
    header = json.dumps({"what": "solve", "tree": {"kind": "Popen", "fields": {}}, "arrays": []}).encode()
    large = json.dumps({"what": "part", "tree": None, "arrays": [["f8", [1 << 29], 0]]}).encode()
    for bad in (
        b"",
        b"\0" * 64,
        os.urandom(300),
        good[: len(good) // 2],
        struct.pack("<Q", len(header)) + header,
        struct.pack("<Q", len(large)) + large,
        struct.pack("<Q", 1 << 60) + header,
        packed({"what": "destroy", "tree": None}, []),
    ):
        with Client(device.address, "AF_UNIX") as connection:
            connection.send_bytes(bad)
            assert connection.poll(20)
            answer, _ = unpacked(connection.recv_bytes())
            assert answer["what"] == "failed" and answer["kind"] == "input", answer
    assert device.process.is_alive()
    follow = job_of(model, 1)
    assert_equal(device.solver().descend(follow), CpuBackend().descend([follow])[0])


def test_who_is_killed_takes_nothing_with_him(model: BodyModel, device: Device, tmp_path: Path) -> None:
    path = str(write_tiny_body(tmp_path / "tiny.npz"))
    process = SPAWN.Process(target=_ask_for_ever, args=(device.address, path))
    process.start()
    began = device.solver().counts()["jobs"]
    while device.solver().counts()["jobs"] == began:
        time.sleep(0.02)
        assert process.is_alive()
    process.kill()
    process.join()
    follow = job_of(model, 3)
    assert_equal(device.solver().descend(follow), CpuBackend().descend([follow])[0])


def _ask_for_ever(address: str, path: str) -> None:
    solver, job = RemoteSolver(address, "cpu-gathered"), job_of(load_body_model(path), 0)
    while True:
        solver.descend(job)


def test_a_killed_device_is_lost_until_another_listens_there(model: BodyModel, tmp_path: Path) -> None:
    address = str(tmp_path / "s")
    first = started(address)
    solver, job = first.solver(), job_of(model, 1)
    expected = CpuBackend().descend([job])[0]
    assert_equal(solver.descend(job), expected)
    stop = threading.Event()
    lost: list[Exception] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                solver.descend(job)
            except DeviceLostError as error:
                lost.append(error)
                return

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.1)
    first.process.kill()
    first.process.join()
    asking.join(20)
    stop.set()
    assert lost
    with pytest.raises(DeviceLostError, match="process is gone"):
        solver.descend(job)
    second = started(address)
    assert_equal(solver.descend(job), expected)
    second.process.kill()
    second.process.join()


def _start_and_wait(pids: Any) -> None:
    """A process that starts a device's and then does nothing."""
    host = DeviceHost("cpu-gathered")
    host.start_and_wait()
    assert host.process is not None
    pids.send(host.process.pid)
    time.sleep(120)


def test_a_devices_process_ends_with_who_started_it(model: BodyModel) -> None:
    """Also when that is killed: nobody else would ever end it, and it holds the device's memory."""
    ours, theirs = SPAWN.Pipe(duplex=False)
    owner = SPAWN.Process(target=_start_and_wait, args=(theirs,))
    owner.start()
    assert ours.poll(120)
    pid = ours.recv()
    os.kill(pid, 0)
    owner.kill()
    owner.join()
    end = time.monotonic() + 20
    while _runs(pid):
        assert time.monotonic() < end
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_one_who_had_nothing_to_ask_meanwhile_finds_the_device_that_listens_now(
    model: BodyModel, tmp_path: Path
) -> None:
    job = job_of(model, 1)
    with DeviceHost("cpu-gathered") as host:
        host.start_and_wait()
        solver = RemoteSolver(host.address, "cpu-gathered")
        expected = solver.descend(job)
        host.start_and_wait()
        assert host.starts == 2
        assert_equal(solver.descend(job), expected)


def test_the_device_does_the_algebra_in_one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pools = pytest.importorskip("threadpoolctl")
    threads: list[int] = []

    def serve(_self: DeviceServer, listener: Any) -> None:
        threads.extend(pool["num_threads"] for pool in pools.threadpool_info() if pool["user_api"] == "blas")
        listener.close()

    monkeypatch.setattr(DeviceServer, "serve", serve)
    before = signal.getsignal(signal.SIGINT)
    ours, theirs = SPAWN.Pipe(duplex=False)
    try:
        with pools.threadpool_limits(2, user_api="blas"):
            device_main(str(tmp_path / "s"), "cpu-gathered", theirs)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ours.recv_bytes() == b"ready"
    assert threads and set(threads) == {1}


def test_shapes_that_no_array_can_have_are_refused() -> None:
    huge = 1 << 30
    header = json.dumps({"what": "part", "tree": None, "arrays": [["f8", [0, huge, huge, huge], 0]]}).encode()
    with pytest.raises(InputError, match="message: expected shapes of arrays"):
        unpacked(struct.pack("<Q", len(header)) + header)
    _, (empty,) = unpacked(packed({"what": "part"}, [np.zeros((0, 3))]))
    assert empty.shape == (0, 3)


def test_names_of_what_is_there_are_forgotten_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bodyfit.fit.device_wire.MOST_THERE", 2)
    outgoing = Outgoing()
    parts = [ShapeGaussian(np.full(2, k), np.eye(2)) for k in range(3)]
    assert [len(outgoing.message({}, part)) for part in (*parts, parts[2], parts[1], parts[0])] == [2, 2, 2, 1, 1, 2]


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu-gathered:0", "cpu-gathered:many"])
def test_devices_that_do_not_exist_are_refused(device: str) -> None:
    with pytest.raises(DeviceError, match="device: expected"):
        backend_for(device)


def test_a_device_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    ours, theirs = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=device_main, args=(str(tmp_path / "s"), "gpu", theirs))
    process.start()
    theirs.close()
    assert ours.poll(60) and ours.recv_bytes().startswith(b"unfit device: expected cuda")
    process.join(20)
    assert process.exitcode == 1


def test_a_message_of_another_kind_is_no_job() -> None:
    with pytest.raises(InputError, match="a job or a result"):
        Incoming().take(packed({"what": "solve", "tree": {"kind": "SolveJob", "fields": {"color": 1}}}, []))
    with pytest.raises(TypeError, match="never sent"):
        Outgoing().message({"what": "solve"}, Callable)
    assert SolveJob.__name__ == "SolveJob"
