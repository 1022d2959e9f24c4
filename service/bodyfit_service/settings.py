"""The server's settings: one frozen table, read from flags, the environment and a TOML file, and refused by name.

What stands further to the left wins: flag, environment (`BODYFIT_` and the name in capitals), file, default.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from bodyfit.errors import DeviceError, InputError

PREFIX = "BODYFIT_"
OTHER_VARIABLES = frozenset({"BODYFIT_CONFIG", "BODYFIT_MODELS", "BODYFIT_TRACEBACK"})
"""variables of bodyfit's that are no settings"""
DEVICE = re.compile(r"cpu|auto|cuda(:\d{1,3})?|cpu-gathered(:[1-9]\d{0,3})?")
"""cpu-gathered is the CPU in the place of a device, with memory for so many jobs: for tests"""
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("json", "text")
CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Settings:
    """What the server does and what it allows; every field has its bound in BOUNDS."""

    address: str = "127.0.0.1:50051"
    """where to listen, HOST:PORT ([::1]:PORT for IPv6), port 0: any free one; beyond loopback with TLS and tokens"""
    allow_insecure: bool = False
    """listen beyond loopback without TLS or without tokens: everyone who reaches the port may use the server"""
    tls_cert: Path | None = None
    """PEM file of the server's certificate and its chain; TLS is on when it is given"""
    tls_key: Path | None = None
    """PEM file of that certificate's private key"""
    tls_client_ca: Path | None = None
    """PEM file of the authorities whose certificates clients must present (mutual TLS)"""
    tokens: Path | None = None
    """file of the tokens that clients must send (`bodyfit serve-token` makes its lines); read again when it changes"""
    fit_workers: int | None = None
    """processes that fit, one fit each at a time; as many as there are cores where not given"""
    threads_per_worker: int = 1
    """threads of one worker's kernels and BLAS"""
    track_workers: int = 1
    """processes that follow live streams"""
    streams_per_worker: int = 4
    """live streams that one such process follows at once"""
    queue_size: int = 32
    """fits that may wait for a worker; more are refused with RESOURCE_EXHAUSTED"""
    per_client: int = 16
    """calls of one token (of one host where there are none) worked on at once; a token's line may say otherwise"""
    default_deadline_s: float = 300.0
    """seconds that a fit may wait and take, whatever the client's deadline"""
    max_message_mb: int = 64
    """largest message, MiB; refused before it is read whole"""
    max_image_pixels: int = 16_777_216
    """pixels of the largest image, depth or colour; larger ones are refused by their header"""
    max_instants: int = 256
    """most instants of one Fit"""
    max_recording_mb: int = 1024
    """most MiB of one recording over FitRecording"""
    uploads_mb: int = 2048
    """MiB of all recordings that are being received, together"""
    upload_kept_s: float = 120.0
    """seconds for which a recording is kept whose stream broke"""
    resume_grace_s: float = 10.0
    """seconds for which a running fit goes on after its stream broke, so that a resumed one finds its result"""
    stream_idle_s: float = 60.0
    """seconds after which a Track or FitRecording stream is ended over which nothing came"""
    grace_s: float = 30.0
    """seconds that running fits have to end after SIGTERM"""
    metrics_address: str = "127.0.0.1:9464"
    """where Prometheus reads /metrics over HTTP, HOST:PORT; empty: nowhere. It has neither TLS nor tokens"""
    log_level: str = "info"
    """the least important that is logged: debug, info, warning, error"""
    log_format: str = "json"
    """json: one object a line; text: for people"""
    otel_endpoint: str = ""
    """where traces go by OTLP over gRPC, http://HOST:4317 (extra otel); empty: nowhere"""
    worker_memory_mb: int = 6144
    """MiB that a worker may allocate (RLIMIT_DATA); a fit that wants more fails, its worker is replaced; 0: no limit"""
    model: str = ""
    """body model that an empty name in a request means; the shipped one where empty"""
    device: str = "cpu"
    """what computes: cpu, cuda, several as cuda:0,cuda:1 (workers are spread over them), or auto (cuda if it can be)"""
    device_batch_ms: float = 2.0
    """milliseconds that a job of the device waits for those of other workers"""
    device_failover: bool = False
    """compute on the CPU while the device is lost, instead of answering UNAVAILABLE"""

    @property
    def devices(self) -> list[str]:
        """The devices' names, `auto` decided; none for the CPU."""
        from bodyfit.fit.open_device import chosen_device

        names = [] if self.device == "cpu" else [chosen_device(name) for name in self.device.split(",")]
        return [name for name in names if name != "cpu"]

    @property
    def num_fit_workers(self) -> int:
        """`fit_workers`, or as many as this process may use cores, divided by the threads of each."""
        return self.fit_workers or max(1, usable_cores() // self.threads_per_worker)

    @property
    def max_message_bytes(self) -> int:
        """`max_message_mb` in bytes."""
        return self.max_message_mb * 2**20

    @property
    def max_recording_bytes(self) -> int:
        """`max_recording_mb` in bytes."""
        return self.max_recording_mb * 2**20

    @property
    def uploads_bytes(self) -> int:
        """`uploads_mb` in bytes."""
        return self.uploads_mb * 2**20


BOUNDS: dict[str, tuple[float, float]] = {
    "fit_workers": (1, 1024),
    "threads_per_worker": (1, 256),
    "track_workers": (0, 1024),
    "streams_per_worker": (1, 1024),
    "queue_size": (0, 100_000),
    "per_client": (1, 100_000),
    "default_deadline_s": (0.1, 86_400),
    # gRPC counts a message's bytes in 32 bits with a sign
    "max_message_mb": (1, 2047),
    "max_image_pixels": (1, 2**30),
    "max_instants": (1, 1_000_000),
    "max_recording_mb": (1, 1_048_576),
    "uploads_mb": (1, 1_048_576),
    "upload_kept_s": (0, 86_400),
    "resume_grace_s": (0, 86_400),
    "stream_idle_s": (0.1, 86_400),
    "grace_s": (0, 3600),
    "worker_memory_mb": (0, 16_777_216),
    "device_batch_ms": (0, 20),
}
"""the smallest and the largest value of each number"""

_KINDS = typing.get_type_hints(Settings)


def read_settings(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> Settings:
    """The settings that hold: flags, then BODYFIT_* of the environment, then the TOML file, then the defaults.

    Args:
        flags: by name; None means not given.
        environ: environment variables; os.environ where None.
        file: TOML, one key for each setting at its top; paths in it start at its folder.

    Raises:
        InputError: an unknown key, a value of the wrong kind or out of its bounds, or an address beyond loopback
            without TLS and tokens; the field is what the user wrote (`--queue-size`, `BODYFIT_QUEUE_SIZE`,
            `serve.toml: queue_size`).
    """
    values: dict[str, Any] = {}
    said_by: dict[str, str] = {}

    def take(name: str, value: Any, where: str) -> None:
        values[name], said_by[name] = _read_value(name, value, where), where

    if file is not None:
        for name, value in _read_file(file).items():
            where = f"{file.name}: {name}"
            _check_name(name, where, lambda n: n)
            take(name, value, where)
            if isinstance(values[name], Path):
                values[name] = file.resolve().parent / values[name]
    for variable, value in (os.environ if environ is None else environ).items():
        if variable.startswith(PREFIX) and variable not in OTHER_VARIABLES:
            name = variable.removeprefix(PREFIX).lower()
            _check_name(name, variable, lambda n: PREFIX + n.upper())
            take(name, value, variable)
    for name, value in (flags or {}).items():
        where = _flag(name)
        _check_name(name, where, _flag)
        if value is not None:
            take(name, value, where)
    settings = replace(Settings(), **values)
    _check_together(settings, said_by)
    return settings


def printed(settings: Settings) -> dict[str, str | int | float | bool | None]:
    """The settings as plain data for the log, in their order: paths are named, what is in the files is not."""
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()}
    plain["fit_workers"] = settings.num_fit_workers
    plain["otel_endpoint"] = _without_user(settings.otel_endpoint)
    return plain


def split_address(address: str, where: str) -> tuple[str, int]:
    """Host (without brackets) and port of HOST:PORT.

    Raises:
        InputError: it is not one.
    """
    found = re.fullmatch(r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})", address)
    if not found or int(found["port"]) > 65535:
        raise InputError(where, "HOST:PORT with a port from 0 to 65535 ([::1]:PORT for IPv6)", repr(address))
    return found["six"] or found["host"], int(found["port"])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def usable_cores(cpu_max: Path = CGROUP_CPU) -> int:
    """Cores that this process may use: its affinity, and what its container is allowed (control groups, version 2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        allowed = cores if quota == "max" else int(quota) // int(period)
    except (OSError, ValueError):
        return cores
    return max(1, min(cores, allowed))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_name(name: str, where: str, spelled: Any) -> None:
    if name not in _KINDS:
        near = difflib.get_close_matches(name, _KINDS, n=1)
        raise InputError(where, "the name of a setting", "no such setting", f"{spelled(near[0])}?" if near else None)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise InputError(str(file), "a file of settings", e.strerror or str(e)) from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(str(file), "TOML", str(e)) from e


def _read_value(name: str, value: Any, where: str) -> Any:
    """The value as the setting's type; text is read as the environment and the command line give it."""
    kind = _KINDS[name]
    if kind is bool:
        return _read_bool(value, where)
    if kind == (Path | None):
        if not isinstance(value, (str, Path)):
            raise InputError(where, "a path", repr(value))
        return Path(value) if str(value) else None
    if kind is str:
        if not isinstance(value, str):
            raise InputError(where, "text", repr(value))
        return value.strip()
    return _read_number(name, value, where, whole=kind is not float)


def _read_bool(value: Any, where: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise InputError(where, "true or false", repr(value))


def _read_number(name: str, value: Any, where: str, *, whole: bool) -> int | float | None:
    low, high = BOUNDS[name]
    expected = f"{'a whole number' if whole else 'a number'} from {low:g} to {high:.10g}"
    if name == "fit_workers" and value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError(where, expected, repr(value))
    try:
        number = int(value) if whole and isinstance(value, str) else float(value)
    except (ValueError, OverflowError) as e:
        raise InputError(where, expected, repr(value)) from e
    if not low <= number <= high or (whole and number != int(number)):
        raise InputError(where, expected, repr(value))
    return int(number) if whole else float(number)


def _check_together(settings: Settings, said_by: Mapping[str, str]) -> None:
    def where(name: str) -> str:
        return said_by.get(name, _flag(name))

    for name, words in (("log_level", LOG_LEVELS), ("log_format", LOG_FORMATS)):
        if getattr(settings, name) not in words:
            raise InputError(where(name), " or ".join(words), repr(getattr(settings, name)))
    _check_device(settings.device, where("device"))
    if (settings.tls_cert is None) != (settings.tls_key is None):
        missing = "tls_key" if settings.tls_key is None else "tls_cert"
        raise InputError(where(missing), "the certificate and its key together", "one of the two")
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        raise InputError(
            where("tls_client_ca"), "TLS (--tls-cert, --tls-key) too", "no certificate of the server's own"
        )
    if settings.max_recording_mb > settings.uploads_mb:
        found = f"{settings.max_recording_mb} of {settings.uploads_mb} MiB"
        field = "max_recording_mb" if "max_recording_mb" in said_by else "uploads_mb"
        raise InputError(where(field), "max_recording_mb to be at most uploads_mb, which holds all recordings", found)
    if settings.otel_endpoint:
        parts = urlsplit(settings.otel_endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(where("otel_endpoint"), "http://HOST:PORT or https://HOST:PORT", "something else")
    if settings.metrics_address:
        split_address(settings.metrics_address, where("metrics_address"))
    host, _ = split_address(settings.address, where("address"))
    if is_loopback(host) or settings.allow_insecure:
        return
    missing = [f"no {what}" for what, path in (("TLS", settings.tls_cert), ("tokens", settings.tokens)) if path is None]
    if missing:
        raise InputError(
            where("address"),
            "a loopback address, or TLS (--tls-cert, --tls-key) and tokens (--tokens)",
            f"{settings.address} with {' and '.join(missing)}",
            "--allow-insecure if everyone who can reach it may use it",
        )


def _check_device(device: str, where: str) -> None:
    from bodyfit.fit.open_device import usable

    names = device.split(",")
    several, cards = len(names) > 1, ["cuda:0" if n == "cuda" else n for n in names]
    if not all(DEVICE.fullmatch(n) and not (several and n in ("cpu", "auto")) for n in names) or len(set(cards)) != len(
        names
    ):
        raise DeviceError(where, "cpu, cuda, cuda:N, several as cuda:0,cuda:1, or auto", repr(device))
    for name in names:
        why = usable(name)
        if why is not None:
            raise DeviceError(where, "a device that can be used", f"{name} ({why})")


def _without_user(url: str) -> str:
    """The URL without a name and password in it, and without its query, where a key may stand."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def field_docs() -> dict[str, str]:
    """The line that stands under each field of Settings: for `--help` and the table of docs/service.md."""
    import ast
    import inspect

    (table,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(table, ast.ClassDef)
    docs: dict[str, str] = {}
    for field, text in zip(table.body, table.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            docs[field.target.id] = ast.literal_eval(text.value)
    assert list(docs) == [f.name for f in fields(Settings)]
    return docs
