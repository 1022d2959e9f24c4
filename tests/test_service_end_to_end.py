"""A real server and a client in another process: the library's own numbers, the README's example, reflection."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from server_process import DEMO, ServerProcess, status, wait_for

from bodyfit.fit.fit import fit
from bodyfit.fit.track_recording import track
from bodyfit.recording.formats import open_recording
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_protos.v1 import bodyfit_pb2_grpc
from bodyfit_service.client import BodyFitClient
from bodyfit_service.frames_wire import recording_messages

SHARED = Path(__file__).resolve().parents[2] / "shared" / "recordings"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--fit-workers", "1", "--resume-grace-s", "60") as server:
        yield server


def assert_same(there: Any, here: Any) -> None:
    """Every number of two results, to the last bit."""
    for name in ("betas", "betas_cov", "poses", "pose_sd", "transl"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name), err_msg=name)
    for name in ("frame_indices", "timestamps_s", "garments_m", "coverage", "stop_reason", "converged", "flags"):
        assert getattr(there, name) == getattr(here, name), name
    assert (there.frames, there.hints, there.clothing, there.sex) == (here.frames, here.hints, here.clothing, here.sex)
    assert dict(there.measurements) == dict(here.measurements)


@pytest.mark.parametrize("name", ["demo", "real_kinect2_standing", "turn4_00"])
@pytest.mark.parametrize("stream", [False, True])
def test_fit_over_the_wire_is_the_librarys_own(server: ServerProcess, name: str, stream: bool) -> None:
    folder = DEMO if name == "demo" else SHARED / name
    if not folder.is_dir():
        pytest.skip("no test recordings beside the checkout")
    if stream and name != "demo":
        pytest.skip("one message and a stream carry the same bytes: once is enough")
    told: list[float] = []
    with BodyFitClient(server.address) as client:
        progress = (lambda _stage, fraction: told.append(fraction)) if stream else None
        there = client.fit(folder, stream=stream, progress=progress)
    assert_same(there, fit(folder))
    assert told == sorted(told) and (not stream or told[-1] > 0.8)


def test_broken_stream_goes_on_from_what_was_acknowledged(server: ServerProcess) -> None:
    header, instants = recording_messages(open_recording(DEMO))
    pieces = [i.SerializeToString() for i in instants]

    def chunks(start: int) -> Iterator[pb.FitRecordingRequest]:
        for n in range(start, len(pieces)):
            for at in range(0, len(pieces[n]), 50_000):
                data = pieces[n][at : at + 50_000]
                last = at + len(data) == len(pieces[n])
                yield pb.FitRecordingRequest(chunk=pb.InstantChunk(position=n, offset=at, data=data, last=last))

    with grpc.insecure_channel(server.address) as channel:
        stub = bodyfit_pb2_grpc.BodyFitServiceStub(channel)

        def first() -> Iterator[pb.FitRecordingRequest]:
            yield pb.FitRecordingRequest(start=pb.FitRecordingStart(header=header))
            yield from list(chunks(0))[:-2]  # not all

        call = stub.FitRecording(first(), timeout=60)
        key = next(call).accepted.recording_id
        held = 0
        while held < len(pieces) - 1:
            held = next(call).acknowledged.next_position
        call.cancel()  # a connection that breaks looks the same

        def second() -> Iterator[pb.FitRecordingRequest]:
            yield pb.FitRecordingRequest(resume=pb.FitRecordingResume(recording_id=key))
            yield from chunks(held)
            yield pb.FitRecordingRequest(finish=pb.FitRecordingFinish(num_instants=len(pieces)))

        call = stub.FitRecording(second(), timeout=120)
        accepted = next(call).accepted
        assert (accepted.next_position, accepted.finished) == (held, False)
        while not (message := next(call)).HasField("progress"):
            pass
        call.cancel()  # once more, in the middle of the fit

        def third() -> Iterator[pb.FitRecordingRequest]:
            yield pb.FitRecordingRequest(resume=pb.FitRecordingResume(recording_id=key))

        answers = list(stub.FitRecording(third(), timeout=120))
        assert answers[0].accepted.finished
        fractions = [a.progress.fraction for a in answers if a.HasField("progress")]
        assert fractions == sorted(fractions)
        message = answers[-1]
    here = fit(DEMO)
    np.testing.assert_array_equal(message.result.betas, here.betas)
    assert [i.index for i in message.result.instants] == list(here.frame_indices)


def test_live_stream_gives_the_trackers_own_estimates_in_order(server: ServerProcess) -> None:
    folder = SHARED / "sequence_00"
    if not folder.is_dir():
        pytest.skip("no test recordings beside the checkout")
    expected: list[Any] = []
    track(folder, smooth=False, on_estimate=expected.append)
    with BodyFitClient(server.address) as client:
        every = list(client.track(folder))
        paced = list(client.track(folder, paced=True))
    assert [a.estimate.index for a in every if a.estimate] == [e.index for e in expected]
    assert every[-1].dropped_in_all == 0
    for answer, e in zip(every, expected, strict=True):
        assert answer.estimate is not None and answer.latency_ms > 0
        np.testing.assert_array_equal(answer.estimate.pose, e.pose)
    indices = [a.estimate.index for a in paced if a.estimate]
    assert indices == sorted(set(indices))
    assert len(paced) + paced[-1].dropped_in_all == len(expected)


def test_example_of_the_readme_runs_as_printed(server: ServerProcess, repo_root: Path, tmp_path: Path) -> None:
    text = (repo_root / "README.md").read_text(encoding="utf-8")
    (example,) = [e for e in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "BodyFitClient" in e]
    assert len(example.splitlines()) <= 12
    for name in ("my_recording", "my_motion"):
        shutil.copytree(DEMO, tmp_path / name)
    example = example.replace("localhost:50051", server.address)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"stature +\d+\.\d ± \d\.\d cm", done.stdout)
    assert re.search(r"0 FOUND \d+ ms", done.stdout)


def test_command_line_client_writes_a_fits_folder(server: ServerProcess, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bodyfit.cli.main", "client"]
    done = subprocess.run(
        [*command, "fit", str(DEMO), "--address", server.address, "-o", str(tmp_path / "out")],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"fit.npz", "measurements.json", "summary.png"} <= {p.name for p in (tmp_path / "out").iterdir()}
    healthy = subprocess.run([*command, "health", "--address", server.address], capture_output=True, timeout=60)
    assert healthy.returncode == 0


def test_reflection_describes_the_service(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest
        requests = [ask(list_services=""), ask(file_containing_symbol="bodyfit.v1.BodyFitService")]
        listed, found = stub.ServerReflectionInfo(iter(requests), timeout=20)  # pyright: ignore[reportCallIssue]
        assert status(channel) == 1
    names = {s.name for s in listed.list_services_response.service}
    assert {"bodyfit.v1.BodyFitService", "grpc.health.v1.Health"} <= names
    file = descriptor_pb2.FileDescriptorProto.FromString(found.file_descriptor_response.file_descriptor_proto[0])
    methods = {m.name for m in file.service[0].method}
    assert methods == {"Fit", "FitRecording", "Track", "Measure", "ListBodyModels", "GetServerInfo"}


def test_server_ends_cleanly() -> None:
    server = ServerProcess("--fit-workers", "1", "--track-workers", "0")
    assert server.stop() == 0
    assert wait_for(lambda: server.records("ended"), 5)
