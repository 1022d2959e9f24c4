"""The demo recording: a body outside the model's own span, at four headings, as a depth camera with colour sees it.

`python -m bodyfit.synthetic.demo OUT` makes it again, byte for byte, from the same body file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.errors import BodyfitError, InputError
from bodyfit.synthetic.take import Take, sample_take
from bodyfit.synthetic.write import write_take

SEED = 2026
HEADINGS_DEG = (4.0, 93.0, 181.0, 272.0)


def demo_recording_path() -> Path:
    """The folder of the recording that is shipped with the package.

    Raises:
        InputError: the package was installed without its data.
    """
    path = Path(__file__).parent.parent / "data" / "demo"
    if not (path / "recording.json").is_file():
        raise InputError(
            "demo recording",
            "a recording in the package's data",
            "none",
            "make one: python -m bodyfit.synthetic.demo OUT",
        )
    return path


def film_demo(model: BodyModel, seed: int = SEED) -> Take:
    """Films the demo: four headings, arms a little away from the body, tight clothes, a Kinect v2 in a room."""
    return sample_take(
        model, seed, pose_names=("a_pose",) * len(HEADINGS_DEG), headings_deg=HEADINGS_DEG, sensor="kinect2",
        sex="female", off_model_mm_rms=3.0, clothing="tight", color=True, color_stride=2, jitter_deg=4.0,
    )  # fmt: skip


def main(arguments: list[str]) -> int:
    """Writes the demo recording to the one folder named; returns the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m bodyfit.synthetic.demo OUT", file=sys.stderr)
        return 2
    try:
        path = write_take(arguments[0], film_demo(load_body_model()), overwrite=True)
    except BodyfitError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.exit_code
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path}: {len(HEADINGS_DEG)} frames, {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
