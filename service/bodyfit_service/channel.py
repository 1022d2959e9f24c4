"""The client's way to a server: address, TLS, token, and what every call carries."""

from __future__ import annotations

import ipaddress
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bodyfit.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import grpc

REQUEST_ID = "x-request-id"
TIMES = "x-bodyfit-times"
MAX_CREDENTIAL_BYTES = 1 << 20
KEEPALIVE_S = 20.0
"""so often an open stream asks whether the other side is still there"""
KEEPALIVE_ANSWER_S = 10.0
"""and so long it waits for the answer before it takes the stream for broken"""

_ADDRESS = re.compile(r"(?:(?:dns|ipv4|ipv6|unix):)?(?:///?)?[^\s]+\Z")
_TOKEN = re.compile(r"[\x21-\x7e]{8,512}\Z")


@dataclass(frozen=True)
class ClientTls:
    """How the server proves who it is, and the client to it.

    Attributes:
        ca: PEM file of the authorities that are believed; the system's where None.
        cert, key: PEM files of the client's own certificate and key, for servers that ask for one (mutual TLS).
        server_name: what the server's certificate must be for, where that is not the address's host.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            there = "cert" if self.key is None else "key"
            raise InputError("tls", "a client's certificate and its key together", f"only {there}")


@dataclass(frozen=True)
class Target:
    """A checked address and what it takes to get there.

    Attributes:
        address: as gRPC reads it: HOST:PORT, dns:///HOST:PORT, unix:PATH.
        token: sent as `authorization: Bearer` with every call; None sends none.
        tls: None is plain text.
    """

    address: str
    token: str | None
    tls: ClientTls | None

    def __repr__(self) -> str:  # a token has no place in a log
        secured = "TLS" if self.tls else "plain text"
        return f"Target({self.address!r}, {secured}, {'with' if self.token else 'without'} token)"

    def metadata(self, request_id: str) -> tuple[tuple[str, str], ...]:
        """What a call carries beside its message."""
        named = ((REQUEST_ID, request_id),)
        return named if self.token is None else (*named, ("authorization", f"Bearer {self.token}"))


def make_target(address: str, token: str | None, tls: ClientTls | None, *, plain_token: bool = False) -> Target:
    """The target of a client.

    Args:
        plain_token: lets a token go to another machine in plain text; whoever listens on the way then has it.

    Raises:
        InputError: an address that is none, a token that is none, or a token that would leave the machine in the clear.
    """
    if not isinstance(address, str) or not _ADDRESS.match(address) or not _has_port(address):
        raise InputError("address", "HOST:PORT, dns:///HOST:PORT or unix:PATH", repr(address))
    if token is not None and not _TOKEN.match(token):
        # never the token itself
        raise InputError("token", "8 to 512 printable characters without spaces", f"{len(token)} characters")
    if token is not None and tls is None and not plain_token and not is_loopback(address):
        hint = "use TLS, or say explicitly that it may go in the clear"
        raise InputError("token", "TLS, or a server on this machine", f"plain text to {address}", hint)
    return Target(address, token, tls)


def is_loopback(address: str) -> bool:
    """Whether what goes there stays on this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition("/")[2].rpartition(":")[0].strip("[]")
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _has_port(address: str) -> bool:
    if address.startswith("unix:"):
        return len(address) > len("unix:")
    port = address.rpartition(":")[2]
    return port.isascii() and port.isdigit() and 0 < int(port) < 65536 and address.rpartition(":")[0] != ""


def options(tls: ClientTls | None) -> list[tuple[str, Any]]:
    """Channel options: large answers are taken, dead peers are noticed, several addresses are used in turn."""
    out: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", -1),  # meshes of a motion; it is the server that limits what is asked
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", int(1e3 * KEEPALIVE_S)),
        ("grpc.keepalive_timeout_ms", int(1e3 * KEEPALIVE_ANSWER_S)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.lb_policy_name", "round_robin"),
        # a server that comes back is found again within a second
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    if tls is not None and tls.server_name is not None:
        out.append(("grpc.ssl_target_name_override", tls.server_name))
    return out


def credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    """What grpc takes for a secure channel.

    Raises:
        InputError: a file that cannot be read or holds no PEM.
    """
    rpc = grpc_module()
    ca = None if tls.ca is None else read_pem("tls.ca", tls.ca)
    cert = None if tls.cert is None else read_pem("tls.cert", tls.cert)
    key = None if tls.key is None else read_pem("tls.key", tls.key)
    return rpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def read_pem(field: str, path: Path) -> bytes:
    """A PEM file's bytes.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_CREDENTIAL_BYTES else b""
    except OSError as e:
        raise InputError(field, "a file that can be read", f"{path}: {e.strerror or e}") from None
    if b"-----BEGIN " not in data:
        raise InputError(field, "a PEM file", f"{path}, which is none")
    return data


def read_token(path: Path) -> str:
    """The token in the first line of a file.

    Raises:
        InputError: it cannot be read, or holds none.
    """
    try:
        with open(path, encoding="ascii") as file:
            token = file.readline(1024).strip()
    except OSError as e:
        raise InputError("token file", "a file that can be read", f"{path}: {e.strerror or e}") from None
    except UnicodeDecodeError:
        token = ""
    if not _TOKEN.match(token):
        raise InputError("token file", "a token of 8 to 512 printable characters in its first line", str(path))
    return token


def new_request_id() -> str:
    """An id by which the server's log names a call."""
    return secrets.token_hex(8)


def grpc_module() -> Any:
    """grpc, imported when first needed.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import grpc
    except ImportError:
        raise MissingExtraError("grpcio", "service", "the service") from None
    return grpc
