"""The server's certificates: read, checked before they are used, and read again when they are renewed."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bodyfit.errors import InputError, MissingExtraError
from bodyfit_service.settings import Settings

if TYPE_CHECKING:
    import grpc


log = logging.getLogger("bodyfit.service")


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """What grpc takes for a secure port; None where no certificate is set.

    The files are looked at on each handshake: renewed ones hold from the next connection on. Renewed ones that are
    broken are logged, and the ones before stay.

    Raises:
        InputError: a file is missing or no PEM, key and certificate do not belong together, or it is not valid now.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    try:
        import grpc
    except ImportError:
        raise MissingExtraError("grpcio", "service", "the service") from None

    files = [settings.tls_cert, settings.tls_key, *([settings.tls_client_ca] if settings.tls_client_ca else [])]

    def read() -> grpc.ServerCertificateConfiguration:
        check_certificates(settings)
        cert, key, *ca = [path.read_bytes() for path in files]
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca[0] if ca else None)

    seen = [_stamps(files)]

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        stamps = _stamps(files)
        if stamps == seen[0]:
            return None
        seen[0] = stamps
        try:
            configuration = read()
        except (InputError, OSError) as e:
            log.error("the renewed certificate is broken: the one before stays", extra={"why": str(e)})
            return None
        log.info("certificates were read again")
        return configuration

    mutual = settings.tls_client_ca is not None
    # grpc takes None for "as before"; its types leave that out
    fetch: Any = renewed
    return grpc.dynamic_ssl_server_credentials(read(), fetch, require_client_authentication=mutual)


def check_certificates(settings: Settings) -> str | None:
    """Tries the certificate in a handshake within this process.

    Returns:
        Until when the certificate is valid, as it says itself; None where TLS is off.

    Raises:
        InputError: as server_credentials says.
    """
    return str(shown_certificate(settings).get("notAfter", "")) if settings.tls_cert else None


def shown_certificate(settings: Settings) -> dict[str, Any]:
    """The certificate that clients are shown, as ssl.SSLSocket.getpeercert gives it.

    Raises:
        InputError: as server_credentials says.
    """
    assert settings.tls_cert is not None and settings.tls_key is not None
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for field, path in (("tls_cert", settings.tls_cert), ("tls_key", settings.tls_key)):
        if b"-----BEGIN " not in _read(field, path):
            raise InputError(field, "a PEM file", f"{path}, which is none")
    try:
        # an encrypted key would be asked for on the terminal
        server.load_cert_chain(settings.tls_cert, settings.tls_key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as e:
        found = f"{settings.tls_key}: {_reason(e)}"
        raise InputError("tls_key", f"the unencrypted private key of {settings.tls_cert}", found) from None
    if settings.tls_client_ca is not None:
        _read("tls_client_ca", settings.tls_client_ca)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.tls_client_ca)
        except ssl.SSLError as e:
            found = f"{settings.tls_client_ca}: {_reason(e)}"
            raise InputError("tls_client_ca", "certificates of authorities, PEM", found) from None
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    # the certificate itself is believed, whoever signed it: what is left to find out is whether it is valid now
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(settings.tls_cert)
    try:
        return _shake_hands(server, client)
    except ssl.SSLError as e:
        found = f"{settings.tls_cert}: {_reason(e)}"
        raise InputError("tls_cert", "a server's certificate that is valid now", found) from None


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """The certificate that the client was shown."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)]
    waiting = list(ends)
    for _ in range(16):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            break
    return dict(ends[0].getpeercert() or {})


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise InputError(field, "a PEM file", f"{path}: {e.strerror or e}") from None


def _stamps(files: list[Path]) -> list[tuple[int, int, int] | None]:
    stamps: list[tuple[int, int, int] | None] = []
    for path in files:
        try:
            found = path.stat()
            stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
        except OSError:
            stamps.append(None)
    return stamps


def _reason(error: Exception) -> str:
    return str(getattr(error, "verify_message", "") or getattr(error, "reason", "") or error)
