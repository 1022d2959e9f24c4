"""The files of a fit: what is in them, that equal fits are equal bytes, and that a folder is whole or absent."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_body import write_tiny_body
from tiny_result import tiny_result

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.errors import InputError, OutputError
from bodyfit.export.folder import check_out_folder, write_fit_folder
from bodyfit.export.ply import ply_bytes
from bodyfit.export.result_npz import fit_npz_bytes, frame_rate, read_fit_npz
from bodyfit.export.tables import COLUMNS, csv_text, json_text, measurements_document
from bodyfit.fit.result import FitResult

PICTURES = [
    ("overlay/000003.png", np.full((8, 12, 3), (200, 100, 0), np.uint8)),
    ("summary.png", np.zeros((4, 4, 3), np.uint8)),
]
FILES = {
    "fit.npz", "measurements.json", "measurements.csv", "rest.ply", "mesh/000003.ply", "mesh/000005.ply",
    "overlay/000003.png", "summary.png",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BodyModel:
    return load_body_model(write_tiny_body(tmp_path_factory.mktemp("body") / "tiny.npz"))


@pytest.fixture
def result(model: BodyModel) -> FitResult:
    return tiny_result(model)


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_ply_is_read_by_others_vertex_for_vertex(result: FitResult, tmp_path: Path) -> None:
    o3d = pytest.importorskip("open3d")
    file = tmp_path / "a.ply"
    file.write_bytes(ply_bytes(result.rest_vertices(), result.model.faces, "one line\nanother – one"))
    mesh = o3d.io.read_triangle_mesh(str(file))
    np.testing.assert_array_equal(np.asarray(mesh.vertices), result.rest_vertices().astype(np.float32))
    np.testing.assert_array_equal(np.asarray(mesh.triangles), result.model.faces)


@pytest.mark.parametrize("spoiled", [np.array([[0, 0, np.nan]]), np.zeros((3, 2))])
def test_ply_refuses_what_is_no_mesh(spoiled: np.ndarray) -> None:
    with pytest.raises(ValueError, match="vertices"):
        ply_bytes(spoiled, np.zeros((1, 3), int))


def test_fit_npz_has_the_keys_of_amass_and_gives_the_body_back(result: FitResult, tmp_path: Path) -> None:
    (tmp_path / "fit.npz").write_bytes(fit_npz_bytes(result))
    with np.load(tmp_path / "fit.npz", allow_pickle=False) as z:
        T, J = len(result.poses), result.model.num_joints
        assert z["poses"].shape == (T, 3 * J)
        assert z["trans"].shape == (T, 3)
        assert z["betas"].shape == (result.model.num_betas,)
        assert str(z["gender"]) == "female"
        assert float(z["mocap_framerate"]) == 2.0
    saved = read_fit_npz(tmp_path)  # the folder serves as well
    assert saved.model_sha256 == result.model.sha256
    assert saved.quality["skipped"] == {"4": "nobody stands there"}
    assert saved.converged
    for t in range(T):
        again, _ = result.model.forward(saved.betas, saved.poses[t], saved.trans[t])
        np.testing.assert_array_equal(again, result.vertices_world(t))


def test_frame_rate_of_one_frame_divides_nobody_by_zero() -> None:
    assert frame_rate((12.0,)) == 1.0
    assert frame_rate((0.0, 1 / 30, 2 / 30, 7.0)) == pytest.approx(30, abs=1e-5)


def spoil(arrays: dict[str, np.ndarray], key: str, value: np.ndarray | None) -> dict[str, np.ndarray]:
    if value is None:
        del arrays[key]
    else:
        arrays[key] = value
    return arrays


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("betas", None),
        ("betas", np.zeros((2, 2))),
        ("betas", np.array([np.nan] * 6)),
        ("betas_cov", np.eye(3)),
        ("poses", np.zeros((2, 71))),
        ("trans", np.zeros((3, 3))),
        ("timestamps_s", np.array(["a", "b"])),
        ("format", np.array("bodyfit.fit/2")),
        ("quality_json", np.array("{")),
    ],
)
def test_a_spoiled_fit_is_refused_by_name(
    result: FitResult, tmp_path: Path, key: str, value: np.ndarray | None
) -> None:
    whole = tmp_path / "whole.npz"
    whole.write_bytes(fit_npz_bytes(result))
    with np.load(whole) as z:
        arrays = spoil(dict(z), key, value)
    np.savez(tmp_path / "fit.npz", allow_pickle=False, **arrays)
    with pytest.raises(InputError, match=key):
        read_fit_npz(tmp_path / "fit.npz")


def test_a_truncated_fit_or_none_is_refused(result: FitResult, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_fit_npz(tmp_path)
    (tmp_path / "fit.npz").write_bytes(fit_npz_bytes(result)[:500])
    with pytest.raises(InputError, match=r"fit\.npz"):
        read_fit_npz(tmp_path)


def test_measurements_are_metres_with_their_unit_in_the_key(result: FitResult) -> None:
    document = json.loads(json_text(measurements_document(result)))
    assert set(document) == {"format", "measurements", "quality", "provenance"}
    measured = document["measurements"]
    assert measured["stature"] == {
        "value_m": 1.731235, "sd_m": 0.004, "seen": True, "definition": "Floor to the top of the head.",
    }  # fmt: skip
    assert measured["hip_girth"]["sd_m"] is None
    assert measured["volume"]["value_m3"] == 0.0688
    assert measured["mass"]["value_kg"] == 67.8
    assert document["quality"]["frames"][1]["flags"] == ["the picture ends above the feet"]
    assert document["quality"]["frames"][1]["stop_reason"] == "converged"
    assert document["provenance"]["model"] == "tiny"
    assert document["provenance"]["model_sha256"] == result.model.sha256


def test_csv_has_the_columns_of_the_json(result: FitResult) -> None:
    rows = list(csv.DictReader(csv_text(result.measurements).splitlines()))
    measured = measurements_document(result)["measurements"]
    assert [row["name"] for row in rows] == list(result.measurements)
    assert {key for record in measured.values() for key in record} == set(COLUMNS) - {"name"}
    for row in rows:
        for key, value in measured[row["name"]].items():
            shown = {None: "", True: "true", False: "false"}.get(value, str(value))
            assert row[key] == shown
    assert rows[3]["value_m"] == ""


def test_folder_holds_what_is_promised(result: FitResult, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    names = write_fit_folder(result, out, pictures=PICTURES)
    assert set(names) == set(files_in(out)) == FILES
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]
    import cv2

    picture = cv2.imread(str(out / "overlay/000003.png"))
    assert picture is not None
    np.testing.assert_array_equal(picture[0, 0], [0, 100, 200])  # OpenCV reads blue first


def test_equal_fits_are_equal_bytes_that_name_no_place(model: BodyModel, tmp_path: Path) -> None:
    for name in "ab":
        write_fit_folder(tiny_result(model), tmp_path / name, pictures=PICTURES)
    a, b = files_in(tmp_path / "a"), files_in(tmp_path / "b")
    assert a == b
    for content in a.values():
        assert str(tmp_path).encode() not in content
        assert socket.gethostname().encode() not in content or len(socket.gethostname()) < 4


def test_the_folder_gets_the_rights_that_the_user_wants(result: FitResult, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_fit_folder(result, tmp_path / "out")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "out" / "fit.npz").stat().st_mode) == 0o640


def failing_pictures() -> Iterator[tuple[str, np.ndarray]]:
    yield PICTURES[0]
    raise RuntimeError("the painter fell off the ladder")


@pytest.mark.parametrize("existed", [False, True])
def test_an_error_half_way_leaves_nothing(result: FitResult, tmp_path: Path, existed: bool) -> None:
    out = tmp_path / "new" / "out"
    if existed:
        out.mkdir(parents=True)
    with pytest.raises(RuntimeError, match="painter"):
        write_fit_folder(result, out, pictures=failing_pictures())
    if existed:
        assert list(out.iterdir()) == []
    else:
        assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_and_stays_itself(result: FitResult, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    inode = out.stat().st_ino
    write_fit_folder(result, out, pictures=PICTURES)
    assert out.stat().st_ino == inode
    assert set(files_in(out)) == FILES


def test_a_file_in_the_place_of_the_folder(result: FitResult, tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_text("mine")
    for force in (False, True):
        for out in (file, file / "below"):
            with pytest.raises(OutputError, match="a file"):
                check_out_folder(out, force=force)
            with pytest.raises(OutputError, match="a file"):
                write_fit_folder(result, out, force=force)
    assert file.read_text() == "mine"


def test_a_folder_with_things_in_it_is_not_touched_without_force(result: FitResult, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        check_out_folder(tmp_path)
    with pytest.raises(OutputError, match=r"notes\.txt"):
        write_fit_folder(result, tmp_path)
    assert files_in(tmp_path) == {"notes.txt": b"mine"}


def test_force_replaces_the_fit_and_nothing_else(result: FitResult, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_fit_folder(result, out, pictures=PICTURES)
    (out / "mesh" / "mine.ply").write_text("kept")
    with pytest.raises(OutputError, match="--force"):
        check_out_folder(out)
    check_out_folder(out, force=True)
    shorter = replace(
        result, frame_indices=(3,), timestamps_s=(0.1,), frames=result.frames[:1],
        poses=result.poses[:1], pose_sd=result.pose_sd[:1], transl=result.transl[:1],
    )  # fmt: skip
    write_fit_folder(shorter, out, force=True)
    gone = {"mesh/000005.ply", "overlay/000003.png", "summary.png"}
    assert set(files_in(out)) == (FILES - gone) | {"mesh/mine.ply"}
    assert not (out / "overlay").exists()
    assert read_fit_npz(out).poses.shape[0] == 1


def test_a_failing_replacement_leaves_the_earlier_fit(
    result: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_fit_folder(result, out, pictures=PICTURES)
    before = files_in(out)
    rename = Path.rename

    def rename_until_summary(self: Path, target: Path) -> Path:
        # the last of the new files; by then all old ones are out of the way
        if (
            self.name == "summary.png"
            and target.parent == out
            and ".bodyfit-" in str(self.parent)
            and self.parent.name != "old"
        ):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_until_summary)
    with pytest.raises(OutputError, match="full disk"):
        write_fit_folder(replace(result, sex="male"), out, pictures=PICTURES, force=True)
    assert files_in(out) == before


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB in memory; skipped where the system lets nobody mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_nothing(result: FitResult, mounted: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)  # a PNG of 120 kB
    for out in (mounted / "out", mounted):
        with pytest.raises(OutputError, match="full disk"):
            write_fit_folder(result, out, pictures=[("summary.png", noise)])
        assert list(mounted.iterdir()) == []


def test_a_full_disk_is_named_where_none_can_be_mounted(
    result: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with a write that fails as it does on a full disk, for systems without small file systems."""
    write = Path.write_bytes

    def write_until_full(self: Path, data: bytes) -> int:
        if self.name == "rest.ply":
            write(self, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    with pytest.raises(OutputError, match="full disk") as caught:
        write_fit_folder(result, tmp_path / "out")
    assert caught.value.field == str(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_file_system_is_named(result: FitResult, mounted: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    for out in (mounted / "out", mounted):
        with pytest.raises(OutputError, match="Read-only"):
            check_out_folder(out)
        with pytest.raises(OutputError, match="Read-only"):
            write_fit_folder(result, out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(result: FitResult, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot"):
            check_out_folder(tmp_path / "out")
        with pytest.raises(OutputError, match="cannot"):
            write_fit_folder(result, tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)
