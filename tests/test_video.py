"""The film of a motion: what is in its pictures, when they are shown, and that it is whole or absent."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_motion_export import moving, without
from tiny_body import write_tiny_body
from tiny_result import tiny_result

from bodyfit.batch.results import wants_film, write_result
from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.camera import Camera
from bodyfit.errors import InputError, MissingExtraError, OutputError
from bodyfit.fit.result import FitResult
from bodyfit.frame import Frame
from bodyfit.picture.video import LARGEST, STRIP, Shot, Stage, check_video, has_video, shots, write_video

DEPTH = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
COLOR = Camera(120, 90, 110.0, 110.0, 59.5, 44.5)
BLUE = (30, 60, 200)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BodyModel:
    return load_body_model(write_tiny_body(tmp_path_factory.mktemp("body") / "tiny.npz"))


@pytest.fixture(scope="module")
def result(model: BodyModel) -> FitResult:
    """A person who stays near (3, -1, 0.9)."""
    turning = moving(model)
    return replace(turning, transl=np.tile([3.0, -1.0, 0.9], (turning.num_frames, 1)))


def frame_at(index: int, seconds: float, *, color: bool = True, sensor: str = "front") -> Frame:
    """What a level camera sees of a wall four metres away, three metres before the person; it looks along world +y."""
    T_world_depth = np.array([[1.0, 0, 0, 3], [0, 0, 1, -4], [0, -1, 0, 0.7], [0, 0, 0, 1]])
    T_color_depth = np.eye(4)
    T_color_depth[0, 3] = 0.03
    return Frame(
        depth=np.full((48, 64), 4.0, np.float32),
        depth_camera=DEPTH,
        T_world_depth=T_world_depth,
        timestamp_s=seconds,
        color=np.broadcast_to(np.array(BLUE, np.uint8), (90, 120, 3)).copy() if color else None,
        color_camera=COLOR if color else None,
        T_color_depth=T_color_depth if color else None,
        sensor=sensor,
        index=index,
    )


class Filmed:
    """A recording in memory: the part of `Recording` that films ask for."""

    def __init__(self, result: FitResult, *, color: bool = True, sensors: tuple[str, ...] = ("front",)) -> None:
        self.indices = np.array(result.frame_indices)
        self.timestamps_s = np.array(result.timestamps_s)
        self.sensors = tuple(SimpleNamespace(name=name) for name in sensors)
        self.color = color

    def frame(self, i: int, name: str) -> Frame | None:
        return frame_at(int(self.indices[i]), float(self.timestamps_s[i]), color=self.color, sensor=name)


def filmed(result: FitResult, **kinds: Any) -> Iterator[Shot]:
    return shots(result, Filmed(result, **kinds))  # type: ignore[arg-type]


def pictures_of(path: Path) -> list[tuple[float, np.ndarray]]:
    """Seconds and picture of each frame, read back."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as film:
        (stream,) = film.streams.video
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        return [(float(p.pts * p.time_base), p.to_ndarray(format="rgb24")) for p in film.decode(stream)]


def test_film_shows_every_frame_at_its_time(result: FitResult, tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "overlay.mp4"
    assert write_video(path, filmed(result), result.model.faces, rate=30.0) == 9
    pictures = pictures_of(path)
    assert [s for s, _ in pictures] == pytest.approx([t / 30 for t in range(9)], abs=1e-4)
    assert {p.shape for _, p in pictures} == {(90 + STRIP, 120, 3)}
    assert [p.name for p in tmp_path.iterdir()] == ["overlay.mp4"]


def test_other_players_open_the_film(result: FitResult, tmp_path: Path) -> None:
    pytest.importorskip("av")
    import cv2

    path = tmp_path / "overlay.mp4"
    write_video(path, filmed(result), result.model.faces, rate=30.0)
    film = cv2.VideoCapture(str(path))
    assert film.get(cv2.CAP_PROP_FPS) == pytest.approx(30)
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 9
    film.release()


def test_body_is_drawn_where_the_colour_camera_sees_it(result: FitResult) -> None:
    shot = next(filmed(result))
    drawn = Stage.of(shot).draw(shot, result.model.faces)[:90].astype(int)
    empty = Stage.of(shot).draw(replace(shot, vertices_world=None), result.model.faces)[:90].astype(int)
    np.testing.assert_array_equal(empty, np.broadcast_to(BLUE, (90, 120, 3)))
    changed = np.abs(drawn - empty).sum(2) > 60
    seen = frame_at(0, 0.0)
    T = np.linalg.inv(seen.T_world_depth)
    joints = result.joints_world(0) @ T[:3, :3].T + T[:3, 3] + [0.03, 0, 0]
    pixels = np.rint(COLOR.project(joints)).astype(int)
    inside = (pixels >= 0).all(1) & (pixels[:, 0] < 120) & (pixels[:, 1] < 90)
    assert inside.sum() > 15
    assert changed[pixels[inside, 1], pixels[inside, 0]].mean() > 0.9
    rows, cols = np.nonzero(changed)
    assert abs(cols.mean() - pixels[inside, 0].mean()) < 8 and abs(rows.mean() - pixels[inside, 1].mean()) < 12
    assert changed.mean() < 0.4


def test_without_colour_the_film_shows_depth(result: FitResult) -> None:
    shot = next(filmed(result, color=False))
    picture = Stage.of(shot).draw(shot, result.model.faces)
    assert picture.shape == (48 + STRIP, 64, 3)
    assert len(np.unique(picture[:48].reshape(-1, 3), axis=0)) > 20


def test_sensors_stand_side_by_side_within_bounds(result: FitResult) -> None:
    shot = next(filmed(result, sensors=("a", "b", "c")))
    stage = Stage.of(shot)
    picture = stage.draw(shot, result.model.faces)
    assert picture.shape == (90 + STRIP, 360, 3)
    np.testing.assert_array_equal(picture[:90, :120], picture[:90, 240:])
    only = next(shots(result, Filmed(result, sensors=("a", "b")), sensors=("b",)))  # type: ignore[arg-type]
    assert [i.sensor for i in only.images] == ["b"]
    large = replace(frame_at(0, 0.0), color=None, color_camera=None, T_color_depth=None)
    wide = Camera(4000, 3001, 2000.0, 2000.0, 1999.5, 1500.0)
    large = replace(large, depth_camera=wide, depth=np.full((3001, 4000), 4, np.float32))
    stage = Stage.of(replace(shot, images=[large, replace(large, sensor="b")]))
    assert stage.width <= LARGEST[0] + 4 and stage.height <= LARGEST[1]
    assert stage.width % 2 == 0 and stage.height % 2 == 0


def test_frames_in_which_nobody_was_found_are_shown_without_a_body(result: FitResult, tmp_path: Path) -> None:
    pytest.importorskip("av")
    seen = list(shots(without(result, 4, 5), Filmed(result)))  # type: ignore[arg-type]
    assert [s.index for s in seen] == list(result.frame_indices)
    assert [s.vertices_world is None for s in seen] == [False] * 4 + [True] * 2 + [False] * 3
    every_second = list(shots(without(result, 1, 3, 5, 7), Filmed(result)))  # type: ignore[arg-type]
    assert [s.index for s in every_second] == [5, 7, 9, 11, 13]
    # where the recording lacks them too, the film waits
    gap = without(result, 4, 5)
    write_video(tmp_path / "gap.mp4", filmed(gap), result.model.faces, rate=30.0)
    assert [s for s, _ in pictures_of(tmp_path / "gap.mp4")] == pytest.approx(
        [t / 30 for t in (0, 1, 2, 3, 6, 7, 8)], abs=1e-4
    )


def test_equal_films_are_equal_bytes(result: FitResult, tmp_path: Path) -> None:
    pytest.importorskip("av")
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, filmed(result), result.model.faces, rate=30.0)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_long_film_holds_one_shot_at_a_time(result: FitResult, tmp_path: Path) -> None:
    pytest.importorskip("av")
    alive: list[int] = []
    born: list[weakref.ref[Frame]] = []
    vertices = result.vertices_world(0)

    def many() -> Iterator[Shot]:
        for i in range(60):
            seen = frame_at(i, i / 30)
            born.append(weakref.ref(seen))
            yield Shot(i, i / 30, [seen], vertices)
            del seen
            gc.collect(0)
            alive.append(sum(r() is not None for r in born))

    assert write_video(tmp_path / "long.mp4", many(), result.model.faces, rate=30.0) == 60
    assert max(alive) <= 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_film_leaves_nothing(result: FitResult, tmp_path: Path, error: type[BaseException]) -> None:
    pytest.importorskip("av")

    def broken() -> Iterator[Shot]:
        shot = next(filmed(result))
        for n in range(200):
            yield replace(shot, timestamp_s=n / 30)
        assert len(list(tmp_path.iterdir())) == 1  # what is half written has another name
        assert not (tmp_path / "overlay.mp4").exists()
        raise error("stopped")

    with pytest.raises(error):
        write_video(tmp_path / "overlay.mp4", broken(), result.model.faces, rate=30.0)
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_film_ends_with_what_it_has(result: FitResult, tmp_path: Path) -> None:
    pytest.importorskip("av")
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    path = tmp_path / "overlay.mp4"
    assert write_video(path, filmed(result), result.model.faces, rate=30.0, cancelled=stop) == 3
    assert len(pictures_of(path)) == 3


def test_what_cannot_be_filmed_is_refused_by_name(result: FitResult, tmp_path: Path) -> None:
    pytest.importorskip("av")
    faces = result.model.faces
    with pytest.raises(InputError, match="shots"):
        write_video(tmp_path / "a.mp4", [], faces, rate=30.0)
    blind = [Shot(0, 0.0, [], result.vertices_world(0))]
    with pytest.raises(InputError, match="shots"):
        write_video(tmp_path / "a.mp4", blind, faces, rate=30.0)
    for rate in (0.0, float("nan"), 1e9):
        with pytest.raises(InputError, match="rate"):
            write_video(tmp_path / "a.mp4", filmed(result), faces, rate=rate)
    with pytest.raises(OutputError, match="missing"):
        write_video(tmp_path / "missing" / "a.mp4", filmed(result), faces, rate=30.0)
    assert list(tmp_path.iterdir()) == []


def test_without_pyav_the_extra_is_named_and_the_rest_written(
    result: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert not has_video()
    for ask in (check_video, lambda: write_video(tmp_path / "a.mp4", [], result.model.faces, rate=30.0)):
        with pytest.raises(MissingExtraError, match=r"bodyfit\[video\]"):
            ask()
    assert wants_film(result, True) and not wants_film(result, None) and not wants_film(result, False)
    assert list(tmp_path.iterdir()) == []


def test_stills_are_not_filmed(result: FitResult) -> None:
    assert not wants_film(tiny_result(result.model), True)
    assert not wants_film(without(result, *range(1, 9)), None)


def test_folder_of_a_motion_has_its_film(result: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    monkeypatch.setattr("bodyfit.recording.formats.open_recording", lambda path: Filmed(result))
    monkeypatch.setattr("bodyfit.batch.results.pictures", lambda result: iter(()))
    names = write_result(result, tmp_path / "out", force=False, recording=tmp_path, video=None, meshes=False)
    assert {"overlay.mp4", "motion.glb"} <= set(names)
    assert len(pictures_of(tmp_path / "out" / "overlay.mp4")) == 9
