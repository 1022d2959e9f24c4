"""The `bodyfit` command: its commands, and the one place that turns errors into messages and exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer

from bodyfit.cli import (
    batch,
    bench,
    capture,
    client,
    demo,
    evaluate,
    fit,
    info,
    measure,
    models,
    recordings,
    serve,
    track,
)
from bodyfit.cli.cache import provide_cache_folder
from bodyfit.errors import BodyfitError

EXIT_CODES = """Exit codes: 0 done; 1 an error inside bodyfit; 2 bad input; 3 an optional package is missing;
4 the fit did not converge or is not to be believed (its files are written and say so);
5 the server refused, failed or could not be reached."""

commands = typer.Typer(
    name="bodyfit",
    help="A depth camera's recording in; a measured human body, its pose and a picture of it out.",
    epilog=EXIT_CODES.replace("\n", " "),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands.command("fit", epilog=EXIT_CODES.replace("\n", " "))(fit.fit_command)
commands.command("track", epilog=EXIT_CODES.replace("\n", " "))(track.track_command)
commands.command("batch", epilog=EXIT_CODES.replace("\n", " "))(batch.batch_command)
commands.command("capture")(capture.capture_command)
commands.command("inspect")(recordings.inspect_command)
commands.command("convert")(recordings.convert_command)
commands.command("measure")(measure.measure_command)
commands.command("demo")(demo.demo_command)
commands.command("evaluate")(evaluate.evaluate_command)
commands.add_typer(models.commands, name="models")
commands.command("serve")(serve.with_flags(serve.serve_command))
commands.command("serve-token")(serve.token_command)
commands.command("warmup")(serve.warmup_command)
commands.add_typer(client.commands, name="client")
commands.command("info")(info.info_command)
commands.command("bench")(bench.bench_command)


def _version(show: bool) -> None:
    if show:
        from bodyfit.cli.info import version

        sys.stdout.write(f"bodyfit {version()}\n")
        raise typer.Exit


@commands.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", help="Print the version and stop.", callback=_version, is_eager=True
    ),
) -> None:
    pass


def app(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; errors become a line on stderr, and JSON with --json."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    before = _stop_like_an_interrupt()
    provide_cache_folder()
    try:
        returned = commands(arguments, prog_name="bodyfit", standalone_mode=not as_json)
        return returned if isinstance(returned, int) else 0
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    except BodyfitError as e:
        return _report(e, as_json, e.exit_code, str(e))
    except (KeyboardInterrupt, typer.Abort):
        return _report(None, as_json, 130, "interrupted; nothing was written")
    except BrokenPipeError:
        # whoever read our output has left; closing quietly is what they expect
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives until the process ends
        return 1
    except typer.BadParameter.__mro__[2] as e:  # type: ignore[misc] # typer's usage errors share an unnamed ancestor
        return _report(e, as_json, 2, e.format_message())  # type: ignore[attr-defined]
    except Exception as e:
        if os.environ.get("BODYFIT_TRACEBACK"):
            raise
        message = f"{type(e).__name__}: {e} (a fault of bodyfit's; BODYFIT_TRACEBACK=1 shows where)"
        return _report(e, as_json, 1, message)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _report(error: BaseException | None, as_json: bool, code: int, message: str) -> int:
    sys.stdout.flush()
    if as_json:
        from bodyfit.cli.screen import print_json

        detail: dict[str, Any] = {
            "kind": type(error).__name__ if error else "Interrupted",
            "message": message,
            "exit_code": code,
        }
        for key in ("field", "expected", "found", "hint"):
            if hasattr(error, key):
                detail[key] = getattr(error, key)
        print_json({"error": detail})
    sys.stderr.write(f"bodyfit: error: {message}\n")
    return code


def _stop_like_an_interrupt() -> Any:
    """Lets SIGTERM clean up as Ctrl-C does, so that a stopped fit leaves no half-written folder."""

    def stop(signum: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    try:
        return signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        return None


if __name__ == "__main__":
    sys.exit(app())
