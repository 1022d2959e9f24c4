"""Reads the arrays out of a pickle without running it: numpy, scipy.sparse and chumpy arrays in plain containers.

Licensed SMPL-family bodies come as pickles, and `pickle.load` runs whatever code a pickle names. This is an interpreter
of the pickle machine that owns no way to call, import or look up anything: a global is only a *token* out of a short
list, and the few tokens that stand for a function are carried out here, by hand, on checked arguments. Everything else
is refused by name. Sizes are believed only as far as the bytes of the file go.

Source of the opcodes: Python's `pickletools` (protocols 0 to 5).
"""

from __future__ import annotations

import mmap
import struct
from _codecs import escape_decode
from pathlib import Path
from typing import Any

from bodyfit.body.pickle_arrays import (
    ALLOWED_GLOBALS,
    Budget,
    ChumpyArray,
    NumpyArray,
    NumpyDtype,
    Opaque,
    SparseMatrix,
    Token,
    call,
    new_instance,
)
from bodyfit.errors import ModelFileError

MAX_FILE_BYTES = 2 << 30
MAX_OPERATIONS = 2_000_000  # an official file has some hundreds; each may cost a few dozen bytes of memory

_EXPECTED = "numpy, scipy.sparse and chumpy arrays in plain containers"
_BROKEN = (ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError, struct.error, RecursionError)
_REFUSED_OPERATIONS = {
    b"o": "OBJ", b"P": "PERSID", b"Q": "BINPERSID", b"\x82": "EXT1", b"\x83": "EXT2", b"\x84": "EXT4",
    b"\x92": "NEWOBJ_EX", b"\x97": "NEXT_BUFFER", b"\x98": "READONLY_BUFFER",
}  # fmt: skip
# opcode -> (bytes of the length that precedes the data, what the data is)
_COUNTED = {
    b"T": (4, "str"), b"U": (1, "str"), b"X": (4, "utf8"), b"\x8c": (1, "utf8"), b"\x8d": (8, "utf8"),
    b"B": (4, "bytes"), b"C": (1, "bytes"), b"\x8e": (8, "bytes"), b"\x96": (8, "bytes"),
    b"\x8a": (1, "long"), b"\x8b": (4, "long"),
}  # fmt: skip
_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False}
_NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}
_KEY_TYPES = (str, bytes, int, float, type(None))


def read_pickle(path: str | Path) -> Any:
    """The pickle's contents: containers, numbers, text, and NumpyArray, SparseMatrix, ChumpyArray for `as_array`.

    Raises:
        ModelFileError: the file names anything but array types, is broken or truncated, or claims absurd sizes. Nothing
            of it has been executed.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size == 0 or size > MAX_FILE_BYTES:
            raise ModelFileError(str(path), f"a pickle of 1 byte to {MAX_FILE_BYTES >> 30} GiB", f"{size} bytes")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Machine(data, str(path)).run()
    except OSError as error:
        raise ModelFileError(str(path), "a readable file", error.strerror or type(error).__name__) from None


class _Machine:
    """The stack machine of one pickle."""

    def __init__(self, data: mmap.mmap, source: str) -> None:
        self.data, self.source, self.at = data, source, 0
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        # what may be copied: legitimately each byte once or twice, never the same long text a thousand times
        self.budget = Budget(4 * len(data) + (1 << 20))

    def run(self) -> Any:
        op = b"?"
        try:
            for _ in range(MAX_OPERATIONS):
                op = self.take(1)
                if op == b".":
                    return self.stack.pop()
                self.step(op)
        except ModelFileError:
            raise
        except _BROKEN as error:
            found = f"a broken or truncated one (operation {op!r} near byte {self.at}: {type(error).__name__})"
            raise ModelFileError(self.source, "a whole pickle", found) from None
        raise ModelFileError(self.source, f"at most {MAX_OPERATIONS} pickle operations", "more of them")

    def refuse(self, found: str) -> ModelFileError:
        return ModelFileError(self.source, _EXPECTED, found, "nothing of the file was executed")

    def take(self, n: int) -> bytes:
        if n < 0 or n > len(self.data) - self.at:
            raise ValueError("truncated")
        self.at += n
        return self.data[self.at - n : self.at]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise ValueError("truncated")
        text = self.data[self.at : end]
        self.at = end + 1
        return text

    def number(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def step(self, op: bytes) -> None:
        if op in _COUNTED:
            self.stack.append(self.counted(*_COUNTED[op]))
        elif op in _CONSTANTS:
            self.stack.append(_CONSTANTS[op])
        elif op in _NUMBERS:
            self.stack.append(self.number(_NUMBERS[op]))
        elif op in b"ILFSV":
            self.stack.append(self.text(op))
        elif op in b"])}(tldaesu0\x8512\x86\x87\x8f\x90\x91":
            self.container(op)
        elif op in b"pqrghj\x94":
            self.remember(op)
        elif op in b"c\x93R\x81b":
            self.build(op)
        elif op == b"\x80":
            if (version := self.number("<B")) > 5:
                raise self.refuse(f"pickle protocol {version}")
        elif op == b"\x95":  # FRAME: its length says nothing that the file's own does not
            self.take(8)
        elif op == b"i":
            raise self.refuse(f"the global {_shown(self.line(), self.line())}, called by INST")
        else:
            raise self.refuse(f"the pickle operation {_REFUSED_OPERATIONS.get(op, repr(op))}")

    def counted(self, width: int, kind: str) -> Any:
        n = int.from_bytes(self.take(width), "little")
        if kind == "long" and n > 64:
            raise self.refuse(f"an integer of {n} bytes")
        raw = self.take(n)
        if kind == "str":  # Python 2's text and array bytes alike: latin-1 keeps every byte
            return raw.decode("latin-1")
        if kind == "utf8":
            return raw.decode("utf-8", "surrogatepass")
        return int.from_bytes(raw, "little", signed=True) if kind == "long" else raw

    def text(self, op: bytes) -> Any:
        line = self.line()
        if op == b"V":
            return line.decode("raw-unicode-escape")
        if op == b"S":
            line = line.strip()
            if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
                raise ValueError("a STRING without quotes")
            return escape_decode(line[1:-1])[0].decode("latin-1")
        if len(line) > 64:
            raise self.refuse(f"a number of {len(line)} digits")
        if op == b"F":
            return float(line)
        if op == b"I" and line in (b"00", b"01"):
            return line == b"01"
        return int(line.rstrip(b"L"))

    def container(self, op: bytes) -> None:
        stack = self.stack
        if op == b"(":
            self.marks.append(stack)
            self.stack = []
        elif op in b"]\x8f":  # EMPTY_SET too: a list, as nothing that a file sends is to be hashed
            stack.append([])
        elif op == b"}":
            stack.append({})
        elif op == b")":
            stack.append(())
        elif op in b"\x85\x86\x87":
            n = op[0] - 0x84
            if len(stack) < n:
                raise ValueError("an empty stack")
            stack[-n:] = [tuple(stack[-n:])]
        elif op == b"0":
            if stack:
                stack.pop()
            else:
                self.pop_mark()
        elif op == b"1":
            self.pop_mark()
        elif op == b"2":
            stack.append(stack[-1])
        elif op == b"a":
            item = stack.pop()
            self.extend(stack[-1], [item])
        elif op == b"s":
            value, key = stack.pop(), stack.pop()
            self.set_items(stack[-1], [key, value])
        else:
            items = self.pop_mark()
            if op in b"e\x90":
                self.extend(self.stack[-1], items)
            elif op == b"u":
                self.set_items(self.stack[-1], items)
            elif op == b"d":
                self.stack.append({})
                self.set_items(self.stack[-1], items)
            else:
                self.stack.append(tuple(items) if op == b"t" else items)

    def extend(self, target: Any, items: list[Any]) -> None:
        if type(target) is not list:
            raise self.refuse(f"items appended to a {type(target).__name__}")
        target.extend(items)

    def set_items(self, target: Any, items: list[Any]) -> None:
        if type(target) is not dict or len(items) % 2:
            raise self.refuse(f"{len(items)} keys and values set on a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # a tuple of tuples of tuples … takes for ever to hash: such a key keeps its value, never its name
            target[key if type(key) in (*_KEY_TYPES, bool) else Opaque("a key that is not text")] = value

    def remember(self, op: bytes) -> None:
        if op == b"\x94":
            self.memo[len(self.memo)] = self.stack[-1]
            return
        codes = {b"q": "<B", b"r": "<I", b"h": "<B", b"j": "<I"}
        number = self.number(codes[op]) if op in codes else int(self.line()[:20])
        if op in b"pqr":
            self.memo[number] = self.stack[-1]
        else:
            self.stack.append(self.memo[number])

    def build(self, op: bytes) -> None:
        stack = self.stack
        if op == b"c":
            module, name = self.line().decode("latin-1"), self.line().decode("latin-1")
            stack.append(self.find_global(module, name))
        elif op == b"\x93":
            name, module = stack.pop(), stack.pop()
            stack.append(self.find_global(module, name))
        elif op == b"R":
            arguments, function = stack.pop(), stack.pop()
            stack.append(call(self.expect_token(function), arguments, self.budget, self.refuse))
        elif op == b"\x81":
            stack.pop()  # arguments of an array class: its state comes by BUILD
            stack.append(new_instance(self.expect_token(stack.pop()), self.refuse))
        else:
            state = stack.pop()
            target = stack[-1]
            if not isinstance(target, (NumpyArray, NumpyDtype, SparseMatrix, ChumpyArray)):
                raise self.refuse(f"a state set on a {type(target).__name__}")
            target.set_state(state, self.budget, self.refuse)

    def find_global(self, module: Any, name: Any) -> Token:
        token = ALLOWED_GLOBALS.get((module, name)) if type(module) is str and type(name) is str else None
        if token is None:
            raise self.refuse(f"the global {_shown(module, name)}")
        return token

    def expect_token(self, value: Any) -> Token:
        if type(value) is not Token:
            raise self.refuse(f"a call of a {type(value).__name__}")
        return value


def _shown(module: Any, name: Any) -> str:
    parts = [p.decode("latin-1") if isinstance(p, bytes) else p for p in (module, name)]
    return repr(".".join(p[:80] if isinstance(p, str) else f"<{type(p).__name__}>" for p in parts))[1:-1]
