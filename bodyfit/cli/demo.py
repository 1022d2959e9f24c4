"""`bodyfit demo`: fits the recording that ships with bodyfit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from bodyfit.cli.fit import NOT_BELIEVED, FitRequest, JsonOption, run_fit, show_result, write_result


def demo_command(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for the results.")] = Path(
        "bodyfit_demo"
    ),
    as_json: JsonOption = False,
) -> None:
    """Fit the recording that ships with bodyfit, and say where the picture is.

    The recording is synthetic: a body that no setting of the body model makes exactly, seen by a simulated
    depth sensor with its noise, in a room. An earlier demo in OUT is replaced.
    """
    from bodyfit.cli.screen import print_lines
    from bodyfit.export.folder import check_out_folder
    from bodyfit.synthetic.demo import demo_recording_path

    # an earlier demo may be replaced; anything else in OUT stays untouched
    check_out_folder(out, force=True)
    recording = demo_recording_path()
    if not as_json:
        print_lines(f"fitting a body to the recording {recording.name}, which a simulated depth sensor made …", "")
    began = time.perf_counter()
    result = run_fit(FitRequest(recording), quiet=as_json)
    names = write_result(result, out, force=True)
    show_result(result, out, names, as_json=as_json)
    if not as_json:
        frames = len(result.frame_indices)
        print_lines(f"{frames} frame{'s' * (frames != 1)} fitted and drawn in {time.perf_counter() - began:.1f} s")
    if not result.converged:
        raise typer.Exit(NOT_BELIEVED)
