"""What became of every frame of a capture, and capture.json, which keeps it beside the recording."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

FORMAT = "bodyfit.capture/1"
MOST_RUNS = 500


class Cause(Enum):
    """Why a frame that was read is not in the recording; the value says it in words."""

    QUEUE_FULL = "the writer was too slow and the queue full"
    ENCODER = "an image could not be encoded"
    DISK = "the disk did not take it"
    REPEATED = "the device gave the same instant once more"
    BROKEN = "images of another size or kind than the sensor's"
    NOT_ASKED = "outside of the views that were asked for"
    TOO_LONG = "the recording is as long as its format allows"


@dataclass
class Run:
    """Frames next to one another that were dropped for one reason."""

    cause: Cause
    first: int
    last: int
    from_s: float
    to_s: float

    def document(self) -> dict[str, Any]:
        """As capture.json has it."""
        return {
            "cause": self.cause.name.lower(), "first": self.first, "last": self.last,
            "from_s": round(self.from_s, 4), "to_s": round(self.to_s, 4),
        }  # fmt: skip


@dataclass
class Counts:
    """Frames by what became of them: `read == written + sum(dropped.values()) + waiting`.

    Attributes:
        read: frames that came from the source.
        written: frames that are in the recording.
        dropped: by cause.
        unpacked: frames whose depth was stored without being packed, since the queue filled.
        lost_by_device: frames that never came, by the jumps of the device's own count.
        runs: which were dropped and when, without those that nobody asked for.
        runs_left_out: how many more runs there were.
    """

    read: int = 0
    written: int = 0
    dropped: dict[Cause, int] = field(default_factory=dict)
    lost_by_device: int = 0
    unpacked: int = 0
    device_gaps: list[dict[str, Any]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    runs_left_out: int = 0

    @property
    def failed(self) -> int:
        """Frames that were asked for, came, and are not in the recording."""
        return sum(n for cause, n in self.dropped.items() if cause not in (Cause.NOT_ASKED, Cause.REPEATED))

    def drop(self, cause: Cause, index: int, time_s: float) -> None:
        """One frame is dropped.

        Args:
            index: its number. time_s: its time in the recording.
        """
        self.dropped[cause] = self.dropped.get(cause, 0) + 1
        if cause is Cause.NOT_ASKED:
            return
        for run in self.runs[-4:]:
            if run.cause is cause and index == run.last + 1:
                run.last, run.to_s = index, time_s
                return
        if len(self.runs) < MOST_RUNS:
            self.runs.append(Run(cause, index, index, time_s, time_s))
        else:
            self.runs_left_out += 1

    def lose(self, count: int, index: int, time_s: float) -> None:
        """The device did not deliver `count` frames before frame `index`."""
        self.lost_by_device += count
        if len(self.device_gaps) < MOST_RUNS:
            self.device_gaps.append({"before": index, "count": count, "at_s": round(time_s, 4)})

    def document(self) -> dict[str, Any]:
        """As capture.json has it."""
        return {
            "read": self.read,
            "written": self.written,
            "dropped": {cause.name.lower(): n for cause, n in self.dropped.items()},
            "lost_by_device": self.lost_by_device,
            "unpacked": self.unpacked,
        }

    def sentences(self) -> list[str]:
        """The same for people."""
        out = [f"{self.read} frames read, {self.written} written, {self.failed} dropped"]
        out += [f"  {n} dropped: {cause.value}" for cause, n in self.dropped.items() if cause is not Cause.NOT_ASKED]
        if self.dropped.get(Cause.NOT_ASKED):
            out.append(f"  {self.dropped[Cause.NOT_ASKED]} not recorded: {Cause.NOT_ASKED.value}")
        if self.lost_by_device:
            out.append(f"  {self.lost_by_device} more never came from the device, by its own count of frames")
        if self.unpacked:
            out.append(f"  {self.unpacked} stored without being packed, to keep up: larger files, nothing else")
        return out


def capture_text(
    counts: Counts,
    *,
    finished: bool,
    ended: str,
    device: Mapping[str, Any],
    settings: Mapping[str, Any],
    notes: Sequence[str],
    clock: Mapping[str, Any],
    views: Sequence[Mapping[str, Any]],
) -> str:
    """What capture.json says.

    Args:
        finished: the recording was closed; while it is not, only whole lines of frames.csv count.
        ended: why it ended, in words; empty while it goes on.
        views: the views of a guided capture: number, heading, first and last index.
    """
    document = {
        "format": FORMAT,
        "finished": finished,
        "ended": ended,
        "device": dict(device),
        "settings": dict(settings),
        "frames": counts.document(),
        "drops": [run.document() for run in counts.runs],
        "drops_left_out": counts.runs_left_out,
        "device_gaps": counts.device_gaps,
        "clock": dict(clock),
        "views": [dict(view) for view in views],
        "notes": list(notes),
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"
