"""`python -m bodyfit_service.probe`: asks the server of this container how it is; 0 where it says SERVING, else 1.

It finds the server where the server found it, in BODYFIT_ADDRESS, and believes the certificate in BODYFIT_TLS_CERT, so
that it works where a container's own probes know nothing of TLS.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bodyfit.errors import BodyfitError
from bodyfit_service.settings import Settings, split_address
from bodyfit_service.tls import shown_certificate

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""where one asks who listens at any address"""


def ask(
    address: str, *, cert: Path | None = None, key: Path | None = None,
    client: tuple[Path, Path] | None = None, timeout_s: float = 3.0,
) -> str:  # fmt: skip
    """What health says: SERVING, NOT_SERVING, or why nobody answers.

    Args:
        address: HOST:PORT as the server listens.
        cert, key: the server's own certificate and key; plain text without.
        client: certificate and key to show, for mutual TLS.
        timeout_s: so long it is waited, seconds.
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    host, port = split_address(address, "address")
    host = EVERYWHERE.get(host, host)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    if cert is not None and key is not None:
        options.append(("grpc.ssl_target_name_override", _name(cert, key)))
        shown = (client[1].read_bytes(), client[0].read_bytes()) if client else (None, None)
        credentials = grpc.ssl_channel_credentials(cert.read_bytes(), *shown)
        channel = grpc.secure_channel(target, credentials, options)
    else:
        channel = grpc.insecure_channel(target, options)
    with channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError as e:
            code = e.code() if isinstance(e, grpc.Call) else None
            return code.name if code is not None else "UNKNOWN"
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def _name(cert: Path, key: Path) -> str:
    """A name that the certificate is for."""
    names = shown_certificate(Settings(tls_cert=cert, tls_key=key)).get("subjectAltName", ())
    return next((str(name).replace("*", "probe") for _, name in names), "localhost")


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Prints what health says; 0 for SERVING."""
    environ = os.environ if environ is None else environ
    parser = argparse.ArgumentParser(prog="python -m bodyfit_service.probe", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--address", default=environ.get("BODYFIT_ADDRESS") or Settings.address, metavar="HOST:PORT")
    for name, text in (("cert", "the server's certificate"), ("key", "its key")):
        default = environ.get(f"BODYFIT_TLS_{name.upper()}") or None
        parser.add_argument(f"--{name}", type=Path, default=default and Path(default), metavar="FILE", help=text)
    parser.add_argument("--client-cert", type=Path, metavar="FILE", help="certificate to show (mutual TLS)")
    parser.add_argument("--client-key", type=Path, metavar="FILE", help="its key")
    parser.add_argument("--timeout-s", type=float, default=3.0, metavar="SECONDS")
    given = parser.parse_args(arguments)
    client = (given.client_cert, given.client_key) if given.client_cert and given.client_key else None
    try:
        said = ask(given.address, cert=given.cert, key=given.key, client=client, timeout_s=given.timeout_s)
    except (BodyfitError, OSError) as e:
        said = str(e)
    print(said)
    return 0 if said == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main())
