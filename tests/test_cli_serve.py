"""`bodyfit serve --check`, `serve-token` and `warmup`: what they try, print and refuse."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from bodyfit.cli.main import app
from bodyfit_service.settings import field_docs


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith("BODYFIT_"):
            monkeypatch.delenv(variable)


def test_a_token_is_shown_with_the_line_of_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["serve-token", "anna", "--per-minute", "60", "--concurrent", "4", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    name, digest, *limits = made["line"].split()
    assert (name, limits) == ("anna", ["per_minute=60", "concurrent=4"])
    assert digest == hashlib.sha256(made["token"].encode()).hexdigest()
    assert app(["serve-token", "an na"]) == 2
    assert app(["serve-token", "anna", "--per-minute", "0"]) == 2


def test_check_tries_all_that_the_server_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cert = trustme.CA().issue_cert("localhost")
    cert.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    assert app(["serve-token", "anna"]) == 0
    (tmp_path / "tokens").write_text(capsys.readouterr().out.splitlines()[-1])
    (tmp_path / "serve.toml").write_text(
        'address = "0.0.0.0:50051"\ntls_cert = "cert.pem"\ntls_key = "key.pem"\ntokens = "tokens"\nqueue_size = 5\n'
        "max_recording_mb = 16\nmax_message_mb = 16\n"
    )
    assert app(["serve", "--check", "--config", str(tmp_path / "serve.toml"), "--queue-size", "6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" = ")[0] for line in lines[: len(field_docs())]] == list(field_docs())
    assert "queue_size = 6" in lines and "address = 0.0.0.0:50051" in lines
    starts = ("TLS: certificate valid until ", "tokens: 1", "shared memory: ", "body model: anny_adult", "test fit: ")
    for start in starts:
        assert any(line.startswith(start) for line in lines), start
    assert lines[-1] == "ready to serve"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--tokens", "missing"], "tokens missing"),
        (["--tls-cert", "missing", "--tls-key", "missing"], "tls_cert"),
        (["--model", "nobody"], "anny_adult"),
        (["--address", "0.0.0.0:1"], "--allow-insecure"),
        (["--queue-size", "x"], "--queue-size"),
        (["--config", "missing.toml"], "missing.toml"),
        (["--max-recording-mb", "1048576", "--uploads-mb", "1048576"], "shared memory|/dev/shm"),
    ],
)
def test_check_says_what_is_wrong(flags: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["serve", "--check", *flags]) == 2
    said = capsys.readouterr()
    assert any(word in said.err for word in told.split("|"))
    assert "ready to serve" not in said.out


def test_a_variable_that_is_no_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BODYFIT_QUEUE_SISE", "3")
    assert app(["serve", "--check"]) == 2
    assert "BODYFIT_QUEUE_SISE" in capsys.readouterr().err


def test_without_grpc_the_message_names_the_extra(repo_root: Path) -> None:
    code = """
import importlib.machinery as m, sys
find = m.PathFinder.find_spec
m.PathFinder.find_spec = classmethod(lambda c, name, *a: None if name.split(".")[0] == "grpc" else find(name, *a))
from bodyfit.cli.main import app
sys.exit(app(["serve"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3 and "bodyfit[service]" in done.stderr


def test_help_of_serve_names_every_setting(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert app(["serve", "--help"]) == 0
    said = capsys.readouterr().out
    assert [n for n in field_docs() if "--" + n.replace("_", "-") not in said] == []


@pytest.mark.slow
def test_warmup_fits_follows_and_draws(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["warmup"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["fit", "follow", "draw and write"]
    folder = Path(lines[3].removeprefix("compiled kernels are in "))
    assert any(folder.rglob("*.nbi"))
