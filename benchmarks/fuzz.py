"""Mutated requests against the wire layer, or against a running server.

    python benchmarks/fuzz.py --requests 20000
    python benchmarks/fuzz.py --requests 20000 --address 127.0.0.1:50051 [--token-file FILE]

Without --address: bytes are parsed, checked and decoded as a server does, and answers as a client does. All that may
come out is a result, a refusal that names its field (InputError), or protobuf's DecodeError. With --address: mutated
requests go to the server's methods, and raw bytes to its socket; what may not come back is INTERNAL or UNKNOWN, nor may
the server hang, end, or stop serving. The status is 1 where any of it happened.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from wire_mutations import mutate, mutated_bytes, valid_recording_stream, valid_request, valid_track_stream

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.errors import BodyfitError, InputError
from bodyfit.fit.fit import look
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.frames_wire import InstantDecoder, check_header, make_recording
from bodyfit_service.limits import Limits
from bodyfit_service.results_wire import estimate_message, read_estimate, read_result, result_message
from bodyfit_service.status import error_of_status, status_of

LIMITS = Limits(max_image_pixels=1 << 20, max_instants=16, max_message_bytes=4 << 20)
SERVICE = "/bodyfit.v1.BodyFitService/"
ANSWER_S = 30.0
"""a server that is silent for so long hangs"""
SERVING_S = 60.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def mutated(valid: Message, rng: random.Random) -> bytes:
    """A message with wrong fields, wrong bytes, or both."""
    message = type(valid)()
    message.CopyFrom(valid)
    what = rng.randrange(10)
    if what < 7:
        mutate(message, rng)
    data = message.SerializeToString()
    return mutated_bytes(data, rng) if what >= 6 else data


# the wire layer in this process


def take_request(data: bytes) -> None:
    """What a server does with a Fit's bytes, up to the person that is to be fitted: nobody is there."""
    request = pb.FitRequest.FromString(data)
    recording = make_recording(request.header, request.instants, LIMITS)
    for i in range(recording.num_frames):
        for sensor in recording.sensors:
            frame = recording.frame(i, sensor.name)
            if frame is not None and not (np.isfinite(frame.depth).all() and float(frame.depth.min()) >= 0):
                raise AssertionError("depth that is negative or not finite got through")
    look(recording, None, None, None, lambda _stage, _share: None)


def take_live(data: bytes) -> None:
    """And with an instant of a live stream."""
    start = valid_request(0).header
    decoder = InstantDecoder(check_header(start, LIMITS), LIMITS)
    decoder.frames(pb.Instant.FromString(data))


def wire_layer(requests: int, seed: int) -> tuple[Counter[str], list[str], float]:
    """How often what came out, what must not have, and the longest request's seconds."""
    model = load_body_model()
    valid = [valid_request(kind) for kind in range(4)]
    answer, estimate, status = _answers(model)
    kinds: list[tuple[str, Callable[[], Message], Callable[[bytes], Any]]] = [
        ("fit", lambda: rng.choice(valid), take_request),
        ("fit", lambda: rng.choice(valid), take_request),
        ("fit", lambda: rng.choice(valid), take_request),
        ("live", lambda: valid[0].instants[0], take_live),
        ("result", lambda: answer, lambda data: read_result(pb.FitResult.FromString(data), model)),
        ("estimate", lambda: estimate, lambda data: read_estimate(pb.TrackEstimate.FromString(data))),
        ("status", lambda: status, lambda data: error_of_status(Status.FromString(data))),
    ]
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    longest = 0.0
    for n in range(requests):
        rng = random.Random(seed * 1_000_003 + n)
        name, make, take = kinds[n % len(kinds)]
        data = mutated(make(), rng)
        began = time.perf_counter()
        try:
            take(data)
            counts[f"{name}: taken"] += 1
        except DecodeError as problem:
            counts[f"{name}: {type(problem).__name__}"] += 1
            status_of(problem, "id")
        except InputError as problem:
            counts[f"{name}: {type(problem).__name__}"] += 1
            told = error_of_status(Status.FromString(status_of(problem, "id").SerializeToString()))
            if type(told) is not type(problem) and "ModelFile" not in type(problem).__name__:
                wrong.append(f"request {n}: {problem!r} came over as {told!r}")
        except Exception:
            counts[f"{name}: WRONG"] += 1
            wrong.append(f"request {n}: {traceback.format_exc(limit=-6)}")
        longest = max(longest, time.perf_counter() - began)
    return counts, wrong, longest


def _answers(model: BodyModel) -> tuple[pb.FitResult, pb.TrackEstimate, Status]:
    """Real ones, of the shipped recording."""
    from bodyfit.fit.fit import fit
    from bodyfit.fit.track import Tracker
    from bodyfit.recording import open_recording
    from bodyfit.synthetic.demo import demo_recording_path

    recording = open_recording(demo_recording_path())
    result = fit(recording, model=model, frames=[0])
    frame = recording.frame(0, recording.sensors[0].name)
    assert frame is not None
    estimate = Tracker(model, gravity_world=recording.gravity_world).update([frame])
    status = status_of(InputError("instants[0].index", "a number", "none", "count"), "request")
    return result_message(result), estimate_message(estimate), status


# a running server


def methods(rng: random.Random) -> tuple[str, list[bytes]]:
    """One call: a method and the messages that go to it."""
    kind = rng.randrange(4)
    which = rng.randrange(10)
    if which < 5:
        return "Fit", [mutated(valid_request(kind), rng)]
    if which < 7:
        return "FitRecording", _mutated_stream(valid_recording_stream(kind), rng)
    if which < 8:
        return "Track", _mutated_stream(valid_track_stream(kind), rng)
    if which < 9:
        request = pb.MeasureRequest(betas=[rng.gauss(0, 1) for _ in range(rng.choice((0, 10, 48, 49)))])
        return "Measure", [mutated(request, rng)]
    message = rng.randbytes(rng.choice((0, 1, 10, 1000)))
    return rng.choice(("ListBodyModels", "GetServerInfo", "Fit", "Measure")), [message]


def _mutated_stream(messages: list[Any], rng: random.Random) -> list[bytes]:
    what = rng.randrange(5)
    if what == 0:
        rng.shuffle(messages)
    elif what == 1:
        del messages[rng.randrange(len(messages))]
    elif what == 2:
        messages.insert(rng.randrange(len(messages) + 1), rng.choice(messages))
    hit = rng.randrange(len(messages)) if messages and what >= 2 else -1
    return [mutated(m, rng) if i == hit else m.SerializeToString() for i, m in enumerate(messages)]


def running_server(address: str, requests: int, seed: int, token: str) -> tuple[Counter[str], list[str], float]:
    """How often which code came back, what must not have, and the longest call's seconds."""
    import grpc

    counts: Counter[str] = Counter()
    wrong: list[str] = []
    longest = 0.0
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    channel = grpc.insecure_channel(address)
    streaming = {"FitRecording", "Track"}

    def call(method: str, messages: list[bytes]) -> str:
        path = SERVICE + method
        if method not in streaming:
            channel.unary_unary(path)(messages[0], timeout=ANSWER_S, metadata=metadata)
            return "OK"
        for _answer in channel.stream_stream(path)(iter(messages), timeout=ANSWER_S, metadata=metadata):
            pass
        return "OK"

    for n in range(requests):
        rng = random.Random(seed * 1_000_003 + n)
        began = time.perf_counter()
        if n % 10 == 9:
            method, code = "socket", throw(address, rng)
        else:
            method, messages = methods(rng)
            try:
                code = call(method, messages)
            except grpc.RpcError as problem:
                answered: Any = problem
                code = answered.code().name
                if code in ("INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "UNAVAILABLE", "ABORTED"):
                    wrong.append(f"request {n}: {method}: {code}: {answered.details()}")
        counts[f"{method}: {code}"] += 1
        longest = max(longest, time.perf_counter() - began)
        if n % 500 == 499 and not is_serving(channel):
            wrong.append(f"after request {n} the server does not serve")
            break
    if not is_serving(channel):
        wrong.append("in the end the server does not serve")
    return counts, wrong, longest


def is_serving(channel: Any) -> bool:
    """Whether the server's health says so, within a minute: a worker that was replaced has to warm up."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    stub: Any = health_pb2_grpc.HealthStub(channel)
    end = time.perf_counter() + SERVING_S
    while time.perf_counter() < end:
        try:
            if stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status == health_pb2.HealthCheckResponse.SERVING:
                return True
        except grpc.RpcError:
            pass
        time.sleep(0.5)
    return False


def throw(address: str, rng: random.Random) -> str:
    """Bytes that are no gRPC to the socket; what came of it in a word."""
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_S) as connection:
            connection.settimeout(0.2)
            for piece in _noise(rng):
                connection.sendall(piece)
            try:
                while connection.recv(65536):
                    pass
                return "closed by the server"
            except TimeoutError:
                return "left open, closed here"
    except (ConnectionError, BrokenPipeError):
        return "closed by the server"


def _noise(rng: random.Random) -> Iterator[bytes]:
    """Random bytes, or frames of HTTP/2 (RFC 9113, 4.1) that make little sense."""
    if rng.random() < 0.3:
        yield rng.randbytes(rng.choice((1, 20, 5000)))
        return
    if rng.random() < 0.1:
        yield b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
        return
    yield PREFACE
    if rng.random() < 0.8:
        yield bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # SETTINGS, empty
    for _ in range(rng.randrange(1, 20)):
        content = rng.randbytes(rng.choice((0, 4, 8, 100)))
        length = len(content) if rng.random() < 0.8 else rng.randrange(1 << 24)
        stream = rng.choice((0, 1, 2, 3, 0x7FFFFFFF))
        yield length.to_bytes(3, "big") + bytes((rng.randrange(12), rng.randrange(256))) + stream.to_bytes(4, "big")
        yield content


def main(arguments: list[str]) -> int:
    """Runs it and prints what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--address", default="", help="HOST:PORT of a running server; the wire layer alone without")
    parser.add_argument("--token-file", type=Path, help="the token to send, where the server wants one")
    options = parser.parse_args(arguments)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    if options.address:
        token = options.token_file.read_text().strip() if options.token_file else ""
        counts, wrong, longest = running_server(options.address, options.requests, options.seed, token)
    else:
        counts, wrong, longest = wire_layer(options.requests, options.seed)
    record = {
        "requests": sum(counts.values()),
        "outcomes": dict(sorted(counts.items())),
        "wrong": len(wrong),
        "seconds": round(time.perf_counter() - began, 1),
        "longest_request_s": round(longest, 3),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "memory_before_mb": round(before / 1024),
    }
    print(json.dumps(record, indent=1))
    for text in wrong[:20]:
        print(text, file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except BodyfitError as problem:
        raise SystemExit(f"{problem}") from None
