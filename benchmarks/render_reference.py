"""Images and gradients of the renderer beside exact ones and those of the real redner: a table.

    python benchmarks/render_reference.py [--reference FOLDER] [--samples 1,4,16]

FOLDER holds square.npz, icosphere.npz and anny.npz: scenes, images and gradients measured with redner 0.4.28 and its
independent sampler, and values from exact polygon clipping. Three losses on alpha and on z-depth premultiplied by
coverage. A loss's gradient depends on the image through dL/dImage: `own image` takes ours, `given image` the
reference's, which shows the renderer's derivative by itself.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bodyfit.render.camera import RenderCamera
from bodyfit.render.render import RenderContext, render

FOLDER = Path(__file__).resolve().parent.parent.parent / "shared" / "reference"
IMAGES = {"alpha": "alpha", "zdepth": "premultiplied_depth"}


def reference_camera(scene: Any) -> RenderCamera:
    """The scene's camera."""
    return RenderCamera.look_at(
        scene["cam_position"],
        scene["cam_look_at"],
        scene["cam_up"],
        width=int(scene["width"]),
        height=int(scene["height"]),
        vfov_deg=float(scene["vfov_deg"]),
    )


def exact_or(scene: Any, name: str) -> Any:
    """The exact image where there is one, else redner's."""
    return scene[name + "_exact"] if name + "_exact" in scene else scene[name]


def compare(scene: Any, samples: int, context: RenderContext) -> list[dict[str, Any]]:
    """One row for each image and each gradient that there is to compare with."""
    vertices = torch.tensor(scene["vertices"], requires_grad=True)
    drawn = render(vertices, scene["faces"], reference_camera(scene), samples=samples, context=context)
    rows = []
    for name, ours in IMAGES.items():
        image = getattr(drawn, ours)[0]
        given = torch.tensor(exact_or(scene, name), dtype=torch.float32)
        target = torch.tensor(exact_or(scene, "target_" + name), dtype=torch.float32)
        mask = torch.tensor(scene["mask"], dtype=torch.float32) if name != "alpha" else torch.ones_like(target)
        rmse = float((image.detach() - given).square().mean().sqrt())
        for drive, at in (("own", image.detach()), ("given", given)):
            slope = 2 * (at - target) * mask / target.numel()
            (gradient,) = torch.autograd.grad((image * slope).sum(), vertices, retain_graph=True)
            found = gradient.double().numpy()
            for key, what in ((f"grad_{name}_exact", "exact"), (f"grad_{name}", "redner")):
                if key not in scene:
                    continue
                expected = scene[key].astype(float)
                length = np.linalg.norm(expected)
                noise = np.linalg.norm(scene[f"grad_{name}_se"]) / length if what == "redner" else 0.0
                cosine = (found * expected).sum() / (length * np.linalg.norm(found))
                rows.append(
                    {
                        "image": name,
                        "samples": samples,
                        "rmse": rmse,
                        "drive": drive,
                        "against": what,
                        "cosine": float(cosine),
                        "ratio": float(np.linalg.norm(found) / length),
                        "noise": float(noise),
                    }
                )
    return rows


def main() -> int:
    """Prints the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, default=FOLDER)
    parser.add_argument("--samples", default="1,4,16")
    options = parser.parse_args()
    if not options.reference.is_dir():
        print(f"no reference scenes in {options.reference}", file=sys.stderr)
        return 2
    print("| scene | image | samples | image RMSE | dL/dImage | against | cosine | norm ratio | its noise |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in ("square", "icosphere", "anny"):
        scene = dict(np.load(options.reference / f"{name}.npz"))
        context = RenderContext(threads=1)
        for samples in (int(s) for s in options.samples.split(",")):
            for row in compare(scene, samples, context):
                print(
                    f"| {name} | {row['image']} | {samples} | {row['rmse']:.4f} | {row['drive']} | {row['against']} "
                    f"| {row['cosine']:.6f} | {row['ratio']:.4f} | {row['noise']:.4f} |"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
