"""Measures this machine's speed (`bodyfit bench`) and writes the section "Speed" of RESULTS.md.

    python benchmarks/speed.py [--from FIGURES.json] [--quick]

Also writes speed.json beside RESULTS.md. Takes about five minutes; figures of a busy machine say so by their load.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study import write_text

HERE = Path(__file__).parent
HEADING = "## Speed"


def number(value: float) -> str:
    """Three figures, and never an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def row(name: str, figure: Mapping[str, Any]) -> str:
    """One line of the table; a part of the figure above it is indented."""
    part = name.startswith(" ")
    cells = [("↳ " if part else "") + name.strip()]
    for key in ("median", "cpu_median", "limit", "goal"):
        cells.append(f"{number(figure[key])} {figure['unit']}" if key in figure else "")
    met = figure["median"] <= figure["limit"] if "limit" in figure else None
    cells.append({None: "", True: "met", False: "**missed**"}[met])
    return f"| {' | '.join(cells)} | {figure['n']} |"


def section(report: Mapping[str, Any]) -> str:
    """The section as Markdown."""
    lines = [
        HEADING,
        "",
        "`python benchmarks/speed.py` (the figures of `bodyfit bench`). Medians of n repetitions; CPU time is that of",
        "all threads together and hardly changes on a busy machine, on which wall time does. The data are the demo",
        "recording's; what each line measures is in [README.md](README.md).",
        "",
        *(f"- {key}: {value}" for key, value in report["machine"].items()),
        "",
        "| | wall | CPU | limit | goal | | n |",
        "|---|---:|---:|---:|---:|---|---:|",
        *(row(name, figure) for name, figure in report["figures"].items()),
        "",
    ]
    return "\n".join(lines)


def replaced(text: str, new: str) -> str:
    """The document with its section of that heading replaced, or with the section at its end."""
    before, heading, rest = text.partition(f"{HEADING}\n")
    if not heading:
        return f"{text.rstrip()}\n\n{new}"
    _, following, after = rest.partition("\n## ")
    return before + new + (f"{following}{after}" if following else "")


def say(stage: str, fraction: float) -> None:
    """Shows how far the measuring is."""
    print(f"{100 * fraction:3.0f} % {stage}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Measures, or reads what was measured, and writes speed.json and RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="figures", type=Path, help="what `bodyfit bench -o` wrote, instead of measuring")
    parser.add_argument("--quick", action="store_true", help="one repetition of most")
    asked = parser.parse_args(arguments)
    if asked.figures is not None:
        report = json.loads(asked.figures.read_text(encoding="utf-8"))
    else:
        from bodyfit.bench.bench import run

        report = run(quick=asked.quick, progress=say)
    # what bodyfit bench stores is sorted by name; the table keeps the order of measuring
    report = {**report, "figures": {name: report["figures"][name] for name in report["order"]}}
    results = HERE / "RESULTS.md"
    text = results.read_text(encoding="utf-8") if results.is_file() else "# Results\n"
    write_text(HERE / "speed.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(results, replaced(text, section(report)))
    print(f"{results}: section {HEADING.removeprefix('## ')!r} written")


if __name__ == "__main__":
    main()
