"""Make models/anny_adult.npz, the free default body, from the `anny` package and ANSUR II.

    python models/build_anny_adult.py --ansur DIR [-o models/anny_adult.npz]

Build time only: needs anny, torch, roma, open3d and scipy; DIR holds ANSUR_II_{FEMALE,MALE}_Public.csv, of which
only the derived prior is shipped. The same inputs give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # one thread: the sums keep their order
    os.environ.setdefault(_name, "1")

import anny_marks  # noqa: E402
import anny_prior  # noqa: E402
import anny_rig  # noqa: E402
import anny_train  # noqa: E402
import numpy as np  # noqa: E402
from anny_prior import Gaussian  # noqa: E402
from anny_source import AnnySource, load_source  # noqa: E402

HERE = Path(__file__).resolve().parent
COMPONENTS = 48
TRAIN, HELD_OUT = 4000, 400
SURFACE_SHARE = 0.5  # of a vertex's weight in the basis fit; the rest is equal for all vertices
POOLED = 0.1  # share of both sexes' variety in each sex's starting covariance: no direction is shut
SEXES = ("female", "male")


def rest_pose(rotations: np.ndarray) -> np.ndarray:
    """Local rotations (24, 3, 3), alike on both sides, that take the T-pose to the average of Anny's rest poses."""
    mean = np.swapaxes(rotations, 2, 3).mean(0)
    swap = [anny_rig.J[n.replace("left", "*").replace("right", "left").replace("*", "right")] for n in anny_rig.JOINTS]
    flip = np.diag([-1.0, 1, 1])
    u, _, vt = np.linalg.svd(mean + flip @ mean[swap] @ flip)
    return anny_rig.local_rotations(u @ vt)


def arms_only(local: np.ndarray) -> np.ndarray:
    """The same pose with everything but the arms left as in the T-pose: standing straight, feet together."""
    arms = [k for k, n in enumerate(anny_rig.JOINTS) if n.endswith(("collar", "shoulder", "elbow", "wrist", "hand"))]
    out = np.tile(np.eye(3), (24, 1, 1))
    out[arms] = local[arms]
    return out


def rotation_vectors(rotations: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotations).as_rotvec()


def whiten(
    mean: np.ndarray, basis: np.ndarray, weights: np.ndarray, priors: dict[str, Gaussian]
) -> tuple[np.ndarray, np.ndarray, dict[str, Gaussian]]:
    """The same shape space with the neutral prior at N(0, I) and its axes by falling weighted variance."""
    neutral = priors["neutral"]
    flat = (basis * np.sqrt(weights)[:, None, None]).reshape(-1, basis.shape[2]).astype(np.float64)
    root = np.linalg.cholesky(flat.T @ flat)  # weighted length of a beta step: |root' b|
    value, vector = np.linalg.eigh(root.T @ neutral.cov @ root)
    value, vector = value[::-1], vector[:, ::-1]
    step = np.linalg.solve(root.T, vector * np.sqrt(value))
    template = mean + basis @ neutral.mean
    new = np.einsum("vck,kl->vcl", basis.astype(np.float64), step)
    tall = np.ptp((template[:, :, None] + 0.5 * new)[:, 1], axis=0) - np.ptp(template[:, 1])
    sign = np.where(tall < 0, -1.0, 1.0)  # a positive beta is the taller body
    step, new = step * sign, new * sign
    back = np.linalg.inv(step)
    moved = {s: Gaussian(back @ (p.mean - neutral.mean), back @ p.cov @ back.T) for s, p in priors.items()}
    return template, new, moved


def held_out_figures(
    bodies: anny_train.Bodies, mean: np.ndarray, basis: np.ndarray, weights: np.ndarray, rules: anny_prior.TapeRules
) -> dict[str, object]:
    """Projection errors of held-out bodies, for growing numbers of components."""
    area = weights_of(mean, rules.faces, 1.0)
    out: dict[str, object] = {}
    some = slice(0, len(bodies.vertices), 4)
    truth = np.array([anny_prior.measure(v, rules) for v in bodies.vertices[some].astype(float)])
    for k in sorted({12, 16, 24, 32, 40, COMPONENTS}):
        betas = anny_train.project(bodies.vertices, mean, basis[:, :, :k], weights)
        fitted = mean + np.einsum("vck,nk->nvc", basis[:, :, :k], betas)
        error = np.linalg.norm(fitted - bodies.vertices, axis=2)
        tape = np.abs(np.array([anny_prior.measure(v, rules) for v in fitted[some]]) - truth).mean(0)
        out[str(k)] = {
            "mean_mm": round(float(error.mean()) * 1e3, 2),
            "mean_mm_phenotypes_only": round(float(error[~bodies.varied].mean()) * 1e3, 2),
            "mean_mm_by_area": round(float((error @ area).mean()) * 1e3, 2),
            "stature_chest_waist_hip_crotch_mm": (tape[:5] * 1e3).round(1).tolist(),
            "mass_kg": round(float(tape[5]), 2),
        }
    return out


def weights_of(vertices: np.ndarray, faces: np.ndarray, share: float) -> np.ndarray:
    return anny_train.vertex_weights(vertices, faces, np.zeros(len(vertices), bool), share)


def script_hash() -> str:
    """SHA-256 over the build's own sources: which code made the file."""
    digest = hashlib.sha256()
    for path in sorted([*HERE.glob("anny_*.py"), Path(__file__).resolve()]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def build(source: AnnySource, ansur: Path) -> dict[str, np.ndarray]:
    """Every array of the body file."""
    started = time.time()
    say = lambda *words: print(f"{time.time() - started:6.0f} s", *words, flush=True)  # noqa: E731
    faces, v_count = source.faces, len(source.template)
    weights = anny_rig.joint_weights(source.vertex_bone_weights, anny_rig.joint_bones(source.bone_labels)[1])
    cavity = anny_marks.cavity_vertices(faces, source.cavity_faces, v_count)
    mirror = anny_marks.mirror_of(source.template)

    say("drawing adults")
    train = anny_train.draw_bodies(source, TRAIN, seed=1)
    held_out = anny_train.draw_bodies(source, HELD_OUT, seed=2)
    anny_rest = rest_pose(train.rotations)
    standing = arms_only(anny_rest)
    average = train.vertices.mean(0, dtype=np.float64)
    importance = anny_train.vertex_weights(average, faces, cavity, SURFACE_SHARE)

    say("joint regressor and basis")
    regressor = anny_rig.joint_regressor(train.vertices[::3], train.joints[::3], weights)
    regressor = regressor.astype(np.float32)
    joint_error = np.linalg.norm(np.einsum("jv,nvc->njc", regressor, held_out.vertices) - held_out.joints, axis=2)
    mean, basis, scores = anny_train.fit_basis(train, importance, COMPONENTS)

    symmetric = (average + average[mirror] * (-1, 1, 1)) / 2
    rules = anny_prior.tape_rules(
        faces,
        weights,
        regressor,
        standing,
        np.array(list(anny_marks.NIPPLES.values())),
        anny_marks.NAVEL,
        anny_marks.seat_vertices(symmetric, weights),
        anny_marks.perineum_vertices(symmetric, weights),
    )
    say("priors")
    target = anny_prior.read_ansur(ansur)
    pooled = np.cov(scores.T)
    priors: dict[str, Gaussian] = {}
    for i, sex in enumerate(SEXES):
        mine = scores[train.gender > 0.9 if sex == "female" else train.gender < 0.1]
        start = Gaussian(mine.mean(0), (1 - POOLED) * np.cov(mine.T) + POOLED * pooled)
        priors[sex] = anny_prior.calibrate(start, target[sex], mean, basis, rules, seed=10 + i)
        say(sex, "calibrated")
    priors["neutral"] = anny_prior.mixture([priors[s] for s in SEXES])
    target["neutral"] = anny_prior.mixture([target[s] for s in SEXES])
    priors["neutral"] = anny_prior.calibrate(priors["neutral"], target["neutral"], mean, basis, rules, seed=12)
    template, basis, priors = whiten(mean, basis, importance, priors)
    template32, basis16 = template.astype(np.float32), basis.astype(np.float16)

    say("checking the priors on fresh samples")
    stored = basis16.astype(np.float64)
    rng = np.random.default_rng(99)
    check = {}
    for sex in (*SEXES, "neutral"):
        p = priors[sex]
        betas = p.mean + anny_prior.standard_samples(rng, 1000, COMPONENTS) @ np.linalg.cholesky(p.cov).T
        check[sex] = anny_prior.compare(anny_prior.measure_betas(betas, template, stored, rules), target[sex])
        say(sex, json.dumps(check[sex]))
    figures = held_out_figures(held_out, template, stored, importance, rules)
    say("held out", json.dumps(figures))

    joints = regressor @ template
    standing_v = anny_rig.pose((template + template[mirror] * (-1, 1, 1)) / 2, joints, weights, standing)
    marks = anny_marks.landmarks(
        (template + template[mirror] * (-1, 1, 1)) / 2, standing_v, joints, weights, ~cavity, mirror
    )
    names, mark_vertices = anny_marks.packed(marks)
    labels, part_names = anny_marks.body_parts(weights)
    closed = anny_marks.without_cavities(template, faces, source.cavity_faces)
    lods = {
        f"lod{i}_{what}": array
        for i, count in ((1, 7700), (2, 2600))
        for what, array in zip(("vertex_ids", "faces"), anny_marks.coarse_mesh(template, closed, count), strict=True)
    }
    meta = {
        "name": "anny_adult",
        "version": "1",
        "licence": "CC0-1.0",
        "source": f"anny {source.package_version} (MakeHuman/MPFB2 assets, CC0 1.0); prior from ANSUR II",
        "units": "metres",
        "zero_pose": "T-pose of SMPL: arms along x, palms down, legs straight, facing +z, pelvis joint at the origin",
        "standing_pose": rotation_vectors(standing).round(6).tolist(),
        "anny_rest_pose": rotation_vectors(anny_rest).round(6).tolist(),
        "betas": "one unit = one standard deviation of the neutral adult prior, which is N(0, I)",
        "sexes": ["female", "male", "neutral"],
        "prior": "reproduces ANSUR II (soldiers, 17-58 years) in stature, chest, waist and hip girth, crotch height "
        "and mass; a fit should widen it for people outside that sample",
        "density_kg_m3": anny_prior.DENSITY,
        "prior_check": check,
        "training": f"{TRAIN} adults: Anny phenotypes (WHO heights, half widened in build) plus local changes",
        "held_out": figures,
        "joint_regressor_mm": {
            "mean": round(float(joint_error.mean()) * 1e3, 2),
            "worst_joint_mean": round(float(joint_error.mean(0).max()) * 1e3, 2),
        },
        "script_sha256": script_hash(),
    }
    say("joint regressor", meta["joint_regressor_mm"], "max", joint_error.max())
    return {
        "v_template": template32,
        "shapedirs": basis16,
        "J_regressor": regressor,
        "weights": weights.astype(np.float32),
        "kintree_table": np.stack([anny_rig.PARENTS, np.arange(24)]).astype(np.int64),
        "faces": faces.astype(np.int32),
        "joint_names": np.array(anny_rig.JOINTS),
        "anny_vertex_ids": source.anny_vertex_ids,
        "sample_mask": ~cavity,
        **{f"prior_mean_{s}": p.mean.astype(np.float32) for s, p in priors.items()},
        **{f"prior_cov_{s}": p.cov.astype(np.float32) for s, p in priors.items()},
        **lods,
        "part_labels": labels,
        "part_names": np.array(part_names),
        "landmark_names": names,
        "landmark_vertices": mark_vertices,
        "meta": np.array(json.dumps(meta, sort_keys=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the default body file.")
    parser.add_argument("--ansur", type=Path, required=True, help="folder with ANSUR_II_{FEMALE,MALE}_Public.csv")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "anny_adult.npz")
    args = parser.parse_args()
    arrays = build(load_source(), args.ansur)
    temporary = args.output.with_suffix(".tmp.npz")
    # uncompressed: it fits in 8 MB and loads ten times as fast
    np.savez(temporary, **arrays)  # pyright: ignore[reportArgumentType]
    os.replace(temporary, args.output)
    size = args.output.stat().st_size
    print(f"{args.output}: {size / 1e6:.2f} MB, sha256 {hashlib.sha256(args.output.read_bytes()).hexdigest()[:16]}")


if __name__ == "__main__":
    main()
