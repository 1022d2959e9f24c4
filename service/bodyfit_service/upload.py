"""FitRecording: a recording sent in pieces, kept while its stream is away, fitted when it is whole.

A recording belongs to nobody's connection: a stream that breaks leaves it here, and a new one goes on from the first
instant that is not held yet. What was kept is forgotten some time after the last stream left.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bodyfit.errors import InputError
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.answers import REQUEST_KEY, Context, Doors, parse
from bodyfit_service.errors import DeadlineError, DrainingError, NotFoundError, QueueFullError, TooLargeError
from bodyfit_service.frames_checked import InstantsCheck, check_header
from bodyfit_service.interceptors import REQUEST_ID
from bodyfit_service.limits import Limits
from bodyfit_service.message import Message
from bodyfit_service.options import check_options
from bodyfit_service.pool import Job, Pool
from bodyfit_service.wire_bytes import as_field

if TYPE_CHECKING:
    from bodyfit_service.metrics import Metrics
    from bodyfit_service.settings import Settings


class _EndedError(InputError):
    """The stream ended before its recording did."""


@dataclass(eq=False)
class Upload:
    """One recording.

    Attributes:
        head: header, options and outputs as the beginning of a serialized FitRequest.
        instants: serialized, each as a field of that request.
        fit: the task that waits for the worker, once all instants are there.
        newest: how far the fit is; a slow reader gets the newest only. told: whether it was said already.
    """

    key: str
    owner: str
    request_id: str
    check: InstantsCheck
    head: bytes
    instants: list[bytes] = field(default_factory=list)
    piece: bytearray = field(default_factory=bytearray)
    size: int = 0
    fit: asyncio.Task[bytes] | None = None
    job: Job | None = None
    newest: pb.FitProgress = field(default_factory=pb.FitProgress)
    told: bool = True
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    stream: asyncio.Task[Any] | None = None
    left: float = field(default_factory=time.monotonic)
    stopping: asyncio.TimerHandle | None = None


class Uploads:
    """The method FitRecording, and what it keeps."""

    def __init__(self, settings: Settings, limits: Limits, pool: Pool, doors: Doors, metrics: Metrics) -> None:
        self.settings, self.limits, self.pool, self.doors, self.metrics = settings, limits, pool, doors, metrics
        self._kept: dict[str, Upload] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes of frames that are kept."""
        return sum(u.size + len(u.piece) for u in self._kept.values())

    @property
    def num_fits(self) -> int:
        """Fits that wait or run."""
        return sum(u.fit is not None and not u.fit.done() for u in self._kept.values())

    async def forget_old(self) -> None:
        """Forgets, for ever, what was left for too long."""
        while True:
            await asyncio.sleep(min(1.0, self.settings.upload_kept_s / 4))
            now = time.monotonic()
            for upload in [u for u in self._kept.values() if u.stream is None]:
                if now - upload.left > self.settings.upload_kept_s:
                    self._forget(upload)

    def _forget(self, upload: Upload) -> None:
        self._kept.pop(upload.key, None)
        if upload.fit is not None:
            upload.fit.cancel()

    # the conversation

    async def converse(self, requests: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes, None]:
        """Answers a stream of FitRecordingRequest with a stream of FitRecordingResponse.

        Raises:
            InputError: a message out of order, or one that makes no sense.
            NotFoundError: nothing is kept under the name to resume.
            TooLargeError, QueueFullError: more bytes than one recording may have, or than are left for all.
        """
        with self.doors.enter(context) as owner:
            upload = self._begin(parse(pb.FitRecordingRequest, await self._next(requests), "request"), owner)
            self._attach(upload)
            try:
                await context.send_initial_metadata(((REQUEST_KEY, REQUEST_ID.get()),))
                accepted = pb.FitRecordingAccepted(
                    recording_id=upload.key, next_position=upload.check.count, finished=upload.fit is not None
                )
                yield pb.FitRecordingResponse(accepted=accepted).SerializeToString()
                while upload.fit is None:
                    request = parse(pb.FitRecordingRequest, await self._next(requests), "request")
                    what = request.WhichOneof("message")
                    if what == "chunk":
                        if self._take(upload, request.chunk):
                            acknowledged = pb.FitRecordingAcknowledged(next_position=upload.check.count)
                            yield pb.FitRecordingResponse(acknowledged=acknowledged).SerializeToString()
                    elif what == "finish":
                        self._finish(upload, request.finish)
                    else:
                        raise InputError("message", "chunk or finish", str(what))
                async for answer in self._watch(upload):
                    yield answer
            except _EndedError:
                raise  # a connection that breaks may look so
            except InputError:
                self._forget(upload)  # what is wrong stays wrong, however often it is sent
                raise
            finally:
                self._detach(upload)

    async def _next(self, requests: AsyncIterator[bytes]) -> bytes:
        try:
            data = await asyncio.wait_for(anext(requests, None), self.settings.stream_idle_s)
        except TimeoutError:
            raise DeadlineError(f"nothing came over the stream for {self.settings.stream_idle_s:g} s") from None
        if data is None:
            raise _EndedError("finish", "the stream's last message", "the stream's end without it")
        return data

    def _begin(self, request: pb.FitRecordingRequest, owner: str) -> Upload:
        what = request.WhichOneof("message")
        if what == "resume":
            upload = self._kept.get(request.resume.recording_id)
            # another's recording is not there at all
            if upload is None or upload.owner != owner:
                raise NotFoundError("no recording of this id is kept: start over")
            upload.piece.clear()
            return upload
        if what != "start":
            raise InputError("message", "start or resume, as the stream's first message", str(what))
        start = request.start
        sensors = check_header(start.header, self.limits, "start.header")
        check_options(start.options, start.outputs)
        head = pb.FitRequest(header=start.header, options=start.options, outputs=start.outputs).SerializeToString()
        upload = Upload(secrets.token_urlsafe(16), owner, REQUEST_ID.get(), InstantsCheck(sensors, self.limits), head)
        self._kept[upload.key] = upload
        return upload

    def _take(self, upload: Upload, chunk: pb.InstantChunk) -> bool:
        """Keeps a piece; whether it was an instant's last."""
        position = upload.check.count
        if chunk.position != position:
            raise InputError("chunk.position", str(position), str(chunk.position))
        if chunk.offset != len(upload.piece):
            raise InputError("chunk.offset", str(len(upload.piece)), str(chunk.offset))
        # an instant is no longer than a message, the recording no longer than its limit
        if len(upload.piece) + len(chunk.data) > self.limits.max_message_bytes:
            raise TooLargeError(f"instants[{position}]", f"at most {self.limits.max_message_bytes} bytes", "more")
        if upload.size + len(upload.piece) + len(chunk.data) > self.settings.max_recording_bytes:
            raise TooLargeError("instants", f"at most {self.settings.max_recording_mb} MiB in all", "more")
        if self.num_bytes + len(chunk.data) > self.settings.uploads_bytes:
            raise QueueFullError("no room for more recordings", retry_after_s=self.settings.upload_kept_s)
        upload.piece += chunk.data
        if not chunk.last:
            return False
        data = bytes(upload.piece)
        upload.check.take(parse(pb.Instant, data, upload.check.next_field))
        upload.instants.append(as_field(pb.FitRequest.INSTANTS_FIELD_NUMBER, data))
        upload.size += len(data)
        upload.piece.clear()
        return True

    # the fit

    def _finish(self, upload: Upload, finish: pb.FitRecordingFinish) -> None:
        if finish.num_instants != upload.check.count:
            raise InputError("finish.num_instants", str(upload.check.count), str(finish.num_instants))
        if not upload.instants:
            raise InputError("instants", "at least one", "none")
        if upload.piece:
            raise InputError("chunk.last", "true before finish", "an instant that is not whole")
        self._start_fit(upload)

    def _start_fit(self, upload: Upload) -> None:
        def progress(message: Message) -> None:
            now = pb.FitProgress()
            now.CopyFrom(upload.newest)
            if message.what == "stage":
                now.stage, now.fraction = message.values["stage"], message.values["fraction"]
            else:
                now.step = message.values["step"]
                if message.values["cost"] is not None:
                    now.cost = message.values["cost"]
            upload.newest, upload.told = now, False
            upload.changed.set()

        if self.doors.closed:
            raise DrainingError("the server is about to end and takes nothing new")
        data = upload.head + b"".join(upload.instants)
        upload.job = self.pool.submit("fit", data, request_id=upload.request_id, progress=progress)
        upload.fit = asyncio.create_task(self._fitted(upload, upload.job))
        upload.fit.add_done_callback(lambda _task: upload.changed.set())

    async def _fitted(self, upload: Upload, job: Job) -> bytes:
        payload, laps = await asyncio.wait_for(self.pool.result(job), self.settings.default_deadline_s)
        for name, ms in laps.items():
            self.metrics.stage(name, 1e-3 * ms)
        upload.instants, upload.size = [], 0  # the result is enough
        return payload

    async def _watch(self, upload: Upload) -> AsyncGenerator[bytes, None]:
        """Progress as it comes, and the result."""
        if upload.fit is not None and upload.fit.cancelled():  # nobody listened for too long
            self._start_fit(upload)
        while True:
            fit, job = upload.fit, upload.job
            assert fit is not None and job is not None
            if fit.done():
                break
            place = self.pool.position(job)
            if place or not upload.told:
                upload.told = True
                said = pb.FitProgress(stage="waiting", queue_position=place) if place else upload.newest
                yield pb.FitRecordingResponse(progress=said).SerializeToString()
            upload.changed.clear()
            if not fit.done() and upload.told:
                try:
                    await asyncio.wait_for(upload.changed.wait(), 1.0)
                except TimeoutError:
                    continue
        try:
            payload = fit.result()
        except TimeoutError:
            self._forget(upload)
            raise DeadlineError(f"the fit took longer than {self.settings.default_deadline_s:g} s") from None
        except BaseException:
            self._forget(upload)
            raise
        yield as_field(pb.FitRecordingResponse.RESULT_FIELD_NUMBER, payload)

    # who listens

    def _attach(self, upload: Upload) -> None:
        """The newest stream takes a recording over: the one before may be half open and never end."""
        if upload.stream is not None:
            upload.stream.cancel()
        upload.stream = asyncio.current_task()
        if upload.stopping is not None:
            upload.stopping.cancel()
            upload.stopping = None

    def _detach(self, upload: Upload) -> None:
        if upload.stream is not asyncio.current_task():
            return
        upload.stream, upload.left = None, time.monotonic()
        if upload.fit is not None and not upload.fit.done():
            # who lost the connection for a moment finds the fit further on; for who has gone nothing is computed
            upload.stopping = asyncio.get_running_loop().call_later(self.settings.resume_grace_s, upload.fit.cancel)
