"""Licensed SMPL, SMPL-H and SMPL-X files, .npz or .pkl, turned into bodyfit's body file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.decimate import decimate
from bodyfit.body.files import checked_kintree, find_model, models_folder, read_body_file, validate_body
from bodyfit.body.landmarks import transfer_landmarks
from bodyfit.body.npz import read_npz, write_npz
from bodyfit.body.pickle_arrays import as_array
from bodyfit.body.pickle_reader import read_pickle
from bodyfit.body.skeleton import FAMILY_JOINTS, PART_NAMES, part_labels
from bodyfit.errors import InputError, ModelFileError

LICENCE_NOTE = (
    "The file stays under the licence of the model it was made from: nobody else may be given it, "
    "and where that licence is for research only, so is this file."
)
LOD_FACES = {1: 7700, 2: 2600}
_SEXES = {"female": "female", "f": "female", "male": "male", "m": "male", "neutral": "neutral"}
_REQUIRED = ("v_template", "shapedirs", "J_regressor", "weights", "kintree_table", "f")
_OPTIONAL = ("posedirs", "hands_meanl", "hands_meanr", "hands_componentsl", "hands_componentsr")
_FAMILY_NAMES = {"smpl": "SMPL", "smplh": "SMPL-H", "smplx": "SMPL-X"}


@dataclass(frozen=True)
class ImportedBody:
    """What an import made: where the file is, what it was, and the note on its licence that the user must see."""

    path: Path
    name: str
    family: str
    sex: str
    num_vertices: int
    num_joints: int
    num_betas: int
    num_expressions: int
    licence_note: str = LICENCE_NOTE


def import_body(
    path: str | Path,
    out: str | Path | None = None,
    name: str | None = None,
    *,
    sex: str | None = None,
    num_betas: int | None = None,
    landmarks_from: str | Path = "anny_adult",
) -> ImportedBody:
    """Reads a user's SMPL-family file, without running anything in it, and writes it as bodyfit's npz.

    Args:
        path: SMPL (24 joints), SMPL-H (52; MANO's or AMASS's layout) or SMPL-X (55), .npz or .pkl.
        out: file to write, or a folder for it; the user's models folder by default.
        name: what the body is called from then on; by default from the file's name.
        sex: "female", "male" or "neutral"; by default from the names of the file and its folder, else neutral.
        num_betas: shape components to keep; all by default.
        landmarks_from: body whose landmarks are carried over.

    Raises:
        ModelFileError: not such a file, broken, or a pickle that would run code.
        InputError: name, sex or num_betas is not one.
        OutputError: `out` cannot be written.
    """
    path = Path(path)
    sex = _sex(path, sex)
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InputError("name", "letters, digits, '.', '_' and '-'", repr(name[:40]))
    source = read_official(path)
    arrays = convert(source, str(path), num_betas)
    family = _family(arrays["J_regressor"], str(path))
    name = name or _default_name(path, family, sex)
    arrays |= _derived(arrays, sex)
    reference = read_body_file(find_model(landmarks_from))
    arrays["landmark_names"], arrays["landmark_vertices"] = transfer_landmarks(reference, arrays)
    meta = {
        "name": name, "family": family, "sexes": [sex], "units": "metres", "version": "1",
        "licence": f"that of the {_FAMILY_NAMES[family]} file it was imported from", "source": path.name,
        "source_sha256": _sha256(path), "prior": "betas independent, standard normal",
        "landmarks": f"carried over from {Path(landmarks_from).stem}",
    }  # fmt: skip
    arrays["meta"] = np.array(json.dumps(meta, sort_keys=True))
    validate_body(arrays, str(path))
    target = models_folder() if out is None else Path(out)
    if out is None or target.is_dir():
        target = target / f"{name}.npz"
    elif target.suffix != ".npz":
        raise InputError(str(out), "a folder, or a file that ends in .npz", target.suffix or "another name")
    write_npz(target, arrays)
    V, _, S = arrays["shapedirs"].shape
    E = arrays["exprdirs"].shape[2] if "exprdirs" in arrays else 0
    return ImportedBody(target, name, family, sex, V, len(arrays["J_regressor"]), S, E)


def read_official(path: str | Path) -> dict[str, NDArray[Any]]:
    """The arrays of an official file that a body needs, under their official names.

    Raises:
        ModelFileError: unreadable, unsafe, or without an array that every SMPL-family file has.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ModelFileError(str(path), "a readable file", error.strerror or type(error).__name__) from None
    keys = (*_REQUIRED, *_OPTIONAL)
    if start.startswith(b"PK"):
        arrays = read_npz(path, keys, skip_objects=True)
    elif path.suffix.lower() == ".npz":
        raise ModelFileError(str(path), "an npz file", "something else")
    else:
        contents = read_pickle(path)
        if not isinstance(contents, dict):
            raise ModelFileError(str(path), "a pickled dict of arrays", f"a pickled {type(contents).__name__}")
        named = {k.decode("latin-1") if isinstance(k, bytes) else k: value for k, value in contents.items()}
        arrays = {k: as_array(named[k], f"{path}: {k}") for k in keys if k in named}
    if missing := [k for k in _REQUIRED if k not in arrays]:
        hint = "numbers stored as Python objects count as missing; the official .pkl can be read instead"
        raise ModelFileError(str(path), f"the arrays {', '.join(_REQUIRED)}", f"no {', '.join(missing)}", hint)
    for key, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise ModelFileError(f"{path}: {key}", "numbers", str(array.dtype))
    return arrays


def convert(source: Mapping[str, NDArray[Any]], where: str, num_betas: int | None) -> dict[str, NDArray[Any]]:
    """Official arrays as ours: float32, faces, roots -1, SMPL-X's expressions apart from its shapes."""
    regressor, shapedirs = source["J_regressor"], source["shapedirs"]
    family = _family(regressor, where)
    if shapedirs.ndim != 3 or shapedirs.shape[2] == 0:
        raise ModelFileError(f"{where}: shapedirs", "shape (vertices, 3, betas)", str(shapedirs.shape))
    expressions: NDArray[Any] | None = None
    if family == "smplx":
        # as smplx does: the full file has 300 shapes and 100 expressions, the older small one 10 of each
        first = 300 if shapedirs.shape[2] >= 400 else 10
        shapedirs, expressions = shapedirs[..., :first], shapedirs[..., first : first + (100 if first == 300 else 10)]
    if num_betas is not None:
        if not 1 <= num_betas <= shapedirs.shape[2]:
            raise InputError("num_betas", f"1 to {shapedirs.shape[2]}", str(num_betas))
        shapedirs = shapedirs[..., :num_betas]
    floats = {"v_template": source["v_template"], "shapedirs": shapedirs, "J_regressor": regressor}
    floats |= {"weights": source["weights"]} | {k: source[k] for k in _OPTIONAL if k in source}
    if expressions is not None and expressions.shape[2]:
        floats["exprdirs"] = expressions
    arrays: dict[str, NDArray[Any]] = {k: np.ascontiguousarray(a, dtype=np.float32) for k, a in floats.items()}
    faces, table = source["f"], source["kintree_table"]
    # compared before they are narrowed: 2³²-1 would pass for -1
    if faces.size == 0 or faces.min() < 0 or faces.max() >= len(arrays["v_template"]):
        found = f"{faces.min()} to {faces.max()}" if faces.size else "none"
        raise ModelFileError(f"{where}: f", f"vertices 0 to {len(arrays['v_template']) - 1}", found)
    if table.shape != (2, len(regressor)) or not np.isfinite(table).all():
        raise ModelFileError(f"{where}: kintree_table", f"shape (2, {len(regressor)})", str(table.shape))
    arrays["faces"] = np.ascontiguousarray(faces, dtype=np.int32)
    arrays["kintree_table"] = checked_kintree(table.astype(np.int64), f"{where}: kintree_table")
    arrays["joint_names"] = np.array(FAMILY_JOINTS[family])
    return arrays


def _derived(arrays: dict[str, NDArray[Any]], sex: str) -> dict[str, NDArray[Any]]:
    """What the official files do not have: priors, evidence mask, parts, decimated meshes."""
    V, _, S = arrays["shapedirs"].shape
    weights, names = arrays["weights"], FAMILY_JOINTS[_family(arrays["J_regressor"], "")]
    if weights.shape != (V, len(names)):
        raise ModelFileError("weights", f"shape ({V}, {len(names)})", str(weights.shape))
    derived: dict[str, NDArray[Any]] = {"part_names": np.array(PART_NAMES), "part_labels": part_labels(weights, names)}
    # SMPL-X's eyeballs are mostly inside the head, where no sensor sees them
    eyes = [i for i, name in enumerate(names) if name.endswith("smplhf")]
    derived["sample_mask"] = ~np.isin(weights.argmax(1), eyes)
    for which in {sex, "neutral"}:
        derived[f"prior_mean_{which}"] = np.zeros(S, np.float32)
        derived[f"prior_cov_{which}"] = np.eye(S, dtype=np.float32)
    for level, target in LOD_FACES.items():
        ids, faces = decimate(arrays["v_template"], arrays["faces"], target)
        derived[f"lod{level}_vertex_ids"], derived[f"lod{level}_faces"] = ids, faces
    return derived


def _family(regressor: NDArray[Any], where: str) -> str:
    joints = regressor.shape[0] if regressor.ndim == 2 else 0
    for family, names in FAMILY_JOINTS.items():
        if len(names) == joints:
            return family
    hint = {16: "a MANO hand?", 5: "a FLAME head?", 35: "a SMAL animal?"}.get(joints)
    raise ModelFileError(f"{where}: J_regressor", "24 (SMPL), 52 (SMPL-H) or 55 (SMPL-X) joints", str(joints), hint)


def _sex(path: Path, sex: str | None) -> str:
    if sex is not None:
        if sex not in ("female", "male", "neutral"):
            raise InputError("sex", "female, male or neutral", repr(sex))
        return sex
    # basicModel_f_lbs_10_207_0_v1.0.0.pkl, SMPLX_FEMALE.npz, AMASS's smplh/female/model.npz
    for text, shortest in ((path.stem, 1), (path.resolve().parent.name, 4)):
        words = re.split(r"[^a-z]+", text.lower())
        found = {_SEXES[word] for word in words if word in _SEXES and len(word) >= shortest}
        if len(found) == 1:
            return found.pop()
    return "neutral"


def _default_name(path: Path, family: str, sex: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9]+", "_", path.stem).strip("_")
    return stem if stem.lower().startswith(("smpl", "basic")) else f"{family}_{sex}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
