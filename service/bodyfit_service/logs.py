"""The log: one line for each event on stderr, JSON or text, and never a secret in it."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from typing import Any, TextIO

LOGGER = "bodyfit.service"
"""the service's own lines; what else logs is heard from `warning` on"""
SECRETS = re.compile(
    r"(?i)(bearer\s+)[^\s\"',;]+|bodyfit_[A-Za-z0-9_-]{43}|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(-----END)?"
)
"""what may never be in a line, wherever it came from: tokens as they are sent, tokens as they are made, private keys"""


OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""attributes of a log record that were not given as `extra`"""


def set_up_logs(level: str = "info", format: str = "json", stream: TextIO | None = None) -> None:
    """Sends this process's log to `stream` (stderr where None): its own lines from `level` on, others' warnings.

    Args:
        level: debug, info, warning or error.
        format: "json", one object a line, or "text".
        stream: where to.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, JsonLines | TextLines):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(LOGGER).setLevel(level.upper())
    # what asyncio says of slow callbacks and gRPC of its own handlers' errors is told by the interceptor, with an id
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def without_secrets(text: str) -> str:
    """The text with tokens and keys blotted out."""
    return SECRETS.sub(lambda found: (found[1] or "") + "***", text)


def _parts(record: logging.LogRecord) -> dict[str, Any]:
    seconds, millis = int(record.created), int(record.msecs)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    parts: dict[str, Any] = {
        "time": f"{stamp}.{millis:03d}Z",
        "level": record.levelname.lower(),
        "message": record.getMessage(),
        "logger": record.name,
    }
    parts |= {name: value for name, value in vars(record).items() if name not in OF_EVERY_RECORD}
    if record.exc_info and record.exc_info[1] is not None:
        parts["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
    return parts


class JsonLines(logging.Formatter):
    """A record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; newlines and control characters of values are escaped by JSON."""
        return without_secrets(json.dumps(_parts(record), default=str))


class TextLines(logging.Formatter):
    """A record as a line for people; a traceback follows indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a value cannot begin a line of its own."""
        parts = _parts(record)
        trace = parts.pop("traceback", "")
        head = f"{parts.pop('time')} {parts.pop('level'):7} {_one_line(parts.pop('message'))}"
        del parts["logger"]
        rest = "".join(f" {name}={_one_line(value)}" for name, value in parts.items())
        return without_secrets(head + rest + "".join(f"\n    {_one_line(line)}" for line in trace.splitlines()))


def _one_line(value: Any) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))
