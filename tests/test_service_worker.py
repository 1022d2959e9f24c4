"""What a worker answers, and what the front makes of it, without a server around them."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
from google.rpc.code_pb2 import INTERNAL
from google.rpc.status_pb2 import Status

from bodyfit_service.errors import WorkerDiedError
from bodyfit_service.limits import Limits
from bodyfit_service.message import Message, Shared, read_shared, receive
from bodyfit_service.pool import RefusedError, answer_of
from bodyfit_service.worker import FIT, Worker, WorkerSetup


@pytest.fixture
def talking() -> tuple[Worker, Any]:
    """A worker in this process, and the front's end of its pipe."""
    ours, theirs = multiprocessing.Pipe()
    setup = WorkerSetup(FIT, "", 1, 0, Limits())
    return Worker(theirs, multiprocessing.get_context("spawn").RawValue("q", -1), setup), ours


def test_request_that_was_withdrawn_before_it_was_begun_is_stopped(talking: tuple[Worker, Any]) -> None:
    worker, front = talking
    memory = Shared(b"gone before it is read")
    values = memory.values
    assert read_shared(values) == b"gone before it is read"
    memory.free()
    worker.take(Message("fit", 1, values))
    assert receive(front).what == "stopped"


def test_file_that_is_missing_in_a_fit_is_an_error_and_no_answer(talking: tuple[Worker, Any]) -> None:
    """Only shared memory that is gone says that a job was withdrawn."""
    worker, front = talking

    def broken(name: str) -> Any:
        raise FileNotFoundError(name)

    worker.model = broken
    memory = Shared(b"")
    worker.take(Message("measure", 1, {**memory.values, "request_id": "some-id"}))
    memory.free()
    message = receive(front)
    assert message.what == "failed" and "FileNotFoundError" in message.values["traceback"]
    with pytest.raises(RefusedError) as caught:
        answer_of(message)
    assert Status.FromString(caught.value.status).code == INTERNAL


def test_what_is_no_answer_is_not_taken_for_an_empty_one() -> None:
    assert answer_of(Message("done", 1, {}, b"x")) == b"x"
    for what in ("stopped", "dying", "whatever"):
        with pytest.raises(WorkerDiedError):
            answer_of(Message(what, 1))
