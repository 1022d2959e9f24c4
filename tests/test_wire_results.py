"""Results and live estimates as messages and back: nothing is lost on the way, and what is wrong is named."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from same_values import difference
from test_wire import set_at
from tiny_body import write_tiny_body
from tiny_result import tiny_result

from bodyfit.body.files import list_models
from bodyfit.body.model import load_body_model
from bodyfit.errors import InputError, ModelFileError
from bodyfit.fit.extrinsics import SensorPlace
from bodyfit.fit.solver import StopReason
from bodyfit.fit.track import Tracker
from bodyfit.fit.track_estimate import TrackState
from bodyfit.recording import open_recording
from bodyfit.synthetic.demo import demo_recording_path
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.enums import CLOTHING, DISTORTION_MODELS, SEXES
from bodyfit_service.results_wire import (
    STOP_REASONS,
    TRACK_STATES,
    estimate_message,
    model_info,
    read_estimate,
    read_result,
    result_message,
)


def full_result(tmp_path: Path) -> Any:
    places = (
        SensorPlace("a", np.eye(4), np.eye(4), True, 0.0, 0.0, 0.0, 0.0),
        SensorPlace("b", np.eye(4) * [1, 1, 1, 1], np.eye(4), False, 0.1, 2.0, math.inf, 0.2, 0.01, 0.002, ("late",)),
    )
    result = tiny_result(write_tiny_body(tmp_path / "tiny.npz"), sensors=places)
    provenance = {"bodyfit": "0.1.0", "config": {"stages": ("coarse", ("fine", 1, 0.1, None, True))}}
    return dataclasses.replace(result, provenance=provenance)


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    result = full_result(tmp_path)
    message = pb.FitResult.FromString(result_message(result).SerializeToString())
    assert not message.instants[0].joints and not message.instants[0].vertices and not message.rest_vertices
    assert not message.measurements[1].HasField("sd")
    assert difference(result, read_result(message, result.model)) is None


def test_a_result_of_another_model_is_no_result(tmp_path: Path) -> None:
    result = full_result(tmp_path)
    message = result_message(result)
    with pytest.raises(ModelFileError, match="SHA-256"):
        read_result(message, load_body_model())
    for change, named in [
        (set_at("betas[0]", math.nan), None),
        (lambda m: m.betas.append(1.0), "betas"),
        (lambda m: m.instants[1].pose.append(1.0), "instants[1].pose"),
        (set_at("stop_reason", 0), "stop_reason"),
        (set_at("provenance_json", "["), "provenance_json"),
        (set_at("provenance_json", "[" * 100_000), "provenance_json"),
    ]:
        broken = pb.FitResult()
        broken.CopyFrom(message)
        change(broken)
        if named is None:
            assert np.isnan(read_result(broken, result.model).betas[0])
            continue
        with pytest.raises(InputError) as refused:
            read_result(broken, result.model)
        assert refused.value.field == named


def test_a_live_estimate_comes_back_as_it_was() -> None:
    recording = open_recording(demo_recording_path())
    frame = recording.frame(0, recording.sensors[0].name)
    assert frame is not None
    tracker = Tracker(load_body_model(), gravity_world=recording.gravity_world)
    estimates = [tracker.update([frame])]
    empty = dataclasses.replace(frame, depth=np.zeros_like(frame.depth), mask=None, timestamp_s=0.1)
    estimates.append(tracker.update([empty], index=7))
    estimates.append(dataclasses.replace(estimates[0], hidden=("left_hand", "head"), behind_body=("left_hand",)))
    for estimate in estimates:
        message = pb.TrackEstimate.FromString(estimate_message(estimate).SerializeToString())
        assert difference(estimate, read_estimate(message)) is None


def test_models_are_described_by_what_is_in_their_files() -> None:
    entry = next(e for e in list_models() if e.origin == "shipped")
    model = load_body_model(entry.path)
    listed, read = model_info(entry, default=True), model_info(model, default=True, origin="shipped")
    assert list(read.joint_names) == list(model.joint_names) and not listed.joint_names
    read.ClearField("joint_names")
    assert listed == read


@pytest.mark.parametrize(
    ("table", "words", "enum"),
    [
        (SEXES, ["female", "male", "neutral"], pb.Sex),
        (CLOTHING, ["auto", "tight", "casual", "loose"], pb.Clothing),
        (DISTORTION_MODELS, ["none", "brown_conrady", "rational"], pb.DistortionModel),
        (STOP_REASONS, list(StopReason), pb.StopReason),
        (TRACK_STATES, list(TrackState), pb.TrackState),
    ],
)
def test_every_word_has_its_number(table: Any, words: list[Any], enum: Any) -> None:
    numbers = [table.number(word) for word in words]
    assert [table.name("field", n) for n in numbers] == words
    assert sorted([*numbers, 0]) == sorted(enum.values())
    with pytest.raises(InputError, match="unknown number 99"):
        table.name("field", 99)
