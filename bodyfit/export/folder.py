"""The folder of a fit, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import OutputError
from bodyfit.export import bvh, glb_skinned, joint_csv, motion_npz
from bodyfit.export.motion import is_motion
from bodyfit.export.ply import ply_bytes
from bodyfit.export.result_npz import FILE_NAME, fit_npz_bytes
from bodyfit.export.tables import csv_text, json_text, measurements_document, sensors_document
from bodyfit.fit.blas import one_blas_thread

if TYPE_CHECKING:
    from bodyfit.fit.result import FitResult

OURS = re.compile(
    r"fit\.npz|measurements\.(json|csv)|rest\.ply|summary\.png|mesh/\d{6,}\.ply|overlay/\d{6,}\.png"
    r"|motion\.(npz|bvh|glb)|joints\.csv|overlay\.mp4|sensors\.json"
)
"""What bodyfit writes into the folder of a fit; nothing else in it is ever touched."""

STAGING = ".bodyfit-"
"""How the name of a temporary folder begins."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}


def check_out_folder(out: str | Path, *, force: bool = False) -> None:
    """Says before the work begins whether results could be written to `out`.

    Raises:
        OutputError: a file in its place, a folder that holds things (see `write_fit_folder`), or no right to write.
    """
    target = Path(out)
    with _as_output_error(target):
        _refuse_occupied(target, force)
        place = target if target.is_dir() else _nearest_folder(target)
        trial = place / f"{STAGING}{secrets.token_hex(4)}"
        trial.mkdir()
        trial.rmdir()


def write_fit_folder(
    result: FitResult,
    out: str | Path,
    *,
    pictures: Iterable[tuple[str, NDArray[np.uint8]]] = (),
    films: Iterable[tuple[str, Callable[[Path], object]]] = (),
    meshes: bool = True,
    motion: bool | None = None,
    colors: NDArray[np.floating] | None = None,
    texture: glb_skinned.Texture | None = None,
    force: bool = False,
) -> list[str]:
    """Writes fit.npz, measurements.json and .csv, rest.ply, mesh/NNNNNN.ply and the pictures; returns their names.

    The result of a motion also gets motion.npz, joints.csv, motion.bvh and motion.glb.

    Everything goes to a temporary folder beside `out` (inside it, where `out` is an existing folder) and is renamed
    when it is complete; an error leaves nothing behind. Meshes carry the recording's frame index, so a fit of
    frames 5 to 9 has mesh/000005.ply.

    Args:
        out: the folder; made with its parents where it does not exist.
        pictures: name within `out` (summary.png, overlay/000000.png) and RGB image (H, W, 3) uint8.
        films: name within `out` (overlay.mp4), and what writes the file at the path that it is given.
        meshes: whether each instant's mesh is written; a long motion's are gigabytes, and motion.glb has them all.
        motion: whether the files of a motion are written; None does so where `is_motion` says that it is one.
        colors, texture: of the surface, for motion.glb; see `glb_bytes`.
        force: replace the fit that is already in `out`. Files that are not bodyfit's stay untouched.

    Raises:
        OutputError: `out` is a file, holds things and `force` is not given, or cannot be written (rights, disk full).
    """
    target = Path(out)
    with _as_output_error(target):
        _refuse_occupied(target, force)
        existed = target.is_dir()
        made = _make_parents(target)
    staging = (target if existed else target.parent) / f"{STAGING}{secrets.token_hex(4)}"
    names = []
    try:
        with _as_output_error(target):
            staging.mkdir()
        # how many threads BLAS has would decide the last bits of a vertex
        with one_blas_thread():
            for name, content in _contents(result, pictures, meshes):
                _put(staging, name, content, target)
                names.append(name)
            if is_motion(result) if motion is None else motion:
                for name, content in motion_files(result, colors=colors, texture=texture):
                    _put(staging, name, content, target)
                    names.append(name)
        for name, write in films:
            try:
                with _as_output_error(target):
                    write(staging / name)
            except OutputError as e:  # it knows the temporary folder only
                raise OutputError(str(target), e.expected, e.found, e.hint) from e
            names.append(name)
        with _as_output_error(target):
            if existed:
                _publish_into(target, staging, names)
            else:
                staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    return names


def motion_files(
    result: FitResult,
    *,
    colors: NDArray[np.floating] | None = None,
    texture: glb_skinned.Texture | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file of a motion, one at a time.

    Raises:
        InputError: see `bodyfit.export.motion.motion_of` and `glb_bytes`.
    """
    yield motion_npz.FILE_NAME, motion_npz.motion_npz_bytes(result)
    yield joint_csv.FILE_NAME, joint_csv.joint_csv_text(result).encode()
    yield bvh.FILE_NAME, bvh.bvh_text(result).encode()
    yield glb_skinned.FILE_NAME, glb_skinned.glb_bytes(result, colors=colors, texture=texture)


def _put(staging: Path, name: str, content: bytes, target: Path) -> None:
    with _as_output_error(target):
        file = staging / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)


def _contents(
    result: FitResult, pictures: Iterable[tuple[str, NDArray[np.uint8]]], meshes: bool
) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file, one at a time, so that a long recording needs no more memory than a short one."""
    faces = result.model.faces
    body = f"body model {result.model.name} {result.model.sha256}"
    yield FILE_NAME, fit_npz_bytes(result)
    yield "measurements.json", json_text(measurements_document(result)).encode()
    yield "measurements.csv", csv_text(result.measurements).encode()
    if result.sensors:
        yield "sensors.json", json_text(sensors_document(result)).encode()
    yield "rest.ply", ply_bytes(result.rest_vertices(), faces, f"{body}\nunposed, metres, x left, y up, z front")
    for t, index in enumerate(result.frame_indices if meshes else ()):
        yield f"mesh/{int(index):06d}.ply", ply_bytes(result.vertices_world(t), faces, f"{body}\nworld, metres")
    for name, image in pictures:
        yield name, png_bytes(image)


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """The PNG file of an RGB image (H, W, 3) uint8."""
    import cv2

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a picture must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    done, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 4])
    if not done:
        raise RuntimeError("OpenCV could not encode the picture")
    return data.tobytes()


def _refuse_occupied(target: Path, force: bool) -> None:
    if (target.exists() or target.is_symlink()) and not target.is_dir():
        raise OutputError(str(target), "a folder, or a name that is free", "a file", "choose another -o")
    if not target.is_dir():
        return
    inside = sorted(_files_in(target))
    if inside and not force:
        fit = FILE_NAME in inside
        hint = "--force replaces the fit in it" if fit else "choose another -o; --force writes beside what is there"
        found = "an earlier fit" if fit else f"{len(inside)} files, among them {inside[0]}"
        raise OutputError(str(target), "an empty folder, or a name that is free", found, hint)


def _files_in(folder: Path) -> Iterator[str]:
    """Names of the files below the folder, with slashes; temporary folders of ours are left out."""
    for root, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(STAGING)]
        for name in files:
            yield (Path(root) / name).relative_to(folder).as_posix()


def _publish_into(target: Path, staging: Path, names: list[str]) -> None:
    """Moves the finished files into a folder that exists; what bodyfit wrote there before is removed, or put back."""
    old = staging / "old"
    moved: list[tuple[Path, Path]] = []
    try:
        for name in [n for n in _files_in(target) if OURS.fullmatch(n)]:
            _move(target / name, old / name, moved)
        for name in names:
            _move(staging / name, target / name, moved)
    except BaseException:
        for source, destination in reversed(moved):
            with contextlib.suppress(OSError):
                destination.rename(source)
        for folder in ("mesh", "overlay"):
            with contextlib.suppress(OSError):
                (target / folder).rmdir()
        raise
    shutil.rmtree(staging, ignore_errors=True)
    for folder in ("mesh", "overlay"):
        with contextlib.suppress(OSError):  # only where it is empty
            (target / folder).rmdir()


def _move(source: Path, destination: Path, moved: list[tuple[Path, Path]]) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    source.rename(destination)
    moved.append((source, destination))


def _make_parents(target: Path) -> list[Path]:
    """Makes the folders above the target; returns those that were not there, outermost first."""
    missing = []
    folder = target.parent
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            folder.mkdir()
            made.append(folder)
    except OSError:
        for folder in reversed(made):
            folder.rmdir()
        raise
    return made


def _nearest_folder(target: Path) -> Path:
    folder = target.absolute().parent
    while not folder.exists():
        folder = folder.parent
    return folder


@contextlib.contextmanager
def _as_output_error(target: Path) -> Iterator[None]:
    """Turns what the system says about files into an error that names the folder."""
    try:
        yield
    except OSError as e:
        reason = e.strerror or type(e).__name__
        expected = "a folder that can be written"
        if e.errno in _FULL:
            expected, reason = "room for the results", f"a full disk ({reason})"
        elif e.errno in _REFUSED:
            reason = f"one that cannot ({reason})"
        elif e.errno in (errno.ENOTDIR, errno.EEXIST):
            reason = "a file in the place of a folder"
        raise OutputError(str(target), expected, reason) from e
