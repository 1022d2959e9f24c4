"""What Mitsuba lacks for `bodyfit.render.mitsuba`, as plugins: values per face corner, and the native reflection model.

The mesh that Mitsuba sees is welded, since each edge of a seam would count as a silhouette; whatever differs on the
two sides of a seam (normals, texture coordinates, attributes) is therefore kept per corner of a face.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from bodyfit.errors import DeviceError, MissingExtraError

VARIANT = "llvm_ad_rgb"
OLDEST_LLVM = 17
"""older ones were seen to end the process from within (LLVM 15 and 16 with Dr.Jit 1.5)"""
LIGHT_COSINE = 1.0 - 1e-5
"""a direction this near to the one of a light without size is that light's"""


@lru_cache(maxsize=1)
def load_mitsuba() -> Any:
    """Mitsuba with its differentiable variant for the CPU chosen and our plugins registered.

    Raises:
        MissingExtraError: Mitsuba is not installed.
        DeviceError: what Mitsuba compiles with is not there, or the program has chosen another variant.
    """
    try:
        # what Mitsuba's module holds depends on the variant that is chosen while the program runs
        dr: Any = import_module("drjit")
        mi: Any = import_module("mitsuba")
    except ModuleNotFoundError:
        raise MissingExtraError("mitsuba", "mitsuba", "the physically based renderer") from None
    if mi.variant() not in (None, VARIANT):
        raise DeviceError("mitsuba", f"the variant {VARIANT}", str(mi.variant()), "one process uses one variant")
    _check_llvm(dr)
    mi.set_variant(VARIANT)
    # what it has to say about images without a sampled border is settled by `sample_border`
    mi.set_log_level(mi.LogLevel.Error)
    _register(mi, dr)
    return mi


def _check_llvm(dr: Any) -> None:
    hint = "install LLVM's shared library (Debian and Ubuntu: apt-get install libllvm19)"
    if not dr.has_backend(dr.JitBackend.LLVM):
        raise DeviceError("mitsuba", "LLVM's shared library, which it compiles with", "none", hint)
    version = tuple(dr.detail.llvm_version())
    if version[0] < OLDEST_LLVM:
        raise DeviceError("mitsuba", f"LLVM {OLDEST_LLVM} or later", ".".join(map(str, version)), hint)


def _register(mi: Any, dr: Any) -> None:
    """Defines the plugins on the chosen variant's classes: those exist only once it is chosen."""

    def corner_values(data: Any, kind: Any, si: Any, active: Any) -> Any:
        """Values (F·3 rows) of the three corners of the face that was hit, interpolated."""
        first = si.prim_index * 3
        a, b, c = (dr.gather(kind, data, first + k, active) for k in range(3))
        return a * (1 - si.uv.x - si.uv.y) + b * si.uv.x + c * si.uv.y

    def wrapped(i: Any, size: int, repeat: bool) -> Any:
        """A texel's number (a whole float) inside of the image."""
        inside = i - dr.floor(i / size) * size if repeat else i
        return mi.UInt32(dr.clip(inside, 0, size - 1))

    class Values(mi.Texture):
        """Three numbers on a surface: the same everywhere, per face corner, or from an image by uv per face corner;
        as the radiance of a `Glow` they make an image of themselves."""

        def __init__(self, props: Any) -> None:
            mi.Texture.__init__(self, props)
            self.kind, self.repeat = str(props["kind"]), bool(props.get("repeat", False))
            self.data = dr.zeros(mi.Float, 9)
            self.image = mi.TensorXf(np.zeros((1, 1, 3), np.float32))

        def traverse(self, callback: Any) -> None:
            callback.put("data", self.data, mi.ParamFlags.Differentiable)
            callback.put("image", self.image, mi.ParamFlags.Differentiable)

        def eval(self, si: Any, active: Any = True) -> Any:
            if self.kind == "corner":
                return corner_values(self.data, mi.Color3f, si, active)
            if self.kind == "image":
                return self.looked_up(corner_values(self.data, mi.Point2f, si, active), active)
            return dr.gather(mi.Color3f, self.data, dr.zeros(mi.UInt32, dr.width(si.prim_index)), active)

        def looked_up(self, uv: Any, active: Any) -> Any:
            """Bilinear; texel centres at (i + 0.5) / size."""
            rows, columns = self.image.shape[0], self.image.shape[1]
            x, y = uv.x * columns - 0.5, uv.y * rows - 0.5
            x0, y0 = dr.floor(x), dr.floor(y)
            fx, fy = x - x0, y - y0
            total = mi.Color3f(0)
            for dy in (0, 1):
                for dx in (0, 1):
                    i, j = wrapped(y0 + dy, rows, self.repeat), wrapped(x0 + dx, columns, self.repeat)
                    texel = dr.gather(mi.Color3f, self.image.array, i * columns + j, active)
                    total += texel * (fx if dx else 1 - fx) * (fy if dy else 1 - fy)
            return total

        def eval_3(self, si: Any, active: Any = True) -> Any:
            return self.eval(si, active)

        def mean(self) -> Any:
            return mi.Float(1)

        def is_spatially_varying(self) -> bool:
            # an emitter that is asked for its density would else look for texture coordinates, which the mesh has not
            return False

        def to_string(self) -> str:
            return f"Values[{self.kind}]"

    class Glow(mi.Emitter):
        """Light that a surface gives off to both sides, to be looked at only: it lights nothing else."""

        def __init__(self, props: Any) -> None:
            mi.Emitter.__init__(self, props)
            self.radiance = props["radiance"]
            self.m_flags = int(+mi.EmitterFlags.Surface)

        def traverse(self, callback: Any) -> None:
            callback.put("radiance", self.radiance, mi.ParamFlags.Differentiable)

        def eval(self, si: Any, active: Any = True) -> Any:
            return self.radiance.eval(si, active)

        def sample_direction(self, it: Any, sample: Any, active: Any = True) -> Any:
            del it, sample, active
            return dr.zeros(mi.DirectionSample3f), mi.Color3f(0)

        def eval_direction(self, it: Any, ds: Any, active: Any = True) -> Any:
            del it, ds, active
            return mi.Color3f(0)

        def pdf_direction(self, it: Any, ds: Any, active: Any = True) -> Any:
            del it, ds, active
            return mi.Float(0)

        def to_string(self) -> str:
            return "Glow[]"

    class Surface(mi.BSDF):
        """Lambert plus GGX as the native renderer has them, on either side, with smooth normals per corner.

        Dr.Jit's path integrators sample lights without gradients. A light without size is met by its own direction
        alone, so that this BSDF can put the gradient with respect to the light's place back in.
        """

        def __init__(self, props: Any) -> None:
            mi.BSDF.__init__(self, props)
            self.glossy = bool(props.get("glossy", False))
            self.albedo = props["albedo"]
            self.normals = dr.zeros(mi.Float, 9)
            self.specular = mi.Float([0.0, 0.0, 0.0])
            self.roughness = mi.Float(1.0)
            self.num_toward, self.num_points = int(props.get("num_toward", 0)), int(props.get("num_points", 0))
            self.toward, self.points = dr.zeros(mi.Float, 3), dr.zeros(mi.Float, 3)
            kind = mi.BSDFFlags.GlossyReflection if self.glossy else mi.BSDFFlags.DiffuseReflection
            self.m_components = [kind | mi.BSDFFlags.FrontSide | mi.BSDFFlags.BackSide]
            self.m_flags = self.m_components[0]

        def traverse(self, callback: Any) -> None:
            callback.put("albedo", self.albedo, mi.ParamFlags.Differentiable)
            for name in ("normals", "specular", "roughness", "toward", "points"):
                callback.put(name, getattr(self, name), mi.ParamFlags.Differentiable)

        def parameters_changed(self, keys: Any) -> None:
            del keys

        def normal(self, si: Any, active: Any) -> Any:
            """Smooth normal in the hit's own frame, turned to the side that is seen."""
            n = si.to_local(dr.normalize(corner_values(self.normals, mi.Vector3f, si, active)))
            return dr.select(n.z * si.wi.z < 0, -n, n)

        def with_light_gradient(self, si: Any, wo: Any, active: Any) -> tuple[Any, Any]:
            """wo, and a factor of one, that carry the gradients with respect to the places of lights without size."""
            factor = mi.Float(1)
            if not (dr.grad_enabled(self.toward) or dr.grad_enabled(self.points)):
                return wo, factor
            place, detached = dr.detach(si.p), dr.detach(wo)
            frame = dr.detach(si.sh_frame)
            for k in range(self.num_toward):
                d = frame.to_local(dr.normalize(dr.gather(mi.Vector3f, self.toward, mi.UInt32(k))))
                mine = active & (dr.dot(dr.detach(d), detached) > LIGHT_COSINE)
                wo = wo + dr.select(mine, d - dr.detach(d), 0)
            for k in range(self.num_points):
                way = dr.gather(mi.Point3f, self.points, mi.UInt32(k)) - place
                d = frame.to_local(dr.normalize(way))
                mine = active & (dr.dot(dr.detach(d), detached) > LIGHT_COSINE)
                wo = wo + dr.select(mine, d - dr.detach(d), 0)
                fall = dr.rcp(dr.squared_norm(way))
                factor = factor * dr.select(mine, fall / dr.detach(fall), 1)
            return wo, factor

        def lobes(self, n: Any, wi: Any, wo: Any) -> tuple[Any, Any, Any]:
            """GGX's D and the height-correlated Smith visibility at these directions, and v·h (Heitz 2014)."""
            h = dr.normalize(wi + wo)
            a2 = dr.square(dr.square(self.roughness))
            nh, nl, nv = (dr.maximum(dr.dot(n, d), 1e-6) for d in (h, wo, wi))
            D = a2 / (dr.pi * dr.square(dr.square(nh) * (a2 - 1) + 1))
            shadowed = nl * dr.sqrt(dr.square(nv) * (1 - a2) + a2) + nv * dr.sqrt(dr.square(nl) * (1 - a2) + a2)
            return D, 0.5 / dr.maximum(shadowed, 1e-9), dr.maximum(dr.dot(wi, h), 1e-6)

        def eval(self, ctx: Any, si: Any, wo: Any, active: Any = True) -> Any:
            del ctx
            n = self.normal(si, active)
            wo, factor = self.with_light_gradient(si, wo, active)
            cosine = dr.dot(n, wo)
            # light from behind the true surface would leak through open meshes
            lit = active & (cosine > 0) & (wo.z * si.wi.z > 0)
            value = self.albedo.eval(si, active) * dr.inv_pi
            if self.glossy:
                D, V, vh = self.lobes(n, si.wi, wo)
                F0 = dr.gather(mi.Color3f, self.specular, dr.zeros(mi.UInt32, dr.width(vh)), active)
                value += (F0 + (1 - F0) * dr.power(1 - vh, 5)) * D * V
            return dr.select(lit, value * cosine * factor, 0)

        def pdf(self, ctx: Any, si: Any, wo: Any, active: Any = True) -> Any:
            del ctx
            n = self.normal(si, active)
            cosine = dr.dot(n, wo)
            density = dr.maximum(cosine, 0) * dr.inv_pi
            if self.glossy:
                D, _, vh = self.lobes(n, si.wi, wo)
                nh = dr.maximum(dr.dot(n, dr.normalize(si.wi + wo)), 0)
                density = 0.5 * density + 0.5 * D * nh / (4 * vh)
            return dr.select(active & (cosine > 0) & (wo.z * si.wi.z > 0), density, 0)

        def eval_pdf(self, ctx: Any, si: Any, wo: Any, active: Any = True) -> Any:
            return self.eval(ctx, si, wo, active), self.pdf(ctx, si, wo, active)

        def sample(self, ctx: Any, si: Any, sample1: Any, sample2: Any, active: Any = True) -> Any:
            frame = mi.Frame3f(self.normal(si, active))
            wo = frame.to_world(mi.warp.square_to_cosine_hemisphere(sample2))
            if self.glossy:
                a2 = dr.square(dr.square(self.roughness))
                c2 = (1 - sample2.x) / (1 + (a2 - 1) * sample2.x)
                s, phi = dr.safe_sqrt(1 - c2), dr.two_pi * sample2.y
                h = frame.to_world(mi.Vector3f(s * dr.cos(phi), s * dr.sin(phi), dr.safe_sqrt(c2)))
                mirrored = 2 * dr.dot(si.wi, h) * h - si.wi
                wo = dr.select(sample1 < 0.5, wo, mirrored)
            bs = mi.BSDFSample3f()
            bs.wo = wo
            bs.pdf = self.pdf(ctx, si, wo, active)
            bs.eta = mi.Float(1)
            bs.sampled_type = mi.UInt32(+self.m_components[0])
            bs.sampled_component = mi.UInt32(0)
            usable = active & (bs.pdf > 1e-8)
            weight = self.eval(ctx, si, wo, usable) / dr.select(usable, bs.pdf, 1)
            return bs, dr.select(usable, weight, 0)

        def to_string(self) -> str:
            return "Surface[]"

    mi.register_texture("bodyfit_values", lambda props: Values(props))
    mi.register_emitter("bodyfit_glow", lambda props: Glow(props))
    mi.register_bsdf("bodyfit_surface", lambda props: Surface(props))
