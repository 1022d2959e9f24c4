"""The command line: what it accepts, what it prints and where, and what its exit codes mean."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_recording import write_small
from tiny_body import tiny_body_arrays, write_tiny_body
from tiny_result import tiny_result

from bodyfit.batch import results
from bodyfit.batch.results import stacked
from bodyfit.cli import cache
from bodyfit.cli import fit as fit_module
from bodyfit.cli.fit import parse_frames, parse_names
from bodyfit.cli.main import app
from bodyfit.errors import InputError, MissingExtraError
from bodyfit.export.folder import write_fit_folder
from bodyfit.fit.result import StopReason

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line: exit code, stdout, stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = app([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's models folder that holds the tiny body."""
    folder = tmp_path / "models"
    folder.mkdir()
    write_tiny_body(folder / "tiny.npz")
    monkeypatch.setenv("BODYFIT_MODELS", str(folder))
    return folder


@pytest.fixture
def handmade(models: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets `bodyfit fit` write a result made by hand: its files and exit code are looked at here, not the fit."""

    def use(**changes: Any) -> None:
        result = tiny_result(models / "tiny.npz", **changes)
        monkeypatch.setattr(fit_module, "run_fit", lambda request, quiet: result)
        picture = np.zeros((4, 4, 3), np.uint8)
        monkeypatch.setattr(results, "pictures", lambda result: iter([("summary.png", picture)]))

    return use


@pytest.mark.parametrize(
    ("text", "frames"), [("0", (0,)), ("0,2,5-9", (0, 2, 5, 6, 7, 8, 9)), ("3-3,1,1", (1, 3)), (" 4 - 5 ", (4, 5))]
)
def test_frames_are_numbers_and_ranges(text: str, frames: tuple[int, ...]) -> None:
    assert parse_frames(text) == frames


@pytest.mark.parametrize("text", ["", "a", "1,", "-1", "5-", "9-5", "1.5", "0-99999999999", "²"])
def test_frames_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--frames"):
        parse_frames(text)


@pytest.mark.parametrize("text", ["", "a,", "a,a"])
def test_names_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--sensors"):
        parse_names("--sensors", text)


def test_views_of_several_sensors_stand_below_each_other() -> None:
    column = stacked([np.full((2, 3, 3), 7, np.uint8), np.full((4, 1, 3), 9, np.uint8)])
    assert column.shape == (6, 3, 3)
    assert (column[:2] == 7).all()
    assert (column[2:] == 9).all()


def test_help_and_version(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for command in ("fit", "measure", "demo", "evaluate", "models", "info", "bench"):
        assert command in out
        assert run(command, "--help")[0] == 0
    assert "did not converge" in " ".join(run("fit", "--help")[1].split())
    assert run("--version")[1].startswith("bodyfit ")


def test_starting_loads_nothing_heavy(repo_root: Path) -> None:
    code = "import sys, bodyfit.cli.main; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True)
    heavy = {"torch", "open3d", "numba", "cv2", "scipy", "matplotlib", "trimesh", "smplx", "pandas"}
    assert heavy.isdisjoint(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("fit", "{tmp}/nowhere", "-o", "{tmp}/out"), "nowhere"),
        (("fit", "{rec}", "-o", "{tmp}/out", "--device", "cuda"), "--device"),
        (("fit", "{rec}", "-o", "{tmp}/out", "--frames", "0,x"), "--frames"),
        (("fit", "{rec}", "-o", "{tmp}/out", "--frames", "7", "--model", "tiny"), "--frames"),
        (("fit", "{rec}", "-o", "{tmp}/out", "--sensors", "nobody", "--model", "tiny"), "sensors"),
        (("fit", "{rec}", "-o", "{tmp}/out", "--model", "nobody"), "model nobody"),
        (("fit", "{rec}", "-o", "{rec}"), "rec"),
        (("fit", "{rec}", "-o", "{rec}/recording.json"), "recording.json"),
        (("measure", "{rec}"), "rec"),
        (("measure", "{rec}/recording.json"), "recording.json"),
        (("evaluate", "{rec}"), "truth"),
        (("models", "check", "nobody"), "model nobody"),
        (("models", "info", "{rec}/recording.json"), "recording.json"),
        (("models", "import", "{rec}/recording.json", "-o", "{tmp}/m.npz"), "recording.json"),
    ],
)
def test_bad_input_is_named_with_exit_code_2(
    run: Run, models: Path, tmp_path: Path, arguments: tuple[str, ...], field: str
) -> None:
    recording = write_small(tmp_path / "rec")
    filled = [a.format(tmp=tmp_path, rec=recording) for a in arguments]
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*filled)
    assert (code, out) == (2, "")
    assert field in err
    assert "expected" in err
    assert "Traceback" not in err
    code, out, _ = run(*filled, "--json")
    error = json.loads(out)["error"]
    assert code == error["exit_code"] == 2
    assert field in error["field"]
    assert error["expected"]
    assert error["found"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [("fit",), ("fit", "x", "-o", "y", "--sex", "other"), ("fit", "x", "-o", "y", "--person", "0"), ("walk",)],
)
def test_wrong_usage_is_exit_code_2(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err
    code, out, _ = run(*arguments, "--json")
    assert code == json.loads(out)["error"]["exit_code"] == 2


@pytest.mark.parametrize(("error", "exit_code"), [(MissingExtraError("smplx", "smplx", "this"), 3), (KeyError("k"), 1)])
def test_missing_packages_and_our_own_faults_have_exit_codes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, exit_code: int
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(fit_module, "run_fit", fail)
    code, out, err = run("fit", "x", "-o", tmp_path / "out")
    assert (code, out) == (exit_code, "")
    assert err.startswith("bodyfit: error: ")
    assert err.count("\n") == 1
    code, out, _ = run("fit", "x", "-o", tmp_path / "out", "--json")
    assert code == json.loads(out)["error"]["exit_code"] == exit_code
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_fit_that_is_stopped_writes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    # a shell that starts the tests in the background has them ignore SIGINT
    inherited = signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    before = signal.getsignal(number)
    monkeypatch.setattr(fit_module, "run_fit", lambda *_, **__: signal.raise_signal(number))
    try:
        code, out, err = run("fit", "x", "-o", tmp_path / "out")
        after = signal.getsignal(number)
    finally:
        signal.signal(number, inherited)
    assert (code, out) == (130, "")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
    assert after == before


def test_a_fit_is_shown_in_centimetres_and_written(run: Run, handmade: Callable[..., None], tmp_path: Path) -> None:
    handmade()
    code, out, err = run("fit", "x", "-o", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "173.1" in out
    assert "± 0.4" in out
    assert "68.8" in out  # litres
    assert "show the head" in out
    assert str(tmp_path / "out" / "summary.png") in out
    assert (tmp_path / "out" / "fit.npz").is_file()


def test_json_is_one_document_on_stdout(run: Run, handmade: Callable[..., None], tmp_path: Path) -> None:
    handmade()
    code, out, err = run("fit", "x", "-o", tmp_path / "out", "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["measurements"]["stature"]["value_m"] == pytest.approx(1.7312, abs=1e-4)
    assert document["out"] == str(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "measurements.json").read_text())
    assert saved == {k: v for k, v in document.items() if k not in ("out", "files")}


def test_a_fit_not_to_be_believed_is_written_and_exit_code_4(
    run: Run, handmade: Callable[..., None], tmp_path: Path
) -> None:
    handmade(converged=False, stop_reason=StopReason.STUCK)
    code, out, _ = run("fit", "x", "-o", tmp_path / "out")
    assert code == 4
    assert "NOT TO BE BELIEVED" in out
    document = json.loads((tmp_path / "out" / "measurements.json").read_text())
    assert document["quality"]["converged"] is False
    assert document["quality"]["stop_reason"] == "stuck"


def test_a_second_fit_needs_force(run: Run, handmade: Callable[..., None], tmp_path: Path) -> None:
    handmade()
    assert run("fit", "x", "-o", tmp_path / "out")[0] == 0
    code, _, err = run("fit", "x", "-o", tmp_path / "out")
    assert code == 2
    assert "--force" in err
    assert run("fit", "x", "-o", tmp_path / "out", "--force")[0] == 0


def test_models_are_listed_shown_and_checked(run: Run, models: Path) -> None:
    code, out, _ = run("models", "list", "--json")
    entry = {e["name"]: e for e in json.loads(out)["models"]}["tiny"]
    assert (code, entry["origin"], entry["problem"]) == (0, "user", None)
    assert "tiny" in run("models", "list")[1]
    shown = json.loads(run("models", "info", "tiny", "--json")[1])
    assert (shown["num_joints"], shown["num_betas"]) == (24, 6)
    assert "Apache-2.0" in run("models", "info", "tiny")[1]
    code, out, _ = run("models", "check", "tiny", "--json")
    assert (code, json.loads(out)["usable"]) == (0, True)


def test_a_body_that_cannot_be_used_is_exit_code_2(run: Run, tmp_path: Path) -> None:
    arrays = tiny_body_arrays()
    arrays["weights"][7] *= 2
    np.savez(tmp_path / "spoiled.npz", allow_pickle=False, **arrays)
    code, out, _ = run("models", "check", tmp_path / "spoiled.npz")
    assert code == 2
    assert "weights" in out
    assert "CANNOT BE USED" in out


def test_info_names_versions_and_devices(run: Run) -> None:
    code, out, _ = run("info", "--json")
    data = json.loads(out)
    assert code == 0
    assert data["packages"]["numpy"] == np.__version__
    assert data["devices"]["cpu"]["cores"] >= 1
    assert data["devices"]["cuda"]["used"] is False
    assert "smplx" in run("info")[1]


def test_measure_computes_from_the_saved_shape(run: Run, models: Path, tmp_path: Path) -> None:
    measure = pytest.importorskip("bodyfit.body.measure")
    result = tiny_result(models / "tiny.npz")
    write_fit_folder(result, tmp_path / "fit")
    code, out, _ = run("measure", tmp_path / "fit", "--json")
    expected = measure.measure_with_sd(result.model, result.betas, result.betas_cov, result.coverage)
    measured = json.loads(out)["measurements"]
    assert code == 0
    assert set(measured) == set(expected)
    assert measured["stature"]["value_m"] == pytest.approx(expected["stature"].value_m, abs=1e-6)
    # what the fit saw is taken over, also where the saved coverage alone would say otherwise
    assert measured["stature"]["seen"] is True
    assert measured["head_girth"]["seen"] is False
    assert "stature" in run("measure", tmp_path / "fit" / "fit.npz")[1]


def test_measure_refuses_another_body(run: Run, models: Path, tmp_path: Path) -> None:
    write_fit_folder(tiny_result(models / "tiny.npz"), tmp_path / "fit")
    arrays = tiny_body_arrays()
    arrays["v_template"] *= 1.01
    np.savez(models / "tiny.npz", allow_pickle=False, **arrays)
    code, _, err = run("measure", tmp_path / "fit")
    assert code == 2
    assert "sha256" in err
    code, _, err = run("measure", tmp_path / "fit", "--model", "tiny")
    assert code == 2
    assert "another body" in err


def test_compiled_kernels_find_a_private_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a writable home or package; a folder that somebody else prepared is not trusted."""
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    cache.provide_cache_folder()
    assert cache.VARIABLE not in os.environ  # the checkout can be written
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cache, "_writable", lambda place: False)
    for round_ in range(2):
        monkeypatch.setenv(cache.VARIABLE, "")
        cache.provide_cache_folder()
        chosen = Path(os.environ[cache.VARIABLE])
        assert chosen == tmp_path / f"bodyfit-kernels-{os.getuid()}", round_
        assert stat.S_IMODE(chosen.stat().st_mode) == 0o700
    chosen.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    chosen.symlink_to(tmp_path / "elsewhere")
    for prepared in ("a link", "open to all"):
        monkeypatch.setenv(cache.VARIABLE, "")
        cache.provide_cache_folder()
        assert Path(os.environ[cache.VARIABLE]) != chosen, prepared
        chosen.unlink(missing_ok=True) if chosen.is_symlink() else chosen.rmdir()
        chosen.mkdir()
        chosen.chmod(0o777)
