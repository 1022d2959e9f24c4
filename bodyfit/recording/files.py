"""Reading one file of a recording: inside its folder only, regular files only, and no more bytes than it may have."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bodyfit.errors import RecordingError


def read_file(root: Path, relative: str, limit: int, error: type[RecordingError] = RecordingError) -> bytes:
    """The bytes of `root/relative`.

    A link may point elsewhere inside the recording but not out of it: a recording that came from someone else must not
    make us open what is not its own. Pipes and devices are refused, since reading them may never end.

    Args:
        root: the recording's folder, resolved.
        relative: the file's place in it, which also names it in errors.
        limit: the most bytes it may have.
        error: the kind of RecordingError to raise.
    """
    try:
        target = (root / relative).resolve()
        if not target.is_relative_to(root):
            raise error(relative, "a file inside the recording", "a link to somewhere outside of it")
        descriptor = os.open(target, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise error(relative, "a regular file", "a pipe, device or other special file")
            if status.st_size > limit:
                raise error(relative, f"at most {limit} bytes", f"{status.st_size} bytes")
            # one byte more than there was: as much as was asked for is set aside before it is read
            data = file.read(status.st_size + 1)
    except FileNotFoundError:
        raise error(relative, "a file", "no such file") from None
    except IsADirectoryError:
        raise error(relative, "a file", "a folder") from None
    except OSError as problem:
        raise error(relative, "a readable file", problem.strerror or str(problem)) from None
    except ValueError as problem:  # a name with a zero byte in it
        raise error(repr(relative)[:80], "a file's name", str(problem)) from None
    except RuntimeError:  # pathlib's word for a link that leads back to itself
        raise error(relative, "a readable file", "a loop of links") from None
    if len(data) != status.st_size:
        raise error(relative, f"a finished file of {status.st_size} bytes", "one that changes while it is read")
    return data
