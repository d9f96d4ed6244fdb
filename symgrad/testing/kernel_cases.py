"""The problems that kernels are timed on: every class of kernel, in sizes that stress it differently.

A case is written once for both libraries where they share a spelling: `call(t, *arrays)` gets `symgrad.tensor` or PyTorch's
functions as `t`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

Call = Callable[..., Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One kernel to time. `wrt`: the gradient to these inputs is timed, given the cotangent, instead of the result.

    flops: floating operations where arithmetic is the limit; 0 where memory is. peer: the call in PyTorch if it is spelled
    differently. forward: the gradient is made from the forward results, so the forward pass counts for both sides. top: integer
    inputs are drawn below it.
    """

    kind: str
    name: str
    shapes: tuple[Shape, ...]
    call: Call
    flops: int = 0
    wrt: tuple[int, ...] = ()
    peer: Call | None = None
    forward: bool = False
    dtypes: tuple[str, ...] = ()
    top: int = 1

    def dtype(self, k: int) -> str:
        return self.dtypes[k] if self.dtypes else "float32"


def cases() -> list[Case]:
    """All cases, class by class."""
    return [*products(), *convolutions(), *pooling(), *rows(), *reductions(), *arrangement(), *elementwise()]


# ----------------------------------------------------------------------------------------------- products
def products() -> Iterator[Case]:
    def product(name: str, m: int, k: int, n: int, batch: int = 0, a: bool = False, b: bool = False, dtype: str = "float32") -> Case:
        """A product of m x k by k x n; `a`, `b`: that operand is stored transposed."""
        lead = (batch,) if batch else ()
        shapes = (*lead, *((k, m) if a else (m, k))), (*lead, *((n, k) if b else (k, n)))
        turned = lambda t, x, yes: t.swapaxes(x, -1, -2) if yes else x
        return Case("gemm", name, shapes, lambda t, x, y: t.matmul(turned(t, x, a), turned(t, y, b)), 2 * m * k * n * max(batch, 1), dtypes=(dtype, dtype))

    yield product("1024^3", 1024, 1024, 1024)
    yield product("256^3", 256, 256, 256)
    yield product("64x576x3136", 64, 576, 3136)
    yield product("512x256x128", 512, 256, 128)
    yield product("512x256x128 A^T", 512, 256, 128, a=True)
    yield product("512x256x128 B^T", 512, 256, 128, b=True)
    yield product("512x256x128 A^T B^T", 512, 256, 128, a=True, b=True)
    yield product("128x784x512", 128, 784, 512)
    yield product("784x128x512 A^T", 784, 128, 512, a=True)
    yield product("64x500x10", 64, 500, 10)
    yield product("10x128x64", 10, 128, 64)
    yield product("5x7x3", 5, 7, 3)
    yield product("1x1024x1024", 1, 1024, 1024)
    yield product("1024x1024x1", 1024, 1024, 1)
    yield product("4x1024x1024", 4, 1024, 1024)
    yield product("1024x4x1024", 1024, 4, 1024)
    yield product("96 of 64x64x64", 64, 64, 64, batch=96)
    yield product("96 of 64x64x64 B^T", 64, 64, 64, batch=96, b=True)
    yield product("1024 of 8x8x8", 8, 8, 8, batch=1024)
    yield product("512^3 float64", 512, 512, 512, dtype="float64")


# ------------------------------------------------------------------------------------------- convolutions
CONVOLUTIONS: tuple[tuple[str, int, int, int, int, int, dict[str, int]], ...] = (
    # name, images, channels, filters, size, window, options
    ("3x3 64-64 @56", 1, 64, 64, 56, 3, {"padding": 1}),
    ("3x3 256-256 @28", 1, 256, 256, 28, 3, {"padding": 1}),
    ("3x3 512-512 @14", 1, 512, 512, 14, 3, {"padding": 1}),
    ("3x3 32-64 @32, 16", 16, 32, 64, 32, 3, {"padding": 1}),
    ("3x3 64-64 @8, 32", 32, 64, 64, 8, 3, {"padding": 1}),
    ("3x3 128-128 @4, 32", 32, 128, 128, 4, 3, {"padding": 1}),
    ("3x3 256-256 @2, 32", 32, 256, 256, 2, 3, {"padding": 1}),
    ("3x3 3-64 @112", 1, 3, 64, 112, 3, {"padding": 1}),
    ("3x3 s2 64-128 @56", 1, 64, 128, 56, 3, {"padding": 1, "stride": 2}),
    ("7x7 s2 3-64 @112", 1, 3, 64, 112, 7, {"padding": 3, "stride": 2}),
    ("5x5 3-6 @32, 64", 64, 3, 6, 32, 5, {}),
    ("5x5 6-16 @14, 64", 64, 6, 16, 14, 5, {}),
    ("1x1 64-256 @56", 1, 64, 256, 56, 1, {}),
    ("1x1 256-64 @28, 4", 4, 256, 64, 28, 1, {}),
    ("1x1 s2 128-256 @28", 4, 128, 256, 28, 1, {"stride": 2}),
    ("depthwise 3x3 64 @56", 4, 64, 64, 56, 3, {"padding": 1, "groups": 64}),
    ("depthwise s2 128 @56", 1, 128, 128, 56, 3, {"padding": 1, "stride": 2, "groups": 128}),
    ("grouped 4 64-64 @28", 4, 64, 64, 28, 3, {"padding": 1, "groups": 4}),
    ("dilated 2 64-64 @28", 4, 64, 64, 28, 3, {"padding": 2, "dilation": 2}),
)


def convolutions() -> Iterator[Case]:
    for kind, wrt in (("conv", ()), ("conv gx", (0,)), ("conv gw", (1,))):
        for name, n, c, k, size, r, options in CONVOLUTIONS:
            shapes = (n, c, size, size), (k, c // options.get("groups", 1), r, r)
            reach = options.get("dilation", 1) * (r - 1) + 1
            out = (size + 2 * options.get("padding", 0) - reach) // options.get("stride", 1) + 1
            flops = 2 * n * k * out * out * prod(shapes[1][1:])
            yield Case(kind, name, shapes, lambda t, x, w, options=options: t.conv2d(x, w, **options), flops, wrt)


# ------------------------------------------------------------------------------------------------ pooling
def pooling() -> Iterator[Case]:
    sizes: tuple[tuple[str, Shape, int, dict[str, int]], ...] = (
        ("2x2 64,6 @28", (64, 6, 28, 28), 2, {}),
        ("2x2 8,64 @56", (8, 64, 56, 56), 2, {}),
        ("3x3 s2 p1 4,64 @56", (4, 64, 56, 56), 3, {"stride": 2, "padding": 1}),
        ("3x3 s1 p1 8,32 @28", (8, 32, 28, 28), 3, {"stride": 1, "padding": 1}),
    )
    for op in ("max", "avg"):
        for name, shape, window, options in sizes:
            call = lambda t, x, op=op, window=window, options=options: getattr(t, f"{op}_pool2d")(x, window, **options)
            yield Case(f"{op} pool", name, (shape,), call)
            yield Case(f"{op} pool gx", name, (shape,), call, wrt=(0,), forward=op == "max")
    yield Case("avg pool", "global 8,512 @14", ((8, 512, 14, 14),), lambda t, x: t.mean(x, axis=(2, 3)))


# ---------------------------------------------------------------------------------------- rows and norms
MATRICES = ((64, 1000), (1024, 1024), (4096, 64), (16384, 10))


def rows() -> Iterator[Case]:
    for shape in MATRICES:
        name = f"{shape[0]}x{shape[1]}"
        for op in ("softmax", "log_softmax"):
            call = lambda t, x, op=op: getattr(t, op)(x, -1)
            yield Case(op, name, (shape,), call)
            yield Case(f"{op} gx", name, (shape,), call, wrt=(0,), forward=True)
        yield Case("logsumexp", name, (shape,), lambda t, x: t.logsumexp(x, -1))
        norm = lambda t, x, w, b: t.layer_norm(x, (x.shape[-1],), w, b)
        yield Case("layer_norm", name, (shape, shape[1:], shape[1:]), norm)
        yield Case("layer_norm g", name, (shape, shape[1:], shape[1:]), norm, wrt=(0, 1, 2), forward=True)
    for image in ((64, 16, 28, 28), (8, 64, 56, 56), (32, 256, 8, 8)):
        def batch_norm(t: Any, x: Any, w: Any, b: Any) -> Any:
            result = t.batch_norm(x, None, None, w, b, training=True)
            return result[0] if isinstance(result, (tuple, list)) else result
        channels = (image[1],)
        name = ",".join(map(str, image))
        yield Case("batch_norm", name, (image, channels, channels), batch_norm)
        yield Case("batch_norm g", name, (image, channels, channels), batch_norm, wrt=(0, 1, 2), forward=True)


def reductions() -> Iterator[Case]:
    for shape in MATRICES[:3]:
        name = f"{shape[0]}x{shape[1]}"
        yield Case("sum", f"{name} axis 1", (shape,), lambda t, x: t.sum(x, axis=1))
        yield Case("sum", f"{name} axis 0", (shape,), lambda t, x: t.sum(x, axis=0))
        yield Case("sum", f"{name} all", (shape,), lambda t, x: t.sum(x))
        yield Case("max", f"{name} axis 1", (shape,), lambda t, x: t.amax(x, 1) if hasattr(t, "Tensor") else t.max(x, axis=1))
        yield Case("argmax", f"{name} axis 1", (shape,), lambda t, x: t.argmax(x, 1))
        yield Case("argmax", f"{name} axis 0", (shape,), lambda t, x: t.argmax(x, 0))
        yield Case("sort", f"{name} axis 1", (shape,), lambda t, x: t.sort(x, 1), peer=lambda t, x: t.sort(x, 1).values)
        yield Case("cumsum", f"{name} axis 1", (shape,), lambda t, x: t.cumsum(x, 1))
        yield Case("cumsum", f"{name} axis 0", (shape,), lambda t, x: t.cumsum(x, 0))
    yield Case("sum", "64,256,14,14 axes 0,2,3", ((64, 256, 14, 14),), lambda t, x: t.sum(x, axis=(0, 2, 3)))


# -------------------------------------------------------------------------------------------- arrangement
def arrangement() -> Iterator[Case]:
    images = (8, 32, 28, 28)
    yield Case("concatenate", "3 images, channels", (images,) * 3, lambda t, *xs: t.concatenate(xs, 1))
    yield Case("concatenate", "4 of 512x256, axis 1", ((512, 256),) * 4, lambda t, *xs: t.concatenate(xs, 1))
    yield Case("concatenate", "4 of 512x256, axis 0", ((512, 256),) * 4, lambda t, *xs: t.concatenate(xs, 0))
    yield Case("concatenate", "8 of 4096x3, axis 1", ((4096, 3),) * 8, lambda t, *xs: t.concatenate(xs, 1))
    yield Case("stack", "4 of 512x256", ((512, 256),) * 4, lambda t, *xs: t.stack(xs, 0))
    wide = ((0, 0), (0, 0), (1, 1), (1, 1))
    yield Case("pad", "1 around 8,32 @28", (images,), lambda t, x: t.pad(x, wide), peer=lambda t, x: t.pad(x, (1, 1, 1, 1)))
    yield Case("pad", "3 around 512x512", ((512, 512),), lambda t, x: t.pad(x, 3), peer=lambda t, x: t.pad(x, (3, 3, 3, 3)))
    for n, m in ((1024, 1024), (4096, 64)):
        yield Case("transpose", f"{n}x{m}", ((n, m),), lambda t, x: t.transpose(x, (1, 0)), peer=lambda t, x: x.T.contiguous())
    yield Case("transpose", "NCHW to NHWC 8,64 @28", ((8, 64, 28, 28),), lambda t, x: t.transpose(x, (0, 2, 3, 1)),
               peer=lambda t, x: x.permute(0, 2, 3, 1).contiguous())
    integers = ("float32", "int64")
    yield Case("gather", "4096 rows of 10000x64", ((10_000, 64), (4096,)), lambda t, x, i: t.embedding(i, x), dtypes=integers, top=10_000)
    yield Case("gather", "4096 of 65536", ((65_536,), (4096,)), lambda t, x, i: x[i], dtypes=integers, top=65_536)
    yield Case("scatter", "4096 rows into 10000x64", ((10_000, 64), (4096,)), lambda t, x, i: t.embedding(i, x), wrt=(0,), dtypes=integers, top=10_000)


def elementwise() -> Iterator[Case]:
    for size in (1_000, 100_000, 1_000_000, 10_000_000):
        one, three = ((size,),), ((size,),) * 3
        yield Case("elementwise", f"add {size:,}", ((size,),) * 2, lambda t, x, y: x + y)
        yield Case("elementwise", f"relu {size:,}", one, lambda t, x: t.relu(x))
        yield Case("elementwise", f"tanh(x*w+b) {size:,}", three, lambda t, x, w, b: t.tanh(x * w + b))
        if size <= 1_000_000:
            yield Case("elementwise", f"chain of 3 {size:,}", three, lambda t, x, y, z: t.tanh(x * y + z) * t.sigmoid(y) + t.exp(-z))
            yield Case("elementwise", f"gelu {size:,}", one, lambda t, x: t.gelu(x))
    yield Case("elementwise", "row bias relu 1024x1024", ((1024, 1024), (1024,)), lambda t, x, b: t.relu(x + b))
    yield Case("elementwise", "exp float64 1,000,000", ((1_000_000,),), lambda t, x: t.exp(x), dtypes=("float64",))
