"""Gradients of the reference scenes beside exact ones and those of the real redner."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHARED

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def study(repo_root: Path) -> Any:
    spec = importlib.util.spec_from_file_location("render_reference", repo_root / "benchmarks" / "render_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["square", "icosphere", "anny"])
def test_gradients_of_the_reference_scenes(study: Any, name: str) -> None:
    from bodyfit.render.render import RenderContext

    path = SHARED / "reference" / f"{name}.npz"
    if not path.is_file():
        pytest.skip("no reference scenes beside the checkout")
    rows = study.compare(dict(np.load(path)), 4, RenderContext(threads=1))
    exact = [r for r in rows if r["against"] == "exact" and r["drive"] == "given"]
    assert len(exact) == {"square": 2, "icosphere": 1, "anny": 0}[name]
    for row in exact:
        assert row["cosine"] > 0.9999 and abs(row["ratio"] - 1) < 0.005, row
    for row in (r for r in rows if r["against"] == "redner"):
        assert row["cosine"] > 0.99 and abs(row["ratio"] - 1) < max(row["noise"], 0.005), row
        assert row["rmse"] < 0.01
