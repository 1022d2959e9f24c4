"""Recordings damaged at random, and with each value exchanged: an error of ours or a frame, in seconds."""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
import time
from pathlib import Path

import pytest
from small_recording import read_all, write_small

from bodyfit.errors import BodyfitError, InputError
from bodyfit.recording import open_recording


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("recording") / "small")


def test_random_damage_only_raises_our_errors(pristine: Path, tmp_path: Path) -> None:
    """Bits flipped, bytes cut and repeated anywhere: an error of ours or a frame, never another exception."""
    rng = random.Random(20240)
    files = sorted(str(file.relative_to(pristine)) for file in pristine.rglob("*") if file.is_file())
    text = [name for name in files if name.endswith((".json", ".csv"))]
    folder = Path(shutil.copytree(pristine, tmp_path / "damaged"))
    start, errors, slowest = time.perf_counter(), 0, 0.0
    for _ in range(300):
        name = rng.choice(text if rng.random() < 0.5 else files)
        data = bytearray((pristine / name).read_bytes())
        damage(rng, data)
        (folder / name).write_bytes(bytes(data))
        began = time.perf_counter()
        try:
            read_all(open_recording(folder))
        except BodyfitError as error:
            assert isinstance(error, InputError) and error.field and error.expected and error.found
            errors += 1
        slowest = max(slowest, time.perf_counter() - began)
        shutil.copyfile(pristine / name, folder / name)
    assert read_all(open_recording(folder)) == 4
    assert 150 < errors < 300 and slowest < 5 and time.perf_counter() - start < 60


def damage(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data)) if data else 0
        match rng.randrange(5):
            case 0 if data:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                data[at : at + rng.randrange(40)] = b""
            case 3:
                data[at:at] = rng.choice([b"9" * 400, b"-", b"e999", b"null", b"[", b"\0", b"\xff", b"NaN", b'"'])
            case 4:
                data[at:at] = data[: rng.randrange(200)]


def test_every_number_of_the_description_exchanged(pristine: Path, tmp_path: Path) -> None:
    """Each value of recording.json in turn becomes three of eleven kinds of nonsense."""
    folder = Path(shutil.copytree(pristine, tmp_path / "r"))
    original = json.loads((pristine / "recording.json").read_text())

    def places(value: object, path: tuple) -> list[tuple]:
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *(place for key, entry in entries for place in places(entry, (*path, key)))]

    kinds = itertools.cycle([None, True, "x", -1, 1e308, math.nan, 10**400, [], {}, [[]], [{"name": None}]])
    tried = refusals = 0
    for path in places(original, ())[1:]:
        for nonsense in itertools.islice(kinds, 3):
            tried += 1
            document = json.loads(json.dumps(original))
            place = document
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = nonsense
            (folder / "recording.json").write_text(json.dumps(document))
            try:
                open_recording(folder)
            except InputError as error:
                assert error.field
                refusals += 1
    assert tried > 250 and refusals > 0.8 * tried
