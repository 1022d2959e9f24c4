"""Body files: our npz read and checked, and where they are found."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.npz import read_npz, read_npz_headers
from bodyfit.errors import BodyfitError, ModelFileError

SEXES = ("female", "male", "neutral")
MIN_JOINTS = 24
LIMITS = {"vertices": 200_000, "faces": 400_000, "joints": 256, "betas": 512}
"""Far above any body; what a file claims beyond them is a mistake or an attack."""

_FLOAT, _INT, _BOOL, _TEXT = "f", "iu", "b", "U"
_KIND_NAMES = {_FLOAT: "floating point", _INT: "integer", _BOOL: "bool", _TEXT: "text"}
# name -> (kind, shape); letters are sizes that must agree throughout the file, numbers are literal
_REQUIRED: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "v_template": (_FLOAT, ("V", 3)),
    "shapedirs": (_FLOAT, ("V", 3, "S")),
    "J_regressor": (_FLOAT, ("J", "V")),
    "weights": (_FLOAT, ("V", "J")),
    "kintree_table": (_INT, (2, "J")),
    "faces": (_INT, ("F", 3)),
}
_OPTIONAL: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "joint_names": (_TEXT, ("J",)),
    "anny_vertex_ids": (_INT, ("V",)),
    "sample_mask": (_BOOL, ("V",)),
    **{f"prior_mean_{s}": (_FLOAT, ("S",)) for s in SEXES},
    **{f"prior_cov_{s}": (_FLOAT, ("S", "S")) for s in SEXES},
    **{f"lod{i}_vertex_ids": (_INT, (f"V{i}",)) for i in (1, 2)},
    **{f"lod{i}_faces": (_INT, (f"F{i}", 3)) for i in (1, 2)},
    "part_labels": (_INT, ("V",)),
    "part_names": (_TEXT, ("P",)),
    "landmark_names": (_TEXT, ("L",)),
    "landmark_vertices": (_INT, ("L", "K")),
    "posedirs": (_FLOAT, ("V", 3, "9(J-1)")),
    "exprdirs": (_FLOAT, ("V", 3, "E")),
    **{f"hands_mean{side}": (_FLOAT, (45,)) for side in "lr"},
    **{f"hands_components{side}": (_FLOAT, ("C", 45)) for side in "lr"},
    "meta": (_TEXT, ()),
}
_TOGETHER = [
    *((f"prior_mean_{s}", f"prior_cov_{s}") for s in SEXES),
    *((f"lod{i}_vertex_ids", f"lod{i}_faces") for i in (1, 2)),
    ("part_labels", "part_names"),
    ("landmark_names", "landmark_vertices"),
    ("hands_meanl", "hands_meanr"),
    ("hands_componentsl", "hands_componentsr"),
]


def read_body_file(path: str | Path) -> dict[str, NDArray[Any]]:
    """Reads a body in our npz and checks it whole; nothing in it is ever executed.

    Returns the file's arrays as they are; `f` comes as `faces`, roots of `kintree_table` written as 2³²-1 as -1.

    Raises:
        ModelFileError: names the array, what it must be and what it is.
    """
    path = Path(path)
    if path.suffix.lower() in (".pkl", ".pickle"):
        hint = f"bodyfit models import {path.name} makes one of it"
        raise ModelFileError(str(path), "a body in bodyfit's npz", "a pickle", hint)
    arrays = read_npz(path)
    if "f" in arrays and "faces" not in arrays:
        arrays["faces"] = arrays.pop("f")
    validate_body(arrays, str(path))
    return arrays


def validate_body(arrays: dict[str, NDArray[Any]], source: str) -> None:
    """Checks names, shapes, types and values of a body's arrays; sets the roots of `kintree_table` to -1 in place.

    Raises:
        ModelFileError: the first thing that is wrong, its field starting with `source`.
    """
    sizes = _check_shapes(arrays, source)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelFileError(f"{source}: {name}", "finite numbers", f"{_count_bad(array)} that are not")
    V = sizes["V"]
    _check_index(arrays["faces"], V, f"{source}: faces")
    _check_weights(arrays["weights"], f"{source}: weights")
    arrays["kintree_table"] = checked_kintree(arrays["kintree_table"], f"{source}: kintree_table")
    extent = float(np.ptp(arrays["v_template"], axis=0).max())
    if not 0.3 < extent < 3.5:
        hint = "centimetres or millimetres?" if extent >= 3.5 else None
        raise ModelFileError(f"{source}: v_template", "a body in metres, 0.3 to 3.5 tall", f"{extent:.4g}", hint)
    for i in (1, 2):
        if f"lod{i}_faces" in arrays:
            ids = arrays[f"lod{i}_vertex_ids"]
            _check_index(ids, V, f"{source}: lod{i}_vertex_ids")
            if len(np.unique(ids)) != len(ids):
                raise ModelFileError(f"{source}: lod{i}_vertex_ids", "each vertex once", "repeated ones")
            _check_index(arrays[f"lod{i}_faces"], len(ids), f"{source}: lod{i}_faces")
    if "part_labels" in arrays:
        _check_index(arrays["part_labels"], len(arrays["part_names"]), f"{source}: part_labels")
    if "landmark_vertices" in arrays:
        ids = arrays["landmark_vertices"]
        _check_index(ids + 1, V + 1, f"{source}: landmark_vertices (with -1 as padding)")
        if (empty := np.flatnonzero((ids < 0).all(1))).size:
            name = arrays["landmark_names"][empty[0]]
            raise ModelFileError(f"{source}: landmark_vertices", "at least one vertex each", f"none for {name}")
    for sex in SEXES:
        if f"prior_cov_{sex}" in arrays:
            _check_covariance(arrays[f"prior_cov_{sex}"], f"{source}: prior_cov_{sex}")
    if "meta" in arrays:
        _meta(arrays["meta"], source)


def checked_kintree(table: NDArray[Any], field: str) -> NDArray[np.int64]:
    """A (2, J) kintree_table as int64, roots -1: one root first, and every parent before its children.

    Raises:
        ModelFileError: it is not such a tree.
    """
    parents, ids = np.asarray(table, dtype=np.int64)
    parents = np.where(parents == 2**32 - 1, -1, parents)
    J = len(parents)
    if not np.array_equal(ids, np.arange(J)):
        raise ModelFileError(field, f"joints 0 to {J - 1} in its second row", str(ids[:8]))
    if parents[0] != -1:
        raise ModelFileError(field, "the root first, its parent -1", f"parent {parents[0]}")
    wrong = np.flatnonzero((parents[1:] < 0) | (parents[1:] >= np.arange(1, J))) + 1
    if wrong.size:
        raise ModelFileError(field, "parents before their children", f"joint {wrong[0]} under {parents[wrong[0]]}")
    return np.stack([parents, ids])


def check_body(path: str | Path) -> list[str]:
    """Everything that is wrong or doubtful with a body file, one line each; empty if it is good."""
    try:
        arrays = read_body_file(path)
    except BodyfitError as error:
        return [str(error)]
    problems = [f"{name} is missing: {cost}" for name, cost in _WANTED.items() if name not in arrays]
    rows = arrays["J_regressor"].astype(np.float64).sum(1)
    if abs(rows - 1).max() > 1e-2:
        problems.append(f"J_regressor: rows should sum to 1, one sums to {rows[abs(rows - 1).argmax()]:.4f}")
    v, faces = arrays["v_template"].astype(np.float64), arrays["faces"].astype(np.int64)
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, uses = np.unique(edges, axis=0, return_counts=True)
    if (uses == 1).any():
        problems.append(f"faces: the surface is open at {(uses == 1).sum()} edges, so its volume is not exact")
    if (uses > 2).any():
        problems.append(f"faces: {(uses > 2).sum()} edges belong to more than two faces")
    if np.einsum("ij,ij->", v[faces[:, 0]], np.cross(v[faces[:, 1]], v[faces[:, 2]])) <= 0:
        problems.append("faces: wound inwards (counter-clockwise seen from outside is expected)")
    span = np.ptp(v, axis=0)
    if not 1.2 < span[1] < 2.3:
        problems.append(f"v_template: an adult 1.2 to 2.3 m tall along y is expected, this is {span[1]:.3f} m")
    names = [str(n) for n in arrays.get("joint_names", ())]
    if "left_wrist" in names and "right_wrist" in names:
        left, right = (arrays["J_regressor"][names.index(f"{s}_wrist")] @ v for s in ("left", "right"))
        if left[0] - right[0] < 0.5 * span[1]:
            problems.append("v_template: arms stretched sideways are expected, the left one towards +x")
    return problems


_WANTED = {
    "joint_names": "fits start from the pose of named joints",
    "landmark_names": "measurements need landmarks",
    "lod1_faces": "fits run on the full mesh only",
    "part_labels": "coverage cannot be told by body part",
    "prior_mean_neutral": "betas are taken as N(0, 1)",
    "meta": "name, licence and source are unknown",
}


def models_folder() -> Path:
    """The user's own models: $BODYFIT_MODELS, else the platform's folder for data of users."""
    if chosen := os.environ.get("BODYFIT_MODELS"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Application Support"
    else:
        root = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return root / "bodyfit" / "models"


def shipped_folder() -> Path:
    """The bodies that come with bodyfit: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "data" if list((package / "data").glob("*.npz")) else package.parent / "models"


@dataclass(frozen=True)
class ModelEntry:
    """One line of `bodyfit models list`; `problem` says why a file cannot be used, sizes are 0 then."""

    name: str
    path: Path
    origin: str
    family: str = ""
    licence: str = ""
    num_vertices: int = 0
    num_joints: int = 0
    num_betas: int = 0
    problem: str | None = None


def list_models() -> list[ModelEntry]:
    """The shipped bodies, then those in the user's folder, each by name; no large array is unpacked."""
    found = [(path, "shipped") for path in sorted(shipped_folder().glob("*.npz"))]
    if models_folder().is_dir():
        found += [(path, "user") for path in sorted(models_folder().glob("*.npz"))]
    return [_entry(path, origin) for path, origin in found]


def find_model(name_or_path: str | Path) -> Path:
    """The body file of a path, of a shipped body's name, or of a name in the user's folder.

    Raises:
        ModelFileError: there is none; the message lists the names there are.
    """
    text = str(name_or_path)
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if path.name == text and path.suffix == "":
        for folder in (shipped_folder(), models_folder()):
            if (candidate := folder / f"{text}.npz").is_file():
                return candidate
    names = ", ".join(entry.name for entry in list_models()) or "none"
    hint = f"your own go to {models_folder()} by: bodyfit models import FILE"
    raise ModelFileError(f"model {text}", f"a body file or one of: {names}", "neither", hint)


def _entry(path: Path, origin: str) -> ModelEntry:
    try:
        headers = read_npz_headers(path)
        meta = _meta(read_npz(path, {"meta"})["meta"], str(path)) if "meta" in headers else {}
        J, V = headers["J_regressor"].shape
        S = headers["shapedirs"].shape[2]
    except KeyError as error:
        return ModelEntry(path.stem, path, origin, problem=f"{error.args[0]} is missing")
    except (BodyfitError, IndexError, ValueError) as error:
        return ModelEntry(path.stem, path, origin, problem=str(error))
    family, licence = str(meta.get("family", "")), str(meta.get("licence", ""))
    return ModelEntry(path.stem, path, origin, family, licence, V, J, S)


def _check_shapes(arrays: dict[str, NDArray[Any]], source: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, specification in _REQUIRED.items():
        if name not in arrays:
            found = f"only {', '.join(sorted(arrays)) or 'none'}"
            raise ModelFileError(f"{source}: {name}", "an array of that name", found)
        _check_shape(arrays[name], specification, sizes, f"{source}: {name}")
    for letter, (what, limit) in zip("VFJS", LIMITS.items(), strict=True):
        least = MIN_JOINTS if letter == "J" else 1
        if not least <= sizes[letter] <= limit:
            raise ModelFileError(f"{source}: {what}", f"{least} to {limit}", str(sizes[letter]))
    sizes["9(J-1)"] = 9 * (sizes["J"] - 1)
    for name, specification in _OPTIONAL.items():
        if name in arrays:
            _check_shape(arrays[name], specification, sizes, f"{source}: {name}")
    for pair in _TOGETHER:
        present = [name for name in pair if name in arrays]
        if len(present) == 1:
            raise ModelFileError(source, f"both {pair[0]} and {pair[1]}, or neither", f"only {present[0]}")
    return sizes


def _check_shape(
    array: NDArray[Any], specification: tuple[str, tuple[str | int, ...]], sizes: dict[str, int], field: str
) -> None:
    """Checks kind and shape of one array; sizes met for the first time are added to `sizes`."""
    kind, shape = specification
    if array.dtype.kind not in kind:
        raise ModelFileError(field, "text" if kind == _TEXT else f"{_KIND_NAMES[kind]} numbers", str(array.dtype))
    expected = tuple(sizes.get(n, n) if isinstance(n, str) else n for n in shape)
    fits = array.ndim == len(expected) and all(
        isinstance(want, str) or want == n for want, n in zip(expected, array.shape, strict=True)
    )
    if not fits:
        raise ModelFileError(field, f"shape ({', '.join(map(str, expected))})", str(array.shape))
    sizes |= {want: n for want, n in zip(expected, array.shape, strict=True) if isinstance(want, str)}


def _check_index(ids: NDArray[Any], limit: int, field: str) -> None:
    if ids.size == 0 or int(ids.min()) < 0 or int(ids.max()) >= limit:
        found = f"{ids.min()} to {ids.max()}" if ids.size else "none"
        raise ModelFileError(field, f"numbers 0 to {limit - 1}", found)


def _check_weights(weights: NDArray[Any], field: str) -> None:
    sums = weights.sum(1, dtype=np.float64)
    worst = int(abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > 1e-3:
        raise ModelFileError(field, "rows that sum to 1", f"{sums[worst]:.6g} at vertex {worst}")
    if weights.min() < -1e-6:
        raise ModelFileError(field, "weights of 0 or more", f"{weights.min():.3g}")


def _check_covariance(cov: NDArray[Any], field: str) -> None:
    c = cov.astype(np.float64)
    if abs(c - c.T).max() > 1e-5 * max(1.0, abs(c).max()):
        raise ModelFileError(field, "a symmetric matrix", f"differences of {abs(c - c.T).max():.3g}")
    if (least := float(np.linalg.eigvalsh(c)[0])) <= 0:
        raise ModelFileError(field, "a positive definite matrix", f"an eigenvalue of {least:.3g}")


def _meta(array: NDArray[Any], source: str) -> dict[str, Any]:
    try:
        meta = json.loads(str(array))
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise ModelFileError(f"{source}: meta", "a JSON object as text", repr(str(array)[:40]))
    return meta


def _count_bad(array: NDArray[Any]) -> int:
    return int(array.size - np.isfinite(array).sum())
