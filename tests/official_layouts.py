"""Small bodies written in the layouts of the official SMPL, SMPL-H and SMPL-X files.

The shape is the tests' own capsule body; the *files* are as the licensed ones: key names, types, Python 2 pickles with
latin-1 bytes, chumpy arrays, sparse regressors, roots of 2³²-1, arrays of Python objects that nobody needs.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from tiny_body import tiny_body_arrays

ROOT_PARENT = 2**32 - 1
_FINGER_PARENTS = [p for wrist, first in ((20, 0), (21, 15)) for f in range(5)
                   for p in (wrist, first + 3 * f, first + 3 * f + 1)]  # fmt: skip
_BODY_PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19]


def parents(family: str) -> list[int]:
    """Parents of the family's joints as the official files have them, the root's -1."""
    if family == "smpl":
        return [*_BODY_PARENTS, 20, 21]
    face = [15, 15, 15] if family == "smplx" else []
    first = len(_BODY_PARENTS) + len(face)
    fingers = [p if i % 3 == 0 else p + first for i, p in enumerate(_FINGER_PARENTS)]
    return [*_BODY_PARENTS, *face, *fingers]


def official_arrays(family: str, num_shapes: int, *, hands: bool = True, seed: int = 0) -> dict[str, Any]:
    """The arrays of one file: `num_shapes` columns of shapedirs, expressions of SMPL-X among them."""
    rng = np.random.default_rng(seed)
    tiny = tiny_body_arrays()
    v = tiny["v_template"].astype(np.float64)
    tree = parents(family)
    J, V = len(tree), len(v)
    weights, regressor = np.zeros((V, J)), np.zeros((J, V))
    weights[:, :22], regressor[:22] = tiny["weights"][:, :22], tiny["J_regressor"][:22]
    for old, wrist, sign in ((22, 20, 1), (23, 21, -1)):
        own = _below(tree, wrist) if family != "smpl" else [old]
        share = rng.dirichlet(np.full(len(own), 0.3), V)
        weights[:, own] += share * tiny["weights"][:, [old]]
        for joint in own:
            regressor[joint] = _average_near(v, np.array([0.79 * sign, 0.24, 0.0]) + rng.normal(0, 0.02, 3), 12, rng)
    if family == "smplx":
        for joint, at in ((22, (0, 0.36, 0.05)), (23, (0.03, 0.45, 0.08)), (24, (-0.03, 0.45, 0.08))):
            regressor[joint] = _average_near(v, np.array(at), 8, rng)
            near = np.exp(-((np.linalg.norm(v - at, axis=1) / 0.05) ** 2)) * weights[:, 15]
            weights[:, joint] += 0.9 * near
            weights[:, 15] -= 0.9 * near
    arrays: dict[str, Any] = {
        "v_template": v,
        "shapedirs": rng.normal(0, 2e-3, (V, 3, num_shapes)),
        "posedirs": rng.normal(0, 1e-3, (V, 3, 9 * (J - 1))),
        "J_regressor": regressor,
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[p % 2**32 for p in tree], range(J)], np.uint32),
        "f": tiny["faces"].astype(np.uint32),
    }
    if family != "smpl" and hands:
        for side in "lr":
            arrays[f"hands_components{side}"] = np.linalg.qr(rng.normal(size=(45, 45)))[0]
            arrays[f"hands_mean{side}"] = rng.normal(0, 0.2, 45)
            arrays[f"hands_coeffs{side}"] = rng.normal(0, 1, (20, 45))
    if family == "smplx":
        arrays["lmk_faces_idx"] = np.arange(51)
        arrays["lmk_bary_coords"] = np.full((51, 3), 1 / 3)
    return arrays


def write_official_npz(path: Path, arrays: dict[str, Any]) -> Path:
    """As the official .npz: beside the arrays, dicts and text stored as arrays of Python objects."""
    extra = {"part2num": np.array({"head": 0}, dtype=object), "bs_style": np.array("lbs", dtype=object)}
    np.savez(path, **arrays, **extra)  # type: ignore[arg-type]
    return path


def write_official_pkl(path: Path, arrays: dict[str, Any]) -> Path:
    """As the official .pkl: a Python 2 pickle of protocol 2 with chumpy arrays and a sparse regressor."""
    with fake_chumpy() as chumpy:
        contents = dict(arrays)
        for key in ("v_template", "shapedirs", "posedirs", "weights"):
            if key in contents:
                contents[key] = chumpy.Ch(contents[key])
        contents["J_regressor"] = csc_matrix(arrays["J_regressor"])
        contents["weights_prior"] = arrays["weights"].astype(np.float32)
        contents["vert_sym_idxs"] = np.asfortranarray(np.arange(12).reshape(4, 3))
        contents |= {"bs_type": "lrotmin", "bs_style": "lbs", "pose_training_info": {"sex": "neutral", "n": [1, 2.5]}}
        buffer = io.BytesIO()
        Python2Pickler(buffer).dump(contents)
    path.write_bytes(buffer.getvalue())
    return path


_PurePickler: Any = pickle._Pickler  # type: ignore[attr-defined]
_OLD_MODULES = {"numpy._core.multiarray": "numpy.core.multiarray", "scipy.sparse._csc": "scipy.sparse.csc",
                "scipy.sparse._csr": "scipy.sparse.csr", "builtins": "__builtin__"}  # fmt: skip


class Python2Pickler(_PurePickler):
    """Writes what Python 2 wrote: text and bytes are one type, and modules have their names of that time."""

    dispatch: ClassVar[dict[type, Any]] = dict(_PurePickler.dispatch)

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)

    def save_text(self, value: str | bytes) -> None:
        raw = value.encode("latin-1") if isinstance(value, str) else value
        short = len(raw) < 256
        self.write((b"U" if short else b"T") + len(raw).to_bytes(1 if short else 4, "little") + raw)
        self.memoize(value)

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = pickle.whichmodule(value, name or value.__qualname__)  # type: ignore[attr-defined]
        module = _OLD_MODULES.get(module, module)
        self.write(f"c{module}\n{name or value.__qualname__}\n".encode())
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text
    dispatch[types.FunctionType] = dispatch[type] = save_global


class _Ch:
    """Stands for chumpy.ch.Ch: the state that it pickles, and as much of an array as smplx asks for."""

    def __init__(self, x: NDArray[Any]) -> None:
        self._dirty_vars = {"x"}
        self._itr = None
        self._depends_on_deps = {}
        self.x = x

    shape = property(lambda self: self.x.shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        return self.x[index]

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        return self.x


class _Select:
    """Stands for chumpy.reordering.Select."""

    def __init__(self, a: _Ch, idxs: NDArray[Any], preferred_shape: tuple[int, ...]) -> None:
        self.a, self.idxs, self.preferred_shape = a, idxs, preferred_shape


@contextmanager
def fake_chumpy() -> Iterator[types.SimpleNamespace]:
    """Within it, `chumpy.ch.Ch` and `chumpy.reordering.Select` can be pickled and unpickled."""
    names = ("chumpy", "chumpy.ch", "chumpy.reordering")
    before = {name: sys.modules.get(name) for name in names}
    modules = {name: types.ModuleType(name) for name in names}
    for cls, module, name in ((_Ch, "chumpy.ch", "Ch"), (_Select, "chumpy.reordering", "Select")):
        cls.__module__, cls.__qualname__, cls.__name__ = module, name, name
        setattr(modules[module], name, cls)
    sys.modules |= modules
    try:
        yield types.SimpleNamespace(Ch=_Ch, Select=_Select)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _below(tree: list[int], joint: int) -> list[int]:
    """The joints that hang below one, however deep."""
    found: list[int] = []
    for k, parent in enumerate(tree):
        if parent == joint or parent in found:
            found.append(k)
    return found


def _average_near(v: NDArray[Any], point: NDArray[Any], count: int, rng: np.random.Generator) -> NDArray[Any]:
    row = np.zeros(len(v))
    row[np.argsort(np.linalg.norm(v - point, axis=1))[:count]] = rng.dirichlet(np.ones(count))
    return row
