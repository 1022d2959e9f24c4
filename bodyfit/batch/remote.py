"""Roots that are folders, and roots in object storage (fsspec URLs: s3://, gs://, file://; extra `batch`).

Of a remote root the driver reads names, sizes, and the first bytes of files that may be recordings by their name; a
worker fetches a recording whole, fits it, and removes it again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from bodyfit.batch.find import CONTAINERS, Found
from bodyfit.errors import BodyfitError, InputError, MissingExtraError
from bodyfit.recording.formats import HEAD_BYTES

PASSING = "bodyfit-fetched-"
MOST_BYTES = 256 << 30
"""a recording that is larger is not fetched"""
SPARE_BYTES = 1 << 30
"""so much stays free on the disk that it is fetched to"""


class StorageError(BodyfitError):
    """A recording could not be fetched; it is not the recording's fault."""


class Root(Protocol):
    """Where recordings are looked for."""

    @property
    def index(self) -> Path:
        """A folder in which they can be found: the root itself, or one with the same names."""
        ...

    def source(self, relative: str) -> str:
        """What a worker opens: a path or a URL."""
        ...

    def signature(self, found: Found) -> str:
        """Another where the recording has changed."""
        ...


class _Folder:
    def __init__(self, root: Path) -> None:
        self.index = root

    def source(self, relative: str) -> str:
        base = self.index if self.index.is_dir() else self.index.parent
        return str((base / relative).resolve())

    def signature(self, found: Found) -> str:
        return found.signature


class _Remote:
    """A root in object storage: a folder of empty files of the same names stands for it."""

    def __init__(self, url: str, index: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
        self.index, self._url, self._files = index, url.rstrip("/"), files
        self._names = sorted(files)

    def source(self, relative: str) -> str:
        return self._url if relative == "." else f"{self._url}/{relative}"

    def signature(self, found: Found) -> str:
        digest = hashlib.sha256()
        if found.source == ".":
            names = self._names
        elif found.source in self._files:
            names = [found.source]
        else:
            # "0" comes right after "/"
            first, last = (bisect_left(self._names, f"{found.source}{sign}") for sign in "/0")
            names = self._names[first:last]
        for name in names:
            about = self._files[name]
            told = [about.get(key) for key in ("size", "ETag", "etag", "mtime", "LastModified")]
            digest.update(f"{name}\0{told}\n".encode())
        return digest.hexdigest()


def is_url(root: str) -> bool:
    """Whether a root is an fsspec URL rather than a path."""
    return "://" in root


@contextmanager
def open_root(root: str) -> Iterator[Root]:
    """Where a batch looks for recordings.

    Raises:
        InputError: a place that is not there, or storage that cannot be reached.
        MissingExtraError: a URL, and fsspec or what it needs for that URL is not installed.
    """
    if not is_url(root):
        yield _Folder(Path(root))
        return
    fs, path = _storage(root)
    try:
        listed: dict[str, dict[str, Any]] = fs.find(path, detail=True)
    except Exception as problem:
        raise InputError(
            root, "object storage that can be reached", f"{type(problem).__name__}: {problem}"[:300]
        ) from None
    if not listed:
        raise InputError(root, "a place with recordings", "nothing there")
    folder = Path(tempfile.mkdtemp(prefix="bodyfit-names-"))
    try:
        files: dict[str, dict[str, Any]] = {}
        for name, about in listed.items():
            relative = _below(name, path)
            if relative is None:
                continue
            files[relative] = about
            place = folder / relative
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(_head(fs, name) if CONTAINERS.match(name) else b"")
        yield _Remote(root, folder, files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def local_copy(source: str) -> Iterator[Path]:
    """A recording as files on this machine: itself where it is a path, a copy for as long as the block lasts where it
    is a URL.

    Raises:
        InputError: nothing there, or more than `MOST_BYTES`.
        StorageError: storage that cannot be reached, or no room for the copy here: another attempt may do.
        MissingExtraError: see `open_root`.
    """
    if not is_url(source):
        yield Path(source)
        return
    fs, path = _storage(source)
    with _passing_folder() as folder:
        try:
            listed: dict[str, dict[str, Any]] = fs.find(path, detail=True)
        except Exception as problem:
            raise StorageError(f"{source}: the storage cannot be read: {problem}"[:400]) from None
        size = sum(int(about.get("size") or 0) for about in listed.values())
        if not listed or size > MOST_BYTES:
            expected = f"a recording of at most {MOST_BYTES} bytes"
            raise InputError(source, expected, f"{size} bytes in {len(listed)} files")
        room = shutil.disk_usage(folder).free - SPARE_BYTES
        if size > room:
            raise StorageError(f"{source}: its {size} bytes do not fit into {folder.parent}, which takes {room}")
        target = folder / PurePosixPath(path).name
        for name in listed:
            relative = _below(name, path)
            if relative is None:
                continue
            place = target if relative == "." else target / relative
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                fs.get_file(name, str(place))
            except Exception as problem:
                raise StorageError(f"{source}: {relative} cannot be fetched: {problem}"[:400]) from None
        yield target


@contextmanager
def _passing_folder() -> Iterator[Path]:
    """A temporary folder; those that killed processes left are removed first.

    Beside it lies a file of the same name that this process has locked: the kernel unlocks it when the process ends,
    however it does.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{PASSING}*.lock"):
        with suppress(OSError), left.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            left.unlink(missing_ok=True)
    while True:
        descriptor, name = tempfile.mkstemp(prefix=PASSING, suffix=".lock")
        lock = Path(name)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if lock.exists():
            break
        os.close(descriptor)  # another process took it for one that was left, before it was locked
    folder = lock.with_suffix("")
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _storage(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise MissingExtraError("fsspec", "batch", "a batch in object storage") from None
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as problem:
        raise MissingExtraError(str(problem)[:80], "batch", f"reading {url.split('://')[0]}://") from None
    except Exception as problem:
        raise InputError(url, "a URL that fsspec knows", f"{problem}"[:200]) from None
    return fs, str(path).rstrip("/")


def _below(name: str, root: str) -> str | None:
    """A file's path within the root; "." where it is the root; None of one that lies elsewhere or climbs out."""
    if name == root:
        return "."
    if not name.startswith(f"{root}/"):
        return None
    parts = PurePosixPath(name[len(root) + 1 :]).parts
    return None if not parts or ".." in parts or parts[0] == "/" else "/".join(parts)


def _head(fs: Any, name: str) -> bytes:
    try:
        return bytes(fs.cat_file(name, start=0, end=HEAD_BYTES))
    except Exception:
        return b""
