"""What front and workers say to each other over a pipe: one JSON line and bytes. Nothing is unpickled on either side:
a worker decodes images of strangers, and what it says is read like a stranger's."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from bodyfit_service.errors import QueueFullError

NO_MEMORY_RETRY_S = 2.0


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        what: its kind.
        number: which job or stream it is about.
        values: plain data.
        payload: bytes.
    """

    what: str
    number: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""


def send(pipe: Connection, message: Message) -> None:
    """Writes a message; blocks while the pipe is full.

    Raises:
        OSError: nobody listens any more.
    """
    head = json.dumps([message.what, message.number, message.values], separators=(",", ":")).encode()
    pipe.send_bytes(len(head).to_bytes(4, "little") + head + message.payload)


def receive(pipe: Connection) -> Message:
    """Waits for the next message.

    Raises:
        EOFError, OSError: nobody speaks any more.
        ValueError: what came is no message.
    """
    data = pipe.recv_bytes()
    end = 4 + int.from_bytes(data[:4], "little")
    what, number, values = json.loads(data[4:end])
    if not (isinstance(what, str) and isinstance(number, int) and isinstance(values, dict)):
        raise ValueError("not a message")
    return Message(what, number, values, data[end:])


class Shared:
    """Bytes in shared memory, made by the front for one request and gone with it.

    Raises:
        QueueFullError: there is no shared memory left.
    """

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._memory = SharedMemory(create=True, size=max(1, self.size))
        try:
            # a page that is first missed when it is written would end the process (SIGBUS), not the request
            os.posix_fallocate(self._memory._fd, 0, max(1, self.size))  # type: ignore[attr-defined]
        except OSError:
            self.free()
            raise QueueFullError("no shared memory left", retry_after_s=NO_MEMORY_RETRY_S) from None
        self._view()[: self.size] = data

    def _view(self) -> memoryview:
        assert self._memory.buf is not None
        return self._memory.buf

    @property
    def values(self) -> dict[str, Any]:
        """What a worker needs to read it."""
        return {"memory": self._memory.name, "size": self.size}

    def free(self) -> None:
        """Gives the memory back."""
        self._memory.close()
        self._memory.unlink()


def read_shared(values: dict[str, Any]) -> bytes:
    """A worker's copy of what the front put into shared memory.

    Raises:
        FileNotFoundError: the request was withdrawn in the meantime.
    """
    memory = SharedMemory(name=values["memory"])
    try:
        assert memory.buf is not None
        return bytes(memory.buf[: values["size"]])
    finally:
        memory.close()
