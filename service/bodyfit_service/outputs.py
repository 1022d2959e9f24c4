"""Answers: what a request wanted of a fit besides its numbers, and a shape's measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bodyfit.errors import InputError
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.results_wire import measurements_message, model_info, result_message

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.result import FitResult


def result_with_outputs(result: FitResult, outputs: pb.FitOutputs) -> pb.FitResult:
    """A fit as a message, with the meshes and pictures that were asked for."""
    from bodyfit.watch import checkpoint

    message = result_message(result, outputs)
    if outputs.mesh == pb.MESH_FORMAT_GLB:
        from bodyfit.export.glb_skinned import glb_bytes

        message.glb = glb_bytes(result)
    for t, instant in enumerate(message.instants):
        checkpoint()
        if outputs.mesh == pb.MESH_FORMAT_PLY:
            from bodyfit.export.ply import ply_bytes

            instant.mesh = ply_bytes(result.vertices_world(t), result.model.faces)
        if outputs.overlays:
            from bodyfit.export.folder import png_bytes
            from bodyfit.picture.overlay import overlay_picture

            vertices = result.vertices_world(t)
            for seen in result.observations[t]:
                picture = overlay_picture(seen, vertices, result.model.faces)
                instant.overlays.append(pb.Overlay(sensor=seen.sensor, png=png_bytes(picture)))
    return message


def measured(request: pb.MeasureRequest, model: BodyModel) -> pb.MeasureResponse:
    """A shape's measurements; with standard deviations where the shape's covariance is known.

    Raises:
        InputError: betas or betas_cov of another size, or not finite.
    """
    from bodyfit.body.measure import Measurement, measure, measure_with_sd
    from bodyfit.body.measure_definitions import DEFINITIONS

    S = model.num_betas
    if len(request.betas) > S:
        raise InputError("betas", f"at most {S} numbers", str(len(request.betas)))
    betas = np.zeros(S)
    betas[: len(request.betas)] = request.betas
    if not np.isfinite(betas).all() or np.abs(betas).max(initial=0) > 100:
        raise InputError("betas", "finite numbers from -100 to 100", "others")
    if request.betas_cov:
        if len(request.betas) != S or len(request.betas_cov) != S * S:
            raise InputError("betas_cov", f"{S} × {S} numbers beside {S} betas", f"{len(request.betas_cov)} numbers")
        found = measure_with_sd(model, betas, np.array(request.betas_cov).reshape(S, S))
    else:
        values = measure(model, betas)
        found = {
            name: Measurement(name, value, float("nan"), True, DEFINITIONS[name].text, DEFINITIONS[name].unit)
            for name, value in values.items()
        }
    return pb.MeasureResponse(model=model_info(model), measurements=measurements_message(found))
