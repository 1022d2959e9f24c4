"""Generates the Python of protos/bodyfit/v1/bodyfit.proto into protos/bodyfit_protos/v1/: `make protos`.

protoc names a module by the .proto's path, `bodyfit.v1.…`, which would lie inside of the library's package; so the
files are moved, and the one import between them is turned to where they lie. `--check` writes nothing and ends with
status 1 where what is there is not what would be generated.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"
SOURCE = "bodyfit/v1/bodyfit.proto"
TARGET = PROTOS / "bodyfit_protos" / "v1"


def generate() -> dict[str, str]:
    """Name of each file within TARGET and what it holds."""
    import grpc_tools
    from grpc_tools import protoc

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"-I{PROTOS}", f"-I{well_known}", f"--python_out={folder}", f"--pyi_out={folder}"]
        status = protoc.main(["protoc", *arguments, f"--grpc_python_out={folder}", str(PROTOS / SOURCE)])
        if status != 0:
            raise SystemExit(f"protoc ended with status {status}")
        made = sorted(Path(folder, "bodyfit", "v1").iterdir())
        files = {path.name: _moved(path.read_text(encoding="utf-8")) for path in made}
    return {**files, "__init__.py": '"""Generated from bodyfit/v1/bodyfit.proto by `make protos`."""\n'}


def _moved(text: str) -> str:
    return re.sub(r"^from bodyfit\.v1 import", "from bodyfit_protos.v1 import", text, flags=re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Writes or checks."""
    files = generate()
    there = {p.name for p in TARGET.iterdir() if p.is_file()} if TARGET.is_dir() else set()
    stale = [n for n, text in files.items() if n not in there or (TARGET / n).read_text(encoding="utf-8") != text]
    stale += sorted(there - set(files))
    if arguments == ["--check"]:
        if stale:
            sys.stderr.write(f"generated code is not what {SOURCE} says: {', '.join(stale)}. Run: make protos\n")
        return int(bool(stale))
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in files:
            (TARGET / name).write_text(files[name], encoding="utf-8")
        else:
            (TARGET / name).unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
