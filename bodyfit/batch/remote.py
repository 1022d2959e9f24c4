"""Roots that are folders, and roots in object storage (fsspec URLs: s3://, gs://, file://; extra `batch`).

Of a remote root the driver reads names, sizes, and the first bytes of files that may be recordings by their name; a
worker fetches a recording whole, fits it, and removes it again.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from bodyfit.batch.find import CONTAINERS, Found
from bodyfit.errors import InputError, MissingExtraError
from bodyfit.recording.formats import HEAD_BYTES

MOST_BYTES = 256 << 30
"""a recording that is larger is not fetched"""
SPARE_BYTES = 1 << 30
"""so much stays free on the disk that it is fetched to"""


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

    def source(self, relative: str) -> str:
        return self._url if relative == "." else f"{self._url}/{relative}"

    def signature(self, found: Found) -> str:
        digest = hashlib.sha256()
        for name in sorted(self._files):
            if found.source == "." or name == found.source or name.startswith(f"{found.source}/"):
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
        InputError: nothing there, storage that cannot be reached, or more bytes than there is room for.
        MissingExtraError: see `open_root`.
    """
    if not is_url(source):
        yield Path(source)
        return
    fs, path = _storage(source)
    folder = Path(tempfile.mkdtemp(prefix="bodyfit-fetched-"))
    try:
        try:
            listed: dict[str, dict[str, Any]] = fs.find(path, detail=True)
        except Exception as problem:
            raise InputError(source, "object storage that can be reached", f"{problem}"[:300]) from None
        size = sum(int(about.get("size") or 0) for about in listed.values())
        room = min(MOST_BYTES, shutil.disk_usage(folder).free - SPARE_BYTES)
        if not listed or size > room:
            raise InputError(source, f"a recording of at most {room} bytes", f"{size} bytes in {len(listed)} files")
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
                raise InputError(f"{source}: {relative}", "a file that can be fetched", f"{problem}"[:300]) from None
        yield target
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
