"""What a person looks like: the albedo of points on their surface, learnt while they are followed, and the light.

A colour is albedo x light x gain: the albedo stays with the surface, the light is an order-2 spherical-harmonics
function of the world's normal, one for each sensor (Ramamoorthi and Hanrahan 2001: nine numbers hold what a matt
surface shows of distant light), and the gain, one number a channel, takes up exposure and white balance of the frame.
The overall scale of albedo and light cannot be told apart: light is 1 on average over the first frame's body.

Everything is a running mean, so that a tracker can go on with every frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.photometric import ColorConfig, ColorTerm, ColorView, make_color_view
from bodyfit.fit.surface_points import PointCloud, SurfacePoints, point_cloud, spread_points
from bodyfit.frame import Frame
from bodyfit.kernels import photometric as K
from bodyfit.kernels.body import joint_motions, skin, vertex_normals
from bodyfit.kernels.raster import draw_faces

ALIKE = (
    ("head", "neck"), ("chest", "abdomen"), ("upper_arm",), ("forearm",), ("hand",), ("pelvis",), ("thigh",),
    ("calf",), ("foot",),
)  # fmt: skip
"""Parts that are taken to be of one colour each when the first frame's light is estimated."""
_SCORE = np.array(
    [0.0 if n[0] == "hand" else 2.0 if n[0] in ("forearm", "upper_arm", "head", "foot") else 1.0 for n in ALIKE]
)
"""A limb has few points, and they tell of a joint that nothing else tells of: the trunk's steepest would take all.
Hands have no say: their fingers move and the body's do not."""
LIGHT_TRUST = 0.1
"""Ridge of the light's fit, as a share of the points: how firmly it is held at being the same from everywhere."""
TEXTURE_BEYOND = 1.5
"""a part pulls where its texture is so many times as strong as its points' own residuals, or stronger"""
SAYS_EVERY = 8
"""frames learnt from until the parts' textures are looked at again"""
LEAST_POINTS = 30
"""of fewer points nobody can say whether a part has a texture"""
LIGHT_EVERY = 3
"""every so-manieth point tells of the light: nine numbers need no more, and it was most of the time"""
LEAST_SAY = 0.05
NEXT_S = 0.25
"""what moves is known between frames that are no further apart"""
GAIN_RANGE = (0.4, 2.5)


@dataclass
class SensorLight:
    """Light (9, 3) of one sensor's frames and what was summed up for it; gain (3,) of the last frame."""

    light: NDArray[np.float32]
    gain: NDArray[np.float32]
    M: NDArray[np.float32]
    b: NDArray[np.float32]


@dataclass
class Sight:
    """The body in one frame's colour image, its points (N) and vertices (V) in the colour camera.

    facing (N,): the cosine to the line of sight, 0 where a point is not seen; seen (n,): those that are; colors (n, 3)
    of the smoothed image.
    """

    view: ColorView
    at: NDArray[np.float32]
    normals: NDArray[np.float32]
    facing: NDArray[np.float32]
    seen: NDArray[np.int64]
    colors: NDArray[np.float32]
    vertices: NDArray[np.float32]
    drawn: NDArray[np.float32]
    face: NDArray[np.int32]
    R_wc: NDArray[np.float32]
    body_px: int
    timestamp_s: float


def _uniform() -> NDArray[np.float32]:
    light = np.zeros((K.SH_BANDS, 3), np.float32)
    light[0] = 1.0
    return light


@dataclass
class Appearance:
    """Colours of one person's surface, with what is needed to learn more of them and to pull a body by them.

    albedo (N, 3) display values (root of linear, `kernels.photometric.GAMMA`), weight (N,) frames that it was seen in,
    variance (N,) of its residuals (three channels together).
    """

    points: SurfacePoints
    cloud: PointCloud
    mesh: Mesh
    groups: NDArray[np.int64]
    parts: NDArray[np.int64]
    config: ColorConfig
    albedo: NDArray[np.float32]
    weight: NDArray[np.float32]
    variance: NDArray[np.float32]
    lights: dict[str, SensorLight] = field(default_factory=dict)
    frames: int = 0
    _says: tuple[int, NDArray[np.float32]] = field(default_factory=lambda: (-SAYS_EVERY, np.zeros(0, np.float32)))
    _scratch: dict[str, NDArray] = field(default_factory=dict)
    _places: dict[str, tuple[float, NDArray[np.float32]]] = field(default_factory=dict)
    """by sensor when its points were learnt from last, and where they were in its colour camera"""

    @staticmethod
    def begin(model: BodyModel, mesh: Mesh, config: ColorConfig | None = None) -> Appearance:
        """Nothing known yet, about a mesh of any level of the model."""
        config = config or ColorConfig()
        points = spread_points(mesh, config.points)
        N = len(points)
        groups, parts = np.zeros(N, np.int64), np.zeros(N, np.int64)
        if model.part_labels is not None:
            alike = [
                next((i for i, names in enumerate(ALIKE) if any(part.endswith(n) for n in names)), 0)
                for part in model.part_names
            ]
            corner = points.corners[np.arange(N), points.bary.argmax(1)]
            parts = model.part_labels[mesh.vertex_ids[corner]].astype(np.int64)
            groups = np.array(alike)[parts]
        return Appearance(
            points, point_cloud(points, mesh), mesh, groups, parts, config,
            np.full((N, 3), 0.4, np.float32), np.zeros(N, np.float32), np.full(N, 2e-3, np.float32),
        )  # fmt: skip

    def reshape(self, mesh: Mesh) -> None:
        """Goes on with another shape of the same mesh."""
        if mesh is not self.mesh:
            self.mesh = mesh
            self.cloud = point_cloud(self.points, mesh, (self.cloud.weight_joints, self.cloud.weights))

    # seeing

    def look(
        self, frame: Frame, rotations: NDArray[np.float64], transl: NDArray[np.float64],
        shape: NDArray[np.float64] | None = None,
    ) -> Sight | None:  # fmt: skip
        """The points in a frame's colour image, the body posed (J, 3, 3), (3,); None where it is not in the picture.

        shape (S,) beyond the mesh's own; None where that is what the body has.
        """
        mesh, cloud = self.mesh, self.cloud
        template, points, joints = mesh.template, cloud.template, mesh.joint_template
        if shape is not None and shape.any():
            s = shape.astype(np.float32)
            template, points = template + mesh.shapedirs @ s, points + cloud.shapedirs @ s
            joints = joints + mesh.jointdirs @ shape
        vertices = self._array("vertices", template.shape)
        J = len(joints)
        G, posed = np.empty((J, 3, 3)), np.empty((J, 3))
        joint_motions(rotations, joints, mesh.parents, np.eye(3), np.zeros(3), transl, G, posed)
        skin(template, mesh.weight_joints, mesh.weights, G, posed, joints, vertices)
        view = make_color_view(frame, vertices, self.config)
        if view is None:
            return None
        R = view.R_cw.astype(np.float32)
        drawn = self._array("drawn", view.image.shape[:2])
        face = self._array("face", view.image.shape[:2], np.int32)
        seen_vertices = vertices @ R.T + view.t_cw.astype(np.float32)
        fx, fy, cx, cy = view.intrinsics
        draw_faces(seen_vertices, mesh.faces, fx, fy, cx, cy, drawn, face)
        N = len(points)
        at, normals, facing = np.empty((N, 3), np.float32), np.empty((N, 3), np.float32), np.empty(N, np.float32)
        joint_motions(rotations, joints, mesh.parents, view.R_cw, view.t_cw, transl, G, posed)
        skin(points, cloud.weight_joints, cloud.weights, G, posed, joints, at)
        # a normal turns with its joints and goes nowhere: as if each joint stayed where its rotation takes it
        turned = (G @ joints[:, :, None])[:, :, 0]
        skin(cloud.normals, cloud.weight_joints, cloud.weights, G, turned, joints, normals)
        c = self.config
        margin = max(2, round(c.edge_m * view.px_per_m))
        assert frame.T_color_depth is not None
        T_dc, d = np.linalg.inv(frame.T_color_depth).astype(np.float32), frame.depth_camera
        K.see_points(
            at, normals, drawn, view.intrinsics, margin, np.float32(c.least_facing),
            frame.depth, np.array([d.fx, d.fy, d.cx, d.cy], np.float32), T_dc[:3, :3].copy(), T_dc[:3, 3].copy(),
            np.float32(c.agreement_m), facing,
        )  # fmt: skip
        seen = np.flatnonzero(facing)
        if len(seen) < 50:
            return None
        colors = np.empty((len(seen), 3), np.float32)
        K.sample_points(at, seen, view.image, view.intrinsics, colors, np.empty(len(seen), np.float32))
        R_wc = np.ascontiguousarray(R.T)
        return Sight(
            view, at, normals, facing, seen, colors, seen_vertices, drawn, face, R_wc, int((drawn > 0).sum()),
            frame.timestamp_s,
        )  # fmt: skip

    def _array(self, name: str, size: tuple[int, ...], kind: type = np.float32) -> NDArray:
        old = self._scratch.get(name)
        if old is None or old.shape != size:
            old = self._scratch[name] = np.empty(size, kind)
        return old

    # pulling

    def term(self, sight: Sight) -> ColorTerm | None:
        """What a frame's colours say of the pose that they are about to correct; None where too little is known yet."""
        c, light, seen = self.config, self.lights.get(sight.view.sensor), sight.seen
        if light is None:
            return None
        known = self.weight[seen] >= c.learnt
        if known.sum() < 100:
            return None
        lit = self._array("lit", (len(self.albedo), 3))
        K.light_of(sight.normals, seen, sight.R_wc, light.light, lit)
        light.gain = self._gain(sight, known, lit, light.gain)
        factor = self._factors(sight, known, lit, light.gain)
        flat = self._flat(sight, light)
        colors, steep = np.empty((len(seen), 3), np.float32), np.empty(len(seen), np.float32)
        K.sample_points(sight.at, seen, flat, sight.view.intrinsics, colors, steep)
        says = self.texture()[self.parts[seen]]
        pulls = _SCORE[self.groups[seen]] * (says > LEAST_SAY)
        use = np.flatnonzero(known & (pulls > 0) & (steep > c.least_gradient) & (sight.colors.max(1) < 0.98))
        if len(use) > c.used:
            score = steep[use] * pulls[use]
            use = use[np.argpartition(-score, c.used)[: c.used]]
        if len(use) < 30:
            return None
        chosen = seen[use]
        cloud = self.cloud
        part = PointCloud(
            cloud.template[chosen], cloud.normals[chosen], cloud.shapedirs[chosen],
            cloud.weight_joints[chosen], cloud.weights[chosen],
        )  # fmt: skip
        # a point's residual holds the colours of all pixels under the smoothing: 4 pi sigma² of them are one
        independent = sight.body_px / (4 * np.pi * sight.view.blur_px**2) * len(use) / max(len(seen), 1)
        weight = c.weight * min(1.0, independent / len(use))
        targets = self.albedo[chosen] * factor[use, None]
        # a part of which only a share is texture counts by that share
        sure = np.float32(c.sigma**2) + self.variance[chosen] / np.float32(3)
        spread = sure / says[use] - np.float32(c.sigma**2)
        return ColorTerm(replace(sight.view, image=flat), part, targets, spread, weight, c)

    def texture(self) -> NDArray[np.float32]:
        """(P,) 0 to 1, how much of what each part's points show is a texture that moves with the part.

        Shading that the light does not explain, and noise, have gradients too, and these pull at a bare limb as if it
        turned. Texture is what albedo differs by from a smooth course over the part; the rest shows in the residuals.
        """
        if self.frames - self._says[0] < SAYS_EVERY and len(self._says[1]):
            return self._says[1]
        known = self.weight >= self.config.learnt
        out = np.zeros(int(self.parts.max()) + 1, np.float32)
        for part in range(len(out)):
            i = np.flatnonzero(known & (self.parts == part))
            if len(i) < LEAST_POINTS:
                continue
            X = np.concatenate([np.ones((len(i), 1)), self.cloud.normals[i], self.cloud.template[i]], 1)
            a = self.albedo[i].astype(np.float64)
            products = X.T @ X + 1e-6 * np.eye(X.shape[1])
            rough = a - X @ np.linalg.solve(products, X.T @ a)
            noise = float(self.variance[i].mean()) / 3
            out[part] = max(0.0, 1 - TEXTURE_BEYOND**2 * noise / max(float((rough * rough).mean()), 1e-9))
        self._says = self.frames, out
        return out

    def _flat(self, sight: Sight, light: SensorLight) -> NDArray[np.float32]:
        """The image without light and gain."""
        mesh = self.mesh
        normals, lit = self._array("normals", sight.vertices.shape), self._array("vertex_lit", sight.vertices.shape)
        vertex_normals(sight.vertices, mesh.faces, normals)
        K.light_of(normals, self._every(len(normals)), sight.R_wc, light.light, lit)
        out = np.empty_like(sight.view.image)
        K.delight(
            sight.view.image, sight.drawn, sight.face, mesh.faces, sight.vertices, lit, light.gain,
            sight.view.intrinsics, out,
        )  # fmt: skip
        return out

    def _every(self, count: int) -> NDArray[np.int64]:
        return self._scratch.setdefault(f"every {count}", np.arange(count))

    def _gain(
        self, sight: Sight, known: NDArray[np.bool_], lit: NDArray[np.float32], last: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(3,) gain of a frame: the middle of what its points say, each channel for itself."""
        which = np.flatnonzero(known)[:: max(1, int(known.sum()) // 1500)]
        v = sight.seen[which]
        wanted = self.albedo[v] * lit[v]
        fit = (sight.colors[which].max(1) < 0.97) & (wanted.min(1) > 0.05)
        if fit.sum() < 50:
            return last
        ratio = sight.colors[which][fit] / wanted[fit]
        return np.clip(np.median(ratio, axis=0), *GAIN_RANGE).astype(np.float32)

    def _factors(
        self, sight: Sight, known: NDArray[np.bool_], lit: NDArray[np.float32], gain: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(n,) by how much each part is brighter than it should be: linear in the normal, smooth over the part.

        What a limb's own shadow and the light's error do to a whole part is no motion.
        """
        v = sight.seen
        wanted = (self.albedo[v] * lit[v] * gain).mean(1)
        ratio = sight.colors.mean(1) / np.maximum(wanted, 0.02)
        weight = known / (1 + ((ratio - 1) / 0.25) ** 2) ** 2
        P = int(self.parts.max()) + 1
        M, b = np.zeros((P, 4, 4), np.float32), np.zeros((P, 4), np.float32)
        K.part_products(v, self.parts, sight.normals, ratio, weight.astype(np.float32), M, b)
        hold = np.diag([2.0, 4.0, 4.0, 4.0])
        b += np.array([2.0, 0, 0, 0], np.float32)
        c = np.linalg.solve(M + hold, b[..., None])[..., 0].astype(np.float32)[self.parts[v]]
        return np.clip(c[:, 0] + (c[:, 1:] * sight.normals[v]).sum(1), 0.6, 1.6)

    # learning

    def update(self, sight: Sight) -> None:
        """Takes the colours of a frame in which the body's pose is as good as it gets; those of what moves fast, since
        the last update, are left out."""
        self._leave_out_fast(sight)
        sensor, seen = sight.view.sensor, sight.seen
        if len(seen) < LEAST_POINTS:
            return
        light = self.lights.get(sensor)
        if light is None:
            light = self.lights[sensor] = self._first_light(sight)
        lit = self._array("lit", (len(self.albedo), 3))
        K.light_of(sight.normals, seen, sight.R_wc, light.light, lit)
        known = self.weight[seen] > 0
        factor = np.ones(len(seen), np.float32)
        if known.sum() > 100:
            light.gain = self._gain(sight, known, lit, light.gain)
            factor = self._factors(sight, known, lit, light.gain)
            some = np.flatnonzero(known)[::LIGHT_EVERY]
            K.light_products(
                seen[some], sight.normals, sight.R_wc, self.albedo, sight.colors[some], sight.facing, light.gain,
                light.M, light.b,
            )  # fmt: skip
        c = self.config
        found = sight.colors / (lit[seen] * light.gain)
        K.remember(
            seen, sight.colors, found, factor, sight.facing, np.float32(c.robust), np.float32(c.most_frames),
            self.albedo, self.weight, self.variance,
        )  # fmt: skip
        self.frames += 1
        if self.frames % 5 == 0:
            self._relight(light)

    def _leave_out_fast(self, sight: Sight) -> None:
        sensor, now = sight.view.sensor, sight.timestamp_s
        before, self._places[sensor] = self._places.get(sensor), (now, sight.at)
        if before is None or not 0 < now - before[0] <= NEXT_S:
            return
        seen = sight.seen
        far = np.linalg.norm(sight.at[seen] - before[1][seen], axis=1)
        slow = far < self.config.fastest_mps * (now - before[0])
        sight.facing[seen[~slow]] = 0
        sight.seen, sight.colors = seen[slow], sight.colors[slow]

    def _relight(self, light: SensorLight) -> None:
        """The light that agrees best with all frames so far, the present one worth as much as a ridge."""
        for k in range(3):
            trust = max(float(light.M[k, 0, 0]), 1.0) * 0.02
            M = light.M[k].astype(np.float64)
            A = M + np.triu(M, 1).T + trust * np.eye(K.SH_BANDS)
            light.light[:, k] = np.linalg.solve(A, light.b[k] + trust * light.light[:, k])
        if light.M[0, 0, 0] > 3e5:  # frames of long ago fade
            light.M *= 0.5
            light.b *= 0.5

    def _first_light(self, sight: Sight) -> SensorLight:
        """The light of a first frame, if every part of the body had one colour in the middle.

        Sets no albedo: that follows from the light.
        """
        linear = sight.colors.astype(np.float64) ** K.GAMMA
        n = sight.normals[sight.seen] @ sight.R_wc.T
        x, y, z = n.T
        Y = np.stack([np.ones_like(x), x, y, z, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y], 1).astype(float)
        group = self.groups[sight.seen]
        fit = (sight.colors.max(1) < 0.97) & (sight.colors.max(1) > 0.02)
        light = _uniform().astype(np.float64)
        w = sight.facing[sight.seen] * fit
        for _ in range(4):
            e = np.maximum(Y @ light, 0.05)
            shade = np.empty_like(e)
            for g in np.unique(group):
                inside = group == g
                a = np.median(linear[inside] / e[inside], axis=0)
                shade[inside] = linear[inside] / np.maximum(a, 0.005)
            # half of a person's patterns are brighter than the middle of their part: large ratios are no light
            keep = w[:, None] / (1 + ((shade - e) / 0.35) ** 2) ** 2
            for k in range(3):
                A = (Y * keep[:, k : k + 1]).T @ Y + LIGHT_TRUST * keep[:, k].sum() * np.diag([1e-3] + [1.0] * 8)
                light[:, k] = np.linalg.solve(A, (Y * keep[:, k : k + 1]).T @ shade[:, k])
        e = np.maximum(Y @ light, 0.05)
        light /= e.mean(0)
        return SensorLight(
            light.astype(np.float32), np.ones(3, np.float32),
            np.zeros((3, K.SH_BANDS, K.SH_BANDS), np.float32), np.zeros((3, K.SH_BANDS), np.float32),
        )  # fmt: skip

    def forget_colors(self) -> Appearance:
        """The same points and lights without colours, to learn them again with better poses."""
        return replace(
            self, albedo=np.full_like(self.albedo, 0.4), weight=np.zeros_like(self.weight), frames=0, _places={},
            _says=(-SAYS_EVERY, np.zeros(0, np.float32)),
            variance=np.full_like(self.variance, 2e-3), _scratch={},
            lights={k: replace(v, light=v.light.copy(), gain=v.gain.copy(), M=v.M * 0, b=v.b * 0)
                    for k, v in self.lights.items()},
        )  # fmt: skip
