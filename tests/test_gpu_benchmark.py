"""`python -m benchmarks.gpu`: that it runs with next to no packages, tells what fails, and keeps what was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import gpu, gpu_jobs, gpu_report  # noqa: E402
from benchmarks.gpu_hardware import peak_of, short_name  # noqa: E402
from benchmarks.gpu_measure import Bench, Scale, difference  # noqa: E402

ABSENT = (
    "open3d", "typer", "rich", "cv2", "grpc", "google.protobuf", "matplotlib", "PIL", "threadpoolctl", "av",
    "zstandard", "pyarrow", "smplx", "mitsuba", "prometheus_client", "opentelemetry", "rosbags", "psutil", "yaml",
    "pytest",
)  # fmt: skip
HOOK = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if any(name == n or name.startswith(n + '.') for n in {ABSENT!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}}: blocked by the test", name=name)
        return None

sys.meta_path.insert(0, Absent())
"""


def run_small(folder: Path, device: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, JSON and Markdown of the command, in which most packages cannot be imported, nor in its workers."""
    (folder / "sitecustomize.py").write_text(HOOK)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "benchmarks.gpu", "--small", "--device", device, "-o", str(folder / "out")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert (folder / "out" / "gpu.json").is_file(), done.stderr
    results = json.loads((folder / "out" / "gpu.json").read_text())
    failed = {name: s["failed"] for name, s in results["sections"].items() if "failed" in s}
    assert not failed, "\n".join(failed.values())
    return done.returncode, results, (folder / "out" / "gpu.md").read_text()


@pytest.mark.slow
def test_all_of_it_runs_with_next_to_no_packages(tmp_path: Path) -> None:
    code, results, text = run_small(tmp_path, "cpu")
    found = {name: s["result"] for name, s in results["sections"].items()}
    assert list(found) == [s.name for s in gpu.sections("cpu")] and results["running"] is None
    assert code == 0 and found["agreement"]["holds"] and found["agreement"]["followed"]["alone_or_in_company_mm"] == 0
    # the very bodies, whoever was asked and with how many others
    assert found["cold"]["body_from_the_cpu_s_mm"] == 0 and found["memory"]["body_mm"] == 0
    assert found["memory"]["survived"] == found["memory"]["jobs"] and "memory for" in found["memory"]["refused"]
    assert found["cold"]["wall_ms"] > found["cold"]["device_ms"] > 0 and found["cold"]["jobs"]["solve"] > 2
    for section in ("threads", "processes"):
        rows = found[section]["rows"]
        assert [r["streams"] for r in rows] == [1, 2] * (len(rows) // 2) and not found[section].get("failures")
        assert all(r["frames"] > 0 and r["followed"] == 1 for r in rows)
        assert all(r["waited_ms_a_frame"] > 0 and r["limit"] for r in rows)
    shared = [r for r in found["processes"]["rows"] if r["device"] != "own"]
    assert len(shared) == 2 and all(r["device_process_cores"] > 0 for r in shared)
    assert all(len(row) == 2 for row in found["batch_sizes"]["table"].values())
    assert found["roofline"]["rows"] > 1000 and found["roofline"]["parameters"] == 127
    assert [r["fits"] > 0 for r in found["shapes"]["rows"]] == [True, True]
    for title, _ in gpu_report.TITLES.values():
        assert f"### {title}" in text
    tree = ElementTree.parse(tmp_path / "out" / gpu_report.PLOT)
    assert len(tree.findall("{*}polyline")) == len(found["batch_sizes"]["table"]) == 5
    assert not list((tmp_path / "out").glob("*.part"))


@pytest.mark.gpu
def test_all_of_it_runs_on_a_device(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("numba_cuda")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    code, results, _ = run_small(tmp_path, "cuda")
    found = {name: s["result"] for name, s in results["sections"].items()}
    assert code == 0 and found["agreement"]["holds"] and found["environment"]["memory_gib"] > 1
    assert found["memory"]["survived"] == found["memory"]["jobs"] and found["kernels"]["descend, followed"]["rows"]


def test_no_such_device_is_no_failure_of_a_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("numba_cuda")
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    assert gpu.main(["--device", "cuda", "-o", str(tmp_path / "out")]) == 2
    assert "device" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.fixture
def bench() -> Bench:
    made: Any = Bench(Scale(), gpu_jobs.make_backend("cpu"), False, None)  # type: ignore[arg-type]
    made.found["prepare"] = {}
    return made


def test_a_section_that_fails_is_told_and_the_next_goes_on(bench: Bench, tmp_path: Path) -> None:
    def breaks(_bench: Bench) -> dict[str, Any]:
        raise ValueError("the seventh kernel")

    end = time.monotonic() + 100
    results: dict[str, Any] = {"running": "memory", "sections": {}}
    results["sections"]["cold"] = gpu.measured(gpu.Section("cold", breaks, 0, 9), bench, end)
    told = {"kernels": {"batch": 4, "descend": {"rows": [], "absent": "none was seen"}}}
    results["sections"]["kernels"] = gpu.measured(
        gpu.Section("kernels", lambda _bench: told["kernels"], 0, 9), bench, end
    )
    results["sections"]["memory"] = gpu.measured(gpu.Section("memory", breaks, 200, 300), bench, end)
    gpu.write(tmp_path, results)
    assert json.loads((tmp_path / "gpu.json").read_text()) == results
    text = (tmp_path / "gpu.md").read_text()
    assert "**Failed** after" in text and "ValueError: the seventh kernel" in text and "none was seen" in text
    assert "Left out: only 100 s of the budget were left." in text and "Not finished: memory was running" in text
    assert "Traceback" in results["sections"]["cold"]["failed"] and "cold" not in bench.found
    del bench.found["prepare"]
    assert "left_out" in gpu.measured(gpu.Section("cold", breaks, 0, 9), bench, end)


def test_sections_fit_into_eight_minutes() -> None:
    assert gpu.BUDGET_S + gpu.GRACE_S + 5 < 480
    assert {s.name for s in gpu.sections("cpu")} == set(gpu_report.TITLES)


def test_cards_are_known_by_their_names() -> None:
    for name, tflops in (
        ("NVIDIA H100 80GB HBM3", 67.0), ("NVIDIA H100 PCIe", 51.0), ("NVIDIA H200", 67.0), ("NVIDIA L4", 30.3),
        ("NVIDIA L40S", 91.6), ("NVIDIA A100-SXM4-40GB", 19.5), ("Tesla T4", 8.1),
    ):  # fmt: skip
        peak = peak_of(name)
        assert peak is not None and peak.tflops == tflops
    assert peak_of("NVIDIA A10G") is None and peak_of("CPU") is None
    mangled = "_ZN7bodyfit7kernels13cuda_fit_rows10write_rowsB3v12B96E5ArrayIfLi4E1C7mutable7alignedE"
    assert short_name(mangled) == "cuda_fit_rows.write_rows"
    assert short_name("void cutlass::Kernel2<gemm>(Params)") == "cutlass::Kernel2<gemm>(Params)"


def test_equations_that_differ_are_seen() -> None:
    from bodyfit.fit.problem import Linearization

    rng = np.random.default_rng(0)
    J = rng.normal(size=(2, 30, 7))
    A, B = np.einsum("nia,nib->nab", J, J), rng.normal(size=(2, 7, 3))
    want = Linearization(
        A, B, np.tile(np.eye(3) * 9, (1, 1, 1)), rng.normal(size=(2, 7)), rng.normal(size=(1, 3)), np.array([50.0]),
        np.array([20.0, 30.0]), np.zeros((2, 8)),
    )  # fmt: skip
    group = np.zeros(2, np.int64)
    same = difference(want, want, group)
    assert max(same.values()) == 0
    for change, key in (("A", "equations"), ("B", "equations"), ("C", "equations"), ("shape_gradient", "gradient")):
        from dataclasses import replace

        found = difference(replace(want, **{change: getattr(want, change) + 0.5}), want, group)
        assert found[key] > 1e-3 and all(v == 0 for k, v in found.items() if k != key), change
    assert difference(replace(want, cost=want.cost * 1.01), want, group)["cost"] == pytest.approx(0.01)
