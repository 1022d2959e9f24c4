"""Container, compose, manifests and docs/service.md: that they parse, agree with one another and with the code."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bodyfit_service.metrics import DEVICE_GAUGES, Metrics
from bodyfit_service.settings import Settings, field_docs, read_settings, split_address

UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}


def in_bytes(text: str) -> int:
    """`2gb`, `2Gi`, `12gb` as bytes."""
    found = re.fullmatch(r"(\d+)([kmg])(b|i)", text.lower())
    assert found, text
    return int(found[1]) * UNITS[found[2]]


@pytest.fixture(scope="module")
def compose(repo_root: Path) -> dict[str, Any]:
    return yaml.safe_load((repo_root / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def manifests(repo_root: Path) -> dict[str, dict[str, Any]]:
    """By kind, those that the kustomization lists."""
    folder = repo_root / "deploy" / "kubernetes"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    documents = [d for name in listed for d in yaml.safe_load_all((folder / name).read_text())]
    there = {p.name for p in folder.glob("*.yaml")} - {"kustomization.yaml", "prometheus-adapter.yaml"}
    assert set(listed) == there
    by_kind = {d["kind"]: d for d in documents}
    assert len(by_kind) == len(documents)
    return by_kind


Instructions = list[tuple[str, str]]


@pytest.fixture(scope="module")
def written(repo_root: Path) -> Instructions:
    """The Dockerfile's, continued lines joined, comments left out."""
    lines = [s for s in (repo_root / "Dockerfile").read_text().splitlines() if s and not s.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined)]


def target(written: Instructions, name: str | None = None) -> Instructions:
    """What a target is built from, in order: its own stage (the last where no name is given), those that it begins with
    and those that it copies from."""
    stages: list[tuple[str, str, Instructions]] = []
    for word, rest in written:
        if word == "FROM":
            base, _, alias = rest.partition(" AS ")
            stages.append((alias, base, []))
        elif stages:
            stages[-1][2].append((word, rest))
    by_name = {alias: (base, inside) for alias, base, inside in stages if alias}

    def all_of(base: str, inside: Instructions) -> Instructions:
        begins = all_of(*by_name[base]) if base in by_name else [("FROM", base)]
        froms = [m[1] for word, rest in inside if word == "COPY" and (m := re.match(r"--from=(\S+)", rest))]
        return [*(i for other in froms for i in all_of(*by_name[other])), *begins, *inside]

    return all_of(*by_name[name]) if name is not None else all_of(stages[-1][1], stages[-1][2])


@pytest.fixture(scope="module")
def instructions(written: Instructions) -> Instructions:
    """Of the image that is built where no target is named."""
    return target(written)


@pytest.fixture(scope="module")
def metric_names() -> set[str]:
    """As Prometheus knows them, with what a GPU would add."""
    metrics = Metrics()
    metrics.device("cuda", dict.fromkeys(DEVICE_GAUGES, 1))
    return {line.split()[2] for line in metrics.text().splitlines() if line.startswith("# TYPE bodyfit_")}


# the container


def of(instructions: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for name, rest in instructions if name == word]


def copied(instructions: list[tuple[str, str]]) -> Iterator[str]:
    for rest in of(instructions, "COPY"):
        if not rest.startswith("--from"):
            yield from rest.split()[:-1]


def test_image_is_not_root_s_and_its_volume_is_the_kernels(instructions: list[tuple[str, str]]) -> None:
    assert of(instructions, "USER") == ["10001:10001"]
    (folder,) = json.loads(of(instructions, "VOLUME")[0])
    assert f"NUMBA_CACHE_DIR={folder} " in of(instructions, "ENV")[-1] + " "
    assert set(of(instructions, "EXPOSE")[0].split()) == {Settings.address.split(":")[1], "9464"}
    assert of(instructions, "CMD") == ['["bodyfit", "serve"]']
    assert instructions[-1] == ("COPY", "--from=build /opt/venv /opt/venv")


def test_image_asks_for_health_with_what_it_holds(instructions: list[tuple[str, str]]) -> None:
    (check,) = of(instructions, "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert command[:2] == ["python", "-m"] and importlib.util.find_spec(command[2])


def test_image_has_the_libraries_that_set_up_installs(repo_root: Path, instructions: list[tuple[str, str]]) -> None:
    pairs = re.findall(r"\S+\.so\.\d:([a-z0-9.-]+)", (repo_root / "scripts" / "setup.sh").read_text())
    (apt,) = [rest for rest in of(instructions, "RUN") if "apt-get install" in rest]
    assert len(pairs) == 6 and all(f" {package} " in apt for package in pairs)


def test_image_installs_extras_that_are_there(repo_root: Path, instructions: list[tuple[str, str]]) -> None:
    extras = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = [m[1].split(",") for rest in of(instructions, "RUN") if (m := re.search(r'"\.\[([a-z,]+)\]"', rest))]
    assert len(installed) == 1 and set(installed[0]) <= set(extras) and "service" in installed[0]


def test_image_for_a_gpu_is_the_other_one_and_the_compiler_of_its_kernels(
    repo_root: Path, written: Instructions, instructions: Instructions
) -> None:
    cuda = target(written, "cuda")
    extras = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = [m[1] for rest in of(cuda, "RUN") if (m := re.search(r'"\.\[([a-z,]+)\]"', rest))]
    assert len(installed) == 2 and "service" in installed[0] and installed[1] == "cuda" in extras
    # a torch that knows no CUDA is noticed while the image is built
    assert any("torch.version.cuda" in rest for rest in of(cuda, "RUN"))
    plain, here = (dict(re.findall(r"([A-Z_]+)=(\S+)", " ".join(of(i, "ENV")))) for i in (instructions, cuda))
    (folder,) = json.loads(of(cuda, "VOLUME")[0])
    assert {k: v for k, v in here.items() if plain.get(k) != v} == {
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        "BODYFIT_DEVICE": "cuda",
        "CUDA_CACHE_PATH": f"{folder}/driver",
    }
    assert "device" in field_docs()
    for word in ("USER", "CMD", "HEALTHCHECK", "EXPOSE", "STOPSIGNAL"):
        assert of(cuda, word) == of(instructions, word) and len(of(cuda, word)) == 1
    # and the other one is free of it
    assert not [rest for _, rest in instructions if "cuda" in rest.lower()]
    guide = (repo_root / "docs" / "gpu.md").read_text(encoding="utf-8")
    for command in ("docker build -t bodyfit:cuda --target cuda .", "--gpus all", "bodyfit warmup --device cuda"):
        assert command in guide and command in (repo_root / "Dockerfile").read_text()


def test_what_the_image_is_built_from_is_sent_and_is_enough(
    repo_root: Path, instructions: list[tuple[str, str]], tmp_path: Path
) -> None:
    ignore = (repo_root / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignore if line.startswith("!")}
    sources = {source.removeprefix("./") for source in copied(instructions)}
    assert sources == sent and "*" in ignore
    for source in sources - {"examples"}:
        path = repo_root / source
        assert path.exists(), source
        skip = shutil.ignore_patterns(*(s.removeprefix("**/") for s in ignore if s.startswith("**/")))
        shutil.copytree(path, tmp_path / source, ignore=skip) if path.is_dir() else shutil.copy(path, tmp_path)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "out").glob("bodyfit-*.whl")
    import zipfile

    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("bodyfit_service/probe.py", "bodyfit_service/server.py", "bodyfit/data/anny_adult.npz"):
        assert needed in names
    assert any(fnmatch.fnmatch(name, "bodyfit_protos/v1/*_pb2.py") for name in names)


# compose


def test_compose_starts_a_server_that_its_settings_allow(compose: dict[str, Any]) -> None:
    service = compose["services"]["bodyfit"]
    settings = read_settings({}, service["environment"])
    assert in_bytes(service["shm_size"]) >= settings.max_recording_bytes
    assert int(service["stop_grace_period"].removesuffix("s")) > settings.grace_s
    # without TLS and tokens it is for this machine alone
    _, port = split_address(settings.address, "address")
    assert settings.allow_insecure and service["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    for each in compose["services"].values():
        named = {v.split(":")[0] for v in each["volumes"] if not v.startswith(".")}
        assert named <= set(compose["volumes"])


def test_compose_s_volume_is_the_image_s(compose: dict[str, Any], instructions: list[tuple[str, str]]) -> None:
    (folder,) = json.loads(of(instructions, "VOLUME")[0])
    assert [v.split(":")[1] for v in compose["services"]["bodyfit"]["volumes"]] == [folder]


def test_prometheus_reads_where_the_server_tells(
    repo_root: Path, compose: dict[str, Any], metric_names: set[str]
) -> None:
    mounts = [v.split(":") for v in compose["services"]["prometheus"]["volumes"]]
    for source, target, *_ in (m for m in mounts if m[0].startswith(".")):
        assert (repo_root / source).is_file() and target.startswith("/etc/prometheus/")
    read = yaml.safe_load((repo_root / "deploy" / "prometheus.yml").read_text())
    (target,) = read["scrape_configs"][0]["static_configs"][0]["targets"]
    host, port = split_address(target, "target")
    assert host in compose["services"]
    told = read_settings({}, compose["services"][host]["environment"]).metrics_address
    assert split_address(told, "metrics_address")[1] == port
    assert read["rule_files"] == ["alerts.yml"]
    rules = yaml.safe_load((repo_root / "deploy" / "alerts.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        used = {n.removesuffix("_total") for n in re.findall(r"\bbodyfit_\w+", rule["expr"])}
        assert used and used <= {n.removesuffix("_total") for n in metric_names}, rule["alert"]
        assert rule["annotations"]["summary"]


# Kubernetes


def container_of(manifests: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def test_pods_are_served_with_tls_and_tokens(manifests: dict[str, dict[str, Any]]) -> None:
    pod, container = container_of(manifests)
    settings = read_settings({}, {e["name"]: e["value"] for e in container["env"]})
    assert settings.tls_cert and settings.tls_key and settings.tokens and not settings.allow_insecure
    places = [Path(m["mountPath"]) for m in container["volumeMounts"]]
    for path in (settings.tls_cert, settings.tls_key, settings.tokens):
        assert path.parent in places
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports["grpc"] == split_address(settings.address, "address")[1]
    assert ports["metrics"] == split_address(settings.metrics_address, "metrics_address")[1]
    assert pod["terminationGracePeriodSeconds"] > settings.grace_s
    assert pod["enableServiceLinks"] is False


def test_pods_may_do_nothing_and_have_room(
    manifests: dict[str, dict[str, Any]], instructions: list[tuple[str, str]]
) -> None:
    pod, container = container_of(manifests)
    user, group = of(instructions, "USER")[0].split(":")
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == int(user)
    assert pod["securityContext"]["runAsGroup"] == int(group)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = {v["name"]: v for v in pod["volumes"]}
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    assert set(mounts.values()) == set(volumes)
    shared = volumes[mounts["/dev/shm"]]["emptyDir"]
    assert shared["medium"] == "Memory" and in_bytes(shared["sizeLimit"]) >= Settings().max_recording_bytes
    (folder,) = json.loads(of(instructions, "VOLUME")[0])
    assert folder in mounts and "/tmp" in mounts


def test_probes_ask_what_answers(manifests: dict[str, dict[str, Any]]) -> None:
    _, container = container_of(manifests)
    for name in ("startupProbe", "readinessProbe"):
        command = container[name]["exec"]["command"]
        assert command[:2] == ["python", "-m"] and importlib.util.find_spec(command[2])
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] >= 300
    assert container["livenessProbe"]["tcpSocket"]["port"] in {p["name"] for p in container["ports"]}


def test_manifests_mean_the_same_pods(manifests: dict[str, dict[str, Any]], metric_names: set[str]) -> None:
    deployment = manifests["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    ports = {p["name"] for p in container_of(manifests)[1]["ports"]}
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    service = manifests["Service"]["spec"]
    assert service["clusterIP"] == "None" and service["selector"] == labels
    assert {p["targetPort"] for p in service["ports"]} <= ports
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    policy = manifests["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert {p["port"] for rule in policy["ingress"] for p in rule["ports"]} <= ports
    assert policy["egress"] == []
    scaler = manifests["HorizontalPodAutoscaler"]["spec"]
    target = scaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"] and scaler["minReplicas"] >= 2
    (metric,) = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] in metric_names
    names = {d["metadata"]["name"] for d in manifests.values()}
    assert names == {"bodyfit"}


def test_the_adapter_hands_on_the_autoscaler_s_metric(repo_root: Path, manifests: dict[str, dict[str, Any]]) -> None:
    text = (repo_root / "deploy" / "kubernetes" / "prometheus-adapter.yaml").read_text()
    (rule,) = yaml.safe_load(text)["rules"]["custom"]
    (metric,) = manifests["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    assert rule["seriesQuery"].startswith(rule["name"]["as"] + "{")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on this machine")
def test_kustomize_builds_it(repo_root: Path) -> None:
    command = ["kubectl", "kustomize", str(repo_root / "deploy" / "kubernetes")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(list(yaml.safe_load_all(done.stdout))) == 5


# docs/service.md


@pytest.fixture(scope="module")
def guide(repo_root: Path) -> str:
    return (repo_root / "docs" / "service.md").read_text(encoding="utf-8")


def test_table_of_settings_is_the_code_s(guide: str) -> None:
    rows = ["| setting | default | |", "|---|---|---|"]
    for name, text in field_docs().items():
        default = getattr(Settings(), name)
        shown = "" if default in (None, "") else str(default).lower() if isinstance(default, bool) else str(default)
        rows.append(f"| `{name}` | {shown} | {text.replace('|', '/')} |")
    assert "\n".join(["<!-- table of settings -->", "", *rows, ""]) in guide, "\n".join(rows)


def test_table_of_metrics_is_the_code_s(guide: str) -> None:
    rows = ["| metric | labels | |", "|---|---|---|"]
    for family in Metrics().registry.collect():
        if family.name.startswith("bodyfit_"):
            name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
            labels = ", ".join(LABELS.get(family.name, ()))
            rows.append(f"| `{name}` | {labels} | {family.documentation} |")
    assert "\n".join(["<!-- table of metrics -->", "", *rows, ""]) in guide, "\n".join(rows)


LABELS = {
    "bodyfit_requests": ("method", "code"),
    "bodyfit_request_seconds": ("method",),
    "bodyfit_stage_seconds": ("stage",),
    "bodyfit_open_calls": ("method",),
    "bodyfit_worker_restarts": ("role", "reason"),
    "bodyfit_build": ("version",),
}


def test_commands_of_the_guide_are_there(repo_root: Path, guide: str, instructions: list[tuple[str, str]]) -> None:
    from typer.main import get_command

    from bodyfit.cli.main import commands as tree

    known: Any = get_command(tree)
    named = set(re.findall(r"\bbodyfit (serve-token|serve|warmup|demo|client)\b", guide))
    assert named == {"serve", "serve-token", "warmup", "demo", "client"}
    assert named - {"client"} <= set(known.commands)
    flags = {o for c in ("serve", "serve-token") for p in known.commands[c].params for o in p.opts}
    probe = (repo_root / "service" / "bodyfit_service" / "probe.py").read_text()
    before_containers = guide.partition("## In a container")[0]
    for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", before_containers)):
        assert flag in flags or f'"{flag}"' in probe, flag
    # what is run in the image is in it
    (where,) = of(instructions, "WORKDIR")[-1:]
    for script in re.findall(r"python (examples/\w+\.py)", guide):
        assert (repo_root / script).is_file()
        assert f"examples {where}/examples" in of(instructions, "COPY")


def test_links_of_the_guide_lead_somewhere(repo_root: Path, guide: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", guide)
    assert links and not [x for x in links if "://" not in x and not (repo_root / "docs" / x).exists()]
