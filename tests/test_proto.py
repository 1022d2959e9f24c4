"""The .proto is its own manual, keeps buf's rules (STANDARD category, checked by hand), and is what the generated code
was made from."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

NAME = "bodyfit/v1/bodyfit.proto"


@pytest.fixture(scope="module")
def file(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> descriptor_pb2.FileDescriptorProto:
    out = tmp_path_factory.mktemp("proto") / "set.pb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{repo_root / 'protos'}", f"--descriptor_set_out={out}"]
    subprocess.run([*command, "--include_source_info", str(repo_root / "protos" / NAME)], check=True, timeout=60)
    (found,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    return found


def named(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    """Kind, descriptor and path of everything that has a name, oneofs left out."""
    for m, message in enumerate(file.message_type):
        yield "message", message, (4, m)
        for f, field in enumerate(message.field):
            yield "field", field, (4, m, 2, f)
    for e, enum in enumerate(file.enum_type):
        yield "enum", enum, (5, e)
        for v, value in enumerate(enum.value):
            yield "value", value, (5, e, 2, v)
    for s, service in enumerate(file.service):
        yield "service", service, (6, s)
        for r, method in enumerate(service.method):
            yield "rpc", method, (6, s, 2, r)


def test_generated_code_is_what_the_proto_says(repo_root: Path) -> None:
    command = [sys.executable, str(repo_root / "scripts" / "make_protos.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_everything_has_a_comment(file: descriptor_pb2.FileDescriptorProto) -> None:
    told = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments.strip()}
    bare = [f"{kind} {thing.name}" for kind, thing, path in named(file) if path not in told]
    assert not bare


def test_names_keep_bufs_rules(file: descriptor_pb2.FileDescriptorProto) -> None:
    assert file.package == "bodyfit.v1" and file.syntax == "proto3"
    for kind, thing, _ in named(file):
        pattern = {"field": r"[a-z][a-z0-9]*(_[a-z0-9]+)*", "value": r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*"}
        assert re.fullmatch(pattern.get(kind, r"([A-Z][a-z0-9]*)+"), thing.name), thing.name
    for enum in file.enum_type:
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
        assert all(v.name.startswith(prefix) for v in enum.value), enum.name
        assert enum.value[0].number == 0 and enum.value[0].name == prefix + "UNSPECIFIED"
    (service,) = file.service
    assert service.name.endswith("Service")
    for method in service.method:
        assert method.input_type == f".bodyfit.v1.{method.name}Request"
        assert method.output_type == f".bodyfit.v1.{method.name}Response"
