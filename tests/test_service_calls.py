"""What every call goes through: token, rate, id, errors, log, metrics, trace; over a real port of this process."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import wrappers_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from bodyfit.errors import InputError
from bodyfit_service.auth import Authenticator, new_token, read_tokens
from bodyfit_service.errors import UnauthenticatedError
from bodyfit_service.interceptors import CALLER, ID, REQUEST_ID, Interceptor
from bodyfit_service.logs import set_up_logs, without_secrets
from bodyfit_service.metrics import Metrics, serve_metrics
from bodyfit_service.rates import Rates
from bodyfit_service.status import status_of
from bodyfit_service.traces import Traces

SECRET = "what the frames hold"


@pytest.fixture
def log_lines() -> Any:
    stream = io.StringIO()
    set_up_logs("debug", "json", stream)

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield lines
    set_up_logs()


async def echo(request: Any, context: Any) -> Any:
    caller = CALLER.get()
    return wrappers_pb2.StringValue(value=f"{caller.name if caller else '-'} {REQUEST_ID.get()} {request.value}")


async def fail(request: Any, context: Any) -> Any:
    raise RuntimeError("a fault")


async def refuse(request: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.NOT_FOUND, "not here")


async def wait(request: Any, context: Any) -> Any:
    await asyncio.sleep(30)


async def count(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    n = 0
    async for _ in requests:
        n += 1
        yield wrappers_pb2.StringValue(value=str(n))


async def written(request: Any, context: Any) -> None:
    for n in range(2):
        await context.write(wrappers_pb2.StringValue(value=str(n)))


def handlers() -> tuple[grpc.GenericRpcHandler, ...]:
    kind = wrappers_pb2.StringValue
    read, write = kind.FromString, kind.SerializeToString
    one = {n: grpc.unary_unary_rpc_method_handler(f, read, write) for n, f in
           (("Echo", echo), ("Fail", fail), ("Refuse", refuse), ("Wait", wait))}  # fmt: skip
    many = {
        "Count": grpc.stream_stream_rpc_method_handler(count, read, write),
        "Written": grpc.unary_stream_rpc_method_handler(written, read, write),
    }
    health = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": one["Echo"]})
    return grpc.method_handlers_generic_handler("test.Test", one | many), health


class Served:
    """A port with the handlers above behind an interceptor, and calls to it."""

    def __init__(self, tokens: Path | None, clock: Callable[[], float], exporter: Any = None) -> None:
        self.metrics = Metrics()
        self.traces = Traces(exporter=exporter)
        auth = Authenticator(tokens, clock)
        self.interceptor = Interceptor(status_of, auth, Rates(clock), self.metrics, self.traces)

    async def __aenter__(self) -> Served:
        self.server = grpc.aio.server(interceptors=[self.interceptor])
        self.server.add_generic_rpc_handlers(handlers())
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}")
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        await self.server.stop(0)
        self.traces.close()

    async def call(
        self, method: str, token: str | None = None, *, data: bytes | None = None, timeout: float = 20, **metadata: str
    ) -> tuple[str, Any]:
        """Code, and the answer's text or the error."""
        sent = [(key.replace("_", "-"), value) for key, value in metadata.items()]
        sent += [("authorization", f"Bearer {token}")] if token is not None else []
        request = wrappers_pb2.StringValue(value=SECRET).SerializeToString() if data is None else data
        path = method if method.startswith("/") else f"/test.Test/{method}"
        try:
            call = self.channel.unary_unary(path)(request, metadata=sent, timeout=timeout)
            answer = wrappers_pb2.StringValue.FromString(await call).value
            return "OK", (answer, dict(await call.initial_metadata()))
        except grpc.aio.AioRpcError as e:
            return e.code().name, e


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


def token_file(path: Path, *people: tuple[str, dict[str, int]]) -> dict[str, str]:
    """Writes a file of tokens; name → token."""
    made = {name: new_token(name, **limits) for name, limits in people}
    path.write_text("# who may call\n\n" + "".join(f"{line}  # since today\n" for _, line in made.values()))
    return {name: token for name, (token, _) in made.items()}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_tokens_are_needed_known_and_told_apart(tmp_path: Path, log_lines: Any) -> None:
    tokens = token_file(tmp_path / "tokens", ("anna", {}), ("ben", {}))

    async def work() -> None:
        async with Served(tmp_path / "tokens", Clock()) as served:
            assert (await served.call("Echo", tokens["anna"]))[1][0].startswith("anna ")
            assert (await served.call("Echo", tokens["ben"]))[1][0].startswith("ben ")
            wrong = tokens["anna"][:-1] + ("A" if tokens["anna"][-1] != "A" else "B")
            for token in (None, wrong, "", tokens["anna"].upper(), "anna"):
                assert (await served.call("Echo", token))[0] == "UNAUTHENTICATED"
            assert (await served.call("Echo", authorization=tokens["anna"]))[0] == "UNAUTHENTICATED"
            assert (await served.call("Echo", authorization=f"Basic {tokens['anna']}"))[0] == "UNAUTHENTICATED"
            twice = await served.call("Echo", tokens["anna"], authorization=f"Bearer {wrong}")
            assert twice[0] == "UNAUTHENTICATED"
            # probes have no token; whether a method is there is nobody's business who has none
            assert (await served.call("/grpc.health.v1.Health/Check"))[0] == "OK"
            assert (await served.call("Nothing", tokens["anna"]))[0] == "UNIMPLEMENTED"
            assert (await served.call("Nothing"))[0] == "UNAUTHENTICATED"

    run(work())
    text = json.dumps(log_lines())
    assert "anna" in text and SECRET not in text and "127.0.0.1" not in text
    assert not any(token in text or token[8:30] in text for token in tokens.values())


def test_without_a_file_of_tokens_nobody_is_asked(log_lines: Any) -> None:
    async def work() -> None:
        async with Served(None, Clock()) as served:
            assert (await served.call("Echo"))[1][0].startswith("- ")

    run(work())
    assert all("caller" not in line for line in log_lines() if line["message"] == "call")


def test_more_calls_a_minute_than_a_token_has_are_refused_with_a_time(tmp_path: Path) -> None:
    tokens = token_file(tmp_path / "tokens", ("anna", {"per_minute": 2}), ("ben", {}))
    clock = Clock()

    async def work() -> None:
        async with Served(tmp_path / "tokens", clock) as served:
            assert [(await served.call("Echo", tokens["anna"]))[0] for _ in range(2)] == ["OK", "OK"]
            clock.now += 20.5
            code, error = await served.call("Echo", tokens["anna"])
            assert code == "RESOURCE_EXHAUSTED"
            status = rpc_status.from_call(error)
            assert status is not None
            (detail,) = [d for d in status.details if d.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
            info = error_details_pb2.RetryInfo()
            assert detail.Unpack(info) and 39 <= info.retry_delay.seconds <= 40
            assert (await served.call("Echo", tokens["ben"]))[0] == "OK"
            clock.now += 39.4
            assert (await served.call("Echo", tokens["anna"]))[0] == "RESOURCE_EXHAUSTED"
            clock.now += 0.2
            assert (await served.call("Echo", tokens["anna"]))[0] == "OK"

    run(work())


def test_tokens_are_added_and_withdrawn_without_a_restart(tmp_path: Path, log_lines: Any) -> None:
    file, clock = tmp_path / "tokens", Clock()
    first = token_file(file, ("anna", {}))
    auth = Authenticator(file, clock)

    def name_of(token: str) -> str | None:
        try:
            caller = auth.client_of([("authorization", f"Bearer {token}")])
        except UnauthenticatedError:
            return None
        assert caller is not None
        return caller.name

    second = token_file(tmp_path / "new", ("ben", {"concurrent": 3}))
    (tmp_path / "new").replace(file)
    assert name_of(first["anna"]) == "anna"  # the file is looked at once a second at most
    clock.now += 2
    assert (name_of(first["anna"]), name_of(second["ben"])) == (None, "ben")
    file.write_text("ben not-a-hash\n")
    clock.now += 2
    assert name_of(second["ben"]) == "ben"
    assert [line["level"] for line in log_lines() if "tokens" in line["message"]] == ["info", "error"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "one token at least"),
        ("anna", "SHA-256"),
        ("anna " + "g" * 64, "SHA-256"),
        ("anna bodyfit_" + "x" * 43, "SHA-256"),
        ("bodyfit_" + "x" * 43, "another name"),
        ("an/na " + "a" * 64, "another name"),
        ("anna " + "a" * 64 + "\nanna " + "b" * 64, "each name once"),
        ("anna " + "a" * 64 + "\nben " + "A" * 64, "each token once"),
        ("anna " + "a" * 64 + " per_minute=0", "per_minute=N"),
        ("anna " + "a" * 64 + " per_hour=3", "per_minute=N"),
        ("anna " + "a" * 64 + " concurrent=1 concurrent=2", "each once"),
    ],
)
def test_a_wrong_file_of_tokens_is_refused_without_what_is_in_it(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(InputError, match=told) as caught:
        Authenticator(file)
    assert "x" * 43 not in str(caught.value) and "a" * 64 not in str(caught.value)


def test_a_new_token_is_random_and_its_line_does_not_hold_it(tmp_path: Path) -> None:
    (token, line), (other, _) = new_token("anna", per_minute=60, concurrent=2), new_token("anna")
    assert token != other and len(token) == 8 + 43 and token not in line
    (tmp_path / "tokens").write_text(line)
    (read,) = read_tokens(tmp_path / "tokens")
    assert (read.caller.name, read.caller.per_minute, read.caller.concurrent) == ("anna", 60, 2)
    with pytest.raises(InputError, match="name"):
        new_token("an na")


def test_ids_come_back_and_bad_ones_are_replaced(log_lines: Any) -> None:
    async def work() -> list[str]:
        async with Served(None, Clock()) as served:
            given = await served.call("Echo", x_request_id="mine-1.2_3")
            made = await served.call("Echo")
            bad = await served.call("Echo", x_request_id='a"} {"code": "OK')
            failed = await served.call("Fail", x_request_id="failed-1")
            assert failed[0] == "INTERNAL" and "fault" not in failed[1].details()
            assert dict(failed[1].trailing_metadata())["x-request-id"] == "failed-1"
            # the client may send again what nobody took on
            assert "x-request-id" not in dict(failed[1].initial_metadata())
            return [answer[1][1]["x-request-id"] for answer in (given, made, bad)]

    given, made, bad = run(work())
    assert given == "mine-1.2_3" and ID.fullmatch(made) and ID.fullmatch(bad) and made != bad
    (failed,) = [line for line in log_lines() if line.get("code") == "INTERNAL"]
    assert failed["level"] == "error" and failed["request_id"] == "failed-1" and "a fault" in failed["traceback"]


def test_one_line_and_one_count_for_each_call_however_it_ends(log_lines: Any) -> None:
    async def work() -> str:
        async with Served(None, Clock()) as served:
            codes = [(await served.call(method))[0] for method in ("Echo", "Fail", "Refuse", "Nothing")]
            codes += [(await served.call("Echo", data=b"\xff\xff"))[0]]
            codes += [(await served.call("Wait", timeout=0.2))[0]]
            going = asyncio.create_task(served.call("Wait"))
            await asyncio.sleep(0.2)
            going.cancel()
            call = served.channel.stream_stream("/test.Test/Count")(iter([b"", b""]))
            assert [wrappers_pb2.StringValue.FromString(a).value async for a in call] == ["1", "2"]
            assert "x-request-id" in dict(await call.initial_metadata())
            call = served.channel.unary_stream("/test.Test/Written")(b"")
            assert [wrappers_pb2.StringValue.FromString(a).value async for a in call] == ["0", "1"]
            assert "x-request-id" in dict(await call.initial_metadata())
            broken = served.channel.stream_stream("/test.Test/Count")(iter([b"", b"\xff\xff"]))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in broken:
                    pass
            codes += [caught.value.code().name]
            assert codes == ["OK", "INTERNAL", "NOT_FOUND", "UNIMPLEMENTED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED",
                             "INVALID_ARGUMENT"]  # fmt: skip
            await asyncio.sleep(0.2)
            return served.metrics.text()

    text = run(work())
    seen = [(line["method"].rpartition("/")[2], line["code"]) for line in log_lines() if line["message"] == "call"]
    assert sorted(seen) == sorted([
        ("Echo", "OK"), ("Fail", "INTERNAL"), ("Refuse", "NOT_FOUND"), ("unknown", "UNIMPLEMENTED"),
        ("Echo", "INVALID_ARGUMENT"), ("Wait", "DEADLINE_EXCEEDED"), ("Wait", "CANCELLED"), ("Count", "OK"),
        ("Written", "OK"), ("Count", "INVALID_ARGUMENT"),
    ])  # fmt: skip
    for method, code in seen:
        assert f'bodyfit_requests_total{{code="{code}",method="{method}"}} 1.0' in text
    assert 'bodyfit_open_calls{method="Wait"} 0.0' in text
    assert "bodyfit_device" not in text


def test_spans_go_on_with_the_client_s_trace_and_hold_no_message() -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def work() -> None:
        async with Served(None, Clock(), exporter) as served:
            await served.call("Echo", traceparent=parent)
            await served.call("Fail")

    run(work())
    first, second = exporter.get_finished_spans()
    assert first.context and f"{first.context.trace_id:032x}" == parent.split("-")[1] and first.name == "Echo"
    assert second.status.status_code.name == "ERROR" and not second.events
    assert (first.attributes or {})["rpc.grpc.status_code"] == "OK"
    assert SECRET not in first.to_json() + second.to_json()


def test_metrics_are_read_over_http_and_the_address_must_be_free(log_lines: Any) -> None:
    metrics = Metrics()
    metrics.stage("decode", 0.02)
    metrics.observe(queued=3, busy=1, ready=2, streams=1, upload_bytes=77)
    metrics.restarted("fit", "signal 9")
    metrics.drops(4)
    lines: list[str] = []
    stop = serve_metrics(metrics, "127.0.0.1:0")
    try:
        (port,) = [line["port"] for line in log_lines() if line["message"] == "metrics"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        with pytest.raises(InputError, match="metrics_address"):
            serve_metrics(Metrics(), f"127.0.0.1:{port}")
    finally:
        stop()
    for line in (
        "bodyfit_queue_length 3.0",
        "bodyfit_upload_bytes 77.0",
        "bodyfit_dropped_instants_total 4.0",
        'bodyfit_worker_restarts_total{reason="signal 9",role="fit"} 1.0',
        'bodyfit_stage_seconds_count{stage="decode"} 1.0',
        'bodyfit_stage_seconds_count{stage="fit"} 0.0',
    ):
        assert line in lines
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2)


def test_what_must_never_be_logged_is_blotted_out_and_lines_stay_lines() -> None:
    token, _ = new_token("anna")
    for text in (f"authorization: Bearer {token}", f"got {token}!", "Bearer abc.def-ghi", f'{{"x": "{token}"}}'):
        assert "***" in without_secrets(text)
        assert token not in without_secrets(text) and "abc" not in without_secrets(text)
    import logging

    for format in ("json", "text"):
        stream = io.StringIO()
        set_up_logs("info", format, stream)
        log = logging.getLogger("bodyfit.service")
        log.debug("nobody hears this")
        log.info("x\nerror forged %s", token, extra={"worker": "fit\n0"})
        logging.getLogger("somebody.else").info("nor this")
        assert stream.getvalue().count("\n") == 1 and token not in stream.getvalue()
    set_up_logs()
