"""The labels of a followed person against a slow twin in plain Python, and what the rules mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import load_body_model
from bodyfit.fit.track import Tracker
from bodyfit.kernels import follow as K
from bodyfit.kernels.nearest import nearest_marked
from bodyfit.kernels.scalar_evidence import BACKGROUND, PERSON, UNKNOWN
from bodyfit.observe.observation import observe
from bodyfit.synthetic.motion import plan_film

FX, CX, CY = 100.0, 20.0, 16.0
H, W, STRIDE = 16, 20, 2


def rules() -> NDArray[np.float32]:
    out = np.zeros(K.NUM_RULES, np.float32)
    out[K.SEED], out[K.REACH], out[K.DEEP], out[K.STEP], out[K.STEP_PX] = 0.10, 0.30, 0.45, 0.02, 3.0
    out[K.FLOOR], out[K.BEHIND], out[K.NEARER] = 0.02, 0.012, 0.10
    return out


def scene(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Depth (2H, 2W), the expected body on the grid (H, W), the room (2H, 2W)."""
    rng = np.random.default_rng(seed)
    room = np.full((2 * H, 2 * W), 3.0, np.float32)
    depth = room.copy()
    r0, c0 = rng.integers(4, 10, 2)
    depth[r0 : r0 + 18, c0 : c0 + 14] = 2.0 + 0.05 * rng.standard_normal((18, 14))
    depth[r0 + 6 : r0 + 10, c0 + 14 : c0 + 20] = 1.95
    depth[rng.random(depth.shape) < 0.05] = 0
    depth[: rng.integers(2, 6), :8] = 1.2
    drawn = np.zeros((H, W), np.float32)
    drawn[r0 // 2 + 1 : r0 // 2 + 8, c0 // 2 : c0 // 2 + 7] = 2.0
    room[rng.random(room.shape) < 0.2] = 0
    return depth.astype(np.float32), drawn, room


def nearest_of(drawn: NDArray[np.float32]) -> NDArray[np.int32]:
    near = np.where(drawn > 0, np.arange(drawn.size, dtype=np.int32).reshape(drawn.shape), np.int32(-1))
    near = np.ascontiguousarray(near, np.int32)
    nearest_marked(near)
    return near


def kernel(depth, drawn, room, mask, rule, plane=None):
    out_depth, out_label = np.empty((H, W), np.float32), np.empty((H, W), np.uint8)
    plane = np.zeros(4, np.float32) if plane is None else plane
    flying = np.zeros((2 * H, 2 * W), bool)
    f = np.float32
    n, before = K.follow_labels(
        depth, flying, 0, 0, STRIDE, drawn, nearest_of(drawn), f(FX / STRIDE), f(FX / STRIDE), f(CX / STRIDE),
        f(CY / STRIDE), plane, room, mask, rule, np.empty(H * W, np.int32), out_depth, out_label,
    )  # fmt: skip
    return n, before, out_depth, out_label


def twin(depth, drawn, room, rule):
    z = depth[::STRIDE, ::STRIDE]
    near = nearest_of(drawn)
    at = [(n // W, n % W) for n in near.ravel()]
    pitch = 2.0 / (2 * FX / STRIDE)
    label = np.full((H, W), 9)
    label[z <= 0] = UNKNOWN
    behind = (room[::STRIDE, ::STRIDE] > 0) & (z > room[::STRIDE, ::STRIDE] - rule[K.BEHIND] * z)
    label[(z > 0) & behind] = BACKGROUND
    seeds = (label == 9) & (drawn > 0) & (abs(z - drawn) < rule[K.SEED])
    label[seeds] = PERSON
    grown = True
    while grown:
        grown = False
        for r in range(H):
            for c in range(W):
                if label[r, c] != PERSON:
                    continue
                for rr, cc in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                    if not (0 <= rr < H and 0 <= cc < W) or label[rr, cc] != 9:
                        continue
                    nr, nc = at[rr * W + cc]
                    away = np.hypot(rr - nr, cc - nc) * pitch * z[rr, cc]
                    step = rule[K.STEP] + rule[K.STEP_PX] * pitch * z[r, c]
                    together = abs(z[rr, cc] - z[r, c]) <= step and abs(z[rr, cc] - drawn[nr, nc]) <= rule[K.DEEP]
                    if together and away <= rule[K.REACH]:
                        label[rr, cc] = PERSON
                        grown = True
    for r in range(H):
        for c in range(W):
            if label[r, c] == 9:
                nr, nc = at[r * W + c]
                label[r, c] = UNKNOWN if z[r, c] < drawn[nr, nc] - rule[K.NEARER] else BACKGROUND
    return label


def test_equals_the_slow_twin() -> None:
    for seed in range(12):
        depth, drawn, room = scene(seed)
        n, _, out_depth, label = kernel(depth, drawn, room, np.ones((1, 1), bool), rules())
        expected = twin(depth, drawn, room, rules())
        assert (label != expected).mean() < 0.01, seed  # a threshold may fall on a last bit
        assert n == (label == PERSON).sum() > 20
        assert np.array_equal(out_depth, depth[::STRIDE, ::STRIDE])


def test_a_limb_beside_the_expected_body_is_taken_in_and_what_is_nearer_is_unknown() -> None:
    depth = np.full((2 * H, 2 * W), 3.0, np.float32)
    depth[8:26, 10:24] = 2.0
    depth[14:18, 24:30] = 1.97  # an arm that was not there before
    depth[8:14, 12:20] = 1.0  # something that passes
    drawn = np.zeros((H, W), np.float32)
    drawn[4:13, 5:12] = 2.0
    n, before, _, label = kernel(depth, drawn, np.zeros((1, 1), np.float32), np.ones((1, 1), bool), rules())
    assert (label[7:9, 12:15] == PERSON).all()
    assert (label[4:7, 6:10] == UNKNOWN).all() and before == 12
    assert (label[:3] == BACKGROUND).all() and n == (label == PERSON).sum()


def test_the_floor_and_a_mask_are_heeded() -> None:
    depth = np.full((2 * H, 2 * W), 2.0, np.float32)
    drawn = np.full((H, W), 2.0, np.float32)
    up = np.array([0.0, -1.0, 0.0, 0.2], np.float32)  # the floor lies 20 cm below the axis
    none = np.zeros((1, 1), np.float32)
    _, _, _, label = kernel(depth, drawn, none, np.ones((1, 1), bool), rules(), up)
    height = 0.2 - (np.arange(H) * STRIDE - CY) / FX * 2.0
    assert (label[height < 0.019] == BACKGROUND).all() and (label[height > 0.021] == PERSON).all()
    mask = np.zeros((2 * H, 2 * W), bool)
    n, _, _, _ = kernel(depth, drawn, none, mask, rules())
    assert n == 0


def test_a_stereo_matchers_rim_is_taken_off() -> None:
    depth = np.full((2 * H, 2 * W), 3.0, np.float32)
    depth[8:26, 10:24] = 2.0
    drawn = np.zeros((H, W), np.float32)
    drawn[4:13, 5:12] = 2.0
    rule = rules()
    plain = kernel(depth, drawn, np.zeros((1, 1), np.float32), np.ones((1, 1), bool), rule)
    rule[K.BLEED_PX], rule[K.SURE_PX], rule[K.JUMP] = 2.0, 0.5, 0.04
    n, _, out_depth, label = kernel(depth, drawn, np.zeros((1, 1), np.float32), np.ones((1, 1), bool), rule)
    assert n < plain[0] and (label == PERSON).sum() == n
    assert (out_depth[label == PERSON] > 0).all()
    rim = (plain[3] == PERSON) & (label != PERSON)
    assert rim[4, 5:12].all() and not rim[6:11, 7:10].any()


def test_specks_within_the_person_are_theirs_and_holes_are_not() -> None:
    depth, drawn = np.full((2 * H, 2 * W), 3.0, np.float32), np.zeros((H, W), np.float32)
    depth[6:26, 8:28], drawn[3:13, 4:14] = 2.0, 2.0
    depth[10, 12] = 0
    depth[16:22, 16:22] = 0
    depth[12:16, 28] = 0  # beside them
    _, _, out_depth, label = kernel(depth, drawn, np.zeros((1, 1), np.float32), np.ones((1, 1), bool), rules())
    assert label[5, 6] == PERSON and out_depth[5, 6] == 0
    assert (label[8:11, 8:11] == UNKNOWN).all()
    assert (label[6:8, 14] == UNKNOWN).all()


def test_floor_beside_a_foot_is_unknown() -> None:
    # the floor rises with the rows: n·x + d with y down
    plane = np.array([0.0, -1.0, 0.0, 0.2], np.float32)
    z = 2.0
    rows = np.arange(2 * H)
    above = 0.2 - (rows - CY) / FX * z
    depth, drawn = np.full((2 * H, 2 * W), z, np.float32), np.zeros((H, W), np.float32)
    depth[above > 0.04] = 4.0
    shin = slice(0, int(np.flatnonzero(above > 0.03)[-1]) + 1)
    depth[shin, 16:24], drawn[: shin.stop // 2, 8:12] = z, z
    rule = rules()
    before = kernel(depth, drawn, np.zeros((1, 1), np.float32), np.ones((1, 1), bool), rule, plane)[3]
    rule[K.SOLE], rule[K.SOLE_HEIGHT], rule[K.FOOT_HEIGHT] = 0.045, 0.04, 0.10
    after = kernel(depth, drawn, np.zeros((1, 1), np.float32), np.ones((1, 1), bool), rule, plane)[3]
    low = np.flatnonzero(above[::2] < 0.02)
    assert (before[low[0], 8:12] == BACKGROUND).all()
    assert (after[low[0], 8:12] == UNKNOWN).all()
    assert (after[low[0], [0, 19]] == BACKGROUND).all()
    changed = before != after
    assert changed.any() and (before[changed] == BACKGROUND).all() and (after[changed] == UNKNOWN).all()


def test_a_frame_is_told_as_a_first_look_tells_it() -> None:
    """A D435's frame: about as many pixels are the person's, and their feet are as little background."""
    model = load_body_model()
    film = plan_film(model, 78, motion="wave", seconds=1 / 30, sensor="d435", clothing="tight")
    instant = next(iter(film))
    frames = list(instant.frames.values())
    tracker = Tracker(model, gravity_world=film.gravity_world)
    tracker.update(frames)
    assert tracker.shape is not None and tracker._pose is not None
    mesh = tracker.shape.mesh(tracker.config.stage.level)
    view = tracker._sensors.look_closer(mesh, frames, tracker._pose, 20000)[0].view
    first = observe(frames[0], gravity_world=film.gravity_world)
    (r, c), (h, w) = view.origin, view.label.shape
    assert view.stride == 1
    there = first.label[r : r + h, c : c + w]
    mine, theirs = view.label == PERSON, there == PERSON
    assert abs(int(mine.sum()) / int(theirs.sum()) - 1) < 0.04
    assert (mine & theirs).sum() > 0.93 * theirs.sum()
    # their feet, which lie in the floor's noise
    true = next(iter(instant.masks.values()))[r : r + h, c : c + w]
    rows = np.flatnonzero(true.any(1))
    feet = true & (np.arange(h)[:, None] > rows[-1] - 0.04 * (rows[-1] - rows[0]))
    assert feet.sum() > 50
    assert (view.label[feet] == BACKGROUND).mean() < 0.5
