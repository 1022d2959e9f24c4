"""The GPU's renderer without a GPU: in numba's simulator against the CPU's, and compiled for sm_90.

Both need a process of their own: numba decides at import whether it simulates.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
needs_numba_cuda = pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda (extra [cuda]) is missing")


def run_alone(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python process of its own, with what it printed."""
    path = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


@needs_numba_cuda
@pytest.mark.parametrize("file", sorted(p.name for p in HERE.glob("simulated_*.py")))
def test_in_the_simulator(file: str) -> None:
    result = run_alone(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(HERE / file),
        NUMBA_ENABLE_CUDASIM="1",
        NUMBA_DISABLE_JIT="1",
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert re.search(r"\b[1-9]\d* passed", result.stdout), result.stdout


@pytest.fixture(scope="module")
def ptx(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The PTX of every kernel by its name, and of the probe that has double precision."""
    pytest.importorskip("numba_cuda", reason="numba-cuda (extra [cuda]) is missing")
    folder = tmp_path_factory.mktemp("ptx")
    result = run_alone(str(HERE / "ptx.py"), str(folder))
    if result.returncode == 77:
        pytest.skip(f"no NVVM: {result.stderr.strip()}")
    assert result.returncode == 0, result.stderr[-4000:]
    return {file.stem: file.read_text() for file in folder.glob("*.ptx")}


def test_every_kernel_compiles_for_sm_90(ptx: dict[str, str]) -> None:
    assert {"cuda_edges.cut_edges", "cuda_visible.look_behind"} <= set(ptx)
    assert all(".target sm_90" in text and ".entry" in text for text in ptx.values())


def test_no_kernel_has_double_precision(ptx: dict[str, str]) -> None:
    doubles = {name: len(re.findall(r"\.f64", text)) for name, text in ptx.items()}
    assert doubles.pop("probe") > 0, "the search does not find what it looks for"
    assert not {name: n for name, n in doubles.items() if n}
