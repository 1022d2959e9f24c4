"""JSON documents of a recording: parsed with limits, and read value by value so that every error names its field."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import RecordingError

MISSING = object()


def parse_json(name: str, data: bytes) -> Any:
    """The JSON value in `data`, or a RecordingError that says where file `name` breaks off."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise RecordingError(f"{name}: {key[:60]}", "each key once", "the key twice")
            found[key] = value
        return found

    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=unique)
    except UnicodeDecodeError as problem:
        raise RecordingError(name, "JSON in UTF-8", f"byte {problem.start} that is not UTF-8") from None
    except json.JSONDecodeError as problem:
        raise RecordingError(
            name, "valid JSON", f"{problem.msg} at line {problem.lineno}, column {problem.colno}"
        ) from None
    except RecursionError:
        raise RecordingError(name, "valid JSON", "brackets nested too deep") from None
    except ValueError:  # an integer of more digits than Python converts
        raise RecordingError(name, "valid JSON", "a number with too many digits") from None


class Field:
    """A JSON value and where it stands, for instance `recording.json: sensors[0].depth_camera.fx`."""

    def __init__(self, file: str, path: str, value: Any) -> None:
        self.file, self.path, self.value = file, path, value

    @property
    def name(self) -> str:
        """The file and the path in it, as errors say it."""
        return f"{self.file}: {self.path}" if self.path else self.file

    def refuse(self, expected: str) -> NoReturn:
        """Raise the error of a value that is not `expected`."""
        raise RecordingError(self.name, expected, describe(self.value))

    def key(self, key: str, default: Any = MISSING) -> Field:
        """The field under `key` of this object; without a default it must be there."""
        path = f"{self.path}.{key}" if self.path else key
        if not isinstance(self.value, dict):
            self.refuse("an object")
        value = self.value.get(key, default)
        if value is MISSING:
            raise RecordingError(f"{self.file}: {path}", "a value", "no such key")
        return Field(self.file, path, value)

    def items(self, at_most: int) -> list[Field]:
        """The fields of this array."""
        if not isinstance(self.value, list):
            self.refuse("an array")
        if len(self.value) > at_most:
            raise RecordingError(self.name, f"at most {at_most} entries", f"{len(self.value)} entries")
        return [Field(self.file, f"{self.path}[{i}]", value) for i, value in enumerate(self.value)]

    def text(self) -> str:
        """This value as a string."""
        if not isinstance(self.value, str):
            self.refuse("a string")
        return self.value

    def integer(self) -> int:
        """This value as a whole number."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self.refuse("a whole number")
        return self.value

    def number(self) -> float:
        """This value as a finite float."""
        if not isinstance(self.value, (int, float)) or isinstance(self.value, bool):
            self.refuse("a number")
        try:
            value = float(self.value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise RecordingError(self.name, "a finite number", str(value))
        return value

    def numbers(self, at_most: int) -> tuple[float, ...]:
        """This array as floats."""
        return tuple(item.number() for item in self.items(at_most))

    def array(self, rows: int, columns: int) -> NDArray[np.float64]:
        """This array of arrays as a (rows, columns) matrix."""
        found = [row.numbers(at_most=columns) for row in self.items(at_most=rows)]
        if len(found) != rows or any(len(row) != columns for row in found):
            lengths = f"{len(found)} rows of {sorted({len(row) for row in found})} numbers"
            raise RecordingError(self.name, f"{rows} rows of {columns} numbers", lengths)
        return np.array(found, dtype=np.float64).reshape(rows, columns)


def describe(value: Any) -> str:
    """A JSON value in a few words, for an error."""
    if isinstance(value, (dict, list)):
        return f"an {'object' if isinstance(value, dict) else 'array'} of {len(value)} entries"
    text = json.dumps(value) if not isinstance(value, int) or abs(value) < 10**30 else "a huge number"
    return text if len(text) <= 60 else text[:57] + "…"
