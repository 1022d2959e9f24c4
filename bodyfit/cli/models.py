"""`bodyfit models`: which bodies there are, what is in a file, and bringing one's own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from bodyfit.cli.fit import JsonOption, Sex
from bodyfit.errors import ModelFileError, OutputError

commands = typer.Typer(
    help="Body models: list them, look into one, check a file, import your own.", no_args_is_help=True
)


@commands.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """List the shipped models and those of your own folder."""
    from bodyfit.body.files import list_models, models_folder
    from bodyfit.body.model import DEFAULT_MODEL
    from bodyfit.cli.screen import print_json, print_lines, print_table

    entries = list_models()
    if as_json:
        models = [
            {
                "name": e.name, "path": str(e.path), "origin": e.origin, "family": e.family, "licence": e.licence,
                "num_vertices": e.num_vertices, "num_joints": e.num_joints, "num_betas": e.num_betas,
                "problem": e.problem, "default": e.name == DEFAULT_MODEL,
            }
            for e in entries
        ]  # fmt: skip
        print_json({"models": models, "folder": str(models_folder())})
        return
    rows = [
        (
            e.name + (" (default)" if e.name == DEFAULT_MODEL else ""), e.origin, e.family, e.licence,
            str(e.num_vertices), str(e.num_joints), str(e.num_betas), f"UNUSABLE: {e.problem}" if e.problem else "",
        )
        for e in entries
    ]  # fmt: skip
    headings = ("model", "origin", "family", "licence", "vertices", "joints", "betas", "")
    numbers = ("vertices", "joints", "betas")
    print_table([(h, "right" if h in numbers else "left") for h in headings], rows)
    print_lines(f"your own models: {models_folder()} (bodyfit models import FILE)")


@commands.command("info")
def info_command(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A name or a file; else the default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a body model is: sizes, licence, where it comes from, its hash."""
    from bodyfit.body.files import find_model
    from bodyfit.body.model import DEFAULT_MODEL, load_body_model
    from bodyfit.cli.screen import print_json, print_table

    path = find_model(model or DEFAULT_MODEL)
    body = load_body_model(path)
    data: dict[str, Any] = {
        "name": body.name,
        "path": str(path),
        "sha256": body.sha256,
        "size_bytes": path.stat().st_size,
        "num_vertices": body.num_vertices,
        "num_faces": len(body.faces),
        "num_joints": body.num_joints,
        "num_betas": body.num_betas,
        "pose_corrections": body.posedirs is not None,
        "levels": [len(level.faces) for level in body.levels],
        "sexes": sorted(body.priors),
        "parts": list(body.part_names),
        "landmarks": sorted(body.landmarks),
        "meta": body.meta,
    }
    if as_json:
        print_json(data)
        return
    shown = {**{k: v for k, v in data.items() if k != "meta"}, **{f"meta: {k}": v for k, v in body.meta.items()}}
    print_table([("", "left"), ("", "left")], [(k.replace("_", " "), _cell(v)) for k, v in shown.items()])


@commands.command("check")
def check_command(
    model: Annotated[str, typer.Argument(metavar="FILE", help="A body file, or the name of a model.")],
    as_json: JsonOption = False,
) -> None:
    """Say everything that is wrong or doubtful about a body file; exit code 2 if it cannot be used."""
    from bodyfit.body.files import check_body, find_model, read_body_file
    from bodyfit.cli.screen import print_json, print_lines

    path = find_model(model)
    problems = check_body(path)
    try:
        read_body_file(path)
        usable = True
    except ModelFileError:
        usable = False
    if as_json:
        print_json({"path": str(path), "usable": usable, "problems": problems})
    else:
        print_lines(*problems, f"{path}: {'can be used' if usable else 'CANNOT BE USED'}, {len(problems)} remarks")
    if not usable:
        raise typer.Exit(2)


@commands.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A SMPL, SMPL-H or SMPL-X file, .npz or .pkl.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="OUT", help="An npz to write, or a folder; else your models folder."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the model is called; else after its file.")] = None,
    sex: Annotated[Sex | None, typer.Option(help="Whose shape space it is; else judged by the file's name.")] = None,
    num_betas: Annotated[int | None, typer.Option(min=1, help="Shape components to keep; all if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is already there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn a licensed SMPL-family file into bodyfit's npz; nothing in a pickle is executed."""
    from bodyfit.body.files import check_body, models_folder
    from bodyfit.body.import_smpl import import_body
    from bodyfit.cli.screen import print_json, print_lines

    folder, wanted = (models_folder(), None) if out is None else (out, None) if out.is_dir() else (out.parent, out)
    if wanted is not None:
        if wanted.suffix != ".npz":
            raise OutputError("--out", "a folder that exists, or a name that ends in .npz", str(wanted))
        _refuse_existing(wanted, force)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # the name is known only once the file is read: it is written aside and moved to a name that is free
        with tempfile.TemporaryDirectory(dir=folder, prefix=".import-") as aside:
            made = import_body(file, aside, name, sex=sex.value if sex else None, num_betas=num_betas)
            target = wanted or folder / made.path.name
            _refuse_existing(target, force)
            made.path.replace(target)
    except OSError as e:
        raise OutputError(str(folder), "a folder that can be written", e.strerror or str(e)) from e
    remarks = check_body(target)
    if as_json:
        sizes = {k: getattr(made, k) for k in ("num_vertices", "num_joints", "num_betas", "num_expressions")}
        licence = {"licence_note": made.licence_note, "problems": remarks}
        print_json({"path": str(target), "name": made.name, "family": made.family, "sex": made.sex, **sizes, **licence})
        return
    print_lines(*remarks, made.licence_note, f"{made.family} ({made.sex}), {made.num_vertices} vertices: {target}")
    print_lines(f"use it with --model {target.stem if out is None else target}")


def _refuse_existing(target: Path, force: bool) -> None:
    if target.is_dir() or (target.exists() and not force):
        found, hint = ("a folder", None) if target.is_dir() else ("a file", "--force replaces it")
        raise OutputError(str(target), "a name that is free", found, hint)


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(v) for v in value)
    return str(value)
