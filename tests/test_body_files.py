"""Body files: read whole or refused by name, found where they belong, made from licensed files with all a fit needs."""

from __future__ import annotations

import errno
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_layouts import official_arrays, write_official_npz, write_official_pkl
from tiny_body import tiny_body_arrays, write_tiny_body

from bodyfit.body import npz
from bodyfit.body.files import check_body, find_model, list_models, models_folder, read_body_file, shipped_folder
from bodyfit.body.import_smpl import import_body
from bodyfit.body.model import load_body_model
from bodyfit.body.npz import read_npz, write_npz
from bodyfit.body.skeleton import FAMILY_JOINTS, PART_NAMES, part_of_joint, parts_touch
from bodyfit.errors import InputError, ModelFileError, OutputError

Arrays = dict[str, Any]


def landmarked_arrays() -> Arrays:
    """The tests' body with four landmarks, one of them the centroid of two vertices."""
    arrays = tiny_body_arrays()
    v = arrays["v_template"]
    extremes = [int(i) for i in (v[:, 1].argmax(), v[:, 0].argmax(), v[:, 0].argmin())]
    arrays["landmark_names"] = np.array(["head_top", "left_fingertip", "right_fingertip", "middle"])
    ids = [[extremes[0], -1], [extremes[1], -1], [extremes[2], -1], extremes[1:]]
    arrays["landmark_vertices"] = np.array(ids, np.int32)
    return arrays


@pytest.fixture(scope="module")
def landmarked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "tiny.npz"
    write_npz(path, landmarked_arrays())
    return path


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "my models"
    monkeypatch.setenv("BODYFIT_MODELS", str(folder))
    return folder


# ---- reading ----


def test_reads_every_array(tmp_path: Path) -> None:
    arrays = landmarked_arrays()
    path = tmp_path / "body.npz"
    write_npz(path, arrays)
    read = read_body_file(path)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(read[name], array), name


def test_reads_official_names_of_faces_and_roots(tmp_path: Path) -> None:
    arrays = tiny_body_arrays()
    arrays["f"] = arrays.pop("faces").astype(np.uint32)
    arrays["kintree_table"] = arrays["kintree_table"].astype(np.uint32)
    assert arrays["kintree_table"][0, 0] == 2**32 - 1
    write_npz(tmp_path / "body.npz", arrays)
    read = read_body_file(tmp_path / "body.npz")
    assert read["kintree_table"][0, 0] == -1 and "f" not in read and read["faces"].shape[1] == 3


def spoil(name: str, value: Any) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name] = value(arrays[name]) if callable(value) else value

    return change


def put(name: str, where: Any, value: Any) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name][where] = value

    return change


def drop(name: str) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.__delitem__(name)


SPOILT: dict[str, tuple[Callable[[Arrays], None], str]] = {
    **{f"no {n}": (drop(n), n) for n in "v_template shapedirs J_regressor weights kintree_table faces".split()},
    "template of integers": (spoil("v_template", lambda a: a.astype(np.int32)), r"v_template.*floating.*int32"),
    "template of two columns": (spoil("v_template", lambda a: a[:, :2]), r"v_template.*shape \(V, 3\)"),
    "another body's shapes": (spoil("shapedirs", lambda a: a[1:]), r"shapedirs.*shape"),
    "flat shapes": (spoil("shapedirs", lambda a: a[:, 0]), r"shapedirs.*shape"),
    "no shapes": (spoil("shapedirs", lambda a: a[..., :0]), "betas"),
    "complex shapes": (spoil("shapedirs", lambda a: a.astype(complex)), r"shapedirs.*complex"),
    "transposed regressor": (spoil("J_regressor", lambda a: a.T), r"J_regressor.*shape"),
    "23 joints": (lambda a: a.update(
        J_regressor=a["J_regressor"][:23], weights=a["weights"][:, :23], kintree_table=a["kintree_table"][:, :23],
        joint_names=a["joint_names"][:23]), r"joints.*24.*23"),
    "a joint too many": (spoil("J_regressor", lambda a: np.vstack([a, a[:1]])), r"weights.*shape"),
    "NaN": (put("v_template", (3, 1), np.nan), r"v_template.*finite.*1 that"),
    "infinity": (put("shapedirs", (3, 1, 2), -np.inf), r"shapedirs.*finite"),
    "weights that do not sum to one": (put("weights", 5, 0.5), r"weights.*sum to 1.*vertex 5"),
    "negative weights": (put("weights", (5, slice(0, 2)), (-1.0, 2.0)), "weights"),
    "face of a missing vertex": (put("faces", (7, 1), 10**6), r"faces.*numbers 0 to"),
    "face of vertex -1": (put("faces", (7, 1), -1), r"faces.*-1"),
    "no faces": (spoil("faces", lambda a: a[:0]), "faces"),
    "faces as numbers with a point": (spoil("faces", lambda a: a.astype(float)), r"faces.*integer.*float64"),
    "two roots": (put("kintree_table", (0, 5), -1), r"kintree_table.*joint 5 under -1"),
    "root last": (spoil("kintree_table", lambda a: a[:, ::-1]), "kintree_table"),
    "a joint under itself": (put("kintree_table", (0, 5), 5), r"kintree_table.*joint 5 under 5"),
    "a ring of joints": (put("kintree_table", (0, 4), 7), r"kintree_table.*joint 4 under 7"),
    "a parent beyond": (put("kintree_table", (0, 4), 99), r"kintree_table.*under 99"),
    "root with a parent": (put("kintree_table", (0, 0), 3), r"kintree_table.*root"),
    "other joint numbers": (put("kintree_table", (1, 3), 9), r"kintree_table.*second row"),
    "centimetres": (spoil("v_template", lambda a: a * 100), r"v_template.*metres.*centimetres"),
    "a toy": (spoil("v_template", lambda a: a * 0.01), r"v_template.*metres"),
    "names for other joints": (spoil("joint_names", lambda a: a[:5]), r"joint_names.*shape"),
    "names as numbers": (spoil("joint_names", np.arange(24)), r"joint_names.*text"),
    "mask of numbers": (spoil("sample_mask", lambda a: a.astype(float)), r"sample_mask.*bool"),
    "prior of other betas": (spoil("prior_mean_male", lambda a: a[:-1]), r"prior_mean_male.*shape"),
    "prior without spread": (drop("prior_cov_male"), r"prior_mean_male and prior_cov_male"),
    "skewed prior": (put("prior_cov_male", (0, 1), 0.5), r"prior_cov_male.*symmetric"),
    "flat prior": (put("prior_cov_male", (2, 2), 0.0), r"prior_cov_male.*positive definite"),
    "level of missing vertices": (put("lod1_vertex_ids", 0, 10**6), "lod1_vertex_ids"),
    "level with a vertex twice": (put("lod2_vertex_ids", 0, 1), r"lod2_vertex_ids.*once"),
    "level's faces beyond it": (spoil("lod2_vertex_ids", lambda a: a[:-5]), "lod2_faces"),
    "a part without a name": (put("part_labels", 0, 200), "part_labels"),
    "landmark beyond": (put("landmark_vertices", (0, 0), 10**6), "landmark_vertices"),
    "landmark of no vertex": (put("landmark_vertices", (1, 0), -1), r"landmark_vertices.*left_fingertip"),
    "landmark without a name": (spoil("landmark_names", lambda a: a[1:]), r"landmark_vertices.*shape"),
    "pose corrections of other joints": (spoil("posedirs", lambda _: np.zeros((3, 3, 207), "f4")), "posedirs"),
    "meta that is no JSON": (spoil("meta", np.array("{name: tiny}")), r"meta.*JSON"),
    "meta that is a list": (spoil("meta", np.array("[1]")), r"meta.*JSON"),
    "meta as numbers": (spoil("meta", np.zeros(3)), "meta"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_wrong_is_named(tmp_path: Path, name: str) -> None:
    arrays = landmarked_arrays()
    arrays["posedirs"] = np.zeros((len(arrays["v_template"]), 3, 207), np.float32)
    arrays["lod2_vertex_ids"] = arrays["lod2_vertex_ids"].copy()
    change, message = SPOILT[name]
    change(arrays)
    path = tmp_path / "body.npz"
    write_npz(path, arrays)
    with pytest.raises(ModelFileError, match=message) as caught:
        read_body_file(path)
    assert str(path) in str(caught.value) and caught.value.expected and caught.value.found
    assert check_body(path) == [str(caught.value)]


def member(shape: tuple[int, ...], data: bytes, descr: str = "<f4") -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue() + data


def write_members(path: Path, members: dict[str, bytes], **replaced: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (members | replaced).items():
            archive.writestr(f"{name}.npy", data)
    return path


def test_declared_sizes_are_checked_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shape in ((100_000, 100_000), (1 << 62,), (1 << 40, 1 << 40), (0, 1 << 62)):
        path = write_members(tmp_path / "lie.npz", {"v_template": member(shape, b"\0" * 64)})
        with pytest.raises(ModelFileError, match=r"bytes|broken"):
            read_npz(path)
    # a true bomb: 64 MiB of zeros in 64 kB, with the limit lowered
    path = write_members(tmp_path / "bomb.npz", {k: member((1 << 23,), bytes(1 << 25)) for k in ("a", "b")})
    assert path.stat().st_size < 1 << 17
    monkeypatch.setattr(npz, "MAX_TOTAL_BYTES", 1 << 25)
    monkeypatch.setattr(npz, "_read", lambda *a: pytest.fail("unpacked"))
    with pytest.raises(ModelFileError, match="GiB unpacked"):
        read_npz(path)


def test_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(marker), "w")

    arrays = tiny_body_arrays()
    np.savez(tmp_path / "body.npz", **arrays, note=np.array([Attack()], dtype=object))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match=r"note.*Python objects"):
        read_body_file(tmp_path / "body.npz")
    # under the name of what an official file must have, and of what nobody needs
    official = {k: v for k, v in official_arrays("smpl", 10).items() if k != "J_regressor"}
    attack = {"J_regressor": np.array([Attack()], dtype=object), "bs_style": np.array(Attack(), dtype=object)}
    np.savez(tmp_path / "SMPL.npz", **official, **attack)  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="no J_regressor"):
        import_body(tmp_path / "SMPL.npz", tmp_path)
    assert not marker.exists()
    with np.load(tmp_path / "body.npz", allow_pickle=True) as loaded:
        assert loaded["note"].shape == (1,) and marker.exists(), "the attack is harmless even to numpy"


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    whole = write_tiny_body(tmp_path / "whole.npz").read_bytes()
    bad = {
        "empty.npz": b"", "text.npz": b"not a body", "npy.npz": member((2,), b"\0" * 8),
        "cut.npz": whole[: len(whole) // 2], "tail.npz": whole[len(whole) // 2 :],
        "pickle.npz": pickle.dumps({"v_template": 1}),
    }  # fmt: skip
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelFileError, match=name):
            read_body_file(tmp_path / name)
    (tmp_path / "body.pkl").write_bytes(bad["pickle.npz"])
    with pytest.raises(ModelFileError, match="bodyfit models import"):
        read_body_file(tmp_path / "body.pkl")
    with pytest.raises(ModelFileError, match=r"none\.npz"):
        read_body_file(tmp_path / "none.npz")
    with pytest.raises(ModelFileError, match=r"folder\.npz"):
        (tmp_path / "folder.npz").mkdir()
        read_body_file(tmp_path / "folder.npz")


def test_odd_members_are_refused(tmp_path: Path) -> None:
    good = member((2,), b"\0" * 8)
    for name, members in {
        "not an npy": {"a": b"\x93NUMPX" + good[6:]},
        "version 3": {"a": good[:6] + b"\x03\x00" + good[8:]},
        "a header of code": {"a": b"\x93NUMPY\x01\x00" + struct.pack("<H", 22) + b"__import__('os').a()  "},
        "bytes behind": {"a": good + b"\0"},
        "bytes short": {"a": good[:-1]},
    }.items():
        with pytest.raises(ModelFileError):
            read_npz(write_members(tmp_path / "odd.npz", members))
            pytest.fail(name)
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelFileError, match=r"readme\.txt"):
        read_npz(tmp_path / "odd.npz")
    with pytest.raises(ModelFileError, match="at most 512"):
        read_npz(write_members(tmp_path / "odd.npz", {str(i): good for i in range(600)}))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused_but_never_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    source = folder / "damage-source.npz"
    if not source.exists():
        write_npz(source, landmarked_arrays())
    damaged = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    (folder / "damaged.npz").write_bytes(bytes(damaged))
    try:
        read_body_file(folder / "damaged.npz")
    except ModelFileError as error:
        assert "damaged.npz" in str(error)


# ---- writing and finding ----


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "body.npz"
    write_npz(path, {"a": np.arange(3)})
    write_npz(tmp_path / "again.npz", {"a": np.arange(3)})
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()
    before = path.read_bytes()

    def full(file: Any, *args: Any, **kwargs: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OutputError, match="No space"):
        write_npz(path, {"a": np.arange(4)})
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["body.npz"]
    with pytest.raises(OutputError, match="body"):
        write_npz(path / "body.npz", {"a": np.arange(4)})


def test_models_are_found_by_name_and_path(user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models_folder() == user_folder
    user_folder.mkdir()
    mine = write_tiny_body(user_folder / "mine.npz")
    (user_folder / "broken.npz").write_bytes(b"not a body")
    write_npz(user_folder / "half.npz", {"J_regressor": np.zeros((24, 5), np.float32)})
    assert find_model("mine") == mine and find_model(mine) == mine and find_model(str(mine)) == mine
    assert find_model("anny_adult").parent == shipped_folder()
    entries = {e.name: e for e in list_models()}
    assert entries["mine"].origin == "user" and entries["mine"].num_joints == 24 and entries["mine"].num_betas == 6
    assert entries["mine"].problem is None and entries["mine"].licence == "Apache-2.0"
    assert entries["anny_adult"].origin == "shipped" and entries["anny_adult"].num_vertices == 13348
    assert "broken" in str(entries["broken"].problem) and "shapedirs" in str(entries["half"].problem)
    for missing in ("yours", "../mine", "mine.npz", str(user_folder / "yours.npz"), str(user_folder), ""):
        with pytest.raises(ModelFileError, match=r"anny_adult.*mine") as caught:
            find_model(missing)
        assert str(user_folder) in str(caught.value)
    monkeypatch.delenv("BODYFIT_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", str(user_folder))
    assert models_folder().parts[-2:] == ("bodyfit", "models")


def test_check_says_what_is_doubtful(tmp_path: Path) -> None:
    path = tmp_path / "body.npz"
    arrays = landmarked_arrays()
    write_npz(path, arrays)
    assert check_body(path) == []

    def remarks(**changes: Any) -> str:
        write_npz(path, {k: v for k, v in (arrays | changes).items() if v is not None})
        found = check_body(path)
        assert found and load_body_model(path).num_vertices == len(arrays["v_template"])
        return "\n".join(found)

    assert "inwards" in remarks(faces=arrays["faces"][:, ::-1])
    assert "open at 3 edges" in remarks(faces=arrays["faces"][1:])
    assert "more than two" in remarks(faces=np.vstack([arrays["faces"], arrays["faces"][:1]]))
    assert "rows should sum to 1" in remarks(J_regressor=arrays["J_regressor"] * np.float32(0.9))
    assert "this is 0.897 m" in remarks(v_template=arrays["v_template"] * np.float32(0.5))
    turned = arrays["v_template"] * np.array([-1, 1, -1], np.float32)
    assert "left one towards +x" in remarks(v_template=turned)
    assert "landmark" in remarks(landmark_names=None, landmark_vertices=None)
    assert "N(0, 1)" in remarks(**{name: None for name in arrays if name.startswith("prior_")})


def test_the_shipped_body_is_good() -> None:
    path = find_model("anny_adult")
    assert check_body(path) == []
    assert path.stat().st_size < 8 << 20


# ---- importing ----


def test_import_makes_all_that_a_fit_needs(tmp_path: Path, user_folder: Path, landmarked: Path) -> None:
    source = write_official_pkl(tmp_path / "SMPLX_FEMALE.pkl", official_arrays("smplx", 20))
    made = import_body(source, landmarks_from=landmarked)
    assert made.path == user_folder / "SMPLX_FEMALE.npz" and find_model("SMPLX_FEMALE") == made.path
    assert (made.family, made.sex, made.num_joints, made.num_betas) == ("smplx", "female", 55, 10)
    assert made.num_expressions == 10 and "licence" in made.licence_note
    assert check_body(made.path) == []
    body = load_body_model(made.path)
    assert body.joint_names == FAMILY_JOINTS["smplx"] and body.name == "SMPLX_FEMALE"
    assert body.priors.keys() == {"female", "neutral"} and np.array_equal(body.priors["female"].cov, np.eye(10))
    assert body.part_names == PART_NAMES and len(body.levels) == 2 and body.posedirs is not None
    assert body.meta["family"] == "smplx" and len(body.meta["source_sha256"]) == 64
    assert not {"left_hand", "right_hand", "head"} - {PART_NAMES[i] for i in set(np.asarray(body.part_labels).tolist())}
    eyes = body.lbs_weights[:, 23:25].sum(1) > 0.5
    assert body.sample_mask is not None and not body.sample_mask[eyes].any() and body.sample_mask.mean() > 0.9
    assert body.extras["exprdirs"].shape[2] == 10 and body.extras["hands_componentsl"].shape == (45, 45)
    # the reference is the same body: its landmarks come back
    reference = load_body_model(landmarked)
    for name, ids in reference.landmarks.items():
        gap = body.v_template[body.landmarks[name]].mean(0) - reference.v_template[ids].mean(0)
        assert np.linalg.norm(gap) < 0.01, name


def test_import_is_repeatable(tmp_path: Path, landmarked: Path) -> None:
    source = write_official_npz(tmp_path / "SMPL_NEUTRAL.npz", official_arrays("smpl", 10))
    one, two = (import_body(source, tmp_path / f"{i}.npz", "smpl", landmarks_from=landmarked) for i in (1, 2))
    assert one.path.read_bytes() == two.path.read_bytes()


@pytest.mark.parametrize(
    "file, sex",
    [
        ("basicModel_f_lbs_10_207_0_v1.0.0.npz", "female"), ("basicmodel_m_lbs_10_207_0_v1.1.0.npz", "male"),
        ("basicmodel_neutral_lbs_10_207_0_v1.1.0.npz", "neutral"), ("SMPL_MALE.npz", "male"), ("model.npz", "neutral"),
        ("female/model.npz", "female"), ("male/SMPL_FEMALE.npz", "female"), ("mine.npz", "neutral"),
    ],
)  # fmt: skip
def test_sex_is_told_by_the_name(tmp_path: Path, landmarked: Path, file: str, sex: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    source = write_official_npz(tmp_path / file, official_arrays("smpl", 10))
    assert import_body(source, tmp_path / "out.npz", landmarks_from=landmarked).sex == sex
    assert import_body(source, tmp_path / "out.npz", sex="male", landmarks_from=landmarked).sex == "male"


def test_number_of_betas(tmp_path: Path, landmarked: Path) -> None:
    source = write_official_npz(tmp_path / "SMPL_MALE.npz", official_arrays("smpl", 300))
    assert import_body(source, tmp_path / "out.npz", landmarks_from=landmarked).num_betas == 300
    assert import_body(source, tmp_path / "out.npz", num_betas=16, landmarks_from=landmarked).num_betas == 16
    for wrong in (0, 301):
        with pytest.raises(InputError, match=r"num_betas.*1 to 300"):
            import_body(source, tmp_path / "out.npz", num_betas=wrong, landmarks_from=landmarked)


OFFICIAL_SPOILT: dict[str, tuple[Callable[[Arrays], None], str]] = {
    "no weights": (drop("weights"), "no weights"),
    "a hand": (spoil("J_regressor", lambda a: a[:16]), r"J_regressor.*24.*16.*MANO"),
    "a head": (spoil("J_regressor", lambda a: a[:5]), r"5.*FLAME"),
    "flat shapes": (spoil("shapedirs", lambda a: a[:, 0]), "shapedirs"),
    "no shapes": (spoil("shapedirs", lambda a: a[..., :0]), "shapedirs"),
    "faces beyond": (put("f", (0, 0), 10**6), r"f: expected vertices"),
    "vertex 2³²-1": (put("f", (0, 0), 2**32 - 1), r"f: expected vertices"),
    "joints in a ring": (put("kintree_table", (0, 4), 7), "kintree_table"),
    "tree of other joints": (spoil("kintree_table", lambda a: a[:, :5]), "kintree_table"),
    "weights of other joints": (spoil("weights", lambda a: a[:, :5]), "weights"),
    "NaN": (put("posedirs", (0, 0, 0), np.nan), r"posedirs.*finite"),
    "text": (spoil("v_template", np.array(["a", "b"])), "v_template"),
    "centimetres": (spoil("v_template", lambda a: a * 100), "metres"),
}


@pytest.mark.parametrize("name", OFFICIAL_SPOILT)
def test_official_files_that_are_wrong(tmp_path: Path, landmarked: Path, name: str) -> None:
    arrays = official_arrays("smpl", 10)
    change, message = OFFICIAL_SPOILT[name]
    change(arrays)
    source = write_official_npz(tmp_path / "SMPL_NEUTRAL.npz", arrays)
    with pytest.raises(ModelFileError, match=message):
        import_body(source, tmp_path / "out.npz", landmarks_from=landmarked)
    assert [p.name for p in tmp_path.iterdir()] == ["SMPL_NEUTRAL.npz"]


def test_other_refusals(tmp_path: Path, landmarked: Path) -> None:
    source = write_official_npz(tmp_path / "SMPL_NEUTRAL.npz", official_arrays("smpl", 10))
    with pytest.raises(InputError, match=r"\.npz"):
        import_body(source, tmp_path / "out.pkl", landmarks_from=landmarked)
    with pytest.raises(OutputError):
        import_body(source, source / "out.npz", landmarks_from=landmarked)
    for name in ("../smpl", "a/b", ".hidden", "", "a\nb"):
        with pytest.raises(InputError, match="name"):
            import_body(source, tmp_path, name, landmarks_from=landmarked)
    with pytest.raises(InputError, match="sex"):
        import_body(source, tmp_path, sex="other", landmarks_from=landmarked)
    no_body = {"bytes": b"", "pickled list": pickle.dumps([1]), "no v_template": pickle.dumps({"f": 1})}
    for message, data in no_body.items():
        (tmp_path / "body.pkl").write_bytes(data)
        with pytest.raises(ModelFileError, match=message):
            import_body(tmp_path / "body.pkl", tmp_path, landmarks_from=landmarked)
    (tmp_path / "no.npz").write_bytes(b"text")
    for path in (tmp_path / "no.npz", tmp_path / "none.pkl", tmp_path):
        with pytest.raises(ModelFileError):
            import_body(path, tmp_path, landmarks_from=landmarked)


def test_parts_of_every_official_joint() -> None:
    for names in FAMILY_JOINTS.values():
        assert {part_of_joint(n) for n in names} == set(PART_NAMES)
        for name in names:
            side = name.split("_")[0]
            part = part_of_joint(name)
            assert not part.startswith(("left", "right")) or part.startswith(side), name
    touch = parts_touch()
    left, right = PART_NAMES.index("left_thigh"), PART_NAMES.index("right_thigh")
    assert not touch[left, right] and touch[left, PART_NAMES.index("pelvis")] and (touch == touch.T).all()


def test_shipped_landmarks_reach_an_imported_body(tmp_path: Path) -> None:
    source = write_official_npz(tmp_path / "SMPL_NEUTRAL.npz", official_arrays("smpl", 10))
    body = load_body_model(import_body(source, tmp_path / "out.npz").path)
    shipped = load_body_model("anny_adult")
    assert body.landmarks.keys() == shipped.landmarks.keys()
    v = body.v_template
    at = {n: v[ids].mean(0) for n, ids in body.landmarks.items()}
    for name, place in at.items():
        side = {"left": 1, "right": -1}.get(name.split("_")[0])
        if side:
            assert place[0] * side > 0.02, name
            other = at[name.replace("left", "right") if side > 0 else name.replace("right", "left")]
            assert np.linalg.norm(place * [-1, 1, 1] - other) < 0.08, name
    assert at["head_top"][1] > v[:, 1].max() - 0.02
    assert json.loads(json.dumps(body.meta))["landmarks"] == "carried over from anny_adult"
