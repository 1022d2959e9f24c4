"""Who may not: no token, a wrong one, one over its limit, certificates that do not do; and what the log says of it.

A real server process with TLS and tokens; certificates are made for the test.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from server_process import DEMO, SERVING, ServerProcess, wait_for

from bodyfit.cli.main import app
from bodyfit.errors import InputError
from bodyfit.recording.native import open_recording
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_protos.v1 import bodyfit_pb2_grpc
from bodyfit_service.auth import new_token
from bodyfit_service.frames_sent import recording_messages
from bodyfit_service.probe import main as probe
from bodyfit_service.settings import Settings
from bodyfit_service.tls import check_certificates, server_credentials

SENSOR = "nobody-may-read-this"
LIMITS: dict[str, dict[str, int]] = {"anna": {}, "few": {"per_minute": 2}, "single": {"concurrent": 1}}
PAST = datetime.now(UTC) - timedelta(days=1)


@dataclass
class Certificates:
    """PEM files of an authority, of the server, and of clients."""

    folder: Path
    authority: trustme.CA

    def write(self, name: str, cert: trustme.LeafCert) -> tuple[Path, Path]:
        """Certificate and key in files of that name."""
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.cert_chain_pems[0].write_to_path(paths[0])
        cert.private_key_pem.write_to_path(paths[1])
        return paths

    @property
    def ca(self) -> Path:
        """The authority's own certificate."""
        path = self.folder / "ca.pem"
        self.authority.cert_pem.write_to_path(path)
        return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    certificates = Certificates(tmp_path_factory.mktemp("certificates"), trustme.CA())
    issue = certificates.authority.issue_cert
    certificates.write("server", issue("localhost"))
    certificates.write("client", issue("client@example.org"))
    certificates.write("expired", issue("localhost", not_after=PAST))
    certificates.write("expired-client", issue("client@example.org", not_after=PAST))
    certificates.write("stranger", trustme.CA().issue_cert("client@example.org"))
    return certificates


@pytest.fixture(scope="module")
def tokens(made: Certificates) -> dict[str, str]:
    lines = {name: new_token(name, **limits) for name, limits in LIMITS.items()}
    (made.folder / "tokens").write_text("".join(f"{line}\n" for _, line in lines.values()))
    return {name: token for name, (token, _) in lines.items()}


def channel_to(address: str, ca: Path | None, client: tuple[Path, Path] | None = None) -> grpc.Channel:
    """A channel to the server by its certificate's name; plain text without an authority."""
    if ca is None:
        return grpc.insecure_channel(address)
    shown = (client[1].read_bytes(), client[0].read_bytes()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), *shown)
    return grpc.secure_channel(address.replace("127.0.0.1", "localhost"), credentials)


def code_of(call: Callable[[], Any]) -> str:
    """How it ends."""
    try:
        call()
    except grpc.RpcError as e:
        assert isinstance(e, grpc.Call)
        code = e.code()
        assert code is not None
        return code.name
    return "OK"


@pytest.fixture(scope="module")
def server(made: Certificates, tokens: dict[str, str]) -> Iterator[ServerProcess]:
    cert, key = made.folder / "server.pem", made.folder / "server.key"
    flags = ("--tls-cert", str(cert), "--tls-key", str(key), "--tokens", str(made.folder / "tokens"))
    workers = ("--fit-workers", "1", "--track-workers", "0", "--log-level", "debug")
    with ServerProcess(*flags, *workers, "--metrics-address", "127.0.0.1:0", wait=False) as server:
        server.wait_listening()
        yield server


@pytest.fixture(scope="module")
def channel(server: ServerProcess, made: Certificates) -> Iterator[grpc.Channel]:
    with channel_to(server.address, made.ca) as channel:
        yield channel


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def demo_request() -> pb.FitRequest:
    """One instant of the shipped recording, its sensor by a name to look for in the log."""
    header, instants = recording_messages(open_recording(DEMO))
    request = pb.FitRequest(header=header, instants=[next(iter(instants))])
    request.header.sensors[0].name = request.instants[0].frames[0].sensor = SENSOR
    return request


@pytest.mark.parametrize("sent", ["nothing", "wrong", "twice", "basic"])
def test_no_method_answers_without_a_token_that_is_known(
    channel: grpc.Channel, tokens: dict[str, str], sent: str
) -> None:
    wrong = new_token("anna")[0]
    metadata = {
        "nothing": [],
        "wrong": bearer(wrong),
        "twice": [*bearer(wrong), *bearer(tokens["anna"])],
        "basic": [("authorization", f"Basic {tokens['anna']}")],
    }[sent]
    stub: Any = bodyfit_pb2_grpc.BodyFitServiceStub(channel)
    for call in (
        lambda: stub.Fit(pb.FitRequest(), metadata=metadata, timeout=20),
        lambda: stub.Measure(pb.MeasureRequest(), metadata=metadata, timeout=20),
        lambda: stub.ListBodyModels(pb.ListBodyModelsRequest(), metadata=metadata, timeout=20),
        lambda: stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=metadata, timeout=20),
        lambda: list(stub.FitRecording(iter([pb.FitRecordingRequest()]), metadata=metadata, timeout=20)),
        lambda: list(stub.Track(iter([pb.TrackRequest()]), metadata=metadata, timeout=20)),
        lambda: list(reflected(channel, metadata)),
        lambda: channel.unary_unary("/bodyfit.v1.BodyFitService/Nothing")(b"", metadata=metadata, timeout=20),
    ):
        assert code_of(call) == "UNAUTHENTICATED"


def reflected(channel: grpc.Channel, metadata: list[tuple[str, str]]) -> Any:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    return stub.ServerReflectionInfo(iter([request]), metadata=metadata, timeout=20)


def test_a_known_token_and_the_right_authority_are_let_in(channel: grpc.Channel, tokens: dict[str, str]) -> None:
    stub: Any = bodyfit_pb2_grpc.BodyFitServiceStub(channel)
    info = stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=bearer(tokens["anna"]), timeout=20)
    assert info.fit_workers == 1
    (answer,) = reflected(channel, bearer(tokens["anna"]))
    assert "bodyfit.v1.BodyFitService" in {s.name for s in answer.list_services_response.service}


def test_health_asks_for_no_token(channel: grpc.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=20).status != 0


def test_plain_text_and_other_authorities_do_not_get_through(server: ServerProcess, made: Certificates) -> None:
    other = made.folder / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    for ca in (None, other):
        with channel_to(server.address, ca) as channel:
            stub: Any = bodyfit_pb2_grpc.BodyFitServiceStub(channel)
            found = code_of(lambda stub=stub: stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=20))
            assert found == "UNAVAILABLE"


def test_a_token_over_its_calls_a_minute(channel: grpc.Channel, tokens: dict[str, str]) -> None:
    stub: Any = bodyfit_pb2_grpc.BodyFitServiceStub(channel)
    for _ in range(2):
        stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=bearer(tokens["few"]), timeout=20)
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=bearer(tokens["few"]), timeout=20)
    assert isinstance(caught.value, grpc.Call) and caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status: Any = rpc_status.from_call(caught.value)
    waits = [d for d in status.details if d.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
    info = error_details_pb2.RetryInfo()
    assert len(waits) == 1 and waits[0].Unpack(info) and 0 < info.retry_delay.seconds <= 60


def test_a_token_over_its_open_calls(channel: grpc.Channel, tokens: dict[str, str]) -> None:
    stub: Any = bodyfit_pb2_grpc.BodyFitServiceStub(channel)
    header = demo_request().header
    start = pb.FitRecordingRequest(start=pb.FitRecordingStart(header=header))
    waiting = futures.Future[None]()

    def requests() -> Iterator[pb.FitRecordingRequest]:
        yield start
        waiting.result(60)

    try:
        first = stub.FitRecording(requests(), metadata=bearer(tokens["single"]), timeout=60)
        assert next(first).accepted.recording_id
        second = stub.FitRecording(iter([start]), metadata=bearer(tokens["single"]), timeout=20)
        assert code_of(lambda: next(second)) == "RESOURCE_EXHAUSTED"
    finally:
        waiting.set_result(None)
        first.cancel()


def test_nothing_sensitive_is_logged_or_counted(
    server: ServerProcess, channel: grpc.Channel, made: Certificates, tokens: dict[str, str]
) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    check = health_pb2.HealthCheckRequest()
    assert wait_for(lambda: health.Check(check, timeout=20).status == SERVING, 180), server.told()
    stub: Any = bodyfit_pb2_grpc.BodyFitServiceStub(channel)
    request = demo_request()
    metadata = [*bearer(tokens["anna"]), ("x-request-id", "the-fit")]
    assert stub.Fit(request, metadata=metadata, timeout=120).result.converged
    refused = demo_request()
    refused.instants[0].frames[0].depth.data = b"no image at all, but a secret"
    assert code_of(lambda: stub.Fit(refused, metadata=metadata, timeout=60)) == "INVALID_ARGUMENT"
    assert code_of(lambda: stub.Fit(request, metadata=bearer("wrong"), timeout=60)) == "UNAUTHENTICATED"
    cert, key = made.folder / "server.pem", made.folder / "server.key"
    address = server.address.replace("127.0.0.1", "localhost")
    assert probe(["--address", address, "--cert", str(cert), "--key", str(key)], {}) == 0
    (told,) = server.records("metrics")
    with urllib.request.urlopen(f"http://127.0.0.1:{told['port']}/metrics", timeout=20) as metrics:
        counted = metrics.read().decode()
    for line in (
        'bodyfit_requests_total{code="OK",method="Fit"} 1.0',
        'bodyfit_requests_total{code="INVALID_ARGUMENT",method="Fit"} 1.0',
        *(f'bodyfit_stage_seconds_count{{stage="{name}"}} 1.0' for name in ("queue", "transfer", "fit", "pack")),
        "bodyfit_workers_ready 1.0",
        "bodyfit_queue_size 32.0",
        "bodyfit_serving 1.0",
    ):
        assert line in counted.splitlines(), counted
    assert server.stop() == 0
    calls = [r for r in server.logs if r["message"] == "call"]
    assert {"request_id": "the-fit", "caller": "anna", "code": "OK"}.items() <= next(
        r for r in calls if r["method"].endswith("/Fit") and r["code"] == "OK"
    ).items()
    assert {r["code"] for r in calls} >= {"OK", "UNAUTHENTICATED", "INVALID_ARGUMENT"}
    said = "\n".join([*server.printed, *server.lines, counted])
    secrets = [t for token in tokens.values() for t in (token, token.removeprefix("bodyfit_")[:16])]
    secrets += [json.dumps(key.read_text())[40:80], "PRIVATE KEY", "Bearer", SENSOR, "a secret", "127.0.0.1:"]
    said = said.replace(f"listening on {server.address}", "").replace('"address": "127.0.0.1:0"', "")
    said = said.replace("address = 127.0.0.1:0", "")  # metrics_address too
    assert [s for s in secrets if s in said] == []


# certificates


def test_mutual_tls_asks_clients_for_a_certificate_that_holds(made: Certificates) -> None:
    folder = made.folder
    tls = ("--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key"))
    workers = ("--fit-workers", "1", "--track-workers", "0")
    with ServerProcess(*tls, "--tls-client-ca", str(made.ca), *workers, wait=False) as server:
        server.wait_listening()
        for name, code in (
            ("client", "OK"),
            (None, "UNAVAILABLE"),
            ("expired-client", "UNAVAILABLE"),
            ("stranger", "UNAVAILABLE"),
        ):
            pair = (folder / f"{name}.pem", folder / f"{name}.key") if name else None
            with channel_to(server.address, made.ca, pair) as channel:
                stub: Any = bodyfit_pb2_grpc.BodyFitServiceStub(channel)
                found = code_of(lambda stub=stub: stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=20))
                assert (name, found) == (name, code)


class SmallServer:
    """A port with these credentials, in this process, where nothing answers: UNIMPLEMENTED is who came through."""

    def __init__(self, credentials: grpc.ServerCredentials) -> None:
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        self.port = self.server.add_secure_port("localhost:0", credentials)

    def __enter__(self) -> SmallServer:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(0)

    def code(self, ca: Path) -> str:
        """What a client says that believes this authority."""
        # its own connections: those of another channel to the same place would be used again
        options = [("grpc.use_local_subchannel_pool", 1)]
        credentials = grpc.ssl_channel_credentials(ca.read_bytes())
        with grpc.secure_channel(f"localhost:{self.port}", credentials, options) as channel:
            return code_of(lambda: channel.unary_unary("/a/b")(b"", timeout=20))


def test_a_client_refuses_a_server_whose_certificate_has_expired(made: Certificates) -> None:
    cert, key = made.folder / "expired.pem", made.folder / "expired.key"
    with SmallServer(grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])) as server:
        assert server.code(made.ca) == "UNAVAILABLE"
    cert, key = made.folder / "server.pem", made.folder / "server.key"
    with SmallServer(grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])) as server:
        assert server.code(made.ca) == "UNIMPLEMENTED"


def test_renewed_certificates_hold_at_once_and_broken_ones_do_not(made: Certificates, tmp_path: Path) -> None:
    renewing = Certificates(tmp_path, trustme.CA())
    cert, key = renewing.write("server", renewing.authority.issue_cert("localhost"))
    credentials = server_credentials(Settings(tls_cert=cert, tls_key=key))
    assert credentials is not None
    with SmallServer(credentials) as server:
        assert (server.code(renewing.ca), server.code(made.ca)) == ("UNIMPLEMENTED", "UNAVAILABLE")
        cert.write_bytes((made.folder / "expired.pem").read_bytes())
        key.write_bytes((made.folder / "expired.key").read_bytes())
        assert server.code(renewing.ca) == "UNIMPLEMENTED"
        cert.write_bytes((made.folder / "server.pem").read_bytes())
        key.write_bytes((made.folder / "server.key").read_bytes())
        assert (server.code(made.ca), server.code(renewing.ca)) == ("UNIMPLEMENTED", "UNAVAILABLE")


def test_a_good_certificate_says_how_long(made: Certificates) -> None:
    settings = Settings(tls_cert=made.folder / "server.pem", tls_key=made.folder / "server.key", tls_client_ca=made.ca)
    until = check_certificates(settings)
    assert until and until.endswith("GMT")
    assert server_credentials(Settings()) is None and check_certificates(Settings()) is None


@pytest.mark.parametrize(
    ("cert", "key", "ca", "field", "told"),
    [
        ("expired.pem", "expired.key", None, "tls_cert", "expired"),
        ("server.pem", "client.key", None, "tls_key", "server.pem"),
        ("missing.pem", "server.key", None, "tls_cert", "No such file"),
        ("server.pem", "tokens", None, "tls_key", "PEM"),
        ("server.pem", "server.key", "tokens", "tls_client_ca", "authorities"),
        ("server.pem", "server.key", "missing", "tls_client_ca", "No such file"),
    ],
)
def test_certificates_that_do_not_do_are_refused_before_serving(
    made: Certificates, tokens: dict[str, str], cert: str, key: str, ca: str | None, field: str, told: str
) -> None:
    folder = made.folder
    settings = Settings(tls_cert=folder / cert, tls_key=folder / key, tls_client_ca=folder / ca if ca else None)
    with pytest.raises(InputError, match=told) as caught:
        server_credentials(settings)
    assert caught.value.field == field
    assert not any(token in str(caught.value) for token in tokens.values())


def test_a_server_does_not_start_and_its_check_fails_with_an_expired_certificate(
    made: Certificates, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["--tls-cert", str(made.folder / "expired.pem"), "--tls-key", str(made.folder / "expired.key")]
    for more in (["--check"], ["--metrics-address", "", "--address", "127.0.0.1:0"]):
        assert app(["serve", *flags, *more]) == 2
        said = capfd.readouterr()
        assert "tls_cert: expected a server's certificate that is valid now" in said.err
        assert "listening" not in said.out and "ready to serve" not in said.out
