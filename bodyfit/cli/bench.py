"""`bodyfit bench`: how fast this machine is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bodyfit.cli.fit import JsonOption
from bodyfit.errors import OutputError


def bench_command(
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Also store the figures, as JSON.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions: rough figures in a minute.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure import, model, renderer and fits on this machine: medians, and peak memory."""
    from bodyfit.bench.bench import run
    from bodyfit.cli.screen import print_json, print_lines, print_table, progress_bar
    from bodyfit.export.tables import json_text

    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        found = "a folder" if out.is_dir() else f"no folder {out.parent}"
        raise OutputError(str(out), "a file name in a folder that exists", found)
    with progress_bar(quiet=as_json) as progress:
        report = run(quick=quick, progress=progress)
    if out is not None:
        temporary = out.with_name(f".{out.name}.part")
        try:
            temporary.write_text(json_text(report), encoding="utf-8")
            temporary.replace(out)
        except OSError as e:
            temporary.unlink(missing_ok=True)
            raise OutputError(str(out), "a file that can be written", e.strerror or str(e)) from e
    if as_json:
        print_json(report)
        return
    rows = [
        (
            name,
            *(_number(figure.get(key)) for key in ("median", "cpu_median")),
            figure["unit"],
            str(figure.get("n", "")),
        )
        for name, figure in report["figures"].items()
    ]
    columns = [("", "left"), ("median", "right"), ("CPU time", "right"), ("unit", "left"), ("of", "right")]
    print_table(columns, rows)
    print_lines(*(f"{key}: {value}" for key, value in report["machine"].items()))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
