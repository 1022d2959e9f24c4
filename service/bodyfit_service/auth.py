"""Who calls: tokens, of which the server holds hashes only.

A token is 256 random bits, so its plain SHA-256 gives nothing away and needs neither salt nor a slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bodyfit.errors import InputError
from bodyfit_service.errors import UnauthenticatedError

log = logging.getLogger("bodyfit.service")

MARK = "bodyfit_"
"""how every token begins, so that one that got out is recognised"""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LIMITS = ("per_minute", "concurrent")
LOOK_AGAIN_S = 1.0


@dataclass(frozen=True)
class Caller:
    """Who calls, and how much they may."""

    name: str
    """the token's name"""
    concurrent: int | None = None
    """calls worked on at once; the server's per_client where None"""
    per_minute: int | None = None
    """calls begun in any 60 seconds; no limit where None"""


@dataclass(frozen=True)
class _Line:
    digest: bytes
    caller: Caller


def new_token(name: str, *, per_minute: int | None = None, concurrent: int | None = None) -> tuple[str, str]:
    """A new token, and its line for the file of tokens: the token itself is nowhere else and cannot be found again.

    Raises:
        InputError: the name is not 1 to 64 of a-z A-Z 0-9 . _ -.
    """
    if not NAME.fullmatch(name):
        raise InputError("name", "1 to 64 of a-z A-Z 0-9 . _ -, the first a letter or digit", repr(name))
    token = MARK + secrets.token_urlsafe(32)
    limits = {"per_minute": per_minute, "concurrent": concurrent}
    line = " ".join([name, _digest(token).hex(), *(f"{k}={v}" for k, v in limits.items() if v is not None)])
    _read_line(line, "the new line")
    return token, line


class Authenticator:
    """Tells callers by the token in a call's metadata; without a file of tokens nobody is known.

    The file is read again when it changes (a token is added or withdrawn without a restart). One that is broken then is
    logged, and the tokens that were known stay.

    Args:
        file: one line for each token, `NAME SHA256 [per_minute=N] [concurrent=N]`; empty lines and #… are skipped.
        clock: seconds that only rise.

    Raises:
        InputError: the file cannot be read, a line is wrong, a name or token stands twice, or there is none.
    """

    def __init__(self, file: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._clock = file, clock
        self._lines = read_tokens(file) if file else []
        self._stamp = _stamp_of(file) if file else None
        self._looked = clock()

    @property
    def asks_tokens(self) -> bool:
        """Whether a token is needed."""
        return self._file is not None

    def client_of(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> Caller | None:
        """Who sent a call with this metadata; None where no tokens are asked for.

        Raises:
            UnauthenticatedError: no token, more than one, or one that is not known.
        """
        if self._file is None:
            return None
        self._look_again()
        sent = [value for key, value in metadata or () if key.lower() == "authorization"]
        if len(sent) != 1:
            raise UnauthenticatedError("a token is needed, once, as metadata `authorization: Bearer TOKEN`")
        value = sent[0] if isinstance(sent[0], str) else sent[0].decode("latin-1")
        kind, _, token = value.partition(" ")
        digest = _digest(token.strip())
        found: Caller | None = None
        # every line is compared, whichever it is: the time says nothing about them
        for line in self._lines:
            if hmac.compare_digest(line.digest, digest):
                found = line.caller
        if found is None or kind.lower() != "bearer":
            raise UnauthenticatedError("the token is not one of this server's")
        return found

    def _look_again(self) -> None:
        now = self._clock()
        if self._file is None or now - self._looked < LOOK_AGAIN_S:
            return
        self._looked = now
        stamp = _stamp_of(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._lines = read_tokens(self._file)
            log.info("tokens were read again", extra={"tokens": len(self._lines)})
        except InputError as e:
            log.error("the file of tokens is broken: those known before stay", extra={"why": str(e)})


def read_tokens(file: Path) -> list[_Line]:
    """The lines of a file of tokens, checked.

    Raises:
        InputError: as Authenticator says.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as e:
        raise InputError(f"tokens {file}", "a file of tokens", e.strerror or str(e)) from e
    except UnicodeDecodeError as e:
        raise InputError(f"tokens {file}", "a file of tokens, UTF-8", "other bytes") from e
    lines: list[_Line] = []
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = raw.partition("#")[0].strip()
        if stripped:
            lines.append(_read_line(stripped, f"{file.name}:{number}"))
            if any(lines[-1].caller.name == other.caller.name for other in lines[:-1]):
                raise InputError(f"{file.name}:{number}", "each name once", f"{lines[-1].caller.name} again")
            if any(lines[-1].digest == other.digest for other in lines[:-1]):
                raise InputError(f"{file.name}:{number}", "each token once", "a hash that stands above already")
    if not lines:
        raise InputError(f"tokens {file}", "one token at least", "none", "bodyfit serve-token NAME prints a new one")
    return lines


def _read_line(line: str, where: str) -> _Line:
    # what is wrong with a line is said without the line: somebody may have written the token itself into it
    name, *rest = line.split()
    if not NAME.fullmatch(name) or name.startswith(MARK):
        raise InputError(where, "NAME SHA256, the name 1 to 64 of a-z A-Z 0-9 . _ -", "another name")
    if not rest or not re.fullmatch(r"[0-9a-fA-F]{64}", rest[0]):
        raise InputError(where, f"the SHA-256 of {name}'s token, 64 hexadecimal digits", "something else")
    limits: dict[str, int] = {}
    for word in rest[1:]:
        key, _, value = word.partition("=")
        if key not in LIMITS or key in limits or not re.fullmatch(r"[1-9]\d{0,5}", value):
            raise InputError(where, "per_minute=N and concurrent=N, each once at most, from 1", "something else")
        limits[key] = int(value)
    return _Line(bytes.fromhex(rest[0]), Caller(name, limits.get("concurrent"), limits.get("per_minute")))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _stamp_of(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
