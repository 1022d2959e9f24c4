"""A fit's folder with its pictures and its film: what `bodyfit fit` writes, and a batch for every recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bodyfit.fit.result import FitResult


def write_result(
    result: FitResult,
    out: Path,
    *,
    force: bool,
    recording: Path | None = None,
    video: bool | None = False,
    sensors: tuple[str, ...] | None = None,
    meshes: bool = True,
) -> list[str]:
    """Writes the folder of a fit with its pictures; returns the names of its files.

    Args:
        recording: where the film's pictures are read again that the result does not hold.
        video: whether a motion gets its film; None: where PyAV is installed.
        sensors: whose pictures the film shows, all where None.
        meshes: whether mesh/NNNNNN.ply are written.
    """
    from bodyfit.export.folder import write_fit_folder

    films = [film(result, recording, sensors)] if wants_film(result, video) else []
    return write_fit_folder(result, out, pictures=pictures(result), films=films, meshes=meshes, force=force)


def wants_film(result: FitResult, video: bool | None) -> bool:
    """Whether overlay.mp4 is to be written; None: of a motion, where PyAV is installed."""
    from bodyfit.export.motion import is_motion

    if video is False or not is_motion(result):
        return False
    from bodyfit.picture.video import has_video

    return video is True or has_video()


def film(
    result: FitResult, recording: Path | None, sensors: tuple[str, ...] | None
) -> tuple[str, Callable[[Path], object]]:
    """Name of the film within the folder, and what writes it; the recording is opened only then."""
    from bodyfit.export.result_npz import frame_rate
    from bodyfit.picture.video import FILE_NAME, shots, write_video
    from bodyfit.recording.formats import open_recording

    def write(path: Path) -> None:
        source = None if recording is None else open_recording(recording)
        instants = shots(result, source, sensors=sensors)
        write_video(path, instants, result.model.faces, rate=frame_rate(sorted(result.timestamps_s)))

    return FILE_NAME, write


def pictures(result: FitResult) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and RGB image, one at a time: each instant's overlay, sensors one below the other, and the summary."""
    from bodyfit.picture.overlay import overlay_picture
    from bodyfit.picture.summary import summary_picture

    for t, index in enumerate(result.frame_indices):
        vertices = result.vertices_world(t)
        views = [overlay_picture(seen, vertices, result.model.faces) for seen in result.observations[t]]
        if views:
            yield f"overlay/{int(index):06d}.png", stacked(views)
    yield "summary.png", summary_picture(result, result.observations)


def stacked(views: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Images one below the other, the narrower ones filled up on the right with the colour of their corner."""
    import numpy as np

    width = max(v.shape[1] for v in views)
    rows = [np.broadcast_to(v[:1, :1], (v.shape[0], width, 3)).copy() for v in views]
    for row, view in zip(rows, views, strict=True):
        row[:, : view.shape[1]] = view
    return np.concatenate(rows)
