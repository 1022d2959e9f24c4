"""The server's settings: what wins, what is refused by which name, what is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bodyfit.errors import DeviceError, InputError
from bodyfit_service.settings import (
    BOUNDS,
    Settings,
    field_docs,
    is_loopback,
    printed,
    read_settings,
    split_address,
    usable_cores,
)


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('queue_size = 3\nper_client = 3\ngrace_s = 3\nlog_level = "error"\n')
    environ = {"BODYFIT_QUEUE_SIZE": "2", "BODYFIT_PER_CLIENT": "2", "PATH": "/bin", "BODYFIT_MODELS": "/x"}
    settings = read_settings({"queue_size": 1, "log_level": None}, environ, file)
    assert (settings.queue_size, settings.per_client, settings.grace_s, settings.max_instants) == (1, 2, 3.0, 256)
    assert settings.log_level == "error"


def test_defaults_need_nothing_and_listen_on_the_loopback() -> None:
    assert read_settings({}, {}, None) == Settings()
    assert Settings().address.startswith("127.0.0.1:")


def test_paths_of_a_file_start_at_its_folder(tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text('tokens = "tokens.txt"\ntls_cert = "/etc/c.pem"\ntls_key = "k.pem"\n')
    settings = read_settings({}, {}, tmp_path / "serve.toml")
    assert settings.tokens == tmp_path / "tokens.txt"
    assert (settings.tls_cert, settings.tls_key) == (Path("/etc/c.pem"), tmp_path / "k.pem")


@pytest.mark.parametrize(
    ("flags", "environ", "text", "field"),
    [
        ({"queue_sise": 3}, {}, None, "--queue-sise"),
        ({}, {"BODYFIT_QUEUE_SISE": "3"}, None, "BODYFIT_QUEUE_SISE"),
        ({}, {}, "queue_sise = 3", "serve.toml: queue_sise"),
        ({}, {}, "[server]\nqueue_size = 3", "serve.toml: server"),
        ({"queue_size": -1}, {}, None, "--queue-size"),
        ({}, {"BODYFIT_QUEUE_SIZE": "many"}, None, "BODYFIT_QUEUE_SIZE"),
        ({}, {}, "queue_size = 2.5", "serve.toml: queue_size"),
        ({}, {}, "queue_size = true", "serve.toml: queue_size"),
        ({}, {}, "grace_s = nan", "serve.toml: grace_s"),
        ({}, {}, "grace_s = [1]", "serve.toml: grace_s"),
        ({"max_message_mb": 2048}, {}, None, "--max-message-mb"),
        ({}, {"BODYFIT_ALLOW_INSECURE": "maybe"}, None, "BODYFIT_ALLOW_INSECURE"),
        ({"log_level": "loud"}, {}, None, "--log-level"),
        ({}, {"BODYFIT_LOG_FORMAT": "xml"}, None, "BODYFIT_LOG_FORMAT"),
        ({"address": "127.0.0.1"}, {}, None, "--address"),
        ({"address": "127.0.0.1:70000"}, {}, None, "--address"),
        ({"metrics_address": "nowhere"}, {}, None, "--metrics-address"),
        ({"device": "cuda"}, {}, None, "--device"),
        ({"tls_cert": "c.pem"}, {}, None, "--tls-key"),
        ({"tls_client_ca": "c.pem"}, {}, None, "--tls-client-ca"),
        ({"uploads_mb": 10}, {}, None, "--uploads-mb"),
        ({"max_recording_mb": 9999}, {}, None, "--max-recording-mb"),
        ({"otel_endpoint": "collector:4317"}, {}, None, "--otel-endpoint"),
        ({}, {}, "address = 5", "serve.toml: address"),
        ({}, {}, "tokens = 5", "serve.toml: tokens"),
    ],
)
def test_refused_by_the_name_that_the_user_wrote(
    tmp_path: Path, flags: dict[str, object], environ: dict[str, str], text: str | None, field: str
) -> None:
    file = tmp_path / "serve.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_settings(flags, environ, file if text is not None else None)
    assert caught.value.field.endswith(field)


def test_the_nearest_name_is_proposed() -> None:
    with pytest.raises(InputError, match="BODYFIT_QUEUE_SIZE"):
        read_settings({}, {"BODYFIT_QUEUE_SISE": "3"})


@pytest.mark.parametrize("text", ["queue_size = ", "\xff\xfe"])
def test_a_file_that_is_no_toml(tmp_path: Path, text: str) -> None:
    (tmp_path / "serve.toml").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"serve\.toml: expected TOML"):
        read_settings({}, {}, tmp_path / "serve.toml")
    with pytest.raises(InputError, match="a file of settings"):
        read_settings({}, {}, tmp_path / "missing.toml")


def test_other_devices_are_refused_as_elsewhere() -> None:
    with pytest.raises(DeviceError):
        read_settings({"device": "cuda"}, {})


TLS = {"tls_cert": "c.pem", "tls_key": "k.pem"}


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "10.0.0.7:50051", "fit.example:50051"])
def test_beyond_loopback_needs_tls_and_tokens(address: str) -> None:
    for given, lacks in (({}, "no TLS and no tokens"), (TLS, "no tokens"), ({"tokens": "t"}, "no TLS")):
        with pytest.raises(InputError, match=lacks):
            read_settings({"address": address, **given}, {})
    assert read_settings({"address": address, **TLS, "tokens": "t"}, {}).address == address
    assert read_settings({"address": address, "allow_insecure": True}, {}).address == address


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:1", "[::1]:50051", "127.9.9.9:50051"])
def test_loopback_needs_nothing(address: str) -> None:
    assert is_loopback(split_address(address, "address")[0])
    assert read_settings({"address": address}, {}).address == address


def test_printed_settings_hold_no_secret(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("reader " + "ab" * 32)
    shown = printed(
        read_settings({"tokens": tokens, "otel_endpoint": "https://me:hunter2@collector:4317/?key=hunter3"}, {})
    )
    assert list(shown) == list(field_docs())
    assert shown["otel_endpoint"] == "https://collector:4317/"
    assert shown["tokens"] == str(tokens)
    assert "abab" not in str(shown) and "hunter" not in str(shown)


def test_every_field_has_its_line_and_every_number_its_bounds() -> None:
    docs = field_docs()
    assert all(len(text) > 10 for text in docs.values())
    numbers = {n for n, v in vars(Settings()).items() if isinstance(v, int | float) and not isinstance(v, bool)}
    assert numbers | {"fit_workers"} == set(BOUNDS)
    for name, (low, high) in BOUNDS.items():
        default = getattr(Settings(), name)
        assert default is None or low <= default <= high


def test_a_container_s_share_of_cores_counts(tmp_path: Path) -> None:
    here = usable_cores(tmp_path / "none")
    share = tmp_path / "cpu.max"
    for text, cores in (("max 100000", here), ("100000 100000", 1), ("50000 100000", 1), ("broken", here)):
        share.write_text(text)
        assert usable_cores(share) == cores
    assert Settings(threads_per_worker=10_000).num_fit_workers == 1
    assert Settings(fit_workers=7).num_fit_workers == 7
