"""bodyfit: a person's body shape, pose and measurements from RGB-D frames.

Names are imported when first used: `import bodyfit` alone loads neither Numba nor Open3D nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel, load_body_model
    from bodyfit.camera import Camera, Distortion
    from bodyfit.fit.config import FitConfig
    from bodyfit.fit.fit import fit
    from bodyfit.fit.result import FitResult, StopReason
    from bodyfit.fit.track import Tracker
    from bodyfit.fit.track_config import TrackConfig
    from bodyfit.fit.track_estimate import TrackEstimate, TrackState
    from bodyfit.fit.track_recording import track
    from bodyfit.frame import Frame
    from bodyfit.recording import open_recording, write_recording

_WHERE = {
    "BodyModel": "bodyfit.body.model",
    "load_body_model": "bodyfit.body.model",
    "Camera": "bodyfit.camera",
    "Distortion": "bodyfit.camera",
    "FitConfig": "bodyfit.fit.config",
    "fit": "bodyfit.fit.fit",
    "FitResult": "bodyfit.fit.result",
    "StopReason": "bodyfit.fit.result",
    "TrackConfig": "bodyfit.fit.track_config",
    "TrackEstimate": "bodyfit.fit.track_estimate",
    "TrackState": "bodyfit.fit.track_estimate",
    "Tracker": "bodyfit.fit.track",
    "track": "bodyfit.fit.track_recording",
    "Frame": "bodyfit.frame",
    "open_recording": "bodyfit.recording",
    "write_recording": "bodyfit.recording",
}
__all__ = [
    "BodyModel",
    "Camera",
    "Distortion",
    "FitConfig",
    "FitResult",
    "Frame",
    "StopReason",
    "TrackConfig",
    "TrackEstimate",
    "TrackState",
    "Tracker",
    "__version__",
    "fit",
    "load_body_model",
    "open_recording",
    "track",
    "write_recording",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'bodyfit' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
