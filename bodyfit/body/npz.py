"""npz files without pickle: every array's declared type and size is checked before one byte of it is unpacked."""

from __future__ import annotations

import lzma
import math
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import ModelFileError, OutputError

MAX_MEMBERS = 512
MAX_TOTAL_BYTES = 2 << 30  # unpacked; the largest official file, SMPL-X with 400 shapes, has 0.4 GB
# what zipfile, its decompressors and numpy's header parser raise on damaged bytes
_BROKEN = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, TypeError, LookupError, OverflowError,
    SyntaxError, TokenError, struct.error, NotImplementedError, RuntimeError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class ArrayHeader:
    """What an npz member says of itself."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Unpacked size in bytes, exact for any shape."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(
    path: str | Path, keys: Collection[str] | None = None, *, skip_objects: bool = False
) -> dict[str, NDArray[Any]]:
    """The arrays of an npz, or those among `keys` that it has.

    Args:
        skip_objects: leave arrays of Python objects out (official files carry some that nobody needs) instead of
            refusing the file for them. They are never read either way.

    Raises:
        ModelFileError: not an npz, broken, truncated, holding Python objects, or unpacking to more than 2 GiB.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            headers = _headers(archive, path, keys, skip_objects)
            return {name: _read(archive, name, path) for name in headers}
    except OSError as error:
        raise ModelFileError(str(path), "a readable file", error.strerror or type(error).__name__) from None
    except _BROKEN as error:
        raise ModelFileError(str(path), "an npz file", f"a broken one ({type(error).__name__}: {error})") from None


def read_npz_headers(path: str | Path) -> dict[str, ArrayHeader]:
    """Shape and type of every array, without unpacking any; errors as `read_npz`."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _headers(archive, path, None, False)
    except OSError as error:
        raise ModelFileError(str(path), "a readable file", error.strerror or type(error).__name__) from None
    except _BROKEN as error:
        raise ModelFileError(str(path), "an npz file", f"a broken one ({type(error).__name__}: {error})") from None


def write_npz(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes a compressed npz under a temporary name beside `path`, then renames it: whole or not at all.

    Raises:
        OutputError: the folder cannot be made or written to.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".npz", prefix=f".{path.stem}-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **dict(arrays))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(str(path), "a file that can be written", error.strerror or type(error).__name__) from None
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _headers(
    archive: zipfile.ZipFile, path: Path, keys: Collection[str] | None, skip_objects: bool
) -> dict[str, ArrayHeader]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise ModelFileError(str(path), f"at most {MAX_MEMBERS} arrays", f"{len(members)}")
    headers: dict[str, ArrayHeader] = {}
    for info in members:
        name = info.filename.removesuffix(".npy")
        if keys is not None and name not in keys:
            continue
        if name == info.filename or name in headers:
            raise ModelFileError(str(path), "one .npy member for each array", repr(info.filename[:80]))
        with archive.open(info) as stream:
            header = _header(stream)
            declared = stream.tell() + header.nbytes
        if header.dtype.hasobject:
            if skip_objects:
                continue
            raise ModelFileError(f"{path}: {name}", "an array of numbers or text", "an array of Python objects")
        if declared != info.file_size:
            found = f"{info.file_size} bytes for {header.dtype} {header.shape}"
            raise ModelFileError(f"{path}: {name}", f"{declared} bytes", found)
        headers[name] = header
    total = sum(h.nbytes for h in headers.values())
    if total > MAX_TOTAL_BYTES:
        raise ModelFileError(str(path), f"at most {MAX_TOTAL_BYTES >> 30} GiB unpacked", f"{total / 2**30:.1f} GiB")
    return headers


def _header(stream: IO[bytes]) -> ArrayHeader:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return ArrayHeader(*np.lib.format.read_array_header_1_0(stream))
    if version == (2, 0):
        return ArrayHeader(*np.lib.format.read_array_header_2_0(stream))
    raise ValueError(f"npy version {version}")


def _read(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):  # also makes zipfile compare the checksum
            raise ModelFileError(f"{path}: {name}", "one array", "bytes behind it")
        return array
