"""How fast a fit stops that nobody wants any more: a real server on the loopback, calls that are cancelled or time out.

    python benchmarks/cancel.py [--calls 30] RECORDING

A call is cancelled, or its deadline passes, at a moment drawn between 0.2 and 3 s; from then on the server is asked
every two milliseconds whether its one fit worker is still at work. Times include those questions and the way there.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from load import Server


def stopped_after_s(stub: Any, request: Any, wait_s: float, *, deadline: bool) -> float:
    """Seconds from the end of a call until its worker is free."""
    import grpc

    from bodyfit_protos.v1 import bodyfit_pb2 as pb

    ask = pb.GetServerInfoRequest()
    call = stub.Fit.future(request, timeout=wait_s if deadline else 120)
    while not stub.GetServerInfo(ask).fit_workers_busy:
        time.sleep(0.002)
    if deadline:
        call.exception()
        assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    else:
        time.sleep(wait_s)
        call.cancel()
    began = time.perf_counter()
    while stub.GetServerInfo(ask).fit_workers_busy:
        time.sleep(0.002)
    return time.perf_counter() - began


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="How fast a fit stops that nobody wants any more.")
    parser.add_argument("recording", type=Path)
    parser.add_argument("--calls", type=int, default=30, help="of each kind")
    asked = parser.parse_args(arguments)
    import grpc

    from bodyfit.recording import open_recording
    from bodyfit_protos.v1 import bodyfit_pb2 as pb
    from bodyfit_protos.v1 import bodyfit_pb2_grpc
    from bodyfit_service.frames_wire import recording_messages

    header, instants = recording_messages(open_recording(asked.recording))
    request = pb.FitRequest(header=header, instants=list(instants))
    rng = np.random.default_rng(0)
    server = Server(1, ("--track-workers", "0"))
    try:
        server.wait_serving()
        with grpc.insecure_channel(server.address) as channel:
            stub = bodyfit_pb2_grpc.BodyFitServiceStub(channel)
            out = {}
            for name in ("cancelled", "deadline"):
                waits = rng.uniform(0.2, 3.0, asked.calls)
                took = [1e3 * stopped_after_s(stub, request, w, deadline=name == "deadline") for w in waits]
                p50, p95, most = np.percentile(took, [50, 95, 100]).round(1)
                out[name] = {"calls": len(took), "p50_ms": p50, "p95_ms": p95, "most_ms": most}
            print(json.dumps(out, indent=1))
    finally:
        server.process.terminate()
        server.process.wait(60)


if __name__ == "__main__":
    main()
