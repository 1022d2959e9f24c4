"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch and OpenMP start: their threads would otherwise spin while they wait, on cores that the kernels need.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_recordings() -> Path:
    """The folder of test recordings beside the checkout; a test that asks for it is skipped where there is none."""
    folder = SHARED / "recordings"
    if not folder.is_dir():
        pytest.skip("no test recordings beside the checkout")
    return folder
