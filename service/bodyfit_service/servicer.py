"""The methods of one request and one answer. Requests stay bytes: they are looked through here, and unpacked by the
worker that computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from bodyfit.errors import InputError
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.answers import REQUEST_KEY, Context, Doors, parse, streaming, times_metadata, unary, within
from bodyfit_service.frames_checked import InstantsCheck, check_header
from bodyfit_service.interceptors import REQUEST_ID
from bodyfit_service.limits import Limits
from bodyfit_service.live import Live
from bodyfit_service.models import check_name, default_name, usable_models
from bodyfit_service.options import check_options
from bodyfit_service.pool import Job, Pool
from bodyfit_service.results_wire import model_info
from bodyfit_service.upload import Uploads
from bodyfit_service.wire_bytes import as_field

if TYPE_CHECKING:
    from bodyfit_service.metrics import Metrics
    from bodyfit_service.settings import Settings

SERVICE = "bodyfit.v1.BodyFitService"


def check_fit_request(request: pb.FitRequest, limits: Limits) -> None:
    """Refuses what cannot be fitted, by what headers say; nothing is decoded.

    Raises:
        InputError: with the field's name.
    """
    sensors = check_header(request.header, limits, "header")
    check_options(request.options, request.outputs)
    if not request.instants:
        raise InputError("instants", "at least one", "none")
    check = InstantsCheck(sensors, limits)
    for instant in request.instants:
        check.take(instant)


class Servicer:
    """The service's methods, by name, as handlers of bytes."""

    def __init__(
        self,
        settings: Settings,
        limits: Limits,
        pool: Pool,
        metrics: Metrics,
        doors: Doors,
        uploads: Uploads,
        live: Live,
    ) -> None:
        self.settings, self.limits, self.pool, self.metrics = settings, limits, pool, metrics
        self.doors, self.uploads, self.live = doors, uploads, live
        self.state = "STARTING"

    def handler(self) -> grpc.GenericRpcHandler:
        """What a grpc server is given."""
        methods = {
            "Fit": unary(self.fit),
            "FitRecording": streaming(self.uploads.converse),
            "Track": streaming(self.live.converse),
            "Measure": unary(self.measure),
            "ListBodyModels": unary(self.list_body_models),
            "GetServerInfo": unary(self.get_server_info),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def fit(self, data: bytes, context: Context) -> bytes:
        """Fit."""
        with self.doors.enter(context):
            request = parse(pb.FitRequest, data, "request")
            check_fit_request(request, self.limits)
            del request
            job = self.pool.submit("fit", data, request_id=REQUEST_ID.get())
            try:
                # told before the work: from here on a client must not ask again by itself
                await context.send_initial_metadata(((REQUEST_KEY, REQUEST_ID.get()),))
            except BaseException:
                self.pool.withdraw(job)  # the client has gone already
                raise
            return as_field(pb.FitResponse.RESULT_FIELD_NUMBER, await self._waited(job, context))

    async def measure(self, data: bytes, context: Context) -> bytes:
        """Measure."""
        with self.doors.enter(context):
            request = parse(pb.MeasureRequest, data, "request")
            check_name(request.model, "model")
            return await self._waited(self.pool.submit("measure", data, request_id=REQUEST_ID.get()), context)

    async def _waited(self, job: Job, context: Context) -> bytes:
        payload, laps = await within(self.pool.result(job), context, self.settings.default_deadline_s)
        for name, ms in laps.items():
            self.metrics.stage(name, 1e-3 * ms)
        context.set_trailing_metadata(times_metadata(laps))
        return payload

    async def list_body_models(self, data: bytes, context: Context) -> bytes:
        """ListBodyModels."""
        parse(pb.ListBodyModelsRequest, data, "request")
        default = default_name(self.settings.model)
        answer = pb.ListBodyModelsResponse()
        for entry in usable_models():
            info = model_info(entry)
            info.default = entry.name == default
            answer.models.append(info)
        return answer.SerializeToString()

    async def get_server_info(self, data: bytes, context: Context) -> bytes:
        """GetServerInfo."""
        from bodyfit import __version__

        parse(pb.GetServerInfoRequest, data, "request")
        s, pool = self.settings, self.pool
        return pb.GetServerInfoResponse(
            version=__version__,
            device=s.device,
            fit_workers=len(pool.fit_workers),
            fit_workers_ready=pool.num_ready,
            max_streams=len(pool.track_workers) * pool.streams_per_worker,
            queue_size=pool.queue_size,
            queued=len(pool.waiting),
            max_message_bytes=self.limits.max_message_bytes,
            max_image_pixels=self.limits.max_image_pixels,
            max_instants=self.limits.max_instants,
            max_recording_bytes=s.max_recording_bytes,
            upload_kept_s=s.upload_kept_s,
            state=self.state,
            fit_workers_busy=pool.num_busy,
            streams=pool.num_streams,
        ).SerializeToString()


__all__ = ["SERVICE", "Servicer", "check_fit_request"]
