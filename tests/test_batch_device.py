"""A batch whose workers share one device's process: the CPU's results, and what a device that dies or is missing
costs."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from batch_recordings import good  # pyright: ignore[reportMissingImports]

from bodyfit.batch.local import LocalEngine
from bodyfit.batch.work import Options, Outcome, Task, do
from bodyfit.errors import DeviceError

GPU = Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
OPTIONS = Options(device="cpu-gathered")


def numbers(folder: Path) -> dict[str, np.ndarray]:
    """What a fit found, by name."""
    with np.load(folder / "fit.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files if file[name].dtype.kind == "f"}


def outcomes(engine: LocalEngine) -> list[Outcome]:
    """All that is being done."""
    found: list[Outcome] = []
    while engine.busy:
        found += engine.ended()
    return found


@pytest.mark.slow
def test_workers_share_a_device_which_is_started_again_when_it_dies(tmp_path: Path) -> None:
    recording = str(good(tmp_path / "one", 100))
    assert do(Task("alone", recording, str(tmp_path / "alone"), Options())).state == "done"
    expected = numbers(tmp_path / "alone")
    assert len(expected) > 2
    begun: list[str] = []
    with LocalEngine(2, 600.0, lambda name, _stage, _fraction: begun.append(name), device="cpu-gathered") as engine:
        host = engine._host  # pyright: ignore[reportPrivateUsage]
        assert host is not None and host.process is not None
        engine.begin(Task("a", recording, str(tmp_path / "a"), OPTIONS))
        lost: list[Outcome] = []
        while not begun and not lost:
            lost += engine.ended()
        host.process.kill()
        lost += outcomes(engine)
        assert [(one.state, one.error) for one in lost] == [("failed", "DeviceLostError")]
        assert not (tmp_path / "a").exists()
        for name in ("a", "b"):
            engine.begin(Task(name, recording, str(tmp_path / name), OPTIONS))
        assert host.starts == 2
        assert [one.state for one in outcomes(engine)] == ["done", "done"]
        address = Path(host.address)
    assert not address.parent.exists()
    for name in ("a", "b"):
        found = numbers(tmp_path / name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.skipif(GPU, reason="there may be a GPU")
def test_a_device_that_is_missing_is_no_fault_of_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = str(good(tmp_path / "one", 100))
    outcome = do(Task("one", recording, str(tmp_path / "out"), Options(device="cuda")))
    assert outcome.state == "failed" and outcome.error in ("DeviceError", "MissingExtraError"), outcome
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with pytest.raises(DeviceError, match="device: expected one that can be used, found 'cuda'"):
        LocalEngine(1, 600.0, device="cuda")
    assert not list((tmp_path / "scratch").iterdir())
