"""The pickle reader reads arrays as pickle does, and refuses whatever else a pickle can do, executing nothing."""

from __future__ import annotations

import collections
import contextlib
import functools
import io
import os
import pickle
import pickletools
import struct
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing._private.utils import runstring
from official_layouts import Python2Pickler, fake_chumpy, official_arrays, write_official_pkl

from bodyfit.body import pickle_reader
from bodyfit.body.import_smpl import import_body, read_official
from bodyfit.body.pickle_arrays import ALLOWED_GLOBALS, NumpyArray, SparseMatrix, as_array
from bodyfit.body.pickle_reader import read_pickle
from bodyfit.errors import ModelFileError


def write(folder: Path, data: bytes) -> Path:
    path = folder / "body.pkl"
    path.write_bytes(data)
    return path


def plain(value: Any) -> Any:
    """What was read, with arrays as arrays."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(v) for v in value)
    return as_array(value, "x") if isinstance(value, (NumpyArray, SparseMatrix)) else value


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, (list, tuple)):
        assert type(ours) is type(theirs) and len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    elif isinstance(theirs, (np.ndarray, np.generic)):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert np.array_equal(ours, theirs)
    else:
        assert type(ours) is type(theirs) and (ours == theirs or theirs != theirs)


# ---- what must be read ----

CONTENTS: dict[str, Any] = {
    "float64": np.linspace(0, 1, 12).reshape(3, 4),
    "float32, Fortran order": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
    "float16": np.arange(5, dtype=np.float16),
    "big-endian": np.arange(4, dtype=">i4"),
    "uint32": np.array([[2**32 - 1, 0], [0, 1]], np.uint32),
    "bool": np.array([True, False]),
    "text": np.array(["left", "rechts", "\u00fc"]),
    "bytes": np.array([b"a", b"bcd"]),
    "empty": np.zeros((0, 3)),
    "strided": np.arange(24.0).reshape(4, 6)[::2, ::-1],
    "number": np.float64(2.5),
    "scalar array": np.array(7),
    "containers": {"a": [1, -1, 2**40, -(2**70), 0.5, None, True], "b": ("x", (), (1,), (1, 2), (1, 2, 3, 4)), "": {}},
    "every byte": np.arange(256, dtype=np.uint8),
    "long text": "x" * 70000,
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", CONTENTS)
def test_reads_what_python_3_wrote(tmp_path: Path, name: str, protocol: int) -> None:
    value = {"v": CONTENTS[name], "again": [CONTENTS[name]]}
    assert_same(plain(read_pickle(write(tmp_path, pickle.dumps(value, protocol)))), value)


@pytest.mark.parametrize("name", [n for n in CONTENTS if n != "text"])
def test_reads_what_python_2_wrote(tmp_path: Path, name: str) -> None:
    buffer = io.BytesIO()
    Python2Pickler(buffer).dump({"v": CONTENTS[name]})
    assert b"numpy._core" not in buffer.getvalue()
    assert_same(plain(read_pickle(write(tmp_path, buffer.getvalue()))), {"v": CONTENTS[name]})


@pytest.mark.parametrize("protocol", [0, 1, 2, 5])
@pytest.mark.parametrize("form", ["csc_matrix", "csr_matrix", "csc_array", "csr_array"])
def test_reads_sparse_matrices(tmp_path: Path, form: str, protocol: int) -> None:
    dense = np.random.default_rng(0).normal(size=(24, 60)) * (np.random.default_rng(1).random((24, 60)) < 0.1)
    read = read_pickle(write(tmp_path, pickle.dumps(getattr(scipy.sparse, form)(dense), protocol)))
    assert np.array_equal(as_array(read, "J_regressor"), dense)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_reads_chumpy_arrays(tmp_path: Path, protocol: int) -> None:
    x = np.random.default_rng(0).normal(size=(6, 3, 10))
    with fake_chumpy() as chumpy:
        whole = chumpy.Ch(x)
        part = chumpy.Select(whole, np.arange(180).reshape(6, 3, 10)[:, :, :4].ravel(), (6, 3, 4))
        data = pickle.dumps({"whole": whole, "nested": chumpy.Ch(whole), "part": part}, protocol)
    assert b"chumpy" in data
    read = read_pickle(write(tmp_path, data))
    assert np.array_equal(as_array(read["whole"], "whole"), x)
    assert np.array_equal(as_array(read["nested"], "nested"), x)
    assert np.array_equal(as_array(read["part"], "part"), x[:, :, :4])


def test_reads_a_whole_official_file_as_pickle_does(tmp_path: Path) -> None:
    arrays = official_arrays("smplh", 10)
    path = write_official_pkl(tmp_path / "SMPLH_female.pkl", arrays)
    read = read_official(path)
    for key in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f", "hands_meanl"):
        assert np.array_equal(read[key], arrays[key]), key


def test_allowed_globals_are_array_types_only() -> None:
    assert {f"{m}.{n}" for m, n in ALLOWED_GLOBALS if m.split(".")[0] in ("builtins", "__builtin__")} == {
        f"{m}.{n}" for m in ("builtins", "__builtin__") for n in ("object", "set", "frozenset", "bytes", "bytearray")
    }
    roots = {m.split(".")[0] for m, _ in ALLOWED_GLOBALS}
    others = {"builtins", "__builtin__", "copyreg", "copy_reg", "collections", "_codecs"}
    assert roots - others == {"numpy", "scipy", "chumpy"}


# ---- what must be refused ----


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def touch(marker: Path) -> str:
    return f"touch '{marker}'"


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text.encode())]) + text.encode()


def by_state(marker: Path) -> bytes:
    """A numpy array whose state is the result of a call."""
    inner = pickle.dumps(Calls(os.system, touch(marker)), 2)[2:-1]
    return b"\x80\x02cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR" + inner + b"b."


def attacks(marker: Path) -> dict[str, bytes]:
    """Pickles that make the marker when they are loaded by pickle."""
    command = touch(marker)
    opens = f"open({str(marker)!r}, 'w').close()"
    system = Calls(os.system, command)
    reduced = {
        "os.system": system,
        "nested in lists": [[[{"v_template": [1, (2, system)]}]]],
        "in an array of objects": np.array([1, system], dtype=object),
        "in a sparse matrix": {"J_regressor": [scipy.sparse.csc_matrix(np.eye(3)), system]},
        "as a dict's key": {(1, 2): {"a": system}},
        "eval": Calls(eval, f"__import__('os').system({command!r})"),
        "exec": Calls(exec, opens),
        "getattr": Calls(list, Calls(map, Calls(getattr, Calls(__import__, "os"), "system"), [command])),
        "numpy's runstring": Calls(runstring, opens, {}),
        "functools.partial": Calls(functools.partial(os.system, command)),
        "map": Calls(list, Calls(map, exec, [opens])),
        "open": Calls(open, str(marker), "w"),
        "OrderedDict": collections.OrderedDict(a=system),
        "copyreg": Calls(pickle.loads, pickle.dumps(system)),
        "numpy's memmap": Calls(np.memmap, str(marker), "uint8", "w+", 0, (1,)),
    }
    found = {f"{name}, protocol {p}": pickle.dumps(value, p) for name, value in reduced.items() for p in (0, 2, 4)}
    found |= {
        "INST": f"(S{command!r}\niposix\nsystem\n.".encode(),
        "OBJ": f"(cposix\nsystem\nS{command!r}\no.".encode(),
        "STACK_GLOBAL": b"\x80\x04" + short("posix") + short("system") + b"\x93" + short(command) + b"\x85R.",
        "STACK_GLOBAL by memo": b"\x80\x04" + short("posix") + b"\x940" + short("system") + b"\x940h\x00h\x01\x93"
        + short(command) + b"\x85R.",
        "an array's state": by_state(marker),
        "behind POP": b"\x80\x02cposix\nsystem\nU" + bytes([len(command)]) + command.encode() + b"\x85R0}.",
    }  # fmt: skip
    return found


ATTACKS = list(attacks(Path("marker")))


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_do_not_run(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "executed"
    data = attacks(marker)[name]
    path = write(tmp_path, data)
    for read in (read_pickle, import_body):
        with pytest.raises(ModelFileError, match=r"global|operation|called") as caught:
            read(path)
        assert str(path) in str(caught.value)
    assert not marker.exists()
    with contextlib.suppress(Exception):  # what comes after the attack may fail
        pickle.loads(data)
    assert marker.exists(), "the attack is harmless even to pickle, so the test shows nothing"


@pytest.mark.parametrize(
    "name, module, attribute",
    [
        ("posix.system", "posix", "system"), ("builtins.eval", "builtins", "eval"),
        ("builtins.getattr", "builtins", "getattr"), ("numpy.load", "numpy", "load"),
        ("numpy.f2py.os.system", "numpy", "f2py.os.system"),
        ("numpy.testing._private.utils.runstring", "numpy.testing._private.utils", "runstring"),
        ("scipy.sparse.csc.np", "scipy.sparse.csc", "np"), ("chumpy.ch.pickle", "chumpy.ch", "pickle"),
        ("chumpy.ch_ops.add", "chumpy.ch_ops", "add"), ("copyreg.add_extension", "copyreg", "add_extension"),
        ("numpy.ndarray.tofile", "numpy", "ndarray.tofile"), ("NUMPY.dtype", "NUMPY", "dtype"),
        ("numpy.dtype ", "numpy", "dtype "), ("__main__.body", "__main__", "body"),
    ],
)  # fmt: skip
def test_refusal_names_the_global(tmp_path: Path, name: str, module: str, attribute: str) -> None:
    for data in (f"c{module}\n{attribute}\n.".encode(), b"\x80\x04" + short(module) + short(attribute) + b"\x93."):
        with pytest.raises(ModelFileError) as caught:
            read_pickle(write(tmp_path, data))
        assert f"the global {name}" in str(caught.value)


REFUSED_OPERATIONS = {
    "EXT1": b"\x82\x01.", "EXT2": b"\x83\x01\x00.", "EXT4": b"\x84\x01\x00\x00\x00.",
    "PERSID": b"Pbody\n.", "BINPERSID": b"U\x01aQ.", "NEXT_BUFFER": b"\x80\x05\x97.",
    "READONLY_BUFFER": b"\x80\x05\x97\x98.", "NEWOBJ_EX": b"\x80\x04cnumpy\nndarray\n)}\x92.",
    "OBJ of a harmless class": b"(cnumpy\nndarray\no.", "INST of a harmless class": b"(inumpy\nndarray\n.",
    "no operation": b"\xff.", "protocol 6": b"\x80\x06N.",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_OPERATIONS)
def test_operations_without_use_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFileError):
        read_pickle(write(tmp_path, REFUSED_OPERATIONS[name]))


MISUSES = {
    "a token is called with other arguments": b"cnumpy\ndtype\nI1\n\x85R.",
    "text is called": b"U\x01a)R.",
    "ndarray is called": b"cnumpy\nndarray\nK\x05\x85R.",
    "object is instantiated": b"\x80\x02cbuiltins\nobject\n)\x81.",
    "ndarray is instantiated": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "a result is called": b"\x80\x02cnumpy\ndtype\nU\x02f8\x85R)R.",
    "a state is set on a token": b"cnumpy\ndtype\n}U\x08__code__K\x01sb.",
    "a state is set on a dict": b"}}b.",
    "items are set on a token": b"cnumpy\ndtype\nK\x01K\x02s.",
    "items are appended to a token": b"cnumpy\ndtype\nK\x01a.",
    "_reconstruct makes no other class": b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85U\x01b\x87R.",
    "encode of another codec": b"c_codecs\nencode\nX\x01\x00\x00\x00aU\x03hex\x86R.",
    "encode without a codec": b"c_codecs\nencode\nX\x01\x00\x00\x00a\x85R.",
    "bytes of a size": b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R.",
    "bytearray of a size": b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "a structured type": b"cnumpy\ndtype\nU\x03V16K\x00K\x01\x87R.",
    "a type given as text of many": b"cnumpy\ndtype\nU\x05f8,f8\x85R.",
    "a date": b"cnumpy\ndtype\nU\x02M8\x85R.",
    "a sparse state that is no dict": b"\x80\x02cscipy.sparse.csc\ncsc_matrix\n)\x81]b.",
    "a chumpy state that is no dict": b"\x80\x02cchumpy.ch\nCh\n)\x81]b.",
}


@pytest.mark.parametrize("name", MISUSES)
def test_tokens_do_one_thing_only(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFileError):
        read_pickle(write(tmp_path, MISUSES[name]))


def dtype_state(descriptions: bytes) -> bytes:
    return b"(K\x03U\x01<" + descriptions + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def array_pickle(shape: bytes, dtype: bytes, raw: bytes, descriptions: bytes = b"NNN") -> bytes:
    head = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    kind = b"cnumpy\ndtype\nU" + bytes([len(dtype)]) + dtype + b"K\x00K\x01\x87R" + dtype_state(descriptions)
    return head + b"(K\x01" + shape + kind + b"\x89T" + struct.pack("<I", len(raw)) + raw + b"tb."


def test_array_written_by_hand_is_read(tmp_path: Path) -> None:
    raw = np.arange(6.0).tobytes()
    read = read_pickle(write(tmp_path, array_pickle(b"K\x02K\x03\x86", b"f8", raw)))
    assert np.array_equal(as_array(read, "x"), np.arange(6.0).reshape(2, 3))


BAD_ARRAYS = {
    "a huge shape": array_pickle(b"(\x8a\x05\xff\xff\xff\xff\x7f\x8a\x05\xff\xff\xff\xff\x7fKdt", b"f8", b"\0" * 8),
    "a huge shape with no entries": array_pickle(b"K\x00\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x86", b"f8", b""),
    "a negative size": array_pickle(b"J\xff\xff\xff\xff\x85", b"f8", b"\0" * 8),
    "a size of 65 bytes": array_pickle(b"\x8a\x41" + b"\x01" * 65 + b"\x85", b"f8", b"\0" * 8),
    "a bool for a size": array_pickle(b"\x88\x85", b"f8", b"\0" * 8),
    "too few bytes": array_pickle(b"K\x02\x85", b"f8", b"\0" * 8),
    "too many bytes": array_pickle(b"K\x01\x85", b"f8", b"\0" * 16),
    "text of no length": array_pickle(b"\x8a\x05\xff\xff\xff\xff\x7f\x85", b"S0", b""),
    "fields": array_pickle(b"K\x01\x85", b"f8", b"\0" * 8, b"NU\x01a\x85}"),
    "a subtype": array_pickle(b"K\x01\x85", b"f8", b"\0" * 8, b"K\x01NN"),
    "nine dimensions": array_pickle(b"(" + b"K\x01" * 9 + b"t", b"f8", b"\0" * 8),
    "truncated": array_pickle(b"K\x02\x85", b"f8", b"\0" * 16)[:-20],
    "a length beyond the file": b"\x80\x02T\xff\xff\xff\x7fabc.",
    "a 64-bit length": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.",
    "an integer of a gigabyte": b"\x80\x02\x8b\x00\x00\x00\x40" + b"\x01" * 64 + b".",
    "a number of many digits": b"I" + b"9" * 100_000 + b"\n.",
    "nothing": b"", "only STOP": b".", "only MARK": b"(.", "a memo never written": b"h\x07.",
    "POP of nothing": b"0.", "TUPLE2 of one": b"K\x01\x86.", "odd SETITEMS": b"}(K\x01u.",
    "a STRING without quotes": b"Sabc\n.", "text that is not UTF-8": b"X\x02\x00\x00\x00\xff\xfe.",
    "no end": b"]" * 1000,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_broken_and_absurd_files_are_refused(tmp_path: Path, name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError):
            as_array(read_pickle(write(tmp_path, BAD_ARRAYS[name])), "x")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_sparse_sizes_are_checked(tmp_path: Path) -> None:
    def refused(**changes: Any) -> None:
        matrix = scipy.sparse.csc_matrix(np.eye(4))
        vars(matrix).update(changes)
        with pytest.raises(ModelFileError, match="J_regressor"):
            as_array(read_pickle(write(tmp_path, pickle.dumps(matrix))), "J_regressor")

    refused(_shape=(1 << 40, 4))
    refused(_shape=(2, 4))
    refused(_shape=(4,))
    refused(indices=np.array([0, 1, 2, -1]))
    refused(indices=np.array([0.0, 1.0, 2.0, 3.0]))
    refused(indptr=np.array([0, 1, 2, 3, 1 << 40]))
    refused(indptr=np.array([0, 3, 2, 3, 4]))
    refused(data=np.array(["a", "b", "c", "d"]))
    refused(data=np.array([1, 2, 3, None], dtype=object))


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    read = read_pickle(write(tmp_path, pickle.dumps({"v": np.array([1, "a", None], dtype=object)})))
    with pytest.raises(ModelFileError, match=r"v_template.*Python objects"):
        as_array(read["v"], "v_template")


def test_chumpy_arrays_that_hold_themselves_are_refused(tmp_path: Path) -> None:
    with fake_chumpy() as chumpy:
        loop = chumpy.Ch(np.zeros(3))
        loop.x = loop
        data = pickle.dumps(loop, 2)
    with pytest.raises(ModelFileError, match="v_template"):
        as_array(read_pickle(write(tmp_path, data)), "v_template")


BOMBS: dict[str, Callable[[], bytes]] = {
    # tuples of two of themselves, 60 deep, as a key: pickle would hash 2^60 leaves
    "nested keys": lambda: b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.",
    "nested tuples": lambda: b"\x80\x02)" + b"2\x86" * 5000 + b".",
    "lists in lists": lambda: b"(" * 40_000 + b"l" * 40_000 + b".",
    "a list of itself": lambda: b"]q\x00h\x00a.",
    "itself as key and state": lambda: b"}q\x00h\x00h\x00s.",
    "many operations": lambda: b"]0" * 60_000 + b"N.",
    "the same text encoded again and again": lambda: (
        b"\x80\x02c_codecs\nencode\nq\x00X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"U\x06latin1\x86q\x01"
        + b"h\x00h\x01R" * 20_000 + b"."
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_neither_time_nor_memory(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_reader, "MAX_OPERATIONS", 100_000)
    path = write(tmp_path, BOMBS[name]())
    start = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError):
            import_body(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20
    assert time.process_time() - start < 30


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    value = {"v": np.arange(6.0).reshape(2, 3), "J": scipy.sparse.csc_matrix(np.eye(2)), "a": [1, "b"]}
    data = pickle.dumps(value, 2)
    assert read_pickle(write(tmp_path, data))["a"] == [1, "b"]
    for end in range(len(data) - 1):
        with pytest.raises(ModelFileError):
            read_pickle(write(tmp_path, data[:end]))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused_but_never_crash(data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps({"v": np.arange(4.0), "J": scipy.sparse.csc_matrix(np.eye(2)), "t": (1, "b")}, 2))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        try:
            read = read_pickle(write(Path(folder), bytes(whole)))
        except ModelFileError:
            return
    for value in read.values() if isinstance(read, dict) else [read]:
        try:
            as_array(value, "x")
        except ModelFileError:
            continue


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([op.code.encode("latin-1") for op in pickletools.opcodes]), max_size=60),
       st.binary(max_size=60))  # fmt: skip
def test_random_programs_never_crash(operations: list[bytes], filler: bytes) -> None:
    program = b"".join(op + filler[i % (len(filler) + 1) :][:3] for i, op in enumerate(operations)) + b"."
    with tempfile.TemporaryDirectory() as folder:
        try:
            read_pickle(write(Path(folder), program))
        except ModelFileError as error:
            assert str(error)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no\.pkl"):
        read_pickle(tmp_path / "no.pkl")
