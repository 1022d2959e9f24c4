"""Recordings for a batch: small ones of the synthetic sensor, and poisoned ones. The tests use them, too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bodyfit.body.model import load_body_model
from bodyfit.camera import Camera
from bodyfit.synthetic.sensor import SensorModel
from bodyfit.synthetic.take import sample_take
from bodyfit.synthetic.write import write_take

POISONS = ("truncated", "empty", "unit", "nobody", "unreadable")


def good(path: Path, seed: int, headings_deg: Sequence[float] = (0.0,), *, scale: int = 1) -> Path:
    """A person seen at 160×144 times `scale`, in as many instants as headings. So coarse an image leaves some who stand
    before furniture in it: of the seeds from 200 to 249 it is 201, 206, 210, 217 and 221."""
    camera = Camera(160 * scale, 144 * scale, 126.0 * scale, 126.0 * scale, 80 * scale - 0.5, 72 * scale - 0.5)
    sensor = SensorModel("depth", camera, camera, np.eye(4))
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("a_pose",) * len(headings_deg)
    take = sample_take(load_body_model(), seed, pose_names=names, headings_deg=headings_deg, sensor=sensor)
    return write_take(path, take, with_truth=False)


def poison(kind: str, pristine: Path, path: Path) -> Path:
    """A copy of a recording that cannot be fitted.

    Args:
        kind: truncated (the depth image ends early), empty (no frames), unit (depths a thousand times too large),
            nobody (a wall and nothing else), unreadable (its description is noise).
    """
    import cv2

    shutil.copytree(pristine, path)
    images = sorted((path / "depth").rglob("*.png"))
    assert images
    if kind == "truncated":
        for image in images:
            data = image.read_bytes()
            image.write_bytes(data[: len(data) // 2])
    elif kind == "empty":
        for image in images:
            image.unlink()
        (path / "frames.csv").write_text((path / "frames.csv").read_text().splitlines()[0] + "\n")
    elif kind == "unit":
        described = json.loads((path / "recording.json").read_text())
        described["depth_unit_m"] = 1.0
        (path / "recording.json").write_text(json.dumps(described))
    elif kind == "nobody":
        for image in images:
            was = cv2.imread(str(image), cv2.IMREAD_UNCHANGED)
            assert was is not None
            cv2.imwrite(str(image), np.full_like(was, 3000))
    else:
        (path / "recording.json").write_bytes(np.random.default_rng(0).bytes(500))
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
