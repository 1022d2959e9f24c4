"""What the studies share: seeded cases worked on by single-threaded processes, a resumable file of lines, shares."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bodyfit.errors import InputError
from bodyfit.fit.config import FitConfig

Record = dict[str, Any]
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
CONFIG = FitConfig(threads=1)
"""The settings under study: the library's own, one thread a fit, since the processes share the cores."""
Z90 = 1.6448536269514722
"""Half the width of a 90 % interval in standard deviations."""
Z95 = 1.959963984540054


def settings() -> Record:
    """What results depend on besides the seed: a file of lines made with other settings is not gone on with."""
    from bodyfit import __version__
    from bodyfit.body.model import load_body_model

    return {"bodyfit": __version__, "model_sha256": load_body_model(None).sha256, "config": asdict(CONFIG)}


def run_cases(
    work: Callable[[int], Record],
    seeds: Sequence[int],
    lines: Path,
    jobs: int,
    told: Callable[[Record, int], None] | None = None,
    options: Record | None = None,
) -> list[Record]:
    """Each seed's record, in the order of the seeds; records that the file holds already are not made again.

    Args:
        work: a function of a module, from a seed to a record; runs in a process of its own.
        seeds: which cases.
        lines: the file: a line of settings, then one record a line, written as they come.
        jobs: how many processes.
        told: called with every new record and how many there are.
        options: what the work was told besides the seed; kept with the settings.

    Raises:
        InputError: the file was made with other settings, or jobs is not positive.
    """
    if jobs < 1:
        raise InputError("jobs", "1 or more", str(jobs))
    made = _read(lines, {**settings(), **(options or {})})
    todo = [s for s in seeds if s not in made]
    for name in ONE_THREAD:  # read when a child loads its libraries
        os.environ[name] = "1"
    if todo:
        lines.parent.mkdir(parents=True, exist_ok=True)
        # spawned, not forked: a fork would keep this process's thread pools
        with ProcessPoolExecutor(jobs, get_context("spawn")) as pool, lines.open("a", encoding="utf-8") as out:
            for record in pool.map(work, todo):
                out.write(json.dumps(record) + "\n")
                out.flush()
                made[record["seed"]] = record
                if told is not None:
                    told(record, len(made))
    return [made[s] for s in seeds]


def _read(lines: Path, now: Record) -> dict[int, Record]:
    """The records of a file by seed, {} where there is none; a last line that was cut short is dropped from it."""
    if not lines.exists():
        lines.parent.mkdir(parents=True, exist_ok=True)
        lines.write_text(json.dumps({"settings": now}) + "\n", encoding="utf-8")
        return {}
    whole = [line for line in lines.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    head = json.loads(whole[0]) if whole else {}
    if head.get("settings") != json.loads(json.dumps(now)):
        raise InputError(
            "lines", "a file made with this version, model, configuration and options", str(lines), "remove it"
        )
    part = lines.with_name(f".{lines.name}.part")
    part.write_text("".join(whole), encoding="utf-8")
    part.replace(lines)
    return {record["seed"]: record for record in map(json.loads, whole[1:])}


def wilson(good: int, of: int, z: float = Z95) -> tuple[float, float]:
    """95 % confidence interval of a share (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    if of == 0:
        return 0.0, 1.0
    p, n = good / of, float(of)
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def share(good: int, of: int) -> str:
    """A share as text: `97.3 % (95.1 to 98.6), 292 of 300`."""
    low, high = wilson(good, of)
    return f"{100 * good / max(of, 1):.1f} % ({100 * low:.1f} to {100 * high:.1f}), {good} of {of}"


def grouped(records: Sequence[Record], key: Callable[[Record], Any]) -> Iterator[tuple[Any, list[Record]]]:
    """The records by a key, keys in order."""
    for value in sorted({key(r) for r in records}):
        yield value, [r for r in records if key(r) == value]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are figures."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def write_text(path: Path, text: str) -> None:
    """Writes to a temporary name, then renames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def write_section(heading: str, text: str) -> None:
    """Puts a section of that heading ("## ...") into RESULTS.md, in place of the one that is there or at its end."""
    path = Path(__file__).parent / "RESULTS.md"
    write_text(path, with_section(path.read_text(encoding="utf-8"), heading, text))


def with_section(document: str, heading: str, text: str) -> str:
    """The document with its section of that heading replaced, or with the section at its end."""
    new = f"{heading}\n\n{text.strip()}\n"
    before, found, rest = document.partition(f"{heading}\n")
    if not found:
        return f"{document.rstrip()}\n\n{new}"
    _, following, after = rest.partition("\n## ")
    return before + new + (f"{following}{after}" if following else "")
