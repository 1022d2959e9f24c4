"""What the pickle reader may rebuild: numpy arrays, scipy.sparse matrices and chumpy arrays, as inert records.

A record is filled by the pickle's own state, checked here, and becomes an array only in `as_array`. No class of
numpy's, scipy's or chumpy's is ever called with what a file says, apart from `numpy.dtype` on a checked type name and
`numpy.frombuffer` on bytes of exactly the size that the shape asks for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import ModelFileError

MAX_DENSE_BYTES = 1 << 30  # of a sparse matrix made dense: a SMPL-X joint regressor has 5 MB

Refuse: TypeAlias = Callable[[str], ModelFileError]
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[SUa]\d{1,6}|O[48]?|[?bBhHiIlLqQefd])")


@dataclass(frozen=True, eq=False)
class Token:
    """A global that a pickle may name: `kind` says what this module does when it is called or instantiated."""

    kind: str
    name: str


@dataclass(frozen=True, eq=False)
class Opaque:
    """Something in the file that is neither needed nor readable."""

    what: str


class Budget:
    """Bytes that may still be copied out of a file."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def spend(self, n: int, refuse: Refuse) -> None:
        self.left -= n
        if self.left < 0:
            raise refuse("the same bytes copied again and again")


class NumpyDtype:
    """A numpy.dtype in the making."""

    def __init__(self, name: Any, refuse: Refuse) -> None:
        name = _as_text(name, "latin-1")
        if not isinstance(name, str) or not _DTYPE.fullmatch(name):
            shown = name[:40] if isinstance(name, str) else type(name).__name__
            raise refuse(f"an array type {shown!r}")
        self.dtype = np.dtype(name)

    def set_state(self, state: Any, budget: Budget, refuse: Refuse) -> None:
        """(version, byte order, subtype, field names, fields, …): only the byte order may say something."""
        if type(state) is not tuple or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise refuse("a structured array type")
        order = _as_text(state[1], "latin-1")
        if order in ("<", ">") and self.dtype.itemsize > 1:
            self.dtype = self.dtype.newbyteorder(order)


class NumpyArray:
    """A numpy.ndarray in the making; `value` stays None for an array of Python objects."""

    def __init__(self) -> None:
        self.value: NDArray[Any] | None = None
        self.what = "an array without contents"

    def set_state(self, state: Any, budget: Budget, refuse: Refuse) -> None:
        """(version, shape, dtype, Fortran order, bytes), numpy's own state; the version is absent in old files."""
        if type(state) is not tuple or len(state) not in (4, 5):
            raise refuse("an array whose state is not numpy's")
        shape, dtype, fortran, raw = state[-4:]
        self.fill(raw, dtype, shape, "F" if fortran else "C", budget, refuse)

    def fill(self, raw: Any, dtype: Any, shape: Any, order: str, budget: Budget, refuse: Refuse) -> None:
        """Takes the bytes as an array after checking that there are exactly as many as the shape wants."""
        if not isinstance(dtype, NumpyDtype):
            raise refuse(f"an array whose type is a {type(dtype).__name__}")
        if dtype.dtype.hasobject:
            self.what = "an array of Python objects"
            return
        if type(shape) is not tuple or len(shape) > 8 or any(type(n) is not int or n < 0 for n in shape):
            raise refuse("an array whose shape is not a tuple of sizes")
        if isinstance(raw, str):
            budget.spend(len(raw), refuse)
            raw = raw.encode("latin-1")
        if not isinstance(raw, bytes):
            raise refuse(f"an array whose bytes are a {type(raw).__name__}")
        wanted = math.prod(shape) * dtype.dtype.itemsize
        if wanted != len(raw) or dtype.dtype.itemsize == 0:
            raise refuse(f"an array that declares {wanted} bytes and holds {len(raw)}")
        if wanted == 0:
            self.value = np.empty(shape, dtype.dtype)
        else:
            self.value = np.frombuffer(raw, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


class SparseMatrix:
    """A scipy.sparse csc or csr matrix in the making."""

    def __init__(self, kind: str) -> None:
        self.kind, self.state = kind, {}

    def set_state(self, state: Any, budget: Budget, refuse: Refuse) -> None:
        """scipy's own: a dict with data, indices, indptr and _shape."""
        if type(state) is not dict:
            raise refuse("a sparse matrix whose state is not a dict")
        self.state = state

    def to_dense(self, field: str) -> NDArray[Any]:
        """(rows, columns) array; duplicates add up, as in scipy."""
        data, minor, indptr = (as_array(self.state.get(k), f"{field}.{k}") for k in ("data", "indices", "indptr"))
        shape = self.state.get("_shape", self.state.get("shape"))
        expected = f"a {self.kind} matrix"
        if type(shape) is not tuple or len(shape) != 2 or any(type(n) is not int or n < 0 for n in shape):
            raise ModelFileError(field, f"{expected} of two sizes", "another shape")
        if math.prod(shape) * data.dtype.itemsize > MAX_DENSE_BYTES:
            found = f"{shape[0]} × {shape[1]}"
            raise ModelFileError(field, f"{expected} of at most {MAX_DENSE_BYTES >> 20} MiB", found)
        majors, minors = (shape[1], shape[0]) if self.kind == "csc" else shape
        whole = indptr.ndim == minor.ndim == data.ndim == 1 and indptr.dtype.kind in "iu" and minor.dtype.kind in "iu"
        if not whole or len(indptr) != majors + 1 or len(minor) != len(data) or data.dtype.kind not in "biuf":
            raise ModelFileError(field, expected, "parts whose sizes or types do not fit one another")
        counts = np.diff(indptr.astype(np.int64))
        fits = (counts >= 0).all() and indptr[0] == 0 and indptr[-1] == len(data)
        if not fits or (len(minor) and (minor.min() < 0 or minor.max() >= minors)):
            raise ModelFileError(field, expected, "indices outside of it")
        major = np.repeat(np.arange(majors), counts)
        dense = np.zeros(shape, data.dtype)
        np.add.at(dense, (minor, major) if self.kind == "csc" else (major, minor), data)
        return dense


class ChumpyArray:
    """A chumpy.ch.Ch (its array is `x`) or chumpy.reordering.Select (entries `idxs` of `a`) in the making."""

    def __init__(self, kind: str) -> None:
        self.kind, self.state = kind, {}

    def set_state(self, state: Any, budget: Budget, refuse: Refuse) -> None:
        """chumpy's own: the instance's dict."""
        if type(state) is not dict:
            raise refuse("a chumpy array whose state is not a dict")
        self.state = state


def as_array(value: Any, field: str) -> NDArray[Any]:
    """The numpy array that a value read from a pickle stands for.

    Raises:
        ModelFileError: it stands for none, or for one of Python objects; the message names `field`.
    """
    selections: list[tuple[Any, Any]] = []
    for _ in range(8):  # chumpy arrays may hold chumpy arrays
        if not isinstance(value, ChumpyArray):
            break
        if value.kind == "select":
            selections.append((value.state.get("idxs"), value.state.get("preferred_shape")))
        value = value.state.get("a" if value.kind == "select" else "x")
    if isinstance(value, SparseMatrix):
        array = value.to_dense(field)
    elif isinstance(value, NumpyArray) and value.value is not None:
        array = value.value
    elif isinstance(value, (bool, int, float, str)):
        array = np.asarray(value)
    else:
        found = value.what if isinstance(value, (NumpyArray, Opaque)) else type(value).__name__
        raise ModelFileError(field, "an array of numbers or text", found)
    for indices, shape in reversed(selections):
        array = _select(array, indices, shape, field)
    return array


def _select(array: NDArray[Any], indices: Any, shape: Any, field: str) -> NDArray[Any]:
    where = as_array(indices, f"{field}.idxs")
    if isinstance(shape, (list, tuple)) and all(type(n) is int for n in shape):
        wanted = tuple(shape)
    elif shape is None:
        wanted = where.shape
    else:
        wanted = tuple(int(n) for n in as_array(shape, f"{field}.preferred_shape").ravel())
    if where.dtype.kind not in "iu" or math.prod(wanted) != where.size or where.size == 0:
        raise ModelFileError(field, f"chumpy indices for {wanted}", f"{where.dtype} {where.shape}")
    if where.min() < 0 or where.max() >= array.size:
        raise ModelFileError(field, f"chumpy indices below {array.size}", f"{where.min()} to {where.max()}")
    return array.ravel()[where.ravel()].reshape(wanted)


def call(function: Token, arguments: Any, budget: Budget, refuse: Refuse) -> Any:
    """Carries out the few functions that array pickles call, on arguments whose types are checked."""
    if type(arguments) is not tuple:
        raise refuse(f"{function.name} called with a {type(arguments).__name__}")
    n = len(arguments)
    if function.kind == "reconstruct" and n == 3 and _is_token(arguments[0], "ndarray"):
        return NumpyArray()
    if function.kind == "reconstructor" and n == 3 and isinstance(arguments[0], Token):
        if not _is_token(arguments[1], "object") or arguments[2] is not None:
            raise refuse(f"an instance of {arguments[0].name} with a base of its own")
        return new_instance(arguments[0], refuse)
    if function.kind == "dtype" and 1 <= n <= 3:
        return NumpyDtype(arguments[0], refuse)
    if function.kind == "scalar" and n == 2:
        number = NumpyArray()
        number.fill(arguments[1], arguments[0], (), "C", budget, refuse)
        return number
    if function.kind == "frombuffer" and n == 4:
        array = NumpyArray()
        array.fill(arguments[0], arguments[1], arguments[2], str(_as_text(arguments[3], "latin-1"))[:1], budget, refuse)
        return array
    if function.kind == "encode" and n == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
        budget.spend(len(arguments[0]), refuse)
        return arguments[0].encode("latin-1")
    if function.kind == "bytes" and n == 0:
        return b""
    if function.kind == "bytearray" and n in (1, 2) and isinstance(arguments[0], (bytes, str)):
        budget.spend(len(arguments[0]), refuse)
        return arguments[0] if isinstance(arguments[0], bytes) else arguments[0].encode("latin-1")
    if function.kind == "set" and (n == 0 or (n == 1 and type(arguments[0]) in (list, tuple))):
        budget.spend(8 * len(arguments[0]) if n else 0, refuse)
        return list(arguments[0]) if n else []
    if function.kind == "dict" and n == 0:
        return {}
    raise refuse(f"{function.name} called with ({', '.join(type(a).__name__ for a in arguments[:8])})")


def new_instance(cls: Token, refuse: Refuse) -> SparseMatrix | ChumpyArray:
    """An empty record of a sparse or chumpy class."""
    if cls.kind in ("csc", "csr"):
        return SparseMatrix(cls.kind)
    if cls.kind in ("ch", "select"):
        return ChumpyArray(cls.kind)
    raise refuse(f"an instance of {cls.name}")


def _is_token(value: Any, kind: str) -> bool:
    return isinstance(value, Token) and value.kind == kind


def _as_text(value: Any, encoding: str) -> Any:
    return value.decode(encoding) if isinstance(value, bytes) else value


def _allowed() -> dict[tuple[str, str], Token]:
    named: list[tuple[str, str, str]] = [
        ("numpy", "dtype", "dtype"), ("numpy", "ndarray", "ndarray"), ("_codecs", "encode", "encode"),
        ("collections", "OrderedDict", "dict"),
        ("chumpy.ch", "Ch", "ch"), ("chumpy.reordering", "Select", "select"), ("chumpy", "Ch", "ch"),
    ]  # fmt: skip
    for core in ("numpy.core", "numpy._core"):
        named += [(f"{core}.multiarray", "_reconstruct", "reconstruct"), (f"{core}.multiarray", "scalar", "scalar")]
        named += [(f"{core}.numeric", "_frombuffer", "frombuffer")]
    for registry, built_in in (("copy_reg", "__builtin__"), ("copyreg", "builtins")):
        named += [(registry, "_reconstructor", "reconstructor"), (built_in, "object", "object")]
        named += [(built_in, "set", "set"), (built_in, "frozenset", "set")]
        named += [(built_in, "bytes", "bytes"), (built_in, "bytearray", "bytearray")]
    for layout in ("csc", "csr"):
        for module in (layout, f"_{layout}"):
            named += [(f"scipy.sparse.{module}", f"{layout}_{form}", layout) for form in ("matrix", "array")]
    return {(module, name): Token(kind, f"{module}.{name}") for module, name, kind in named}


ALLOWED_GLOBALS: dict[tuple[str, str], Token] = _allowed()
"""Every global that a pickle may name, and nothing else."""
