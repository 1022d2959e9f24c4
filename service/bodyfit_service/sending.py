"""FitRecording from the client's side, without a wire: what to send next, whatever became of the stream.

An upload knows which instants the server holds. A stream that broke is begun again with `resume`, and goes on at the
first instant that the server does not hold; one that the server no longer knows is begun from the start.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from bodyfit.errors import InputError
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.errors import ServiceError

CHUNK_BYTES = 1 << 20


class ProtocolError(ServiceError):
    """The server answered what the protocol does not allow: another version, or no bodyfit server."""


class Upload:
    """One recording on its way.

    `messages` may be drawn in another thread than the one that tells what the server answered, as gRPC does; the
    messages of a stream end as soon as another stream is opened.

    Args:
        start: the first message of a new recording.
        instants: makes an iterator over the instants from the first on; called again when all has to be sent again.
        chunk_bytes: the largest piece.

    Attributes:
        recording_id: as the server named it; empty before it did.
        acknowledged: instants before this position are held by the server.
        sent_bytes: of instants so far; those sent twice counted twice.
        resumes, restarts: how often the upload went on, and began again, on another stream.
    """

    def __init__(
        self, start: pb.FitRecordingStart, instants: Callable[[], Iterator[pb.Instant]], chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        if chunk_bytes < 1:
            raise InputError("chunk_bytes", "at least 1", str(chunk_bytes))
        self._start, self._make, self._chunk_bytes = start, instants, chunk_bytes
        self._lock = threading.Lock()
        self._stream = 0
        self.sent_bytes = self.resumes = self.restarts = 0
        self._begin()

    def _begin(self) -> None:
        self.recording_id, self.acknowledged = "", 0
        self._source = self._make()
        self._drawn = 0  # so many instants were taken from the source
        self._held: deque[tuple[int, bytes]] = deque()  # those of them that are not acknowledged, serialized
        self._from, self._finished = 0, False

    def opening(self) -> pb.FitRecordingRequest:
        """The first message of the next stream."""
        with self._lock:
            self._stream += 1
        if not self.recording_id:
            return pb.FitRecordingRequest(start=self._start)
        self.resumes += 1
        return pb.FitRecordingRequest(resume=pb.FitRecordingResume(recording_id=self.recording_id))

    def start_over(self) -> None:
        """The server knows nothing of it any more."""
        with self._lock:
            self._stream += 1
            self.restarts += 1
            self._begin()

    def accepted(self, answer: pb.FitRecordingAccepted) -> None:
        """The server's answer to the opening.

        Raises:
            ProtocolError: it goes on where this upload cannot.
        """
        if not answer.recording_id:
            raise ProtocolError("the server accepted a recording and gave it no id")
        if self.recording_id and answer.recording_id != self.recording_id:
            raise ProtocolError(f"asked for recording {self.recording_id}, the server answers for another")
        self.recording_id = answer.recording_id
        self.acknowledge(answer.next_position)
        self._from, self._finished = answer.next_position, answer.finished

    def acknowledge(self, next_position: int) -> bool:
        """Instants before `next_position` are held; whether that is news.

        Raises:
            ProtocolError: it was never sent, or what is now missing was acknowledged before.
        """
        with self._lock:
            if not self.acknowledged <= next_position <= self._drawn:
                held = f"{self._drawn} were sent, {self.acknowledged} acknowledged"
                raise ProtocolError(f"the server says that it holds {next_position} instants: {held}")
            news = next_position > self.acknowledged
            self.acknowledged = next_position
            while self._held and self._held[0][0] < next_position:
                self._held.popleft()
            return news

    def messages(self) -> Iterator[pb.FitRecordingRequest]:
        """What is to be sent after `accepted`, to the end; drawn anew for each stream."""
        if self._finished:
            return
        stream, position = self._stream, self._from
        while True:
            with self._lock:
                if stream != self._stream:
                    return
                content = self._instant(position)
            if content is None:
                break
            for chunk in self._chunks(position, content):
                if stream != self._stream:
                    return
                yield chunk
            position += 1
        yield pb.FitRecordingRequest(finish=pb.FitRecordingFinish(num_instants=position))

    def _instant(self, position: int) -> bytes | None:
        for held, content in self._held:
            if held == position:
                return content
        message = next(self._source, None)
        if message is None:
            return None
        content = message.SerializeToString()
        self._held.append((self._drawn, content))
        self._drawn += 1
        return content

    def _chunks(self, position: int, content: bytes) -> Iterator[pb.FitRecordingRequest]:
        for offset in range(0, len(content), self._chunk_bytes):
            data = content[offset : offset + self._chunk_bytes]
            last = offset + len(data) == len(content)
            self.sent_bytes += len(data)
            yield pb.FitRecordingRequest(chunk=pb.InstantChunk(position=position, offset=offset, data=data, last=last))


def is_lost(error: Any, upload: Upload) -> bool:
    """Whether a resume was refused since the server no longer has the recording."""
    import grpc

    from bodyfit_service.retries import code_of

    return bool(upload.recording_id) and code_of(error) is grpc.StatusCode.NOT_FOUND


def progress_of(progress: Callable[[str, float], None] | None) -> Callable[[pb.FitProgress], None]:
    """What takes the server's progress and tells it as the library's fits tell theirs."""

    def tell(message: pb.FitProgress) -> None:
        if progress is None:
            return
        waiting = message.queue_position
        progress(f"waiting, {waiting} before this one" if waiting else message.stage, message.fraction)

    return tell
