"""Jobs and results as bytes, for a device that another process owns: a JSON header and the arrays behind it.

What is sent is made of numbers, texts, arrays and the dataclasses of `KINDS`; nothing else is read, so that bytes from
anywhere can do no more than be refused. Parts that come again with every job (a body's mesh, priors, settings) are sent
once and then named by their hash.
"""

from __future__ import annotations

import json
import math
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from threading import Lock
from typing import Any

import numpy as np

from bodyfit.errors import InputError
from bodyfit.fit.collide import Spheres
from bodyfit.fit.config import FitConfig, SequenceConfig, Stage
from bodyfit.fit.device import DescendJob, Descent, LinearizeJob, SolveJob
from bodyfit.fit.follow import Expected, Pose
from bodyfit.fit.keypoints import JointTargets
from bodyfit.fit.learned_prior import LearnedPrior, PartMixture
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.pose_prior import PosePrior
from bodyfit.fit.problem import Linearization, Problem, ShapeGaussian, State
from bodyfit.fit.solver import Solution, StopReason
from bodyfit.fit.view import View

KINDS: dict[str, type[Any]] = {
    k.__name__: k
    for k in (
        SolveJob, LinearizeJob, DescendJob, Problem, Expected, State, Mesh, View, JointTargets, Stage, FitConfig,
        SequenceConfig, PosePrior, ShapeGaussian, LearnedPrior, PartMixture, Spheres, Pose, Solution, Linearization,
        Descent,
    )
}  # fmt: skip
SHARED = (Mesh, Stage, FitConfig, PosePrior, ShapeGaussian, LearnedPrior, Spheres)
"""kinds that come again"""
LEFT_OUT = {"solver", "cancelled", "colors", "pulls"}
"""fields that mean something in their own process alone, or are never sent"""
ARRAYS = {"f4": np.float32, "f8": np.float64, "i4": np.int32, "i8": np.int64, "u1": np.uint8, "b1": np.bool_}
MOST_BYTES = 1 << 30
MOST_HEADER = 1 << 24
MOST_DEPTH = 16
KEPT = 512
"""so many shared parts are remembered at each end"""
MOST_THERE = 8 * KEPT
"""so many names of shared parts the sender takes to be there"""
ALIGN = 16


class Unknown(Exception):
    """A shared part that the other end names is not here: it is to be sent."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        super().__init__(", ".join(names))


class Outgoing:
    """Turns values into messages and remembers which shared parts the other end has."""

    def __init__(self) -> None:
        self._hashes: OrderedDict[int, tuple[Any, str, bytes]] = OrderedDict()
        self._there: OrderedDict[str, None] = OrderedDict()

    def message(self, header: dict[str, Any], value: Any = None) -> list[bytes]:
        """The messages to send, shared parts that the other end has not first."""
        parts: list[bytes] = []
        arrays: list[np.ndarray[Any, Any]] = []
        tree = self._tree(value, arrays, parts)
        return [*parts, packed({**header, "tree": tree}, arrays)]

    def forget(self, names: list[str]) -> None:
        """The other end has lost these, or all of them where it is a new one."""
        for name in names:
            self._there.pop(name, None)

    def _tree(self, value: Any, arrays: list[np.ndarray[Any, Any]], parts: list[bytes]) -> Any:
        if isinstance(value, SHARED):
            return {"shared": self._shared(value, parts)}
        return tree_of(value, arrays, lambda v: self._tree(v, arrays, parts))

    def _shared(self, value: Any, parts: list[bytes]) -> str:
        known = self._hashes.get(id(value))
        if known is None:
            arrays: list[np.ndarray[Any, Any]] = []
            tree = tree_of(value, arrays, lambda v: tree_of(v, arrays, None))
            body = packed({"what": "part", "tree": tree}, arrays)
            known = value, blake2b(body, digest_size=16).hexdigest(), body
            self._hashes[id(value)] = known
            while len(self._hashes) > KEPT:
                self._hashes.popitem(last=False)
        self._hashes.move_to_end(id(value))
        _, name, body = known
        if name not in self._there:
            parts.append(body)
            self._there[name] = None
            # bodies that are followed for days have many meshes; what is forgotten is sent again
            while len(self._there) > MOST_THERE:
                self._there.popitem(last=False)
        return name


class Incoming:
    """Turns messages back into values and keeps the shared parts that came, never more than `KEPT`; for any number of
    connections, whose parts are the same ones."""

    def __init__(self) -> None:
        self._parts: OrderedDict[str, Any] = OrderedDict()
        self._lock = Lock()

    def take(self, message: bytes) -> tuple[dict[str, Any], Any] | None:
        """Header and value of a message; None for a shared part, which is kept.

        Raises:
            InputError: the bytes are no such message.
            Unknown: the value names shared parts that are not here.
        """
        header, arrays = unpacked(message)
        if header.get("what") == "part":
            name = blake2b(message, digest_size=16).hexdigest()
            part = value_of(header.get("tree"), arrays, {})
            with self._lock:
                self._parts.setdefault(name, part)
                while len(self._parts) > KEPT:
                    self._parts.popitem(last=False)
            return None
        tree = header.pop("tree", None)
        names = set(named_in(tree))
        with self._lock:
            parts = {name: self._parts[name] for name in names if name in self._parts}
            for name in parts:
                self._parts.move_to_end(name)
        if missing := sorted(names - set(parts)):
            raise Unknown(missing)
        return header, value_of(tree, arrays, parts)


def tree_of(value: Any, arrays: list[np.ndarray[Any, Any]], inner: Callable[[Any], Any] | None) -> Any:
    """A value as JSON has it; its arrays are appended to `arrays`, and inner parts go through `inner`."""
    go = inner or (lambda v: tree_of(v, arrays, None))
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, StopReason):
        return {"reason": value.name}
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return number if math.isfinite(number) else {"float": repr(number)}
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, (list, tuple)):
        return {"tuple" if isinstance(value, tuple) else "list": [go(v) for v in value]}
    if is_dataclass(value) and type(value).__name__ in KINDS:
        given = {f.name: getattr(value, f.name) for f in fields(value) if f.init and f.name[0] != "_"}
        return {"kind": type(value).__name__, "fields": {n: go(v) for n, v in given.items() if n not in LEFT_OUT}}
    raise TypeError(f"{type(value).__name__} is never sent to a device")


def value_of(tree: Any, arrays: list[np.ndarray[Any, Any]], parts: Any, depth: int = 0) -> Any:
    """The value of a tree.

    Raises:
        InputError: it is no tree of ours.
    """
    if depth > MOST_DEPTH:
        raise InputError("message", f"no more than {MOST_DEPTH} levels", "more")
    if tree is None or isinstance(tree, (bool, str, int, float)):
        return tree
    if not isinstance(tree, dict):
        raise InputError("message", "an object", type(tree).__name__)
    try:
        if "array" in tree:
            return arrays[_index(tree["array"], len(arrays))]
        if "shared" in tree:
            return parts[tree["shared"]]
        if "reason" in tree:
            return StopReason[tree["reason"]]
        if "float" in tree:
            return float(tree["float"])
        for name, kind in (("tuple", tuple), ("list", list)):
            if name in tree:
                return kind(value_of(v, arrays, parts, depth + 1) for v in tree[name])
        kind = KINDS[tree["kind"]]
        given = {str(n): value_of(v, arrays, parts, depth + 1) for n, v in tree["fields"].items()}
        if LEFT_OUT & set(given):
            raise InputError("message", "no field of another process", ", ".join(LEFT_OUT & set(given)))
        return kind(**given)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError("message", "a job or a result of bodyfit", f"{type(error).__name__}: {error}") from None


def named_in(tree: Any) -> Iterator[str]:
    """The hashes of the shared parts that a tree names."""
    stack = [tree]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if isinstance(item.get("shared"), str):
                yield item["shared"]
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def packed(header: dict[str, Any], arrays: list[np.ndarray[Any, Any]]) -> bytes:
    """One message: length of the header, header, arrays."""
    table, chunks, place = [], [], 0
    for array in arrays:
        kind = f"{array.dtype.kind}{array.dtype.itemsize}"
        if kind not in ARRAYS:
            raise TypeError(f"arrays of {array.dtype} are never sent to a device")
        data = np.ascontiguousarray(array).tobytes()
        table.append([kind, list(array.shape), place])
        padding = -len(data) % ALIGN
        chunks += [data, bytes(padding)]
        place += len(data) + padding
    head = json.dumps({**header, "arrays": table}, separators=(",", ":"), allow_nan=False).encode()
    head += b" " * (-(len(head) + 8) % ALIGN)
    return b"".join((struct.pack("<Q", len(head)), head, *chunks))


def unpacked(message: bytes) -> tuple[dict[str, Any], list[np.ndarray[Any, Any]]]:
    """Header and arrays of a message.

    Raises:
        InputError: the bytes are no such message, or declare more than they hold.
    """
    if len(message) < 8:
        raise InputError("message", "at least 8 bytes", str(len(message)))
    (size,) = struct.unpack_from("<Q", message)
    if size > min(MOST_HEADER, len(message) - 8):
        raise InputError("message", "a header within it", f"one of {size} bytes")
    try:
        header = json.loads(message[8 : 8 + size])
    except (ValueError, RecursionError):
        raise InputError("message", "a header of JSON", "something else") from None
    if not isinstance(header, dict) or not isinstance(table := header.pop("arrays", None), list):
        raise InputError("message", "a header with a table of arrays", "none")
    arrays, first = [], 8 + size
    for row in table:
        if not isinstance(row, list) or len(row) != 3 or row[0] not in ARRAYS or not isinstance(row[1], list):
            raise InputError("message", "arrays as kind, shape and place", str(row)[:80])
        kind = np.dtype(ARRAYS[row[0]])
        if not all(type(n) is int and 0 <= n <= MOST_BYTES for n in (*row[1], row[2])) or len(row[1]) > 6:
            raise InputError("message", "sizes of arrays", str(row)[:80])
        count = math.prod(row[1])
        if row[2] + count * kind.itemsize > len(message) - first:
            raise InputError("message", "arrays within it", f"one of {count * kind.itemsize} bytes at {row[2]}")
        try:
            flat = np.frombuffer(message, kind, count, first + row[2])
            arrays.append(flat.reshape(row[1]).copy())
        except ValueError as error:
            raise InputError("message", "shapes of arrays", f"{str(row)[:80]}: {error}") from None
    return header, arrays


def _index(number: Any, count: int) -> int:
    if type(number) is not int or not 0 <= number < count:
        raise InputError("message", f"an array from 0 to {count - 1}", str(number)[:40])
    return number
