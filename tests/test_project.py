"""The project itself: what it imports, what it installs, and that its own rules bite."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

HEAVY = ("PIL", "cv2", "grpc", "matplotlib", "numba", "open3d", "rich", "scipy", "smplx", "torch", "trimesh", "typer")


def run_python(code: str, *arguments: str, cwd: Path, path: Path | None = None) -> str:
    """Runs code in a fresh interpreter and gives back what it printed."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def pyproject(repo_root: Path) -> dict[str, Any]:
    return tomllib.loads((repo_root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout, built without the network."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def library_trees(repo_root: Path) -> Iterator[tuple[str, ast.Module]]:
    """Path and syntax tree of every file of the library."""
    paths = sorted((repo_root / "bodyfit").rglob("*.py"))
    assert paths
    for path in paths:
        yield str(path.relative_to(repo_root)), ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_import_is_light(repo_root: Path) -> None:
    loaded = run_python("import sys, bodyfit; print(*sys.modules)", cwd=repo_root).split()
    assert "bodyfit" in loaded
    assert not set(HEAVY) & set(loaded)


def test_public_names_resolve(repo_root: Path) -> None:
    code = "import bodyfit\nfor name in bodyfit.__all__: getattr(bodyfit, name)\nprint(len(bodyfit.__all__))"
    assert int(run_python(code, cwd=repo_root)) > 3


@pytest.mark.parametrize("first", ["fit", "FitResult", "StopReason", "FitConfig"])
def test_fit_is_the_function_whatever_was_used_before(repo_root: Path, first: str) -> None:
    code = f"import bodyfit; bodyfit.{first}; import bodyfit.fit.result; print(callable(bodyfit.fit))"
    assert run_python(code, cwd=repo_root) == "True"


def test_version_is_the_projects(repo_root: Path, pyproject: dict[str, Any]) -> None:
    version = run_python("import bodyfit; print(bodyfit.__version__)", cwd=repo_root)
    assert version == pyproject["project"]["version"]


def test_wheel_installs_no_generic_name_and_holds_the_body(wheel: zipfile.ZipFile, repo_root: Path) -> None:
    names = wheel.namelist()
    folders = {name.split("/")[0] for name in names}
    (dist_info,) = (folder for folder in folders if folder.endswith(".dist-info"))
    assert folders == {"bodyfit", "bodyfit_service", "bodyfit_protos", dist_info}
    assert "bodyfit_protos/v1/bodyfit_pb2.py" in names
    body = (repo_root / "models" / "anny_adult.npz").read_bytes()
    assert len(body) <= 8_000_000
    assert hashlib.sha256(wheel.read("bodyfit/data/anny_adult.npz")).digest() == hashlib.sha256(body).digest()
    assert any(re.fullmatch(r"bodyfit/data/.*LICEN[CS]E.*", name) for name in names), "the body's licence is missing"
    assert f"{dist_info}/licenses/LICENSE" in names
    metadata = Parser().parsestr(wheel.read(f"{dist_info}/METADATA").decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    core = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert core and not any(re.match(r"(smplx|anny|torch|grpcio|protobuf)\b", line) for line in core)


def test_installed_wheel_finds_its_body(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    site = tmp_path / "site"
    wheel.extractall(site)
    code = "import bodyfit\nprint(bodyfit.__file__)\nprint(bodyfit.load_body_model().num_vertices)"
    file, vertices = run_python(code, cwd=tmp_path, path=site).splitlines()
    assert Path(file).is_relative_to(site)
    assert int(vertices) > 10_000


def test_constraints_pin_every_dependency(repo_root: Path, pyproject: dict[str, Any]) -> None:
    lines = (repo_root / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    project = pyproject["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[\[<>=; ]", requirement)[0] for wanted in lists for requirement in wanted}
    names -= {"bodyfit", "open3d"}  # open3d takes open3d-cpu's place where that has no wheels
    assert names <= pinned


def test_library_keeps_its_licences_and_runs_no_pickles(repo_root: Path) -> None:
    wrong: list[str] = []
    for path, tree in library_trees(repo_root):
        for module in imported_modules(tree):
            top = module.split(".")[0]
            if top in {"smplx", "anny", "chumpy", "cloudpickle", "dill", "joblib", "pickle", "_pickle"}:
                wrong.append(f"{path} imports {module}")
            if module.startswith("numba.cuda") and path != "bodyfit/kernels/cuda_jit.py":
                wrong.append(f"{path} imports {module}")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in {"torch.load", "eval", "exec", "__import__"}:
                wrong.append(f"{path}:{node.lineno} calls {called}")
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                    wrong.append(f"{path}:{node.lineno} allows pickles")
    assert not wrong


def test_library_imports_only_what_it_declares(repo_root: Path, pyproject: dict[str, Any]) -> None:
    modules = {"opencv-python-headless": "cv2", "open3d-cpu": "open3d", "pillow": "PIL"}
    declared = {re.split(r"[\[<>=; ]", line)[0] for line in pyproject["project"]["dependencies"]}
    allowed = {modules.get(name, name) for name in declared} | set(sys.stdlib_module_names) | {"bodyfit"}
    # what an extra of that name brings may be imported in these folders only
    extras: dict[str, tuple[str | None, str | tuple[str, ...]]] = {
        "torch": ("render", "bodyfit/render/"),
        "av": ("video", ("bodyfit/picture/", "bodyfit/recording/")),
        "lz4": ("ros", "bodyfit/recording/"),
        "zstandard": ("ros", "bodyfit/recording/"),
        "lzfse": ("iphone", "bodyfit/recording/"),
        "pyrealsense2": ("realsense", "bodyfit/capture/"),
        "pyorbbecsdk": ("orbbec", "bodyfit/capture/"),
        "pyk4a": ("azure", "bodyfit/capture/"),
        "pyarrow": ("batch", "bodyfit/batch/"),
        "fsspec": ("batch", "bodyfit/batch/"),
        "ray": ("ray", "bodyfit/batch/"),
        # the command line is the only one above the service
        "bodyfit_service": (None, "bodyfit/cli/"),
        "bodyfit_protos": (None, "bodyfit/cli/"),
        "grpc": ("service", "bodyfit/cli/"),
    }
    for package, (extra, _) in extras.items():
        assert extra is None or any(
            line.startswith(package) for line in pyproject["project"]["optional-dependencies"][extra]
        )
    wrong = [
        f"{path} imports {module}"
        for path, tree in library_trees(repo_root)
        for module in imported_modules(tree)
        if (top := module.split(".")[0]) not in allowed and not (top in extras and path.startswith(extras[top][1]))
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("place", "line", "contract"),
    [
        ("body/upward.py", "import bodyfit.fit", "imports go down only"),
        ("render/sideways.py", "import bodyfit.observe", "imports go down only"),
        ("kernels/heavy.py", "import torch", "kernels know arrays and floats only"),
        ("body/licensed.py", "import smplx", "nothing imports smplx"),
        ("recording/unsafe.py", "import pickle", "no pickle is ever run"),
        ("picture/served.py", "import bodyfit_service", "the library below the command line knows no service"),
        ("../bodyfit_service/unsafe.py", "import pickle", "nothing from a request is unpickled"),
    ],
)
def test_import_rules_bite(repo_root: Path, tmp_path: Path, place: str, line: str, contract: str) -> None:
    for folder in (".", "service", "protos"):
        for package in (repo_root / folder).glob("bodyfit*/__init__.py"):
            name = package.parent.name
            shutil.copytree(package.parent, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repo_root / "pyproject.toml", tmp_path)
    (tmp_path / "bodyfit" / place).write_text(line + "\n")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [text for text in done.stdout.splitlines() if " BROKEN" in text]
    assert len(broken) == 1 and broken[0].startswith(contract), done.stdout
