"""How commands reach a server: options that all of them have, and the client that they mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bodyfit_service.client import BodyFitClient

DEFAULT_ADDRESS = "localhost:50051"
SERVICE = "The service"

AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        envvar="BODYFIT_ADDRESS",
        help="Where the server listens.",
        rich_help_panel=SERVICE,
    ),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        envvar="BODYFIT_TOKEN_FILE",
        help="File whose first line is the token.",
        rich_help_panel=SERVICE,
    ),
]
PlainTokenOption = Annotated[
    bool,
    typer.Option("--plain-token", help="Let the token go to another machine without TLS.", rich_help_panel=SERVICE),
]
TlsOption = Annotated[
    bool, typer.Option("--tls", help="Use TLS; the system's authorities are believed.", rich_help_panel=SERVICE)
]
TlsCaOption = Annotated[
    Path | None,
    typer.Option("--tls-ca", metavar="PEM", help="Use TLS; these authorities are believed.", rich_help_panel=SERVICE),
]
TlsCertOption = Annotated[
    Path | None,
    typer.Option("--tls-cert", metavar="PEM", help="The client's own certificate.", rich_help_panel=SERVICE),
]
TlsKeyOption = Annotated[
    Path | None, typer.Option("--tls-key", metavar="PEM", help="Its key.", rich_help_panel=SERVICE)
]
TlsNameOption = Annotated[
    str | None,
    typer.Option(
        "--tls-name",
        metavar="NAME",
        help="What the server's certificate is for, if not its address.",
        rich_help_panel=SERVICE,
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", min=0.1, metavar="S", help="Seconds that the call may take.", rich_help_panel=SERVICE),
]


def connect(
    address: str, token_file: Path | None, plain_token: bool, tls: bool, ca: Path | None, cert: Path | None,
    key: Path | None, name: str | None, timeout_s: float | None,
) -> BodyFitClient:  # fmt: skip
    """The client that the options ask for. The token is never an argument of the command: those are seen by all.

    Raises:
        InputError: a file that cannot be read, options that do not go together.
        MissingExtraError: the extra `service` is not installed.
    """
    from bodyfit_service.client import BodyFitClient, ClientTls, read_token

    secured = tls or any(given is not None for given in (ca, cert, key, name))
    if token_file is not None:
        token = read_token(token_file)
    else:
        token = os.environ.get("BODYFIT_TOKEN") or None
    return BodyFitClient(
        address,
        token=token,
        tls=ClientTls(ca, cert, key, name) if secured else None,
        timeout_s=timeout_s,
        plain_token=plain_token,
    )
