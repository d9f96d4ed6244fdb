"""Linear algebra, convolutions, pooling and neural ops against NumPy and PyTorch, forward and backward.

Each table is compiled as one function per backend: outputs of all its cases, and their gradients against
fixed cotangents.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from expression_interpreter import run_at

import symgrad as sg
import symgrad.tensor as T
from symgrad.base import poly
from symgrad.graph.node import constant, make
from symgrad.ops import conv, images, linear, neural, pool
from symgrad.ops.row import ROWS

# a third of each table is compiled in every run, the rest where slow tests are wanted
BACKENDS = ["reference", "cpu", pytest.param("cpu, the rest", marks=pytest.mark.slow)]
SHORT = ["reference", "cpu"]
TOLERANCE = {"float32": 2e-4, "float64": 1e-9}


@dataclass
class Case:
    """ours(*variables) against theirs(*tensors or arrays) on arrays of these shapes."""

    label: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    shapes: Sequence[Any]
    low: float = -2.0
    high: float = 2.0
    known: Any = True               # sizes are declared (bool, or one per input); otherwise they are unknown
    grad: bool = True
    dtype: str = "float64"
    tolerance: float = 0.0


def values(case: Case, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.uniform(case.low, case.high, s)).astype(case.dtype) if isinstance(s, tuple)
            else np.asarray(s) for s in case.shapes]


def compiled(cases: Sequence[Case], arrays: Sequence[Sequence[np.ndarray]],
             backend: str) -> list[list[np.ndarray]]:
    """Per case [output, gradients...], all from one compiled function."""
    inputs, outputs, counts = [], [], []
    for case, xs in zip(cases, arrays):
        known = case.known if isinstance(case.known, tuple) else (case.known,) * len(xs)
        variables = [T.tensor(None, x.shape if k else (None,) * x.ndim, x.dtype.name)
                     for x, k in zip(xs, known)]
        y = case.ours(*variables)
        results = [y]
        if case.grad:
            wrt = [v for v in variables if v.dtype.startswith("float")]
            results += sg.grad(T.sum(y * weights(y)), wrt, disconnected="zero")
        inputs += variables
        outputs += results
        counts.append(len(results))
    flat = iter(sg.function(inputs, outputs, backend=backend)(*itertools.chain(*arrays)))
    return [list(itertools.islice(flat, n)) for n in counts]


def weights(y: Any) -> Any:
    """A cotangent that differs from element to element, for any size: cos(position)."""
    return T.cos(T.arange(T.as_tensor(y.size)).astype(y.dtype)).reshape(y.shape)


def check(cases: Sequence[Case], expected: Callable[[Case, Sequence[np.ndarray]], list[np.ndarray]],
          backend: str) -> None:
    if backend != "reference":
        cases = [c for k, c in enumerate(cases) if (k % 3 == 0) == (backend == "cpu")]
    backend = backend.partition(",")[0]
    arrays = [values(case, k) for k, case in enumerate(cases)]
    for case, xs, got in zip(cases, arrays, compiled(cases, arrays, backend)):
        want = expected(case, xs)
        assert len(got) == len(want), case.label
        for k, (a, b) in enumerate(zip(got, want)):
            what = f"{case.label}: {'output' if k == 0 else f'gradient {k - 1}'}"
            assert a.shape == b.shape, f"{what}: shape {a.shape}, expected {b.shape}"
            assert a.dtype == b.dtype, f"{what}: dtype {a.dtype}, expected {b.dtype}"
            tolerance = max(TOLERANCE.get(a.dtype.name, 0), case.tolerance)
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=what)


def with_torch(case: Case, xs: Sequence[np.ndarray]) -> list[np.ndarray]:
    import torch
    ts = [torch.tensor(x, requires_grad=case.grad and x.dtype.kind == "f") for x in xs]
    y = case.theirs(*ts)
    out = [y.detach().numpy()]
    if case.grad:
        (y * torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)).sum().backward()
        out += [t.grad.numpy() if t.grad is not None else np.zeros_like(t.detach().numpy()) for t in ts
                if t.requires_grad]
    return out


def with_numpy(case: Case, xs: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(case.theirs(*xs))]


# ------------------------------------------------------------------------------------ every row, every sample
FAMILIES = {m.__name__ for m in (linear, conv, pool, neural, images)}
FAMILY_ROWS = [row for row in ROWS.values() if type(row).__module__ in FAMILIES]


def sample_arrays(sample: Any, dtype: str) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [np.asarray(rng.uniform(sample.low, sample.high, a)).astype(dtype) if isinstance(a, tuple)
            else np.asarray(a).astype(dtype)
            for a in sample.args]


@pytest.mark.parametrize("row", FAMILY_ROWS, ids=lambda row: row.name)
def test_value_at_an_index_equals_numpy(row):
    for sample in row.samples:
        for dtype in sample.dtypes:
            xs = sample_arrays(sample, dtype)
            node = make(row, [constant(x) for x in xs], **sample.attrs)
            expected = np.asarray(row.numpy(*xs, **sample.attrs))
            assert (node.dims, node.dtype) == (expected.shape,
                                               expected.dtype.name), f"{row.name} {sample}: infer"
            tolerance = 1e-5 if dtype == "float32" else 1e-10
            np.testing.assert_allclose(run_at(row, node._type, xs, **sample.attrs), expected, rtol=tolerance,
                                       atol=tolerance,
                                       err_msg=f"{row.name} {sample}")


@pytest.mark.parametrize("row", [r for r in FAMILY_ROWS if any(s.grad for s in r.samples)],
                         ids=lambda row: row.name)
def test_first_and_second_gradients_against_differences(row):
    for sample in row.samples:
        if sample.grad and "float64" in sample.dtypes:
            xs = [away(x, row.kinks) for x in sample_arrays(sample, "float64")]
            sg.testing.check_grad(lambda *vs, a=sample.attrs: row(*vs, **a), *xs, order=2)


def away(x: np.ndarray, kinks: Sequence[float]) -> np.ndarray:
    """x moved off the places where a derivative jumps."""
    for kink in kinks:
        x = np.where(abs(x - kink) < 0.01, kink + 0.02, x)
    return x


def test_rows_at_unknown_sizes():
    n, h = poly.symbol("n"), poly.symbol("h")
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 7)), rng.normal(size=(4, 3, 3))
    attrs = {"stride": (2,), "padding": ((1, 2),), "dilation": (1,), "groups": 1}
    for row, arrays, dims, more in [
            (conv.conv1d, (x, w), ((n, 3, h), (4, 3, 3)), {}),
            (conv.convolution_input_grad, (rng.normal(size=(2, 4, 4)), w),
             ((n, 4, poly.floordiv(h, 2) + 1), (4, 3, 3)), {"shape": (n, 3, h)}),
            (conv.convolution_weight_grad, (x, rng.normal(size=(2, 4, 4))),
             ((n, 3, h), (n, 4, poly.floordiv(h, 2) + 1)), {"shape": (4, 3, 3)})]:
        type_ = row.infer(*(T.tensor(None, d, "float64")._type for d in dims), **attrs, **more)
        got = run_at(row, type_, arrays, dims=dims, sizes={"n": 2, "h": 7}, **attrs, **more)
        known = {k: tuple({n: 2, h: 7}.get(d, d) for d in dims) for k, dims in more.items()}
        np.testing.assert_allclose(got, row.numpy(*arrays, **attrs, **known), rtol=1e-10)


# --------------------------------------------------------------------------------------------- linear algebra
ints = np.arange(-6, 6).reshape(3, 4)
LINEAR = [
    Case("matmul", T.matmul, np.matmul, [(3, 4), (4, 2)]),
    Case("matmul unknown", T.matmul, np.matmul, [(3, 4), (4, 2)], known=False),
    Case("matmul batch", lambda a, b: a @ b, np.matmul, [(2, 1, 3, 4), (5, 4, 2)]),
    Case("matmul vector left", T.matmul, np.matmul, [(4,), (2, 4, 3)]),
    Case("matmul vector right", T.matmul, np.matmul, [(2, 3, 4), (4,)]),
    Case("matmul vectors", T.matmul, np.matmul, [(4,), (4,)], known=False),
    Case("matmul int8 wraps", T.matmul, np.matmul, [(ints * 20).astype("int8"), ints.T.astype("int8")],
         grad=False),
    Case("matmul bool", T.matmul, np.matmul, [ints > 0, ints.T % 3 == 0], grad=False),
    Case("matmul promotes", T.matmul, np.matmul, [ints.astype("int32"), (4, 2)]),
    Case("matmul empty", T.matmul, np.matmul, [(3, 0), (0, 2)]),
    Case("dot matrices", T.dot, np.dot, [(3, 4), (4, 2)]),
    Case("dot scalar", T.dot, np.dot, [(), (4, 2)]),
    Case("dot N-d", T.dot, np.dot, [(2, 3, 4), (5, 4, 2)]),
    Case("method dot", lambda a, b: a.dot(b), np.dot, [(2, 3, 4), (4,)], known=False),
    Case("inner", T.inner, np.inner, [(2, 4), (3, 4)]),
    Case("vdot", T.vdot, np.vdot, [(2, 4), (2, 4)], known=False),
    Case("outer", T.outer, np.outer, [(2, 2), (3,)]),
    Case("kron", T.kron, np.kron, [(2, 3), (3, 1, 2)]),
    Case("tensordot 2", T.tensordot, np.tensordot, [(2, 3, 4), (3, 4, 5)], known=False),
    Case("tensordot 0", lambda a, b: T.tensordot(a, b, 0), lambda a, b: np.tensordot(a, b, 0),
         [(2, 3), (4,)]),
    Case("tensordot pairs", lambda a, b: T.tensordot(a, b, ((0, 2), (1, 0))),
         lambda a, b: np.tensordot(a, b, ((0, 2), (1, 0))),
         [(2, 3, 4), (4, 2, 5)]),
    Case("matvec", T.matvec, lambda a, v: (a @ v[..., None])[..., 0], [(2, 3, 4), (2, 4)]),
    Case("vecmat", T.vecmat, lambda v, a: (v[..., None, :] @ a)[..., 0, :], [(2, 3), (2, 3, 4)]),
    Case("vecdot", T.vecdot, lambda a, b: (a * b).sum(-1), [(2, 3), (3,)]),
    Case("linear", lambda x, w, b: T.linear(x, w, b), lambda x, w, b: x @ w.T + b, [(2, 3, 4), (5, 4), (5,)],
         known=False),
]
EINSUMS = ["ij,jk->ik", "ij,jk", "ij->ji", "ij->", "ii->i", "ii", "iij->ij", "ij,ij->ij", "ij,ij->",
           "ij,kj->ik", "i,j->ij", "bij,bjk->bik", "...ij,...jk->...ik",
           "...i->...", "ij,jk,kl->il", "ij,ik,il->jkl", "bhqd,bhkd->bhqk", "abc,cd,ade->be", "ijk,ijk->k",
           "i...,i...->...", "iji,j->i", "ba,b,c->ca"]
SIZES = {"i": 3, "j": 4, "k": 2, "l": 5, "b": 2, "h": 3, "q": 4, "d": 2, "a": 3, "c": 4, "e": 2}


def einsum_case(spec: str, known: bool) -> Case:
    shapes = [tuple(itertools.chain(*((6, 2) if a == "." else (SIZES[a],) for a in term.replace("...", "."))))
              for term in spec.split("->")[0].split(",")]
    return Case(f"einsum {spec}", lambda *xs: T.einsum(spec, *xs), lambda *xs: np.einsum(spec, *xs), shapes,
                known=known)


@pytest.mark.parametrize("backend", BACKENDS)
def test_linear_algebra_against_numpy(backend):
    cases = [*LINEAR, *(einsum_case(spec, k % 3 > 0) for k, spec in enumerate(EINSUMS)),
             Case("einsum broadcasts 1", lambda a, b: T.einsum("ij,ij->ij", a, b), lambda a, b: a * b,
                  [(3, 1), (3, 4)])]
    for case in cases:
        case.grad = False
    check(cases, with_numpy, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_linear_algebra_gradients_against_torch(backend):
    torch = pytest.importorskip("torch")
    numpy_only = {"vdot", "linear", "matmul promotes"}
    cases = [Case(f"einsum {s}", c.ours, lambda *ts, s=s: torch.einsum(s, *ts), c.shapes, known=c.known)
             for s in EINSUMS for c in [einsum_case(s, len(s) % 2 == 0)]]
    cases += [Case(c.label, c.ours, torch.matmul, c.shapes, known=c.known) for c in LINEAR
              if c.label.startswith("matmul") and all(isinstance(s, tuple) for s in c.shapes)
              and c.label not in numpy_only]
    cases += [Case("tensordot", T.tensordot, torch.tensordot, [(2, 3, 4), (3, 4, 5)], known=False),
              Case("kron", T.kron, torch.kron, [(2, 3), (3, 2)]),
              Case("linear", T.linear, torch.nn.functional.linear, [(2, 3, 4), (5, 4), (5,)])]
    check(cases, with_torch, backend)


@pytest.mark.parametrize("ours, message", [
    (lambda x, m: T.matmul(x, x), "inner sizes must be equal"),
    (lambda x, m: T.matmul(x, 2.0), "at least one axis"),
    (lambda x, m: T.matmul(T.tensor(None, (2, 3, 4)), T.tensor(None, (3, 4, 5))), "broadcast"),
    (lambda x, m: T.einsum("ij,jk", x), "2 operands"),
    (lambda x, m: T.einsum("ijk->i", x), "label for each axis"),
    (lambda x, m: T.einsum("ij->iz", x), "output"),
    (lambda x, m: T.einsum("ij,ij->i", x, m), "sizes"),
    (lambda x, m: T.tensordot(x, m, 5), "5 axes"),
    (lambda x, m: T.tensordot(x, x, 1), "equal sizes"),
])
def test_linear_algebra_errors_name_the_users_line(ours, message):
    x, m = T.tensor("x", (3, 4)), T.tensor("m", (4, 2))
    with pytest.raises(sg.ShapeError, match=message) as info:
        ours(x, m)
    assert __file__ in str(info.value)


# -------------------------------------------------------------------------------------------- convolutions
def conv_case(rank: int, x: tuple, w: tuple, known: Any = True, bias: bool = True, dtype: str = "float64",
              **attrs: Any) -> Case:
    import torch.nn.functional as F
    ours, theirs = getattr(T, f"conv{rank}d"), getattr(F, f"conv{rank}d")
    shapes = [x, w, (w[0],)] if bias else [x, w]
    return Case(f"conv{rank}d {x} {w} {attrs}", lambda *xs: ours(*xs, **attrs),
                lambda *ts: theirs(*ts, **attrs), shapes, known=known, dtype=dtype)


def conv_cases() -> list[Case]:
    return [
        conv_case(1, (2, 3, 7), (4, 3, 3)),
        conv_case(1, (2, 4, 9), (6, 2, 3), stride=2, padding=2, dilation=2, groups=2),
        conv_case(1, (2, 3, 7), (4, 3, 2), padding="same", known=(False, True, False)),
        conv_case(1, (3, 7), (4, 3, 2), padding="valid"),
        conv_case(2, (2, 3, 5, 6), (4, 3, 3, 3), padding=1, dtype="float32"),
        conv_case(2, (2, 3, 5, 6), (4, 3, 3, 2), padding=(2, 1), stride=(2, 3)),
        conv_case(2, (2, 3, 6, 7), (4, 3, 2, 4), padding="same", dilation=(2, 1)),
        conv_case(2, (1, 4, 6, 6), (4, 1, 3, 3), groups=4, padding=1, dtype="float32"),
        conv_case(2, (2, 4, 5, 5), (8, 2, 1, 1), groups=2, bias=False),
        conv_case(2, (2, 3, 6, 5), (4, 3, 3, 3), known=False, stride=2, padding=1),
        conv_case(2, (3, 6, 5), (2, 3, 3, 3), stride=4),
        conv_case(2, (2, 1, 3, 3), (1, 1, 3, 3), dtype="float32"),
        conv_case(3, (2, 2, 4, 5, 3), (3, 2, 2, 3, 2), stride=(1, 2, 1), padding=(1, 0, 1)),
        conv_case(3, (1, 4, 3, 3, 4), (4, 2, 2, 2, 2), groups=2, dilation=(1, 2, 1), known=False),
    ]


def transpose_cases() -> list[Case]:
    import torch.nn.functional as F
    table = [(1, (2, 3, 5), (3, 4, 3), {"stride": 2, "padding": 1, "output_padding": 1}, True),
             (2, (2, 4, 3, 4), (4, 3, 3, 3), {}, True),
             (2, (2, 4, 3, 4), (4, 3, 3, 2), {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)},
              False),
             (2, (1, 4, 3, 3), (4, 2, 3, 3), {"stride": 2, "groups": 2, "dilation": 2, "padding": 1}, True),
             (2, (4, 3, 3), (4, 2, 2, 2), {"stride": 2}, True),
             (3, (1, 2, 2, 3, 2), (2, 3, 2, 2, 2), {"stride": 2, "padding": (0, 1, 0)}, True)]
    return [Case(f"conv_transpose{rank}d {attrs}",
                 lambda *xs, r=rank, a=attrs: getattr(T, f"conv_transpose{r}d")(*xs, **a),
                 lambda *ts, r=rank, a=attrs: getattr(F, f"conv_transpose{r}d")(*ts, **a),
                 [x, w, (w[1] * attrs.get("groups", 1),)], known=known)
            for rank, x, w, attrs, known in table]


@pytest.mark.parametrize("backend", BACKENDS)
def test_convolutions_against_torch(backend):
    pytest.importorskip("torch")
    check([*conv_cases(), *transpose_cases()], with_torch, backend)


def slow_convolution(x, w, stride, padding, dilation, groups):
    """The definition, one output element at a time."""
    (t, b), (l, r) = padding
    x = np.pad(x, ((0, 0), (0, 0), (t, b), (l, r)))
    n, c, h, v = x.shape
    o, per, kh, kw = w.shape
    rows = (h - (kh - 1) * dilation[0] - 1) // stride[0] + 1
    columns = (v - (kw - 1) * dilation[1] - 1) // stride[1] + 1
    y = np.zeros((n, o, rows, columns), dtype=x.dtype)
    for k, a, i, j in np.ndindex(n, o, rows, columns):
        first = a // (o // groups) * per
        top, left = i * stride[0], j * stride[1]
        patch = x[k, first:first + per, top:top + (kh - 1) * dilation[0] + 1:dilation[0],
                  left:left + (kw - 1) * dilation[1] + 1:dilation[1]]
        y[k, a, i, j] = (patch * w[a]).sum()
    return y


@pytest.mark.parametrize("backend", BACKENDS)
def test_convolutions_against_numpy(backend):
    table = [((2, 3, 6, 5), (4, 3, 2, 3), (1, 2), ((1, 2), (0, 3)), (2, 1), 1),
             ((1, 4, 5, 5), (6, 2, 3, 3), (2, 2), ((0, 0), (1, 1)), (1, 1), 2)]
    cases = [Case(f"conv2d {args}", lambda x, w, a=args: T.conv2d(x, w, stride=a[0], padding=a[1],
                                                                  dilation=a[2], groups=a[3]),
                  lambda x, w, a=args: slow_convolution(x, w, *a), [x, w], grad=False) for x, w,
             *args in table]
    integers = [np.arange(-12, 13).reshape(1, 1, 5, 5), np.arange(9).reshape(1, 1, 3, 3)]
    cases.append(Case("conv2d int", T.conv2d, lambda x, w: slow_convolution(x, w, (1, 1), ((0, 0), (0, 0)),
                                                                            (1, 1), 1), integers, grad=False))
    # "same" with a stride: ceil(size / stride) windows, as TensorFlow pads
    cases.append(Case("same, stride 2", lambda x, w: T.conv2d(x, w, stride=2, padding="same"),
                      lambda x, w: slow_convolution(x, w, (2, 2), ((1, 1), (0, 1)), (1, 1), 1),
                      [(1, 2, 5, 6), (3, 2, 3, 3)], grad=False))
    check(cases, with_numpy, backend)


def test_the_three_convolution_rows_are_adjoint():
    """<conv(x, w), g> = <x, input_grad(g, w)> = <w, weight_grad(x, g)>, in NumPy alone."""
    rng = np.random.default_rng(1)
    attrs = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "dilation": (1, 2), "groups": 2}
    x, w = rng.normal(size=(3, 4, 7, 6)), rng.normal(size=(6, 2, 3, 2))
    y = conv.conv2d.numpy(x, w, **attrs)
    g = rng.normal(size=y.shape)
    inner = (y * g).sum()
    assert (x * conv.convolution_input_grad.numpy(g, w, shape=x.shape, **attrs)).sum() == pytest.approx(inner)
    assert (w * conv.convolution_weight_grad.numpy(x, g, shape=w.shape,
                                                   **attrs)).sum() == pytest.approx(inner)


@pytest.mark.parametrize("backend", SHORT)
def test_second_derivatives_against_torch(backend):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    table = [("conv", lambda x, w: T.conv2d(x, w, stride=2, padding=1),
              lambda x, w: F.conv2d(x, w, stride=2, padding=1), [(2, 3, 5, 5), (4, 3, 3, 3)]),
             ("conv_transpose", lambda x, w: T.conv_transpose2d(x, w, stride=2),
              lambda x, w: F.conv_transpose2d(x, w, stride=2), [(1, 3, 3, 3), (3, 2, 2, 2)]),
             ("max_pool", lambda x, w: T.max_pool2d(x * x * w, 3, 2, 1),
              lambda x, w: F.max_pool2d(x * x * w, 3, 2, 1), [(1, 2, 5, 5), (1, 2, 5, 5)]),
             ("avg_pool", lambda x, w: T.avg_pool2d(x * w, 2), lambda x, w: F.avg_pool2d(x * w, 2),
              [(1, 2, 4, 4), (1, 2, 4, 4)]),
             ("matmul", T.matmul, torch.matmul, [(2, 3, 4), (4, 2)]),
             ("gelu", lambda x, w: T.gelu(x * w), lambda x, w: F.gelu(x * w), [(2, 3), (2, 3)]),
             ("layer_norm", lambda x, w: T.layer_norm(x, 3, w), lambda x, w: F.layer_norm(x, (3,), w),
              [(2, 3), (3,)]),
             ("silu", lambda x, w: T.silu(x * w), lambda x, w: F.silu(x * w), [(2, 3), (2, 3)]),
             ("softmax", lambda x, w: T.softmax(x * w), lambda x, w: F.softmax(x * w, -1), [(2, 3), (2, 3)])]
    table = table if backend == "reference" else table[::2]
    inputs, outputs, arguments, expected = [], [], [], []
    rng = np.random.default_rng(3)
    for _, ours, theirs, shapes in table:
        arrays = [rng.normal(size=s) for s in shapes]
        x, w = (T.tensor(None, s, "float64") for s in shapes)
        y = ours(x, w)
        gx, gw = sg.grad(T.sum(y * y), [x, w])
        outputs += sg.grad(T.sum(T.sin(gx)) + T.sum(gw * gw), [x, w])
        inputs += [x, w]
        arguments += arrays
        tx, tw = (torch.tensor(a, requires_grad=True) for a in arrays)
        hx, hw = torch.autograd.grad((theirs(tx, tw) ** 2).sum(), [tx, tw], create_graph=True)
        expected += torch.autograd.grad(torch.sin(hx).sum() + (hw * hw).sum(), [tx, tw])
    got = sg.function(inputs, outputs, backend=backend)(*arguments)
    names = [f"{row[0]} d{v}" for row in table for v in "xw"]
    for name, a, b in zip(names, got, expected):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-8, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("ours, message", [
    (lambda x: T.conv2d(x, T.tensor(None, (4, 2, 3, 3))), "3 channels"),
    (lambda x: T.conv2d(x, T.tensor(None, (4, 1, 3, 3)), groups=2), "1 \\* 2"),
    (lambda x: T.conv2d(x, T.tensor(None, (4, 1, 3, 3)), groups=3), "not a multiple of 3"),
    (lambda x: T.conv2d(x, T.tensor(None, (4, 3, 9, 3))), "kernel spans 9"),
    (lambda x: T.conv2d(x, T.tensor(None, (4, 3, 3, 3)), dilation=4), "dilation"),
    (lambda x: T.conv2d(x, T.tensor(None, (4, 3, 3))), "4 axes each"),
    (lambda x: T.conv2d(x, T.tensor(None, (4, 3, 3, 3)), stride=0), "stride"),
    (lambda x: T.conv2d(x, T.tensor(None, (4, 3, 3, 3)), padding=-1), "padding"),
    (lambda x: T.conv2d(x, T.tensor(None, (4, 3, 3, 3)), padding=(1, 2, 3)), "padding"),
    (lambda x: T.conv2d(x, T.tensor(None, (4, 3, 3, 3)), padding="full"), "unknown name"),
    (lambda x: T.conv2d(x, T.tensor(None, (4, 3, 3, 3)), T.tensor(None, (3,))), "bias for 4 channels"),
    (lambda x: T.conv2d(x, T.tensor(None, (4, 3, 3, 3)), groups=0), "groups"),
    (lambda x: T.conv2d(T.tensor(None, (1, 3, None, 5)), T.tensor(None, (4, 3, 3, 3)), stride=2,
                        padding="same"), "known size"),
    (lambda x: T.conv_transpose2d(x, T.tensor(None, (4, 3, 3, 3))), "3 channels"),
    (lambda x: T.conv_transpose2d(x, T.tensor(None, (3, 4, 1, 1)), padding=4), "less padding"),
    (lambda x: T.conv_transpose2d(x, T.tensor(None, (3, 4, 3, 3)), stride=2, output_padding=2),
     "less than the stride"),
    (lambda x: T.max_pool2d(x, 7), "kernel spans 7"),
    (lambda x: T.max_pool2d(x, 2, padding=2), "half of the kernel"),
    (lambda x: T.avg_pool2d(x, (2, 2, 2)), "kernel_size"),
    (lambda x: T.max_pool2d(T.tensor(None, (3,)), 1), "last 2 axes"),
    (lambda x: T.batch_norm(x, T.tensor(None, (4,)), T.tensor(None, (4,))), "running_mean"),
    (lambda x: T.layer_norm(x, (4,)), "normalized_shape"),
    (lambda x: T.group_norm(x, 2), "divide the channels"),
    (lambda x: T.glu(x, 1), "odd"),
    (lambda x: T.softmax(x, 4), "axis 4"),
    (lambda x: T.pixel_shuffle(x, 2), "multiples of 4"),
    (lambda x: T.interpolate(x, scale_factor=2, mode="trilinear"), "mode='trilinear'"),
])
def test_window_and_neural_errors_name_the_users_line(ours, message):
    with pytest.raises(sg.ShapeError, match=message) as info:
        ours(T.tensor("x", (2, 3, 5, 6)))
    assert __file__ in str(info.value)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_windows_against_torch(seed):
    """Any stride, padding, dilation, grouping: NumPy spelling and value at an index, forward and adjoint."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    draw = lambda high: tuple(int(v) for v in rng.integers(1, high + 1, rank))
    rank, groups = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    kernel, stride, dilation, padding = draw(3), draw(4), draw(3), tuple(p - 1 for p in draw(4))
    sizes = tuple(max(s, d * (k - 1) + 1 - 2 * p) for s, k, d, p in zip(draw(7), kernel, dilation, padding))
    c, o = groups * int(rng.integers(1, 3)), groups * int(rng.integers(1, 3))
    x, w = rng.normal(size=(2, c, *sizes)), rng.normal(size=(o, c // groups, *kernel))
    tx, tw = (torch.tensor(a, requires_grad=True) for a in (x, w))
    ty = getattr(torch.nn.functional, f"conv{rank}d")(tx, tw, None, stride, padding, dilation, groups)
    g = rng.normal(size=ty.shape)
    ty.backward(torch.tensor(g))
    attrs = {"stride": stride, "padding": tuple((p, p) for p in padding), "dilation": dilation,
             "groups": groups}
    both_ways(conv.CONVOLUTIONS[rank], (x, w), ty, attrs)
    both_ways(conv.convolution_input_grad, (g, w), tx.grad, attrs | {"shape": x.shape})
    both_ways(conv.convolution_weight_grad, (x, g), tw.grad, attrs | {"shape": w.shape})

    padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel))
    ceil_mode, include = (bool(b) for b in rng.integers(0, 2, 2))
    attrs = {"kernel_size": kernel, "stride": stride, "padding": tuple((p, p) for p in padding)}
    x = rng.normal(size=(2, 2, *(max(n, k - 2 * p) for n, k, p in zip(sizes, kernel, padding))))
    for row, more in [(pool.AVERAGES[rank], {"ceil_mode": ceil_mode, "count_include_pad": include}),
                      (pool.MAXIMA[rank], {"ceil_mode": ceil_mode, "dilation": (1,) * rank})]:
        tx = torch.tensor(np.round(x * 2) / 2, requires_grad=True)          # with ties
        ty = getattr(torch.nn.functional, row.name)(tx, kernel, stride, padding, **more)
        g = rng.normal(size=ty.shape)
        ty.backward(torch.tensor(g))
        xs = (tx.detach().numpy(),)
        both_ways(row, xs, ty, attrs | more)
        if row.name.startswith("max"):
            both_ways(pool.max_pool_grad, (*xs, ty.detach().numpy(), g), tx.grad, attrs | more)
        else:
            both_ways(pool.avg_pool_grad, (g,), tx.grad, attrs | more | {"shape": x.shape})


def both_ways(row: Any, xs: Sequence[np.ndarray], expected: Any, attrs: dict[str, Any]) -> None:
    expected = expected.detach().numpy()
    node = make(row, [constant(x) for x in xs], **attrs)
    np.testing.assert_allclose(row.numpy(*xs, **attrs), expected, atol=1e-9, err_msg=f"{row.name} {attrs}")
    np.testing.assert_allclose(run_at(row, node._type, xs, **attrs), expected, atol=1e-9,
                               err_msg=f"at of {row.name} {attrs}")


# ------------------------------------------------------------------------------------------------- pooling
def pool_cases() -> list[Case]:
    import torch.nn.functional as F
    cases = []
    for rank, shape, args in [
            (1, (2, 3, 7), (2,)), (1, (2, 7), (3, 2, 1)), (1, (2, 3, 8), (3, 2, 0, 2)),
            (2, (2, 3, 6, 7), (2,)), (2, (2, 3, 6, 7), (3, 2, 1)), (2, (2, 3, 7, 7), (3, 2, 0, 1, True)),
                              (2, (1, 2, 8, 7), ((3, 2), (1, 2), (1, 0), (2, 1))),
            (2, (3, 6, 6), (3, 3)), (3, (1, 2, 4, 5, 6), (2,)), (3, (1, 2, 4, 5, 6), (3, 2, 1, 1, True))]:
        names = dict(zip(("kernel_size", "stride", "padding", "dilation", "ceil_mode"), args))
        ours, theirs = getattr(T, f"max_pool{rank}d"), getattr(F, f"max_pool{rank}d")
        cases.append(Case(f"max_pool{rank}d {names}", lambda x, f=ours, a=names: f(x, **a),
                          lambda x, f=theirs, a=names: f(x, **a), [shape],
                          known=len(cases) % 2 == 0))
    for rank, shape, names in [
            (1, (2, 3, 7), {"kernel_size": 2}), (1, (2, 3, 7), {"kernel_size": 3, "stride": 2, "padding": 1,
                                                                "count_include_pad": False}),
            (2, (2, 3, 6, 7), {"kernel_size": 2}), (2, (2, 3, 6, 7), {"kernel_size": 3, "stride": 2,
                                                                      "padding": 1}),
            (2, (2, 3, 6, 7), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
            (2, (2, 3, 6, 6), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
            (2, (2, 3, 7, 6), {"kernel_size": 4, "stride": 3, "padding": 2, "ceil_mode": True,
                               "count_include_pad": False}),
            (2, (2, 3, 7, 6), {"kernel_size": 4, "stride": 3, "padding": 2, "ceil_mode": True}),
            (3, (1, 2, 4, 5, 6), {"kernel_size": 2, "padding": 1})]:
        ours, theirs = getattr(T, f"avg_pool{rank}d"), getattr(F, f"avg_pool{rank}d")
        cases.append(Case(f"avg_pool{rank}d {names}", lambda x, f=ours, a=names: f(x, **a),
                          lambda x, f=theirs, a=names: f(x, **a), [shape],
                          known=len(cases) % 2 == 0))
    for size in (1, (2, 3), (3, None), (4, 5)):
        cases.append(Case(f"adaptive_avg_pool2d {size}", lambda x, s=size: T.adaptive_avg_pool2d(x, s),
                          lambda x, s=size: F.adaptive_avg_pool2d(x, s), [(2, 3, 6, 6)]))
    return [*cases,
            Case("adaptive_avg_pool2d 1, unknown", lambda x: T.adaptive_avg_pool2d(x, 1),
                 lambda x: F.adaptive_avg_pool2d(x, 1), [(2, 3, 5, 6)], known=False),
            Case("adaptive_max_pool2d", lambda x: T.adaptive_max_pool2d(x, 3),
                 lambda x: F.adaptive_max_pool2d(x, 3), [(2, 3, 6, 6)]),
            Case("adaptive_avg_pool1d", lambda x: T.adaptive_avg_pool1d(x, 3),
                 lambda x: F.adaptive_avg_pool1d(x, 3), [(2, 3, 7)]),
            Case("global_avg_pool", T.global_avg_pool, lambda x: x.mean(dim=(2, 3)), [(2, 3, 5, 6)],
                 known=False),
            Case("global_max_pool", lambda x: T.global_max_pool(x, keepdims=True),
                 lambda x: x.amax(dim=(2, 3), keepdim=True), [(2, 3, 5, 6)]),
            Case("lp_pool2d", lambda x: T.lp_pool2d(x, 3, 2), lambda x: F.lp_pool2d(x, 3, 2), [(2, 3, 4, 5)],
                 low=0.1)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_pooling_against_torch(backend):
    pytest.importorskip("torch")
    check(pool_cases(), with_torch, backend)


@pytest.mark.parametrize("backend", SHORT)
def test_max_pool_ties_nans_and_integers(backend):
    x = T.tensor("x", (1, 1, 2, 6), "float64")
    k = T.tensor("k", (1, 1, 4), "int64")
    y = T.max_pool2d(x, 2)
    f = sg.function([x, k], [y, sg.grad(T.sum(T.where(T.isnan(y), 0, y) * 0) + T.sum(y * 3), x),
                             T.max_pool1d(k, 2)], backend=backend)
    value = np.array([[[[5.0, 5, 1, 7, 0, -np.inf], [5, 5, 7, np.nan, -1, 0]]]])
    pooled, gradient, integers = f(value, np.array([[[3, -4, -9, -7]]]))
    np.testing.assert_array_equal(pooled[0, 0], [[5, np.nan, 0]])
    np.testing.assert_array_equal(gradient[0, 0],
                                  [[3, 0, 0, 0, 3, 0],
                                   [0, 0, 0, 3, 0, 0]])         # the first 5, the NaN, the first 0
    np.testing.assert_array_equal(integers, [[[3, -7]]])


@pytest.mark.parametrize("backend", SHORT)
def test_pooling_rows_can_be_overridden_by_name(backend):
    seen = {}

    def everywhere(g, y, x, node):
        seen.update(node.attrs)
        return T.interpolate(g, scale_factor=2)
    x = T.tensor("x", (1, 1, 4, 4), "float64")
    y = T.max_pool2d(x, 2)
    heat = sg.grad(T.sum(y), x, overrides={T.max_pool2d: everywhere})
    out = sg.function([x], heat, backend=backend,
                      on_unused_input="ignore")(np.arange(16.0).reshape(1, 1, 4, 4))
    np.testing.assert_array_equal(out, np.ones((1, 1, 4, 4)))
    assert seen == {"kernel_size": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1),
                    "ceil_mode": False}


# ---------------------------------------------------------------------------------- activations and the rest
def neural_cases() -> list[Case]:
    import torch
    import torch.nn.functional as F
    one = [(3, 5)]
    cases = [Case(name, getattr(T, name), getattr(F, name), one, high=3.5, low=-3.5, tolerance=1e-7)
             for name in ("relu", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardtanh",
                          "relu6", "hardsigmoid", "hardswish", "softsign",
                          "tanhshrink", "hardshrink", "softshrink", "softplus", "logsigmoid")]
    cases += [Case(f"{name} {attrs}", lambda x, n=name, a=attrs: getattr(T, n)(x, *a),
                   lambda x, n=name, a=attrs: getattr(F, n)(x, *a), one)
              for name, attrs in [("leaky_relu", (0.3,)), ("elu", (0.5,)), ("celu", (2.0,)),
                                  ("hardtanh", (-0.5, 0.7)), ("threshold", (0.1, -3.0)),
                                  ("hardshrink", (1.0,)), ("softshrink", (0.2,)), ("glu", (0,))]
              if name != "glu"]
    spatial = [(4, 6, 3, 2)]
    channel = [(4, 6, 3, 2), (6,), (6,)]
    return [
        *cases,
        Case("gelu tanh", lambda x: T.gelu(x, approximate="tanh"), lambda x: F.gelu(x, approximate="tanh"),
             one),
        Case("glu", lambda x: T.glu(x, 1), lambda x: F.glu(x, 1), spatial),
        Case("prelu 1", T.prelu, F.prelu, [(3, 4, 2), (1,)]),
        Case("prelu channels", T.prelu, F.prelu, [(3, 4, 2), (4,)]),
        Case("softmax", T.softmax, lambda x: F.softmax(x, -1), one, low=-50, high=50),
        Case("softmax 0, unknown", lambda x: T.softmax(x, axis=0), lambda x: F.softmax(x, 0), [(3, 2, 4)],
             known=False),
        Case("log_softmax", T.log_softmax, lambda x: F.log_softmax(x, -1), one, low=-50, high=50,
             known=False),
        Case("softmin", lambda x: T.softmin(x, 1), lambda x: F.softmin(x, 1), [(2, 3, 2)]),
        Case("layer_norm", lambda x, w, b: T.layer_norm(x, (3, 2), w, b),
             lambda x, w, b: F.layer_norm(x, (3, 2), w, b), [(4, 3, 2), (3, 2), (3, 2)]),
        Case("layer_norm plain", lambda x: T.layer_norm(x, 5, eps=1e-3),
             lambda x: F.layer_norm(x, (5,), eps=1e-3), [(3, 5)]),
        Case("rms_norm", lambda x, w: T.rms_norm(x, 5, w), lambda x, w: F.rms_norm(x, (5,), w),
             [(3, 5), (5,)]),
        Case("batch_norm", lambda x, m, v, w, b: T.batch_norm(x, m, v, w, b),
             lambda x, m, v, w, b: (x - m.reshape(-1, 1, 1)) / torch.sqrt(v.reshape(-1, 1, 1) + 1e-5)
             * w.reshape(-1, 1, 1) + b.reshape(-1, 1, 1), [(4, 6, 3, 2), (6,), (6,), (6,), (6,)], low=0.2),
        Case("batch_norm training", lambda x, w, b: T.batch_norm(x, None, None, w, b, training=True),
             lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
             channel),
        Case("batch_norm training, unknown", lambda x, w, b: T.batch_norm(x, None, None, w, b, True),
             lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
             [(4, 6), (6,), (6,)], known=False),
        Case("group_norm", lambda x, w, b: T.group_norm(x, 3, w, b), lambda x, w, b: F.group_norm(x, 3, w, b),
             channel),
        Case("instance_norm", lambda x, w, b: T.instance_norm(x, weight=w, bias=b),
             lambda x, w, b: F.instance_norm(x, weight=w, bias=b), channel),
        Case("local_response_norm", lambda x: T.local_response_norm(x, 3, alpha=0.5),
             lambda x: F.local_response_norm(x, 3, alpha=0.5), spatial),
        Case("local_response_norm even", lambda x: T.local_response_norm(x, 4, alpha=0.5, k=2.0),
             lambda x: F.local_response_norm(x, 4, alpha=0.5, k=2.0), spatial),
        Case("normalize", T.normalize, F.normalize, spatial),
        Case("normalize p=1", lambda x: T.normalize(x, 1.0, -1), lambda x: F.normalize(x, 1.0, -1), spatial),
        Case("cosine_similarity", T.cosine_similarity, F.cosine_similarity, [(3, 5), (3, 5)]),
        Case("pairwise_distance", T.pairwise_distance, F.pairwise_distance, [(3, 5), (3, 5)]),
        Case("cdist", T.cdist, torch.cdist, [(2, 3, 5), (2, 4, 5)]),
        Case("bilinear", T.bilinear, F.bilinear, [(3, 2), (3, 4), (5, 2, 4), (5,)]),
        Case("attention", T.scaled_dot_product_attention, F.scaled_dot_product_attention,
             [(2, 3, 4), (2, 5, 4), (2, 5, 2)], known=False),
        Case("attention, causal", lambda q, k, v: T.scaled_dot_product_attention(q, k, v, is_causal=True),
             lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), [(2, 4, 3)] * 3),
        Case("attention, masked", T.scaled_dot_product_attention, F.scaled_dot_product_attention,
             [(2, 3, 4), (2, 5, 4), (2, 5, 2), np.arange(15).reshape(3, 5) % 4 > 0]),
        Case("attention, biased", lambda q, k, v, m: T.scaled_dot_product_attention(q, k, v, m, scale=0.3),
             lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m, scale=0.3),
             [(2, 3, 4), (2, 5, 4), (2, 5, 2), (3, 5)]),
        Case("channel_shuffle", lambda x: T.channel_shuffle(x, 3), lambda x: F.channel_shuffle(x, 3),
             spatial),
        Case("embedding", T.embedding, F.embedding, [np.array([[0, 2, 2], [4, 0, 1]]), (5, 3)]),
        Case("interpolate nearest 2", lambda x: T.interpolate(x, scale_factor=2),
             lambda x: F.interpolate(x, scale_factor=2), spatial, known=False),
        Case("interpolate nearest size", lambda x: T.interpolate(x, size=(5, 7)),
             lambda x: F.interpolate(x, size=(5, 7)), spatial),
        Case("interpolate bilinear", lambda x: T.interpolate(x, scale_factor=2, mode="bilinear"),
             lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
             spatial),
        Case("interpolate bilinear corners", lambda x: T.interpolate(x, size=(5, 7), mode="bilinear",
                                                                     align_corners=True),
             lambda x: F.interpolate(x, size=(5, 7), mode="bilinear", align_corners=True), spatial),
        Case("interpolate bilinear 1.5", lambda x: T.interpolate(x, scale_factor=1.5, mode="bilinear"),
             lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear"),
             [(1, 2, 5, 4)]),
        Case("interpolate bicubic", lambda x: T.interpolate(x, size=(7, 3), mode="bicubic"),
             lambda x: F.interpolate(x, size=(7, 3), mode="bicubic"), [(1, 2, 5, 4)]),
        Case("interpolate linear", lambda x: T.interpolate(x, size=9, mode="linear"),
             lambda x: F.interpolate(x, size=9, mode="linear"), [(1, 2, 5)]),
        Case("interpolate trilinear", lambda x: T.interpolate(x, size=(3, 4, 2), mode="trilinear"),
             lambda x: F.interpolate(x, size=(3, 4, 2), mode="trilinear"),
             [(1, 2, 2, 3, 4)]),
        Case("unfold", lambda x: T.unfold(x, (2, 3), 1, 1, 2), lambda x: F.unfold(x, (2, 3), 1, 1, 2),
             [(2, 3, 5, 6)]),
        Case("fold", lambda x: T.fold(x, (5, 6), (2, 3), 1, 1, 2),
             lambda x: F.fold(x, (5, 6), (2, 3), 1, 1, 2), [(2, 18, 9)]),
        Case("pixel_shuffle", lambda x: T.pixel_shuffle(x, 2), lambda x: F.pixel_shuffle(x, 2),
             [(2, 8, 3, 2)], known=False),
        Case("pixel_unshuffle", lambda x: T.pixel_unshuffle(x, 2), lambda x: F.pixel_unshuffle(x, 2),
             [(2, 3, 4, 6)]),
        Case("logit", T.logit, torch.logit, one, low=0.1, high=0.9),
        Case("xlogy", T.xlogy, torch.xlogy, [(3, 5), (3, 5)], low=0.1),
        Case("xlogy at 0", T.xlogy, torch.xlogy, [np.array([0.0, 0.0, 2.0]), np.array([0.0, 3.0, 3.0])],
             grad=False),
        Case("xlog1py", T.xlog1py, torch.special.xlog1py, [(3, 5), (3, 5)], low=0.1),
        Case("entr", T.entr, torch.special.entr, one, low=0.1),
        Case("ndtr", T.ndtr, torch.special.ndtr, one),
        Case("erfinv", T.erfinv, torch.special.erfinv, one, low=-0.99, high=0.99),
        Case("erfinv tails", T.erfinv, torch.special.erfinv,
             [np.array([1 - 1e-9, -1 + 1e-12, 1e-300, 1.0, -1.0, 2.0, 0.0])], grad=False),
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_neural_ops_against_torch(backend):
    pytest.importorskip("torch")
    check(neural_cases(), with_torch, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_neural_ops_against_numpy(backend):
    def softmax(x):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def standard(x, axes, eps=1e-5):
        return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + eps)
    norms = [(4, 6, 3, 2)]
    cases = [Case("softmax", T.softmax, softmax, [(3, 5)], low=-800, high=800),
             Case("softmax float32", T.softmax, softmax, [(3, 5)], dtype="float32", known=False),
             Case("log_softmax", T.log_softmax, lambda x: np.log(softmax(x)), [(3, 5)]),
             Case("log_softmax of a far value", T.log_softmax, lambda x: np.array([0.0, -2000.0]),
                  [np.array([1000.0, -1000.0])]),
             Case("layer_norm", lambda x: T.layer_norm(x, (3, 2)), lambda x: standard(x, (2, 3)), norms),
             Case("layer_norm far from 0", lambda x: T.layer_norm(x, 5),
                  lambda x: standard(x.astype("float64"), -1).astype("float32"), [(3, 5)], low=100, high=101,
                  dtype="float32"),
             Case("batch_norm", lambda x: T.batch_norm(x, None, None, training=True),
                  lambda x: standard(x, (0, 2, 3)), norms),
             Case("group_norm", lambda x: T.group_norm(x, 2),
                  lambda x: standard(x.reshape(4, 2, 3, 3, 2), (2, 3, 4)).reshape(4, 6, 3, 2), norms),
             Case("instance_norm", T.instance_norm, lambda x: standard(x, (2, 3)), norms, known=False),
             Case("silu", T.silu, lambda x: x / (1 + np.exp(-x)), [(3, 5)]),
             Case("silu far", T.silu, lambda x: np.array([0.0, 1000.0]), [np.array([-1000.0, 1000.0])]),
             Case("gelu", T.gelu, lambda x: x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))), [(3, 5)]),
             Case("relu6 of integers", T.relu6, lambda x: np.clip(x, 0, 6), [np.arange(-3, 9)]),
             Case("global_avg_pool", T.global_avg_pool, lambda x: x.mean(axis=(2, 3)), norms),
             Case("polyval", lambda x: T.polyval([2.0, -1.0, 0.5], x),
                lambda x: np.polyval([2.0, -1.0, 0.5], x), [(4,)]),
             Case("isclose", T.isclose, np.isclose, [np.array([1.0, 1.0, np.inf, np.nan, np.inf]),
                                                     np.array([1 + 1e-7, 1.1, np.inf, np.nan, 1.0])]),
             Case("nan_to_num", T.nan_to_num, np.nan_to_num, [np.array([1.0, np.nan, np.inf, -np.inf])]),
             Case("spacing", T.spacing, np.spacing, [np.array([1.0, -1e-3, 1e300, 0.0])]),
             Case("bitwise_count", T.bitwise_count, np.bitwise_count, [np.arange(-128, 128).astype("int8")]),
             Case("divmod", lambda x: T.divmod(x, 3)[1], lambda x: np.divmod(x, 3)[1], [np.arange(-5, 6)])]
    tricky = np.array([0.3, -0.999, 8.0, 4096.0, 1.0, -2.0, 0.0, np.inf, -3.75, 1e-300, 1e300])
    cases += [Case(f"{name} {k}", lambda x, n=name, k=k: getattr(T, n)(x)[k],
                   lambda x, n=name, k=k: getattr(np, n)(x)[k], [tricky])
              for name in ("frexp", "modf") for k in (0, 1)]
    for case in cases:
        case.grad = False
    check(cases, with_numpy, backend)


def test_composite_ops_are_single_nodes_that_overrides_select():
    x = T.tensor("x", (2, 6, 3, 3), "float64")
    for op, y in [(T.layer_norm, T.layer_norm(x, 3)), (T.group_norm, T.group_norm(x, 3)),
                  (T.softmax, T.softmax(x)), (T.gelu, T.gelu(x)),
                  (T.avg_pool2d, T.avg_pool2d(x, 2)),
                  (T.batch_norm, T.batch_norm(x, None, None, training=True)),
                  (T.interpolate, T.interpolate(x, scale_factor=2)),
                  (T.conv2d, T.conv2d(x, np.ones((2, 6, 3, 3)))),
                  (T.conv_transpose2d, T.conv_transpose2d(x, np.ones((6, 2, 3, 3))))]:
        heat = sg.grad(T.sum(y), x, overrides={op: lambda g, y, x, *more: (x * 2.0, *(sg.STOP for _ in more))
                                               if more else x * 2.0})
        value = np.arange(108.0).reshape(2, 6, 3, 3)
        np.testing.assert_array_equal(sg.function([x], heat, backend="reference")(value), 2 * value,
                                      err_msg=op.name)


def test_attributes_that_are_variables_are_refused():
    with pytest.raises(sg.DTypeError, match="prelu") as info:
        T.leaky_relu(T.vector("x"), T.scalar("slope"))
    assert __file__ in str(info.value)
    with pytest.raises(sg.DTypeError, match="approximate"):
        T.gelu(T.vector("x"), "sigmoid")


def test_batch_axis_is_optional_and_unknown_sizes_are_checked_at_the_call():
    x, w = T.tensor("x", (None, None, None, None)), T.tensor("w", (4, 3, 3, 3))
    f = sg.function([x, w], T.conv2d(x, w), backend="reference")
    assert f(np.ones((2, 3, 5, 6), "float32"), np.ones((4, 3, 3, 3), "float32")).shape == (2, 4, 3, 4)
    with pytest.raises(sg.ShapeError):
        f(np.ones((2, 2, 5, 6), "float32"), np.ones((4, 3, 3, 3), "float32"))
