"""Devices by their names: what is refused, what `auto` is, and that fits over a device give the same results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bodyfit.body.model import load_body_model
from bodyfit.errors import DeviceError, MissingExtraError
from bodyfit.fit.config import FitConfig
from bodyfit.fit.device import CpuBackend
from bodyfit.fit.fit import fit
from bodyfit.fit.gather import Gatherer
from bodyfit.fit.open_device import check_device, chosen_device, on_device, open_solver, usable
from bodyfit.fit.track_config import TrackConfig, track_on_device

SHIPPED = Path(__file__).parents[1] / "bodyfit" / "data" / "demo"
GPU = Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "CUDA", "", "cpu-gathered:2"])
def test_names_of_no_device_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="device: expected cpu, cuda, cuda:N or auto, found"):
        check_device(name)


@pytest.mark.skipif(GPU, reason="there may be a GPU")
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    assert chosen_device("auto") == "cpu"
    assert open_solver("auto") is None and open_solver("cpu") is None
    assert usable("cpu") is None and usable("cuda") is not None
    with pytest.raises((DeviceError, MissingExtraError), match=r"CUDA device|pip install"):
        open_solver("cuda")


def test_one_device_is_opened_once_and_a_named_solver_stays() -> None:
    config = on_device(FitConfig(), "cpu-gathered")
    assert config.solver is not None and config.solver is open_solver("cpu-gathered")
    mine = Gatherer(CpuBackend())
    assert on_device(FitConfig(solver=mine), "cpu").solver is mine
    followed = track_on_device(TrackConfig(), "cpu-gathered")
    assert followed.fit.solver is followed.search.solver is config.solver
    assert replace(config, solver=None) == FitConfig()


def test_a_fit_over_a_device_is_the_same_fit() -> None:
    body = load_body_model()
    gatherer = Gatherer(CpuBackend())
    plain = fit(SHIPPED, model=body, frames=[0], config=FitConfig(threads=1))
    there = fit(SHIPPED, model=body, frames=[0], config=FitConfig(threads=1, solver=gatherer))
    assert gatherer.counts.jobs > 10
    np.testing.assert_array_equal(there.poses, plain.poses)
    np.testing.assert_array_equal(there.betas, plain.betas)
    assert [(m.name, m.value_m, m.sd_m) for m in there.measurements.values()] == [
        (m.name, m.value_m, m.sd_m) for m in plain.measurements.values()
    ]
    assert "solver" not in there.provenance["config"]
