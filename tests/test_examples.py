"""The examples, small: each reaches its target and writes its pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bodyfit.render.backends import make_renderer

# example, pixels, steps, and what may be left of each error
SMALL: list[tuple[str, int, int, dict[str, float]]] = [
    ("rotated_square", 48, 60, {"angle_deg": 1.0, "shift": 0.01, "scale": 0.02}),
    ("camera_and_material", 64, 120, {"camera_m": 0.02, "camera_deg": 1.0, "albedo": 0.05, "roughness": 0.08}),
    ("sphere_to_silhouette", 40, 60, {"outside_share": 0.03}),
    ("light_from_shading", 48, 200, {"place_m": 0.05, "intensity": 0.12}),
]


@pytest.fixture
def example(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    monkeypatch.syspath_prepend(str(repo_root / "examples"))
    before = set(sys.modules)
    yield import_module
    for name in set(sys.modules) - before:
        if name in {"gallery", "shapes", *(row[0] for row in SMALL)}:
            del sys.modules[name]


@pytest.mark.parametrize(("name", "size", "steps", "left"), SMALL, ids=[row[0] for row in SMALL])
def test_it_reaches_its_target(
    name: str, size: int, steps: int, left: dict[str, float], example: Callable[[str], Any], tmp_path: Path
) -> None:
    outcome = example(name).run(make_renderer("native"), size, steps)
    example("gallery").write(outcome, tmp_path)
    for what, most in left.items():
        before, after = outcome.errors[what]
        assert after <= most and after < 0.4 * before, f"{what}: {before} at first, {after} found"
    assert len(outcome.losses) == steps and outcome.losses[-1] < 0.1 * outcome.losses[0]
    pictures = {n: np.asarray(Image.open(tmp_path / f"{n}.png"), np.float64) for n in ("start", "target", "found")}
    assert pictures["found"].shape[:2] == (size, size)
    far = np.abs(pictures["start"] - pictures["target"]).mean()
    assert np.abs(pictures["found"] - pictures["target"]).mean() < 0.3 * far
    assert {p.name for p in tmp_path.iterdir()} == {*(f"{n}.png" for n in (*pictures, "loss", "row"))}


def test_the_shapes_are_closed_and_wound_outwards(example: Callable[[str], Any]) -> None:
    shapes = example("shapes")
    for mesh in (shapes.icosphere(2), shapes.jug(24)):
        vertices, faces = mesh
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        assert len(np.unique(edges, axis=0)) == len(edges)
        assert {tuple(e) for e in edges} == {tuple(e[::-1]) for e in edges}
        a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
        assert (a * np.cross(b, c)).sum() / 6 > 0
