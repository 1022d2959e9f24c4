"""`bodyfit serve`, `bodyfit serve-token` and `bodyfit warmup`: the gRPC server and what is done before it."""

from __future__ import annotations

import importlib.util
import inspect
import os
import time
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bodyfit.cli.fit import DeviceOption, JsonOption, parse_device
from bodyfit.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit_service.settings import Settings

SHARED_MEMORY = "/dev/shm"
"""the file system of POSIX shared memory on Linux"""


def serve_command(config: Path | None = None, check: bool = False, **flags: Any) -> None:
    """Serve fits over gRPC, until SIGTERM or Ctrl-C.

    Every setting is also read from the environment (BODYFIT_QUEUE_SIZE for --queue-size) and from a TOML file
    (queue_size = 32); flags beat the environment, which beats the file. The settings that hold are printed first.
    SIGTERM lets running fits end.
    """
    from bodyfit.cli.screen import print_lines

    _need_grpc()
    from bodyfit_service.logs import set_up_logs
    from bodyfit_service.settings import printed, read_settings, split_address

    settings = read_settings(flags, os.environ, config)
    print_lines(*(f"{name} = {_shown(value)}" for name, value in printed(settings).items()))
    set_up_logs(settings.log_level, settings.log_format)
    if check:
        print_lines("", *check_settings(settings), "ready to serve")
        return
    from bodyfit_service.server import serve

    host = split_address(settings.address, "address")[0]

    def started(port: int) -> None:
        typer.echo(f"listening on {f'[{host}]' if ':' in host else host}:{port}")

    status = serve(settings, started)
    if status:
        raise typer.Exit(status)


def check_settings(settings: Settings) -> list[str]:
    """What the server would need at its start, tried: a line for each thing that is in order.

    Raises:
        BodyfitError: it would not start, or not fit.
    """
    from bodyfit.fit.config import FitConfig
    from bodyfit_service.auth import read_tokens
    from bodyfit_service.metrics import Metrics
    from bodyfit_service.models import default_name, named_model
    from bodyfit_service.selftest import fit_shipped
    from bodyfit_service.tls import check_certificates
    from bodyfit_service.traces import Traces

    Metrics()
    Traces(settings.otel_endpoint).close()
    until = check_certificates(settings)
    told = [f"TLS: certificate valid until {until}" if until else "TLS: off"]
    if settings.tls_client_ca:
        told.append("clients: need a certificate (mutual TLS)")
    told.append(f"tokens: {len(read_tokens(settings.tokens))}" if settings.tokens else "tokens: none, all may call")
    told.append(_shared_memory(settings))
    name = default_name(settings.model)
    model = named_model(name)
    told.append(f"body model: {name}, {model.num_vertices} vertices")
    told.append(f"test fit: {fit_shipped(model, FitConfig(threads=settings.threads_per_worker)):.1f} s")
    told += [f"device {name}: {_warmed(name):.1f} s" for name in settings.devices]
    return told


def _warmed(device: str) -> float:
    """Seconds until a device's kernels are compiled and its first fits are right.

    Raises:
        DeviceError: it cannot be used, or computes something else than the CPU.
    """
    from bodyfit.fit.device_process import backend_for
    from bodyfit.fit.device_warmup import warm_up

    began = time.perf_counter()
    warm_up(backend_for(device))
    return time.perf_counter() - began


def _shared_memory(settings: Settings) -> str:
    """How much memory processes can share, through which requests reach the workers.

    Raises:
        InputError: too little for the largest request.
    """
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return "shared memory: not limited by a file system"
    here, needed = found.f_blocks * found.f_frsize >> 20, max(settings.max_recording_mb, settings.max_message_mb)
    if here < needed:
        hint = "docker run --shm-size=2g, or lower max_recording_mb"
        raise InputError(SHARED_MEMORY, f"{needed} MiB for the largest recording", f"{here} MiB", hint)
    return f"shared memory: {here} MiB"


def warmup_command(
    model: Annotated[str, typer.Option(metavar="M", help="Body model to warm up with.")] = "",
    device: DeviceOption = "cpu",
) -> None:
    """Compile the kernels into the cache by fitting and following the recording that ships with bodyfit.

    A server does that at its first start; done before, in the image or its volume, it is ready within seconds.
    """
    from bodyfit.body.model import load_body_model
    from bodyfit.cli.screen import print_lines
    from bodyfit_service.selftest import fit_shipped, follow_shipped

    computes = parse_device(device)
    body = load_body_model(model) if model else load_body_model()
    for what, work in (("fit", fit_shipped), ("follow", follow_shipped), ("draw and write", _write_demo)):
        print_lines(f"{what}: {work(body):.1f} s")
    if computes != "cpu":
        print_lines(f"device {computes}: {_warmed(computes):.1f} s")
    print_lines(f"compiled kernels are in {kernel_cache()}")


def kernel_cache() -> Path:
    """Where compiled kernels are kept."""
    import numba

    import bodyfit.kernels

    return Path(numba.config.CACHE_DIR or Path(bodyfit.kernels.__path__[0]) / "__pycache__")  # type: ignore[attr-defined]


def token_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose token: it stands in the log of their calls.")],
    per_minute: Annotated[
        int | None, typer.Option(min=1, max=999_999, metavar="N", help="Calls begun in any 60 seconds.")
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option(min=1, max=999_999, metavar="N", help="Calls worked on at once.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new token, and its line for the server's file of tokens (--tokens FILE).

    The token is shown once and stored nowhere; the line holds its hash. A server that runs takes a changed file over.
    """
    from bodyfit.cli.screen import print_json, print_lines

    _need_grpc()
    from bodyfit_service.auth import new_token

    token, line = new_token(name, per_minute=per_minute, concurrent=concurrent)
    if as_json:
        print_json({"token": token, "line": line})
    else:
        print_lines("token, for the client (it is not shown again):", token, "", "line, for the server's file:", line)


def _write_demo(model: BodyModel) -> float:
    """Seconds to draw and write what `bodyfit demo` does."""
    import tempfile

    from bodyfit.cli.fit import FitRequest, run_fit, write_result
    from bodyfit.synthetic.demo import demo_recording_path

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = run_fit(FitRequest(demo_recording_path(), model=model, frames=(0,)), quiet=True)
        write_result(result, Path(folder) / "out", force=False)
    return time.perf_counter() - began


def _need_grpc() -> None:
    if importlib.util.find_spec("grpc") is None:
        raise MissingExtraError("grpcio", "service", "the service")


def _shown(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def with_flags(command: Any) -> Any:
    """The command with a flag for each setting: typer reads what a function takes from its signature.

    Their values stay text, so that settings.py alone says what may be in them, wherever they come from.
    """
    from bodyfit_service.settings import Settings, field_docs

    kinds = typing.get_type_hints(Settings)
    parameters = [
        inspect.Parameter(
            "config", inspect.Parameter.KEYWORD_ONLY, default=None,
            annotation=Annotated[
                Path | None,
                typer.Option(metavar="FILE", envvar="BODYFIT_CONFIG", help="TOML file of settings."),
            ],
        ),
        inspect.Parameter(
            "check", inspect.Parameter.KEYWORD_ONLY, default=False,
            annotation=Annotated[
                bool,
                typer.Option("--check", help="Try settings, certificates, tokens, body model and a fit, and end."),
            ],
        ),
    ]  # fmt: skip
    for name, text in field_docs().items():
        flag = "--" + name.replace("_", "-")
        default = getattr(Settings(), name)
        shown = f" [default: {default}]" if default not in (None, "", False) else ""
        if kinds[name] is bool:
            option: Any = typer.Option(f"{flag}/--no-{flag[2:]}", help=text, show_default=False)
            annotation: Any = Annotated[bool | None, option]
        else:
            option = typer.Option(flag, metavar=_metavar(kinds[name]), help=text + shown, show_default=False)
            annotation = Annotated[str | None, option]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _metavar(kind: Any) -> str:
    return {str: "TEXT", float: "SECONDS"}.get(kind, "FILE" if kind == (Path | None) else "N")
