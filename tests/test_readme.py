"""What README says is true: its links, its commands and options, its example."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

COMMANDS = (
    "fit",
    "track",
    "inspect",
    "convert",
    "capture",
    "batch",
    "measure",
    "evaluate",
    "models",
    "serve",
    "client",
    "info",
    "bench",
    "demo",
)


def run_bodyfit(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user starts it, on a terminal wide enough that help is not broken off."""
    command = [str(Path(sys.executable).with_name("bodyfit")), *arguments]
    environment = os.environ | {"COLUMNS": "200", "TERM": "dumb"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture(scope="module")
def readme(repo_root: Path) -> str:
    return (repo_root / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "ARCHITECTURE.md",
        "docs/azure_mkv.md",
        "docs/batch.md",
        "docs/capture.md",
        "docs/measurements.md",
        "docs/motion.md",
        "docs/recording.md",
        "docs/ros.md",
        "docs/sequence.md",
        "docs/service.md",
    ],
)
def test_links_lead_somewhere(repo_root: Path, document: str) -> None:
    path = repo_root / document
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not missing


def test_make_targets_exist(repo_root: Path, readme: str) -> None:
    named = set(re.findall(r"\bmake ([a-z]+)\b(?= |$|`|\n)", readme)) & {
        "demo",
        "test",
        "lint",
        "format",
        "bench",
        "clean",
    }
    assert {"demo", "test"} <= named
    makefile = (repo_root / "Makefile").read_text()
    assert not [target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)]


def test_example_of_the_renderer_runs_as_printed(readme: str, tmp_path: Path) -> None:
    (block,) = re.findall(r"<!-- example of the renderer -->\n\n((?:    .*\n|\n)+?)\n(?=\S)", readme)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(block)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert abs(float(re.findall(r"-?\d\.\d+", done.stdout)[0])) < 0.02


@pytest.mark.parametrize("command", COMMANDS)
def test_command_has_every_option_that_readme_names(readme: str, command: str) -> None:
    lines = re.search(rf"^    bodyfit {command}\b.*\n(?:     +[\[-].*\n)*", readme, re.MULTILINE)
    assert lines, f"README does not show bodyfit {command}"
    shown = run_bodyfit(command, "--help")
    assert shown.returncode == 0, shown.stderr
    for option in set(re.findall(r"(?<![\w-])--?[a-z]+", lines[0])):
        assert re.search(rf"(?<![\w-]){option}\b", shown.stdout), f"bodyfit {command} has no {option}"
    if command in ("models", "client"):
        for name in re.search(rf"{command} ([a-z|]+)", lines[0])[1].split("|"):  # type: ignore[index]
            assert run_bodyfit(command, name, "--help").returncode == 0


def test_exit_codes_are_those_of_the_command(readme: str) -> None:
    from bodyfit.cli.main import EXIT_CODES

    stated = {int(code) for code in re.findall(r"^\| (\d) \|", readme, re.MULTILINE)}
    assert stated == {int(code) for code in re.findall(r"(?:Exit codes: |; |\n)(\d) ", EXIT_CODES)}
    assert run_bodyfit("fit", "no such recording", "-o", "nowhere").returncode == 2


def test_python_example_runs_as_printed(repo_root: Path, readme: str, tmp_path: Path) -> None:
    from bodyfit.synthetic.demo import demo_recording_path

    (example,) = [e for e in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "bodyfit.fit(" in e]
    (place,) = re.findall(r'open_recording\("(.*?)"\)', example)
    shutil.copytree(demo_recording_path(), tmp_path / place)
    check = "\nassert vertices.shape == (result.model.num_vertices, 3) and faces.shape[1] == 3\n"
    done = subprocess.run(
        [sys.executable, "-c", example + check], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^waist \d+\.\d ± \d+\.\d cm$", done.stdout, re.MULTILINE)
    assert done.stdout.startswith("True ")


def test_example_of_the_tracker_runs_as_printed(readme: str, tmp_path: Path) -> None:
    from bodyfit.synthetic.demo import demo_recording_path

    (example,) = [e for e in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "bodyfit.Tracker(" in e]
    (place,) = re.findall(r'open_recording\("(.*?)"\)', example)
    shutil.copytree(demo_recording_path(), tmp_path / place)
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    # the demo's frames lie seconds apart: the person is found in the first and searched again afterwards
    assert re.match(r"^\S+ FOUND \(\) \[", done.stdout)
