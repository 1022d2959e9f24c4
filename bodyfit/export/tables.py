"""Measurements and the fit's quality as JSON and CSV: SI units in the files, each key naming its unit."""

from __future__ import annotations

import csv
import dataclasses
import enum
import io
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bodyfit.body.measure import Measurement
    from bodyfit.fit.result import FitResult

COLUMNS = ("name", "value_m", "sd_m", "value_m3", "sd_m3", "value_kg", "sd_kg", "seen", "definition")
"""Columns of measurements.csv; a measurement fills the pair of its own unit."""

FORMAT = "bodyfit.measurements/1"
SENSORS_FORMAT = "bodyfit.sensors/1"


def measurement_record(measurement: Measurement) -> dict[str, Any]:
    """One measurement as plain data: `value_m` and `sd_m` for a length, `…_m3` for a volume, `…_kg` for a mass."""
    return {
        f"value_{measurement.unit}": _rounded(measurement.value_m, 6),
        f"sd_{measurement.unit}": _rounded(measurement.sd_m, 6),
        "seen": bool(measurement.seen),
        "definition": measurement.definition,
    }


def measurement_records(measurements: Mapping[str, Measurement]) -> dict[str, dict[str, Any]]:
    """All measurements as plain data, by name, in the order in which they were measured."""
    return {name: measurement_record(m) for name, m in measurements.items()}


def quality_record(result: FitResult) -> dict[str, Any]:
    """How good the fit says it is: of the whole and of each instant."""
    frames = [
        {"timestamp_s": _rounded(seconds, 6), **plain(quality)}
        for seconds, quality in zip(result.timestamps_s, result.frames, strict=True)
    ]
    return {
        "converged": bool(result.converged),
        "stop_reason": plain(result.stop_reason),
        "stop_message": str(result.stop_reason.value),
        "flags": plain(result.flags),
        "hints": plain(result.hints),
        "coverage": plain(result.coverage),
        "frames": frames,
        "skipped": plain(result.skipped),
    }


def provenance_record(result: FitResult) -> dict[str, Any]:
    """Where the numbers come from; holds no time, host name or absolute path."""
    return {
        **plain(result.provenance),
        "model": result.model.name,
        "model_sha256": result.model.sha256,
        "sex": result.sex,
        "clothing": result.clothing,
        "clothing_asked": result.clothing_asked,
        "garments_m": {name: _rounded(m, 6) for name, m in result.garments_m.items()},
    }


def measurements_document(result: FitResult) -> dict[str, Any]:
    """What measurements.json holds."""
    return {
        "format": FORMAT,
        "measurements": measurement_records(result.measurements),
        "quality": quality_record(result),
        "provenance": provenance_record(result),
    }


def sensors_document(result: FitResult) -> dict[str, Any]:
    """What sensors.json holds: where the sensors were found to be; only of a fit that looked for them."""
    sensors = [
        {
            "name": place.name,
            "held": place.fixed,
            "T_world_depth": plain(place.T_world_depth),
            "T_world_depth_given": plain(place.given),
            "moved_m": _rounded(place.moved_m, 6),
            "moved_sd_m": _rounded(place.moved_sd_m, 6),
            "turned_deg": _rounded(place.turned_deg, 5),
            "turned_sd_deg": _rounded(place.turned_sd_deg, 5),
            "delay_s": None if place.delay_s is None else _rounded(place.delay_s, 6),
            "delay_sd_s": None if place.delay_sd_s is None else _rounded(place.delay_sd_s, 6),
            "flags": list(place.flags),
        }
        for place in result.sensors
    ]
    return {"format": SENSORS_FORMAT, "sensors": sensors}


def json_text(document: Mapping[str, Any]) -> str:
    """JSON with one key order, so that equal results are equal bytes; what is not finite becomes null."""
    return json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False, sort_keys=True) + "\n"


def csv_text(measurements: Mapping[str, Measurement]) -> str:
    """What measurements.csv holds: a header and one line per measurement, metres, cubic metres and kilograms."""
    text = io.StringIO()
    table: csv.DictWriter[str] = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    for name, record in measurement_records(measurements).items():
        row = {k: "" if v is None else v for k, v in record.items()}
        table.writerow({"name": name, **row, "seen": str(record["seen"]).lower()})
    return text.getvalue()


def plain(value: Any) -> Any:
    """Data that JSON knows: enums by their name, arrays as lists, sets sorted, NaN and infinity as null."""
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (np.bool_, np.integer)):
        return value.item()
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(v) for v in value)
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _rounded(value: float, digits: int) -> float | None:
    return round(float(value), digits) if math.isfinite(value) else None
