"""Pictures show what they claim: the body where it is, residuals with their sign, misses, measurements and doubts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bodyfit.body.measure import Measurement, measure
from bodyfit.body.measure_definitions import DEFINITIONS
from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.body.skeleton import PART_NAMES
from bodyfit.fit.result import FitResult, FrameQuality
from bodyfit.fit.solver import StopReason
from bodyfit.observe.observation import Observation, observe
from bodyfit.picture import draw, overlay, summary
from bodyfit.synthetic.take import Take, sample_take


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def take(model: BodyModel) -> Take:
    return sample_take(
        model, 21, pose_names=("a_pose", "arms_down"), headings_deg=(0, 180), off_model_mm_rms=0, clothing="none",
        mask="true", color=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def observations(take: Take) -> tuple[tuple[Observation, ...], ...]:
    return tuple((observe(frame, gravity_world=take.gravity_world),) for frame in take.frames)


def _result(take: Take, model: BodyModel, **changes: object) -> FitResult:
    quality = FrameQuality(0, 0.0015, 0.97, 0.99, {}, (), next(iter(StopReason)), 0.2, True)
    values = measure(model, take.subject.betas)
    measurements = {
        name: Measurement(name, value, 0.004, True, DEFINITIONS[name].text, DEFINITIONS[name].unit)
        for name, value in values.items()
    }
    count = len(take.instants)
    S = model.num_betas
    result = FitResult(
        model=model, sex=take.subject.sex, clothing="tight", clothing_asked="auto", betas=take.subject.betas,
        betas_cov=np.eye(S) * 0.01, poses=np.stack([i.pose for i in take.instants]),
        pose_sd=np.zeros((count, model.num_joints, 3)), transl=np.stack([i.transl for i in take.instants]),
        frame_indices=tuple(range(count)), timestamps_s=tuple(float(t) for t in range(count)), garments_m={},
        frames=(quality,) * count, coverage=dict.fromkeys(PART_NAMES, count), stop_reason=next(iter(StopReason)),
        converged=True, flags=(), hints=(), measurements=measurements, provenance={},
    )  # fmt: skip
    return replace(result, **changes)  # pyright: ignore[reportArgumentType]


def _share(picture: np.ndarray, color: tuple[int, int, int], tolerance: int = 3) -> float:
    return float((np.abs(picture.astype(int) - color).max(-1) <= tolerance).mean())


def _warm(picture: np.ndarray) -> np.ndarray:
    """Where a picture has the body's orange rather than greys and blues."""
    r, g, b = (picture[..., k].astype(int) for k in range(3))
    return (r > b + 20) & (r > g + 8)


def _reddish(picture: np.ndarray) -> int:
    """Pixels of the rendered bodies in the colour of what was never seen."""
    bodies = picture[160:800, 720:1180].astype(int)
    return int(((bodies[..., 0] > bodies[..., 1] + 15) & (bodies[..., 0] > bodies[..., 2] + 10)).sum())


# --- the overlay


def test_an_overlay_has_a_panel_for_depth_colour_and_residuals(take: Take, observations: tuple) -> None:
    seen = observations[0][0]
    picture = overlay.overlay_picture(seen, take.instants[0].vertices_world, take.model.faces)
    width, height = overlay.PANEL
    assert picture.dtype == np.uint8 and picture.shape[1] == 3 * width + 4 * 14 and picture.shape[0] > height
    assert picture.std() > 20
    gray = overlay.overlay_picture(replace(seen, color=None), take.instants[0].vertices_world, take.model.faces)
    assert gray.shape[1] == 2 * width + 3 * 14


def test_the_body_is_drawn_where_the_sensor_saw_the_person(take: Take, observations: tuple) -> None:
    seen = observations[0][0]
    cam = overlay.in_camera(take.instants[0].vertices_world, seen.T_world_depth)
    whole = draw.Crop(0, 0, 1.0, seen.camera.width, seen.camera.height)
    body = _warm(overlay.over_depth(seen, cam, take.model.faces, whole))
    mask = take.instants[0].masks["azure"]
    assert (body & mask).sum() / (body | mask).sum() > 0.87


def test_the_body_over_colour_lies_on_the_person_in_the_colour_image(take: Take, observations: tuple) -> None:
    """The drawn body must cover the person's colours, which only holds when it went through T_color_depth."""
    seen = observations[0][0]
    assert seen.color is not None and seen.color_camera is not None and seen.T_color_depth is not None
    cam = overlay.in_camera(take.instants[0].vertices_world, seen.T_world_depth)
    empty = _empty_room(take)
    person = np.abs(seen.color.astype(int) - empty).max(-1) > 30
    points = cam @ seen.T_color_depth[:3, :3].T + seen.T_color_depth[:3, 3]
    body = draw.shade(points, take.model.faces, seen.color_camera).mask
    columns = np.nonzero(body.any(0))[0]
    person[:, : columns[0] - 30] = person[:, columns[-1] + 30 :] = False  # furniture is not the wall's colour either
    inside = body & person
    assert inside.sum() > 0.75 * person.sum() and inside.sum() > 0.7 * body.sum()
    shifted = draw.shade(cam, take.model.faces, seen.color_camera).mask  # without the transform it is elsewhere
    assert (shifted & person).sum() < 0.75 * person.sum()


def _empty_room(take: Take) -> np.ndarray:
    """The colour image of the second instant where the first one's person stands, else the first's: an empty room."""
    first, second = (frame.color.astype(int) for frame in take.frames if frame.color is not None)
    return np.broadcast_to(np.median(np.concatenate([first[:, :60], second[:, -60:]], 1), axis=1)[:, None], first.shape)


@pytest.mark.parametrize("shift", [0.02, -0.02])
def test_residuals_have_the_sign_of_where_the_surface_is(take: Take, observations: tuple, shift: float) -> None:
    """A body moved away from the sensor leaves the measured surface in front of it: negative and blue."""
    seen = observations[0][0]
    camera_axis = seen.T_world_depth[:3, 2]
    moved = take.instants[0].vertices_world + shift * camera_axis
    error, _ = overlay.residuals(seen, overlay.in_camera(moved, seen.T_world_depth), take.model.faces)
    known = error[np.isfinite(error)]
    assert np.sign(np.median(known)) == -np.sign(shift)
    assert abs(np.median(known)) == pytest.approx(abs(shift) * 0.85, rel=0.3)  # along the normal, not the ray
    picture = overlay.overlay_picture(seen, moved, take.model.faces)[64 : 64 + overlay.PANEL[1], -overlay.PANEL[0] :]
    red, blue = (picture[..., k].astype(int) for k in (0, 2))
    assert ((blue > red + 40).sum() > 4 * (red > blue + 40).sum()) == (shift > 0)


def test_the_truth_leaves_residuals_of_the_sensor_noise(take: Take, observations: tuple) -> None:
    for instant, (seen,) in zip(take.instants, observations, strict=True):
        cam = overlay.in_camera(instant.vertices_world, seen.T_world_depth)
        error, body = overlay.residuals(seen, cam, take.model.faces)
        assert np.nanmedian(np.abs(error)) < 0.003
        assert np.isfinite(error).sum() > 0.85 * body.mask.sum()


def test_a_body_beside_the_person_shows_both_kinds_of_miss(take: Take, observations: tuple) -> None:
    seen = observations[0][0]
    right = overlay.overlay_picture(seen, take.instants[0].vertices_world, take.model.faces)
    aside = take.instants[0].vertices_world + 0.10 * seen.T_world_depth[:3, 0]
    wrong = overlay.overlay_picture(seen, aside, take.model.faces)
    for color in (overlay.MISSED, overlay.EXTRA):
        assert _share(wrong, color) > 3 * _share(right, color) and _share(wrong, color) > 0.008


def test_a_body_out_of_the_picture_is_no_error(take: Take, observations: tuple) -> None:
    away = take.instants[0].vertices_world + np.array([0, 0, 30.0])
    picture = overlay.overlay_picture(observations[0][0], away, take.model.faces)
    assert picture.std() > 5


def test_depth_tint_says_near_far_and_nothing() -> None:
    depth = np.array([[0.0, 1.0, 2.0, 3.0]], np.float32)
    nothing, near, middle, far = draw.grey_depth(depth, 1.0, 3.0)[0].astype(int).sum(-1)
    assert nothing < 80 < far < middle < near


def test_signed_colours_are_blue_white_red() -> None:
    blue, white, red = draw.signed_colors(np.array([-9.0, 0.0, 9.0], np.float32), 1.0)
    assert blue[2] > blue[0] + 80 and red[0] > red[2] + 80 and white.min() > 230


def test_a_crop_draws_where_it_cuts(take: Take, observations: tuple) -> None:
    """A mesh drawn by the crop's camera covers the same pixels as the crop of the mesh drawn by the whole camera."""
    seen = observations[0][0]
    cam = overlay.in_camera(take.instants[0].vertices_world, seen.T_world_depth)
    window = draw.crop_around(seen.camera.project(cam), seen.camera, (500, 640))
    whole = draw.shade(cam, take.model.faces, seen.camera).mask
    cut = window.of(whole, smooth=False) > 0
    drawn = draw.shade(cam, take.model.faces, seen.camera, window).mask
    assert (cut & drawn).sum() / (cut | drawn).sum() > 0.97


# --- the summary


def test_the_summary_is_one_full_picture(take: Take, model: BodyModel, observations: tuple) -> None:
    picture = summary.summary_picture(_result(take, model), observations)
    assert picture.shape == (summary.HEIGHT, summary.WIDTH, 3) and picture.dtype == np.uint8
    for region in (picture[120:820, :660], picture[120:820, 680:1190], picture[120:1000, 1210:]):
        assert (np.abs(region.astype(int) - draw.PAPER).max(-1) > 8).mean() > 0.03
    assert _share(picture, draw.GOOD) > 0.001
    assert _reddish(picture) < 100


def test_doubts_and_failures_have_their_colours(take: Take, model: BodyModel, observations: tuple) -> None:
    doubtful = _result(
        take, model, flags=("left hand never seen",), coverage={**dict.fromkeys(PART_NAMES, 2), "left_calf": 0}
    )
    picture = summary.summary_picture(doubtful, observations)
    assert _share(picture, draw.DOUBT) > 0.001 and _share(picture, draw.GOOD) < 1e-4
    assert _reddish(picture) > 500  # the unseen calf
    failed = _result(take, model, converged=False, measurements={}, hints=("turn around: the back was never seen",))
    assert _share(summary.summary_picture(failed, observations), draw.BAD) > 0.001


def test_what_was_not_seen_is_greyed(take: Take, model: BodyModel, observations: tuple) -> None:
    sure = _result(take, model)
    unsure = _result(take, model, measurements={n: replace(m, seen=False) for n, m in sure.measurements.items()})
    dark = [(summary.summary_picture(r, observations)[160:1000, 1210:].max(-1) < 90).sum() for r in (sure, unsure)]
    assert dark[1] < 0.2 * dark[0]


def test_long_flags_many_frames_and_no_observations_fit_on_the_sheet(
    take: Take, model: BodyModel, observations: tuple
) -> None:
    many = _result(
        take, model, flags=tuple(f"something worth knowing, number {i}, " + "and more " * 30 for i in range(12))
    )
    picture = summary.summary_picture(many, ())
    border = np.concatenate([picture[-8:].reshape(-1, 3), picture[:, -8:].reshape(-1, 3)])
    assert (border == draw.PAPER).all()  # nothing runs over the edge
    one = replace(many, poses=many.poses[:1], frames=many.frames[:1], frame_indices=(0,))
    assert summary.summary_picture(one, observations[:1]).shape == picture.shape


def test_views_are_spread_over_instants_then_sensors() -> None:
    def shown(instants: int, sensors: int) -> list[tuple[int, int]]:
        return summary._choose([[object()] * sensors] * instants)  # type: ignore[list-item]

    assert shown(1, 3) == [(0, 0), (0, 1), (0, 2)]
    assert shown(2, 1) == [(0, 0), (1, 0)]
    assert shown(30, 2) == [(0, 0), (10, 0), (19, 0), (29, 0)]
    assert shown(0, 0) == []


@pytest.mark.parametrize(
    "unit, value, text",
    [("m", 1.7, ("170.0", "0.4", "cm")), ("m3", 0.07, ("70.0", "4.0", "l")), ("kg", 68.0, ("68.0", "0.0", "kg"))],
)
def test_people_read_centimetres_litres_and_kilograms(unit: str, value: float, text: tuple[str, str, str]) -> None:
    assert summary._shown(Measurement("x", value, 0.004, True, "", unit)) == text


def test_text_is_wrapped_and_cut_to_its_width() -> None:
    lines = draw.wrap("one two three four five six seven", 15, 90)
    assert len(lines) > 1 and all(draw.text_width(line, 15) <= 90 for line in lines)
    assert " ".join(lines) == "one two three four five six seven"
    assert draw.text_width(draw.shorten("a very long name of something", 15, 80), 15) <= 80
