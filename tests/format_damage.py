"""Recordings damaged at random, read in a process of their own: each is read, or refused by an error of ours.

`survey` is what tests call. As a script it does the reading: a reader that crashes, hangs or eats the memory takes
that process with it, and the test says at which case.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

CUTS, MUTATIONS = 20, 200
MOST_SECONDS_A_CASE = 20.0
MOST_MEMORY_MB = 1500
TEXT = {".json", ".csv", ".txt", ".yaml", ".log", ""}


@dataclass
class Survey:
    """What came of damaged recordings: how many were read whole, in part, refused; and what must not be."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    memory_mb: float = 0.0

    @property
    def cases(self) -> int:
        """How many were tried."""
        return sum(self.counts.values())


def survey(pristine: Path, scratch: Path, *, cuts: int = CUTS, mutations: int = MUTATIONS, seed: int = 0) -> Survey:
    """Reads a recording cut at `cuts` places and with `mutations` random changes.

    Args:
        pristine: a recording that can be read: a file or a folder.
        scratch: a folder that may be filled.
        seed: of the damage.
    """
    asked = [str(pristine), str(scratch), str(cuts), str(mutations), str(seed)]
    found = Survey()
    try:
        limit = 60 + (cuts + mutations) * 2
        done = subprocess.run([sys.executable, __file__, *asked], capture_output=True, text=True, timeout=limit)
        out, code, errors = done.stdout, done.returncode, done.stderr
    except subprocess.TimeoutExpired as late:
        out = (late.stdout or b"").decode() if isinstance(late.stdout, bytes) else (late.stdout or "")
        code, errors = -1, "it hung"
    for line in out.splitlines():
        case = json.loads(line)
        if "memory_mb" in case:
            found.memory_mb = case["memory_mb"]
            continue
        found.counts[case["outcome"]] += 1
        found.slowest_s = max(found.slowest_s, case["seconds"])
        if case["outcome"] == "wrong" or case["seconds"] > MOST_SECONDS_A_CASE:
            found.wrong.append(f"{case['what']}: {case['why']} ({case['seconds']:.1f} s)")
    if code != 0:
        found.wrong.append(f"the reader ended with {code} after {found.cases} cases: {errors[-2000:]}")
    if found.memory_mb > MOST_MEMORY_MB:
        found.wrong.append(f"it took {found.memory_mb:.0f} MB")
    return found


def _main(pristine: Path, scratch: Path, cuts: int, mutations: int, seed: int) -> None:
    rng = random.Random(seed)
    scratch.mkdir(parents=True, exist_ok=True)
    copy = scratch / pristine.name
    if pristine.is_dir():
        shutil.copytree(pristine, copy, dirs_exist_ok=True)
        files = sorted(str(f.relative_to(pristine)) for f in pristine.rglob("*") if f.is_file())
    else:
        shutil.copyfile(pristine, copy)
        files = [""]
    whole = _read(copy)
    print(json.dumps({"what": "undamaged", "outcome": whole[0], "why": whole[1], "seconds": 0.0}), flush=True)
    plain = [name for name in files if Path(name).suffix.lower() in TEXT]
    for case in range(cuts + mutations):
        name = rng.choice(plain if plain and rng.random() < 0.4 else files)
        source, target = (pristine / name, copy / name) if name else (pristine, copy)
        data = bytearray(source.read_bytes())
        if case < cuts:
            # the first at the very beginning, the others anywhere, more of them near the ends
            at = 0 if case == 0 else int(len(data) * (case / cuts if case % 2 else rng.random()))
            del data[at:]
            what = f"cut {name} at {at}"
        else:
            what = f"changed {name}: {_change(rng, data)}"
        target.write_bytes(bytes(data))
        began = time.perf_counter()
        outcome, why = _read(copy)
        seconds = time.perf_counter() - began
        print(json.dumps({"what": what, "outcome": outcome, "why": why, "seconds": seconds}), flush=True)
        shutil.copyfile(source, target)
    print(json.dumps({"memory_mb": _most_memory_mb()}), flush=True)


def _most_memory_mb() -> float:
    """The most that this process had. Linux's VmHWM begins anew with each program; ru_maxrss is handed down by the one
    that started it, and pytest may have been larger than any reader."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _read(path: Path) -> tuple[str, str]:
    from bodyfit.errors import BodyfitError, InputError
    from bodyfit.recording import open_recording

    try:
        with open_recording(path) as recording:
            refused = ""
            for i in range(recording.num_frames):
                for sensor in recording.sensors:
                    try:
                        recording.frame(i, sensor.name)
                    except InputError as error:
                        refused = str(error)
            return ("in part", refused) if refused else ("whole", f"{recording.num_frames} instants")
    except BodyfitError as error:
        return "refused", str(error)
    except BaseException as error:
        return "wrong", f"{type(error).__name__}: {error}"


def _change(rng: random.Random, data: bytearray) -> str:
    said = []
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data)) if data else 0
        if rng.random() < 0.5:
            # headers are what decides; most of a recording is pixels
            at = min(at, rng.randrange(512))
        kind = rng.randrange(6)
        said.append(f"{kind} at {at}")
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + rng.randrange(40)] = b""
        elif kind == 2:
            data[at:at] = rng.choice([b"9" * 40, b"-", b"e999", b"null", b"[", b"\0" * 8, b"\xff" * 8, b"NaN", b'"'])
        elif kind == 3:
            data[at:at] = data[: rng.randrange(200)]
        elif kind == 4:
            data[at : at + 4] = rng.randbytes(4)
        else:
            data[at : at + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x01\0\0\0"])
    return ", ".join(said)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
