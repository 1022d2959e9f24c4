"""`bodyfit batch`: every recording under a folder fitted, unattended."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bodyfit.cli.fit import (
    Clothing,
    ClothingOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    Sex,
    SexOption,
    parse_device,
)
from bodyfit.errors import InputError

if TYPE_CHECKING:
    from bodyfit.batch.run import BatchReport
    from bodyfit.batch.work import Outcome

SOME_BAD = 4
INTERRUPTED = 130
MOST_TOLD = 20


class EngineName(StrEnum):
    """What the fits run on."""

    local = "local"
    ray = "ray"


def batch_command(
    root: Annotated[str, typer.Argument(metavar="ROOT", help="Folder with recordings of any kind, or an fsspec URL.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for the results; made if need be.")],
    engine: Annotated[EngineName, typer.Option(help="Processes on this machine, or a Ray cluster.")] = EngineName.local,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Recordings at a time; as many as cores where not given."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the batch that OUT holds.")] = False,
    model: ModelOption = None,
    sex: SexOption = Sex.neutral,
    clothing: ClothingOption = Clothing.auto,
    max_frames: Annotated[
        int, typer.Option(min=0, max=100_000, help="Of a longer recording so many frames are chosen; 0 takes all.")
    ] = 8,
    motion: Annotated[
        bool, typer.Option("--motion", help="Follow the person through all frames, as bodyfit track does.")
    ] = False,
    device: DeviceOption = "cpu",
    attempts: Annotated[int, typer.Option(min=1, max=100, help="For a recording whose worker dies.")] = 3,
    limit_minutes: Annotated[float, typer.Option(help="Minutes that one recording may take.")] = 60.0,
    ray_address: Annotated[str, typer.Option(help="Of a running Ray cluster; a local one is started without.")] = "",
    num_gpus: Annotated[float, typer.Option(help="GPUs of a task, as Ray counts them.")] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Fit every recording under ROOT, each into OUT/<its path>, and go on after anything.

    OUT gets manifest.sqlite (a row for each recording: state, attempts, time, error, hash of the result),
    measurements.csv and .parquet (all measurements and qualities) and summary.html. A batch that was killed goes on
    with --resume where it was. Ends with 4 where recordings were bad or failed.
    """
    from bodyfit.batch.run import BatchRequest, run_batch
    from bodyfit.batch.work import Options

    if not (0 < limit_minutes < 1e6):
        raise InputError("--limit-minutes", "minutes above 0", f"{limit_minutes:g}")
    if not 0 <= num_gpus <= 64:
        raise InputError("--num-gpus", "0 to 64", f"{num_gpus:g}")
    if engine is EngineName.local and (ray_address or num_gpus):
        raise InputError("--engine", "ray, where --ray-address or --num-gpus is given", "local")
    if model is not None and Path(model).exists():
        model = str(Path(model).resolve())
    options = Options(model or "", sex.value, clothing.value, max_frames, motion, _device(device, engine))
    request = BatchRequest(_absolute(root), out.resolve(), options, attempts, resume)
    count = workers or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0, 1])
    with ExitStack() as stack, _stop_on_interrupt() as stopping:

        def make() -> Any:
            if engine is EngineName.ray:
                from bodyfit.batch.ray_engine import RayEngine

                return stack.enter_context(RayEngine(count, limit_minutes * 60, address=ray_address, num_gpus=num_gpus))
            from bodyfit.batch.local import LocalEngine

            return stack.enter_context(LocalEngine(count, limit_minutes * 60, device=options.device))

        report = run_batch(request, make, on_outcome=_teller(quiet=as_json), stopping=stopping)
    _show(report, request.out, as_json=as_json)
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    from bodyfit.batch.manifest import State

    if report.count(State.bad) or report.count(State.failed):
        raise typer.Exit(SOME_BAD)


def _device(name: str, engine: EngineName) -> str:
    """The device, `auto` decided; Ray's workers look for it where they are."""
    if engine is EngineName.local:
        return parse_device(name)
    from bodyfit.fit.open_device import check_device

    check_device(name, "--device")
    return name


def _absolute(root: str) -> str:
    from bodyfit.batch.remote import is_url

    return root if is_url(root) else str(Path(root).resolve())


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Asks the batch to stop at Ctrl-C or SIGTERM: what is done stays, what runs is taken up again by --resume."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _teller(*, quiet: bool) -> Callable[[Outcome, int, int], None] | None:
    """A line on stderr for each recording that ends."""
    if quiet:
        return None

    def tell(outcome: Outcome, ended: int, total: int) -> None:
        why = f": {outcome.message}" if outcome.message else ""
        sys.stderr.write(f"[{ended}/{total}] {outcome.name}: {outcome.state} ({outcome.seconds:.1f} s){why}\n")

    return tell


def _show(report: BatchReport, out: Path, *, as_json: bool) -> None:
    from bodyfit.batch.manifest import State
    from bodyfit.cli.screen import print_json, print_lines

    counts = {str(state): report.count(state) for state in State}
    if as_json:
        rows = [
            {
                "name": row.name, "state": str(row.state), "attempts": row.attempts, "seconds": row.seconds,
                "error": row.error, "message": row.message, "result_sha256": row.result_sha256,
            }
            for row in report.rows
        ]  # fmt: skip
        print_json({"out": str(out), "interrupted": report.interrupted, "counts": counts, "recordings": rows})
        return
    said = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    print_lines(f"{len(report.rows)} recordings: {said or 'none found'}")
    troubled = [row for row in report.rows if row.state in (State.bad, State.failed)]
    for row in troubled[:MOST_TOLD]:
        print_lines(f"  {row.name}: {row.state}: {row.message}")
    if len(troubled) > MOST_TOLD:
        print_lines(f"  … and {len(troubled) - MOST_TOLD} more: see {out / 'summary.html'}")
    if report.interrupted:
        print_lines("interrupted: --resume goes on where it was")
    print_lines(f"results in {out}: look at {out / 'summary.html'}")
