"""What a batch found, in one table and on one page: of result folders alone, so that the same results give the same
bytes whatever made them."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bodyfit.batch.manifest import FILE, Row, State
from bodyfit.errors import OutputError

CSV, PARQUET, PAGE = "measurements.csv", "measurements.parquet", "summary.html"
SHOWN = ("stature", "chest_girth", "waist_girth", "hip_girth")
"""measurements that the page shows; the tables have all"""
MOST_SHOWN = 5000
"""rows of each table of the page: a browser takes no more; measurements.csv and the manifest have all"""


def write_tables(out: Path, rows: Sequence[Row]) -> list[str]:
    """Writes measurements.csv, summary.html and, where pyarrow is installed (extra `batch`), measurements.parquet.

    Returns:
        Their names.

    Raises:
        OutputError: the disk does not take them.
    """
    records = [record for row in rows if row.state is State.done if (record := _record(out, row)) is not None]
    files = {CSV: _csv(records).encode(), PAGE: _page(out, rows, records).encode()}
    parquet = _parquet(records)
    if parquet is not None:
        files[PARQUET] = parquet
    for name, data in files.items():
        part = out / f".{name}.{secrets.token_hex(4)}.part"
        try:
            part.write_bytes(data)
            os.replace(part, out / name)
        except OSError as problem:
            raise OutputError(str(out / name), "a place to write to", problem.strerror or str(problem)) from None
        finally:
            part.unlink(missing_ok=True)
    return sorted(files)


def _record(out: Path, row: Row) -> dict[str, Any] | None:
    """A line of the table; None where the folder is not there any more."""
    try:
        document = json.loads((out / row.name / "measurements.json").read_text("utf-8"))
        return _line(row, document)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _line(row: Row, document: dict[str, Any]) -> dict[str, Any]:
    quality, provenance = document["quality"], document["provenance"]
    frames = quality["frames"]
    line: dict[str, Any] = {
        "recording": row.name,
        "format": row.format,
        "converged": quality["converged"],
        "stop_reason": quality["stop_message"],
        "frames": len(frames),
        "skipped": len(quality["skipped"]),
        "flags": "; ".join(quality["flags"]),
        "depth_residual_m": _mean([frame.get("depth_residual_m") for frame in frames]),
        "silhouette_iou": _mean([frame.get("silhouette_iou") for frame in frames]),
        "body_model": provenance["model"],
        "sex": provenance["sex"],
        "clothing": provenance["clothing"],
    }
    for name, measured in document["measurements"].items():
        for key, value in measured.items():
            if key.startswith(("value_", "sd_")):
                line[f"{name}_{key.removeprefix('value_')}"] = value
    return line


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None


def _columns(records: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for record in records for key in record))


def _csv(records: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    table: csv.DictWriter[str] = csv.DictWriter(text, _columns(records), restval="", lineterminator="\n")
    if records:
        table.writeheader()
    for record in records:
        table.writerow({key: "" if value is None else value for key, value in record.items()})
    return text.getvalue()


def _parquet(records: Sequence[dict[str, Any]]) -> bytes | None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return None
    columns = {}
    for name in _columns(records):
        values = [record.get(name) for record in records]
        known = next((value for value in values if value is not None), None)
        # a column of whole numbers and fractions alike is one of fractions, whatever the first value was
        kind = {bool: pyarrow.bool_(), int: pyarrow.int64(), str: pyarrow.string()}.get(type(known), pyarrow.float64())
        if name not in ("frames", "skipped") and kind == pyarrow.int64():
            kind = pyarrow.float64()
        columns[name] = pyarrow.array(values, kind)
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue()


_STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:76em;color:#22262c;background:#f8f8f6}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35em .7em;border-bottom:1px solid #dedfe2;
vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}img{height:120px;border-radius:4px}
.bad{color:#ba302c}.doubt{color:#9a640a}.soft{color:#747c84}code{font-size:.9em}"""


def _page(out: Path, rows: Sequence[Row], records: Sequence[dict[str, Any]]) -> str:
    by_name = {record["recording"]: record for record in records}
    counts = ", ".join(f"{n} {state}" for state in State if (n := sum(row.state is state for row in rows)))
    believed = sum(bool(record["converged"]) for record in records)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>bodyfit batch</title>",
        f"<style>{_STYLE}</style><h1>bodyfit batch</h1>",
        f"<p>{len(rows)} recordings: {counts}; {believed} fits to be believed.</p>",
    ]
    if records:
        heads = "".join(f"<th>{name.replace('_', ' ')}, cm</th>" for name in SHOWN)
        parts.append(f"<h2>Fitted</h2><table><tr><th>recording</th><th></th>{heads}<th>quality</th></tr>")
        shown = [row for row in rows if row.name in by_name]
        parts += [_fitted(out, row, by_name[row.name]) for row in shown[:MOST_SHOWN]]
        parts.append("</table>")
        parts += _and_more(len(shown), CSV)
    troubled = [row for row in rows if row.name not in by_name]
    if troubled:
        parts.append("<h2>Not fitted</h2><table><tr><th>recording</th><th>state</th><th>why</th></tr>")
        for row in troubled[:MOST_SHOWN]:
            why = html.escape(row.message or "")
            attempts = f"{row.attempts} attempt{'s' if row.attempts != 1 else ''}"
            kind = f"<span class=soft>{html.escape(row.error or '')}</span> " if row.error else ""
            state = f"<span class=bad>{row.state}</span><br><span class=soft>{attempts}</span>"
            parts.append(f"<tr><td>{html.escape(row.name)}</td><td>{state}</td><td>{kind}{why}</td></tr>")
        parts.append("</table>")
        parts += _and_more(len(troubled), FILE)
    return "\n".join(parts) + "\n"


def _and_more(count: int, where: str) -> list[str]:
    return [f"<p class=soft>… and {count - MOST_SHOWN} more: see {where}</p>"] if count > MOST_SHOWN else []


def _fitted(out: Path, row: Row, record: dict[str, Any]) -> str:
    folder = quote(row.name)
    overlays = sorted((out / row.name / "overlay").glob("*.png"))
    picture = f"{folder}/overlay/{quote(overlays[0].name)}" if overlays else f"{folder}/summary.png"
    cells = []
    for name in SHOWN:
        value, sd = record.get(f"{name}_m"), record.get(f"{name}_sd_m")
        spread = f" <span class=soft>± {sd * 100:.1f}</span>" if sd is not None else ""
        cells.append(f"<td class=n>{'–' if value is None else f'{value * 100:.1f}'}{spread}</td>")
    says = [] if record["converged"] else ["<span class=bad>not to be believed</span>"]
    if record["flags"]:
        says.append(f"<span class=doubt>{html.escape(record['flags'])}</span>")
    frames = f"<span class=soft>{record['frames']} frames</span>"
    link = f"<a href='{folder}/summary.png'><img loading=lazy alt='' src='{picture}'></a>"
    first = f"<td>{html.escape(row.name)}<br>{frames}</td><td>{link}</td>"
    return f"<tr>{first}{''.join(cells)}<td>{'<br>'.join(says)}</td></tr>"
