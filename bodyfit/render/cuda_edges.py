"""The visible pieces of edges of a batch of images on a GPU, found without waiting for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bodyfit.errors import BodyfitError
from bodyfit.kernels import cpu_edges, cuda_edges, cuda_visible
from bodyfit.kernels.cuda_edges import COUNTS, CUTS, FOUND, LARGE, LINKS, PIECES
from bodyfit.render.cuda_arrays import DeviceArrays
from bodyfit.render.topology import Topology

FIRST_ROOM = {FOUND: 4096, CUTS: 8192, LINKS: 32768, PIECES: 8192, LARGE: 64}
"""So many rows per image at first: a body in an image of 640 × 480 has 4,000 cuts, 20,000 links and 4,200 pieces."""
SPARE = 2
LEAST_ROOM = 1024
"""A list is made so many times as long as it was needed, and so many rows longer for the first batch."""


class CudaPieces(NamedTuple):
    """Visible pieces of a batch's edges, in no order.

    ints (N, 6) int32: the columns of `kernels.cpu_edges.INTS`, then the image. floats (N, 13). count (1,) int32: how
    many there are; where it is more than N, there was too little room for the others.
    """

    ints: Any
    floats: Any
    count: Any


class DeviceEdges(NamedTuple):
    """A `Topology` on a device."""

    starts: Any
    sides: Any
    incident: Any
    bounds: Any
    seams: Any
    closed: bool
    has_seams: bool

    @classmethod
    def of(cls, topology: Topology, arrays: DeviceArrays) -> DeviceEdges:
        """A copy there; a mesh without edges gets one row that nothing refers to."""

        def there(table: Any) -> Any:
            return arrays.from_host(table if len(table) else np.zeros((1, *table.shape[1:]), table.dtype))

        return cls(
            there(topology.starts),
            there(topology.sides),
            there(topology.incident),
            there(topology.bounds),
            there(topology.seams),
            topology.closed,
            bool(topology.seams.any()),
        )


class EdgeRoom:
    """How long the lists of edges are made, for each kind of batch; the lists themselves belong to their batch.

    The first batch of a kind (number of images and edges, size, outlines or seams) is waited for, to see how much it
    needs; later ones get twice that, and what they needed is looked at when it is known anyway. Where that was too
    little, a warning says so and the next batch is waited for again. While a CUDA graph is captured nothing is waited
    for: a batch of its kind should have been drawn before.
    """

    def __init__(self) -> None:
        self._lists: dict[tuple[Any, ...], _Lengths] = {}

    def lengths(self, kind: tuple[Any, ...], arrays: DeviceArrays, n_batch: int, n_edges: int) -> _Lengths:
        """The lengths for a kind of batch."""
        if kind not in self._lists:
            self._lists[kind] = _Lengths(arrays, n_batch, n_edges)
        return self._lists[kind]

    def check(self) -> None:
        """Waits for the device and raises if a list was too short since the last check; from now on it is longer."""
        short = [text for lengths in self._lists.values() if (text := lengths.check())]
        if short:
            raise BodyfitError(f"{'; '.join(short)}: render again, and capture CUDA graphs anew")


class _Lengths:
    """Rows of the lists for one kind of batch."""

    def __init__(self, arrays: DeviceArrays, n_batch: int, n_edges: int) -> None:
        self._arrays = arrays
        self.rows = np.array([n_batch * FIRST_ROOM[k] for k in range(COUNTS)])
        self.rows[FOUND] = min(self.rows[FOUND], n_batch * n_edges) + 1
        self.tried = False
        self.most = arrays.full(COUNTS, value=0, kind=np.int32)
        self._news: Callable[[], Any] | None = None

    def grow(self, needed: Any) -> str:
        """Makes room for more than was needed; says what did not fit."""
        short = needed > self.rows
        short[LARGE] = False  # those that do not fit are done elsewhere
        text = ""
        if short.any():
            k = int(np.argmax(short))
            text = f"{needed[k]} {NAMES[k]} of edges did not fit into {self.rows[k]}, so gradients miss some"
        self.rows = np.where(SPARE * self.rows < (SPARE + 1) * needed, SPARE * needed, self.rows)
        return text

    def first(self, needed: Any) -> bool:
        """Takes what the first batch needed; whether it fitted."""
        if self.grow(needed):
            return False
        self.rows = np.minimum(self.rows, SPARE * needed + LEAST_ROOM)
        self.tried = True
        return True

    def look(self) -> None:
        """Takes what earlier batches needed, if the device has said so by now."""
        needed = None if self._news is None else self._news()
        if needed is None:
            return
        self._news = None
        text = self.grow(needed)
        if text:
            self.tried = False  # what comes after a list that was too short is counted too low
            warnings.warn(f"{text} in an earlier call; from now on there is room", RuntimeWarning, stacklevel=2)

    def note(self, counts: Any) -> None:
        """Remembers on the device what a batch needed, and asks for it unless an answer is still to come."""
        self._arrays.launch(cuda_edges.note_most, COUNTS, counts, self.most)
        if self._news is None and not self._arrays.capturing():
            self._news = self._arrays.read_later(self.most)

    def check(self) -> str:
        """Waits; what did not fit."""
        self._news = None
        text = self.grow(self._arrays.to_host(self.most).astype(np.int64))
        self.tried &= not text
        return text


NAMES = {FOUND: "edges", CUTS: "cuts", LINKS: "faces at pixels", PIECES: "pieces"}


def find_pieces(
    screen: Any,
    faces: Any,
    areas: Any,
    edges: DeviceEdges,
    seen: Any,
    which: int,
    size: tuple[int, int],
    perspective: bool,
    room: EdgeRoom,
    arrays: DeviceArrays,
) -> CudaPieces:
    """The visible pieces of a batch's outlines or seams.

    Args:
        screen: (B, V, 3) u, v, q.
        faces: (F, 3) int32.
        areas: (B, F) signed, twice the area.
        edges: of the faces.
        seen: (B,) int32, 1 where the samples saw faces of positive area, 2 of negative area, 3 of both, 0 of none.
        which: `cuda_edges.OUTLINES` or `SEAMS`.
        size: height and width in pixels.
        perspective: or orthographic.
        room: remembers how many there are.
        arrays: where all of these are.
    """
    n_batch, n_edges = screen.shape[0], edges.starts.shape[0] - 1
    if n_edges == 0 or (which == cuda_edges.SEAMS and not edges.has_seams):
        none = arrays.full(1, value=0, kind=np.int32)
        return CudaPieces(arrays.empty(1, cpu_edges.INTS + 1, kind=np.int32), arrays.empty(1, cpu_edges.FLOATS), none)
    lengths = room.lengths((which, n_batch, n_edges, size), arrays, n_batch, n_edges)
    if not arrays.capturing():
        lengths.look()
    while True:
        pieces, counts = _find(screen, faces, areas, edges, seen, which, size, perspective, lengths.rows, arrays)
        if lengths.tried or arrays.capturing() or lengths.first(arrays.to_host(counts).astype(np.int64)):
            break
    lengths.note(counts)
    return pieces


def _find(
    screen: Any,
    faces: Any,
    areas: Any,
    edges: DeviceEdges,
    seen: Any,
    which: int,
    size: tuple[int, int],
    perspective: bool,
    rows: Any,
    arrays: DeviceArrays,
) -> tuple[CudaPieces, Any]:
    """The pieces, and how many rows of each list were needed."""
    n_batch, n_edges, n_faces = screen.shape[0], edges.starts.shape[0] - 1, faces.shape[0]
    n_found, n_cuts, n_links, n_pieces, n_large = (max(int(n), 1) for n in rows)
    counts = arrays.full(COUNTS, value=0, kind=np.int32)
    found = arrays.empty(n_found, 3, kind=np.int32)
    arrays.launch(
        cuda_edges.find_edges, n_batch * n_edges, screen, faces, areas, seen, edges.starts, edges.sides, edges.incident,
        edges.seams, which, edges.closed, found, counts,
    )  # fmt: skip
    heads = arrays.full(n_batch, *size, value=-1, kind=np.int32)
    cut_ints, cut_floats = arrays.empty(n_cuts, 2, kind=np.int32), arrays.empty(n_cuts, 4)
    arrays.launch(
        cuda_edges.cut_edges, None, screen, faces, areas, edges.incident, found, *size, heads, cut_ints, cut_floats,
        counts,
    )  # fmt: skip
    planes = arrays.empty(n_batch, n_faces, 9)
    links, large = arrays.empty(n_links, 2, kind=np.int32), arrays.empty(n_large, 2, kind=np.int32)
    arrays.launch(
        cuda_visible.link_faces, n_batch * n_faces, screen, faces, areas, seen, edges.closed, heads, planes, links,
        large, counts,
    )  # fmt: skip
    arrays.launch(cuda_visible.link_large_faces, None, screen, faces, areas, large, heads, planes, links, counts)
    ints, floats = arrays.empty(n_pieces, cpu_edges.INTS + 1, kind=np.int32), arrays.empty(n_pieces, cpu_edges.FLOATS)
    arrays.launch(
        cuda_visible.look_behind, None, screen, faces, edges.bounds, edges.incident, found, cut_ints, cut_floats, heads,
        links, planes, perspective, ints, floats, counts,
    )  # fmt: skip
    return CudaPieces(ints, floats, counts[PIECES : PIECES + 1]), counts


def scatter_edges(pieces: CudaPieces, jumps: Any, v_screen: Any, arrays: DeviceArrays) -> None:
    """Adds to v_screen (B, V, 3) what moves the ends of the edges; jumps (N,) is the loss per area won."""
    arrays.launch(cuda_edges.scatter_edges, None, *pieces, jumps, v_screen)
