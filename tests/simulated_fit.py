"""The fit's inner loop in numba's simulator, on the smallest body; `test_cuda.py` runs this file in its own process.

Here the kernels run as several threads of several blocks, in Python; `test_cuda_fit.py` has them at full size.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_problems import bodies_mm, follow_job, start_job
from tiny_body import write_tiny_body

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.camera import Camera
from bodyfit.fit.config import FitConfig
from bodyfit.fit.cuda_backend import CudaBackend
from bodyfit.fit.device import CpuBackend, LinearizeJob

CAMERA = Camera(48, 40, 34.0, 34.0, 23.5, 19.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BodyModel:
    return load_body_model(write_tiny_body(Path(tmp_path_factory.mktemp("body")) / "tiny.npz"))


def test_equations_are_those_of_the_cpu(model: BodyModel) -> None:
    """Two hypotheses, with windows around what gapes."""
    stage = replace(FitConfig().settle[-1], pixels=120, num_betas=3, window_m=0.3)
    job = start_job(model, CAMERA, 1, stage=stage, count=2)
    active = np.array([True, True])
    (ours,) = CudaBackend("cuda").linearize([LinearizeJob(job.problem, job.state, active)])
    theirs: Any = job.problem.linearize_here(job.state)
    np.testing.assert_array_equal(ours.stats[:, 3:7], theirs.stats[:, 3:7])
    assert ours.stats[:, 3].min() > 20 and ours.stats[:, 4].min() > 50
    for name in ("cost", "A", "B", "C"):
        want = getattr(theirs, name)
        np.testing.assert_allclose(getattr(ours, name), want, atol=1e-4 * np.abs(want).max(), err_msg=name)


def test_a_descent_ends_where_the_cpu_ends(model: BodyModel) -> None:
    job = replace(follow_job(model, CAMERA, 1, level=0, pixels=100), evaluations=2)
    (ours,), (theirs,) = CudaBackend("cuda").descend([job]), CpuBackend().descend([job])
    assert (ours.evaluations, ours.reason) == (theirs.evaluations, theirs.reason)
    assert ours.equations.stats[0, 3] > 20
    moved = bodies_mm(job.problem, theirs.state) - bodies_mm(job.problem, job.state)
    assert np.abs(moved).max() > 5.0
    assert np.abs(bodies_mm(job.problem, ours.state) - bodies_mm(job.problem, theirs.state)).max() < 0.1
