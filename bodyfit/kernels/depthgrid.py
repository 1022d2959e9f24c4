"""Neighbourhood arithmetic of a depth image: jumps between pixels, and surfaces that hang together.

Arrays and floats only; depths are metres with 0 for no reading.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True)
def flying_pixels(
    depth: NDArray[np.float32], pitch: float, jump: float, slope: float, alike: float
) -> NDArray[np.bool_]:
    """Pixels whose reading mixes two surfaces, (H, W) bool.

    A pixel flies when, along one of the four directions through it, it lies between its two neighbours, at least `jump`
    (share of its depth) from one and at least `slope` pixel widths (`pitch` × depth metres each) from the other, with
    no neighbour to keep it company on both counts; or when fewer than two of its eight neighbours are within `alike`
    (share of its depth). A reading on a limb's rim leans towards the background only past `slope`, so that a five-pixel
    forearm keeps its pixels.
    """
    height, width = depth.shape
    out = np.zeros((height, width), dtype=np.bool_)
    du = (1, 0, 1, 1)
    dv = (0, 1, 1, -1)
    for v in range(height):
        for u in range(width):
            z = depth[v, u]
            if z <= 0:
                continue
            far, near = jump * z, slope * pitch * z
            if (
                0 < v < height - 1 and 0 < u < width - 1
                and abs(depth[v, u - 1] - z) < near and abs(depth[v, u + 1] - z) < near
                and abs(depth[v - 1, u] - z) < near and abs(depth[v + 1, u] - z) < near
            ):  # fmt: skip
                continue  # the middle of a surface, which most pixels are
            company = 0
            for y in range(max(0, v - 1), min(height, v + 2)):
                for x in range(max(0, u - 1), min(width, u + 2)):
                    if depth[y, x] > 0 and abs(depth[y, x] - z) < alike * z:
                        company += 1
            if company < 3:  # itself is one of them
                out[v, u] = True
                continue
            for k in range(4):
                y0, x0, y1, x1 = v - dv[k], u - du[k], v + dv[k], u + du[k]
                if y0 < 0 or x0 < 0 or y1 >= height or x1 >= width or y1 < 0 or y0 >= height:
                    continue
                a, b = depth[y0, x0], depth[y1, x1]
                if a <= 0 or b <= 0:
                    continue
                lo, hi = z - min(a, b), max(a, b) - z
                if lo > near and hi > near and (lo > far or hi > far):
                    out[v, u] = True
                    break
    return out


@njit(cache=True, forceinline=True)
def _root(parent: NDArray[np.int32], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, forceinline=True)
def _join(parent: NDArray[np.int32], a: int, b: int) -> None:
    ra, rb = _root(parent, a), _root(parent, b)
    if ra < rb:
        parent[rb] = ra
    elif rb < ra:
        parent[ra] = rb


@njit(cache=True)
def surface_labels(
    depth: NDArray[np.float32], mask: NDArray[np.bool_], jump_m: float, jump_share: float
) -> tuple[NDArray[np.int32], int]:
    """Connected surfaces: labels (H, W) int32 from 1 (0 outside of `mask`), in reading order, and how many there are.

    Two of eight neighbours belong together when their depths differ by less than `jump_m + jump_share · depth` metres.
    """
    height, width = depth.shape
    parent = np.empty(height * width, dtype=np.int32)
    for v in range(height):
        for u in range(width):
            i = v * width + u
            parent[i] = i
            if not mask[v, u]:
                continue
            z = depth[v, u]
            gap = jump_m + jump_share * z
            if u > 0 and mask[v, u - 1] and abs(depth[v, u - 1] - z) < gap:
                _join(parent, i, i - 1)
            if v > 0:
                for x in range(max(0, u - 1), min(width, u + 2)):
                    if mask[v - 1, x] and abs(depth[v - 1, x] - z) < gap:
                        _join(parent, i, (v - 1) * width + x)
    labels = np.zeros((height, width), dtype=np.int32)
    count = 0
    for v in range(height):
        for u in range(width):
            if mask[v, u]:
                i = v * width + u
                r = _root(parent, i)
                if r == i:
                    count += 1
                    labels[v, u] = count
                else:
                    labels[v, u] = labels[r // width, r % width]
    return labels, count


@njit(cache=True)
def surface_stats(
    labels: NDArray[np.int32], depth: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int32]]:
    """Of each label 0 … `count`: pixels (N,), sum of squared depths (N,), and box (N, 4) v0 v1 u0 u1, ends excluded."""
    height, width = labels.shape
    pixels = np.zeros(count + 1, dtype=np.int64)
    squares = np.zeros(count + 1, dtype=np.float64)
    boxes = np.zeros((count + 1, 4), dtype=np.int32)
    boxes[:, 0], boxes[:, 2] = height, width
    for v in range(height):
        for u in range(width):
            k = labels[v, u]
            if k == 0:
                continue
            z = depth[v, u]
            pixels[k] += 1
            squares[k] += z * z
            boxes[k, 0] = min(boxes[k, 0], v)
            boxes[k, 1] = max(boxes[k, 1], v + 1)
            boxes[k, 2] = min(boxes[k, 2], u)
            boxes[k, 3] = max(boxes[k, 3], u + 1)
    return pixels, squares, boxes


@njit(cache=True)
def room_maps(
    depth: NDArray[np.float32],
    rays: NDArray[np.float64],
    offsets: NDArray[np.float64],
    noise: NDArray[np.float64],
    walls: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """Height (H, W) and plan position (H, W, 2) in metres, and kind (H, W): 0 no reading, 1 free, 2 floor, 3 wall.

    Args:
        depth: (H, W) metres, 0 = no reading.
        rays: (3, 3), rows height, plan x and plan y as (per column, per row, constant) of the pixel, times the depth.
        offsets: (3,) metres added to them.
        noise: (4,) a and b of the standard deviation a + b z² of a height; the least height in metres above the floor,
            and how many standard deviations, from which a reading is not the floor's (least below -100: no floor).
        walls: (N, 5) nx, ny, d, start and end of each wall's line in plan view.
    """
    height, width = depth.shape
    up = np.zeros((height, width), dtype=np.float32)
    plan = np.zeros((height, width, 2), dtype=np.float32)
    kind = np.zeros((height, width), dtype=np.uint8)
    for v in range(height):
        h0, x0, y0 = rays[0, 1] * v + rays[0, 2], rays[1, 1] * v + rays[1, 2], rays[2, 1] * v + rays[2, 2]
        for u in range(width):
            z = depth[v, u]
            if z <= 0:
                continue
            h = (h0 + rays[0, 0] * u) * z + offsets[0]
            x = (x0 + rays[1, 0] * u) * z + offsets[1]
            y = (y0 + rays[2, 0] * u) * z + offsets[2]
            up[v, u], plan[v, u, 0], plan[v, u, 1] = h, x, y
            sigma = noise[0] + noise[1] * z * z
            kind[v, u] = 1
            if h < max(noise[2], noise[3] * sigma) and noise[2] > -100.0:
                kind[v, u] = 2
                continue
            reach = 0.03 + 2.5 * max(0.004, 1.5 * sigma)
            for k in range(walls.shape[0]):
                nx, ny = walls[k, 0], walls[k, 1]
                along = y * nx - x * ny
                if abs(x * nx + y * ny + walls[k, 2]) < reach and walls[k, 3] - 0.1 < along < walls[k, 4] + 0.1:
                    kind[v, u] = 3
                    break
    return up, plan, kind


@njit(cache=True)
def nearest_pixel(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Distance in pixels (H, W) to the nearest pixel of `mask`, and that pixel's flat index (-1 where mask is empty).

    Two chamfer passes with steps 1 and √2 (Borgefors 1986): at most 8 % longer than the straight line.
    """
    height, width = mask.shape
    far = np.float32(1e9)
    diagonal = np.float32(2.0**0.5)
    one = np.float32(1.0)
    distance = np.empty((height, width), dtype=np.float32)
    owner = np.empty((height, width), dtype=np.int32)
    for v in range(height):
        for u in range(width):
            if mask[v, u]:
                distance[v, u], owner[v, u] = 0.0, v * width + u
                continue
            best, who = far, -1
            if u > 0 and distance[v, u - 1] + one < best:
                best, who = distance[v, u - 1] + one, owner[v, u - 1]
            if v > 0:
                if distance[v - 1, u] + one < best:
                    best, who = distance[v - 1, u] + one, owner[v - 1, u]
                if u > 0 and distance[v - 1, u - 1] + diagonal < best:
                    best, who = distance[v - 1, u - 1] + diagonal, owner[v - 1, u - 1]
                if u + 1 < width and distance[v - 1, u + 1] + diagonal < best:
                    best, who = distance[v - 1, u + 1] + diagonal, owner[v - 1, u + 1]
            distance[v, u], owner[v, u] = best, who
    for v in range(height - 1, -1, -1):
        for u in range(width - 1, -1, -1):
            best, who = distance[v, u], owner[v, u]
            if u + 1 < width and distance[v, u + 1] + one < best:
                best, who = distance[v, u + 1] + one, owner[v, u + 1]
            if v + 1 < height:
                if distance[v + 1, u] + one < best:
                    best, who = distance[v + 1, u] + one, owner[v + 1, u]
                if u + 1 < width and distance[v + 1, u + 1] + diagonal < best:
                    best, who = distance[v + 1, u + 1] + diagonal, owner[v + 1, u + 1]
                if u > 0 and distance[v + 1, u - 1] + diagonal < best:
                    best, who = distance[v + 1, u - 1] + diagonal, owner[v + 1, u - 1]
            distance[v, u], owner[v, u] = best, who
    return distance, owner


@njit(cache=True)
def gap_facts(gaps: NDArray[np.int32], label: NDArray[np.uint8], count: int) -> NDArray[np.bool_]:
    """What each gap 0 … `count` - 1 borders on: (N, 4) bool for label 0, label 1, label 2 and the image's border.

    `gaps` (H, W) numbers the connected pixels without a reading from 1, 0 elsewhere, where `label` is looked at.
    """
    height, width = gaps.shape
    facts = np.zeros((count, 4), dtype=np.bool_)
    for v in range(height):
        for u in range(width):
            k = gaps[v, u]
            if k == 0:
                continue
            if v == 0 or u == 0 or v == height - 1 or u == width - 1:
                facts[k, 3] = True
            for y in range(max(0, v - 1), min(height, v + 2)):
                for x in range(max(0, u - 1), min(width, u + 2)):
                    if gaps[y, x] == 0:
                        facts[k, label[y, x]] = True
    return facts


@njit(cache=True)
def grow_into(
    depth: NDArray[np.float32],
    seed: NDArray[np.bool_],
    allowed: NDArray[np.bool_],
    steps: int,
    jump_m: float,
    jump_share: float,
) -> NDArray[np.bool_]:
    """`seed`, and the `allowed` pixels that a walk of at most `steps` neighbours without a depth jump reaches."""
    height, width = depth.shape
    out = seed.copy()
    front = np.empty((height * width, 2), dtype=np.int32)
    n = 0
    for v in range(height):
        for u in range(width):
            if seed[v, u]:
                front[n, 0], front[n, 1] = v, u
                n += 1
    start = 0
    for _ in range(steps):
        end = n
        for k in range(start, end):
            v, u = front[k, 0], front[k, 1]
            z = depth[v, u]
            if z <= 0:
                continue
            gap = jump_m + jump_share * z
            for y in range(max(0, v - 1), min(height, v + 2)):
                for x in range(max(0, u - 1), min(width, u + 2)):
                    if allowed[y, x] and not out[y, x] and abs(depth[y, x] - z) < gap:
                        out[y, x] = True
                        front[n, 0], front[n, 1] = y, x
                        n += 1
        start = end
        if start == n:
            break
    return out


@njit(cache=True)
def window_normals(
    depth: NDArray[np.float32],
    mask: NDArray[np.bool_],
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    half_m: float,
    jump_m: float,
    jump_share: float,
) -> NDArray[np.float32]:
    """Unit normals (H, W, 3) that face the camera, 0 where `mask` is false or the window holds no plane.

    Least squares of 1/z over a square window of about `half_m` metres to each side (1 to 7 pixels), with those pixels
    of `mask` whose depth is within `jump_m + jump_share · depth` of the centre's: a plane is linear in 1/z.
    """
    height, width = depth.shape
    out = np.zeros((height, width, 3), dtype=np.float32)
    focal = 0.5 * (fx + fy)
    for v in range(height):
        for u in range(width):
            if not mask[v, u]:
                continue
            z = depth[v, u]
            radius = min(7, max(1, int(round(half_m * focal / z))))
            gap = jump_m + jump_share * z
            n = 0.0
            sx = sy = sq = sxx = sxy = syy = sxq = syq = 0.0
            for y in range(max(0, v - radius), min(height, v + radius + 1)):
                for x in range(max(0, u - radius), min(width, u + radius + 1)):
                    d = depth[y, x]
                    if not mask[y, x] or abs(d - z) >= gap:
                        continue
                    q = 1.0 / d
                    a, b = float(x - u), float(y - v)
                    n += 1.0
                    sx += a
                    sy += b
                    sq += q
                    sxx += a * a
                    sxy += a * b
                    syy += b * b
                    sxq += a * q
                    syq += b * q
            if n < 5.0:
                continue
            cxx, cxy, cyy = sxx - sx * sx / n, sxy - sx * sy / n, syy - sy * sy / n
            cxq, cyq = sxq - sx * sq / n, syq - sy * sq / n
            det = cxx * cyy - cxy * cxy
            if det < 1e-6 * (cxx + cyy + 1.0) ** 2:
                continue
            qx, qy = (cxq * cyy - cyq * cxy) / det, (cyq * cxx - cxq * cxy) / det
            q0 = (sq - qx * sx - qy * sy) / n
            # 1/z = (n_x x + n_y y + n_z) / d on the rays (x, y, 1); qx and qy are per pixel
            nx, ny = qx * fx, qy * fy
            nz = q0 - nx * (u - cx) / fx - ny * (v - cy) / fy
            norm = (nx * nx + ny * ny + nz * nz) ** 0.5
            if norm <= 0.0:
                continue
            out[v, u, 0], out[v, u, 1], out[v, u, 2] = -nx / norm, -ny / norm, -nz / norm
    return out
