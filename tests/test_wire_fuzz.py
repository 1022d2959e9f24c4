"""Mutated messages: what comes out is a result, a refusal that names its field, or that it is no message."""

from __future__ import annotations

import contextlib
import importlib
import random
import sys
from types import ModuleType

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bodyfit.camera import Camera
from bodyfit.errors import BodyfitError, FrameError, InputError
from bodyfit.frame import Frame
from bodyfit.observe.observation import observe
from bodyfit.recording.undistort import check_invertible
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.status import error_of_status

SOME = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    folder = str(__file__).rsplit("/", 2)[0] + "/benchmarks"
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("fuzz")
    finally:
        sys.path.remove(folder)


@SOME
@given(seed=st.integers(0, 2**32), kind=st.integers(0, 3))
def test_requests_with_wrong_fields_and_images(fuzz: ModuleType, seed: int, kind: int) -> None:
    rng = random.Random(seed)
    try:
        fuzz.take_request(fuzz.mutated(fuzz.valid_request(kind), rng))
    except InputError as problem:
        assert problem.field and problem.expected and problem.found
    except DecodeError:
        pass


@SOME
@given(edits=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=8))
def test_requests_with_wrong_bytes_in_front(fuzz: ModuleType, edits: list[tuple[int, int]]) -> None:
    data = bytearray(fuzz.valid_request(1).SerializeToString())
    for at, value in edits:
        data[at] = value
    with contextlib.suppress(InputError, DecodeError):
        fuzz.take_request(bytes(data))


@SOME
@given(data=st.binary(max_size=400))
def test_bytes_that_never_were_a_message(fuzz: ModuleType, data: bytes) -> None:
    for take in (fuzz.take_request, fuzz.take_live, pb.FitRecordingRequest.FromString, pb.TrackRequest.FromString):
        with contextlib.suppress(InputError, DecodeError):
            take(data)
    with contextlib.suppress(DecodeError):
        assert isinstance(error_of_status(Status.FromString(data)), BodyfitError)


def test_readings_that_no_grid_point_meets_are_refused() -> None:
    camera = Camera(40, 32, 35.0, 35.5, 19.6, 15.4)
    refused = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        depth = np.zeros((32, 40), np.float32)
        row, column = rng.integers(0, 28), rng.integers(0, 36)
        depth[row : row + 3, column : column + 3] = 2.0
        with pytest.raises(InputError) as problem:
            observe(Frame(depth, camera, np.eye(4)), gravity_world=None)
        refused += type(problem.value) is FrameError
    assert refused


def test_a_lens_whose_last_coefficient_is_next_to_nothing() -> None:
    from bodyfit.camera import Distortion

    check_invertible("c", Camera(64, 48, 60, 60, 32, 24, Distortion("brown_conrady", (5e-324, 0, 0, 0, 5e-324))))
