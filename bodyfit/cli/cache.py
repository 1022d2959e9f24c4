"""A place for compiled kernels where neither the package nor the home folder can be written."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def provide_cache_folder() -> None:
    """Points Numba to a private folder for temporary files where it would find no place of its own, and so not start.

    That is so for a user without a home folder who runs an installed bodyfit, as in many containers.
    """
    if os.environ.get(VARIABLE) or not hasattr(os, "getuid"):
        return
    kernels = Path(__file__).resolve().parents[1] / "kernels"
    beside = kernels / "__pycache__"
    of_user = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "numba"
    if not any(_writable(place) for place in (beside, of_user)):
        os.environ[VARIABLE] = str(_private_folder())


def _writable(place: Path) -> bool:
    """Whether the folder can be written, or made."""
    while not os.path.exists(place) and place != place.parent:  # Path.exists raises where it may not look
        place = place.parent
    return os.access(place, os.W_OK | os.X_OK) and place.is_dir()


def _private_folder() -> Path:
    """One folder per user, kept from run to run, that nobody else can put code into; else a new one."""
    folder = Path(tempfile.gettempdir()) / f"bodyfit-kernels-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077:
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="bodyfit-kernels-"))
