"""Array ops against NumPy, torch and finite differences: reductions, movement, indexing, order, creation."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from expression_interpreter import run_at

import symgrad as sg
import symgrad.tensor as T
from symgrad.base import poly
from symgrad.graph.node import make, new_input
from symgrad.graph.types import Type
from symgrad.ops import arrange, bounds, create, index, reduce, shape, sort
from symgrad.ops.row import ROWS

BACKENDS = [
    "reference",
    pytest.param(
        "cpu",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("symgrad.backends.cpu.build") is None, reason="needs the CPU backend"
        ),
    ),
]
torch = pytest.importorskip("torch") if importlib.util.find_spec("torch") else None
needs_torch = pytest.mark.skipif(torch is None, reason="needs torch")
FAMILIES = {m.__name__ for m in (reduce, shape, arrange, index, sort, create)}
ROW_NAMES = [name for name, row in ROWS.items() if type(row).__module__ in FAMILIES]
rng = np.random.default_rng(7)


def arrays_of(case, dtype):
    """The arguments of one sample."""
    found = []
    for a in case.args:
        if isinstance(a, tuple):
            floats = dtype.startswith("float")
            a = (
                rng.uniform(case.low, case.high, a)
                if floats
                else rng.integers(int(case.low), int(case.high), a, endpoint=dtype != "bool")
            )
            found.append(np.asarray(a).astype(dtype))
        else:
            found.append(np.asarray(a).astype(dtype) if np.asarray(a).dtype.kind == "f" else np.asarray(a))
    return found


def close(got, want, dtype=None):
    want = np.asarray(want)
    assert got.shape == want.shape, (got.shape, want.shape)
    assert got.dtype == (dtype or want.dtype), (got.dtype, want.dtype)
    tolerance = 2e-5 if "float32" in (got.dtype.name, want.dtype.name) else 1e-11
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


# --------------------------------------------------------------------------------------------- rows
@pytest.mark.parametrize("name", ROW_NAMES)
def test_value_at_an_index_agrees_with_numpy(name):
    row = ROWS[name]
    assert row.samples or name == "size_of"
    for case in row.samples:
        for dtype in case.dtypes:
            arrays = arrays_of(case, dtype)
            node = make(row, [new_input(Type(a.dtype.name, a.shape)) for a in arrays], **case.attrs)
            want = np.asarray(row.numpy(*arrays, **case.attrs))
            assert (want.dtype.name, want.shape) == (node.dtype, node.dims)
            close(run_at(row, node._type, arrays, **case.attrs), want)


@pytest.mark.parametrize("name", ROW_NAMES)
def test_value_at_an_index_with_unknown_sizes(name):
    row = ROWS[name]
    for case in row.samples:
        arrays = arrays_of(case, case.dtypes[0])
        sizes: dict[str, int] = {}
        dims = [
            [1 if n == 1 else poly.symbol(f"{name}{n}") for n in a.shape] for a in arrays
        ]  # 1 broadcasts only when known
        for a in arrays:
            sizes.update({f"{name}{n}": n for n in a.shape})
        type_ = row.infer(*(Type(a.dtype.name, d) for a, d in zip(arrays, dims)), **case.attrs)
        close(run_at(row, type_, arrays, dims, sizes, **case.attrs), row.numpy(*arrays, **case.attrs))


def check_gradient(build, arrays, order=2):
    """Derived against central differences along one random direction, also for a function of the gradient."""
    xs = [new_input(Type(a.dtype.name, a.shape)) for a in arrays]
    floats = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]
    wrt = [xs[k] for k in floats]
    y = build(*xs)
    cost = T.sum(y * rng.normal(size=y.dims))
    step = [1e-6 * rng.normal(size=a.shape) if k in floats else 0 for k, a in enumerate(arrays)]
    for _ in range(order):
        grads = sg.grad(cost, wrt, disconnected="zero")
        f = sg.function(xs, [cost, *grads], backend="reference", on_unused_input="ignore")
        _, *found = f(*arrays)
        above, below = (f(*[(a + s * d).astype(a.dtype) for a, d in zip(arrays, step)])[0] for s in (1, -1))
        assert [g.shape for g in found] == [arrays[k].shape for k in floats]
        np.testing.assert_allclose(
            sum((g * step[k]).sum() for g, k in zip(found, floats)) * 2e6,
            (above - below) * 1e6,
            rtol=2e-5,
            atol=2e-6,
        )
        cost = sum(
            (T.sum(g * g * 0.5 + g * rng.normal(size=a.shape)) for g, a in zip(grads, found)), 0.0 * cost
        )


@pytest.mark.parametrize("name", [n for n in ROW_NAMES if any(s.grad and s.args for s in ROWS[n].samples)])
def test_first_and_second_derivative_of_rows(name):
    for case in ROWS[name].samples:
        if case.grad and case.args and "float64" in case.dtypes:
            check_gradient(
                lambda *xs, case=case: make(ROWS[name], xs, **case.attrs), arrays_of(case, "float64")
            )


def normal(*dims):
    return rng.normal(size=dims)


def with_zeros():
    x = normal(4, 5)
    x[1, 2] = x[2, 0] = x[2, 3] = x[3, 0] = x[3, 1] = x[3, 4] = 0
    return x


GRADIENTS = {
    "prod at zeros": (lambda x: T.prod(x, axis=1), with_zeros()),
    "var": (lambda x: T.var(x, axis=0, ddof=1), normal(4, 3)),
    "std": (lambda x: T.std(x, axis=1), normal(4, 3)),
    "norm": (lambda x: T.norm(x, axis=1), normal(4, 3)),
    "norm of order 3": (lambda x: T.norm(x, 3, axis=1), normal(4, 3)),
    "median": (lambda x: T.median(x, axis=0), normal(4, 3)),
    "quantile": (lambda x: T.quantile(x, [0.2, 0.7], axis=1), normal(4, 5)),
    "sort": (lambda x: T.sort(x, axis=0), normal(5, 3)),
    "sort, flattened and descending": (lambda x: T.sort(x, axis=None, descending=True), normal(5, 3)),
    "topk": (lambda x: T.topk(x, 2, axis=0)[0], normal(5, 3)),
    "pad, reflected": (lambda x: T.pad(x, ((2, 1), (0, 3)), "reflect"), normal(4, 4)),
    "pad, symmetric": (lambda x: T.pad(x, 2, "symmetric"), normal(3, 4)),
    "pad, wrapped": (lambda x: T.pad(x, 5, "wrap"), normal(3, 4)),
    "pad, edge": (lambda x: T.pad(x, (1, 2), "edge"), normal(3, 4)),
    "tile": (lambda x: T.tile(x, (2, 3)), normal(3)),
    "repeat": (lambda x: T.repeat(x, 3, axis=1), normal(2, 3)),
    "take": (lambda x: T.take(x, [0, 0, 2], axis=1), normal(2, 3)),
    "set, repeated": (lambda x, v: T.set_subtensor(x[[0, 0, 2]], v), normal(3, 2), normal(3, 2)),
    "set, at a variable": (
        lambda x, v, i: T.set_subtensor(x[i], v),
        normal(3, 2),
        normal(4, 2),
        np.array([0, 1, 0, 0]),
    ),
    "inc, repeated": (lambda x, v: T.inc_subtensor(x[[0, 0, 2], 1:], v), normal(3, 2), normal(1)),
    "tril": (lambda x: T.tril(x, -1), normal(3, 4)),
    "rot90": (lambda x: T.rot90(x, 3), normal(3, 4)),
    "trace": (lambda x: T.trace(x * x), normal(3, 3)),
    "linspace": (lambda a, b: T.linspace(a, b, 5), normal(), normal(3)),
    "diff": (lambda x: T.diff(x, 2), normal(5)),
    "average": (lambda x, w: T.average(x, 0, w * w + 1), normal(3, 2), normal(3)),
    "choose": (lambda x, y: T.choose(np.array([0, 1, 1]), [x, y]), normal(3), normal(3)),
    "nanmean": (lambda x: T.nanmean(x, 0), normal(3, 2)),
    "array_split": (lambda x: T.array_split(x, 3)[0] * T.array_split(x, 3)[1][0], normal(7)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_derivatives_of_composed_ops(name):
    build, *arrays = GRADIENTS[name]
    check_gradient(build, [np.asarray(a) for a in arrays])


def test_cumprod_gradient_at_zeros():
    check_gradient(lambda x: T.cumprod(x, axis=1), [with_zeros()], order=1)


# --------------------------------------------------- the same expression in symgrad and in NumPy
A = normal(3, 4, 5)
A[0, 0] = A[0, 1]  # ties
HOLES = normal(3, 4)
HOLES[0, 1] = HOLES[2, 3] = np.nan
HOLES[1] = np.nan
BITS = rng.integers(0, 2, (3, 4)).astype(bool)
BITS[0], BITS[1] = False, True
WHOLE = rng.integers(-9, 9, (3, 4))

SAME = {
    "sums": lambda m, a, h, b, n: [
        m.sum(a),
        m.sum(a, axis=1),
        m.sum(a, axis=(0, -1), keepdims=True),
        m.sum(n, axis=0),
        m.sum(b),
        m.sum(b, axis=1),
    ],
    "products": lambda m, a, h, b, n: [
        m.prod(a, axis=-1),
        m.prod(n, axis=1),
        m.prod(b, axis=0),
        m.prod(a, axis=(0, 1), keepdims=True),
    ],
    "means": lambda m, a, h, b, n: [
        m.mean(a),
        m.mean(a, axis=(0, 2)),
        m.mean(n, axis=0),
        m.mean(b),
        m.mean(a, axis=1, keepdims=True),
    ],
    "spread": lambda m, a, h, b, n: [
        m.var(a, axis=1),
        m.var(a, ddof=1),
        m.std(a, axis=(0, 1), keepdims=True, ddof=2),
        m.std(n),
        m.var(a, axis=0, correction=1),
        m.ptp(a, axis=1),
    ],
    "extremes": lambda m, a, h, b, n: [
        m.max(a),
        m.min(a, axis=1),
        m.amax(a, axis=(0, 2)),
        m.amin(n, axis=0, keepdims=True),
        m.max(h, axis=1),
        m.max(b, axis=1),
        m.min(n),
    ],
    "places": lambda m, a, h, b, n: [
        m.argmax(a),
        m.argmin(a, axis=1),
        m.argmax(a, axis=1, keepdims=True),
        m.argmax(h, axis=1),
        m.argmin(h, axis=0),
        m.argmax(b, axis=1),
        m.argmin(n),
        m.argmin(h),
        m.argmax(a, keepdims=True),
    ],
    "truth": lambda m, a, h, b, n: [
        m.any(b),
        m.all(b, axis=1),
        m.any(b, axis=0, keepdims=True),
        m.all(n),
        m.any(a, axis=(0, 1)),
        m.count_nonzero(b),
        m.count_nonzero(n, axis=1),
    ],
    "weights": lambda m, a, h, b, n: [
        m.average(a, axis=1),
        m.average(a, axis=1, weights=[1.0, 2.0, 3.0, 4.0]),
        m.average(a, weights=a * a),
        m.average(n, axis=0),
    ],
    "without nan": lambda m, a, h, b, n: [
        m.nansum(h, axis=1),
        m.nanprod(h, axis=0),
        m.nanmean(h[::2], axis=1),
        m.nanvar(h[::2], axis=1, ddof=1),
        m.nanstd(h[::2], axis=1),
        m.nanmax(h[::2], axis=0),
        m.nanmin(h[::2], axis=1),
        m.nansum(n),
        m.nanmax(n, axis=0),
    ],
    "joined": lambda m, a, h, b, n: [
        m.concatenate([a, a[:1], a[:0]], axis=0),
        m.concatenate([a, a[..., :2]], axis=-1),
        m.concatenate([a, h], axis=None),
        m.concatenate([n, b], axis=1),
        m.stack([a, -a]),
        m.stack([a, -a, a], axis=-1),
        m.stack([a, a], 1),
        m.hstack([h, h]),
        m.vstack([h, n]),
        m.hstack([h[0], n[0]]),
        m.vstack([h[0], h[1]]),
        m.dstack([h, h]),
        m.column_stack([h[:, 0], h]),
    ],
    "parted": lambda m, a, h, b, n: [
        *m.split(a, 2, axis=1),
        *m.split(a, [1, 3], axis=2),
        *m.array_split(a, 3, axis=2),
        *m.array_split(a, 5),
        *m.split(a, [2, 1, -1], axis=2),
    ],
    "padded": lambda m, a, h, b, n: [
        m.pad(a, 1),
        m.pad(a, ((0, 1), (2, 0), (1, 1)), constant_values=2.5),
        m.pad(a, (1, 2), mode="edge"),
        m.pad(a, 3, mode="reflect"),
        m.pad(a, 7, mode="reflect"),
        m.pad(a, 6, mode="symmetric"),
        m.pad(a, ((4, 1),), mode="wrap"),
        m.pad(n, 1, constant_values=7),
        m.pad(b, ((1, 0), (0, 1))),
    ],
    "turned": lambda m, a, h, b, n: [
        m.flip(a),
        m.flip(a, 1),
        m.flip(a, (0, -1)),
        m.fliplr(a),
        m.flipud(a),
        m.roll(a, 2),
        m.roll(a, -1, 1),
        m.roll(a, (1, 7), (0, 2)),
        m.roll(n, -9, axis=0),
        m.rot90(a),
        m.rot90(a, 2),
        m.rot90(a, -1, (1, 2)),
        m.moveaxis(a, 0, -1),
        m.moveaxis(a, (0, 1), (2, 0)),
        m.swapaxes(a, 0, 2),
        m.transpose(a, (1, 2, 0)),
        m.transpose(a),
    ],
    "repeated": lambda m, a, h, b, n: [
        m.tile(a, 2),
        m.tile(a, (2, 1, 3)),
        m.tile(n, (2, 1, 1)),
        m.repeat(a, 2, axis=1),
        m.repeat(n, 3),
        m.repeat(b, 0, axis=0),
    ],
    "shaped": lambda m, a, h, b, n: [
        m.ravel(a),
        m.atleast_1d(3.0 * a[0, 0, 0]),
        m.atleast_2d(n[0]),
        m.atleast_3d(n),
        m.atleast_3d(n[0]),
        *m.broadcast_arrays(n[0], b[:, [0]]),
        m.expand_dims(n, (0, 2)),
        m.squeeze(n[[0]]),
        m.reshape(a, (5, -1)),
        m.broadcast_to(n[0], (2, 3, 4)),
        m.diff(a),
        m.diff(n, 2, axis=0),
        m.diff(b, axis=1),
    ],
    "diagonals": lambda m, a, h, b, n: [
        m.diagonal(a),
        m.diagonal(a, 1, 1, 2),
        m.diagonal(a, -1, 2, 0),
        m.diag(n),
        m.diag(n, -1),
        m.diag(n[0]),
        m.diag(n[0], 2),
        m.diag(n[0], -1),
        m.trace(n),
        m.trace(a, 1, 0, 2),
        m.tril(a),
        m.triu(a, 1),
        m.tril(n, -1),
        m.triu(b, -1),
    ],
    "indexed": lambda m, a, h, b, n: [
        m.take(a, [2, 0, -1], axis=1),
        m.take(a, 7),
        m.take(a, [[0, 59], [-1, 3]]),
        m.take(a, [5, -7], axis=2, mode="wrap"),
        m.take(a, [9, -7], axis=2, mode="clip"),
        m.take_along_axis(a, m.argsort(a, axis=1), axis=1),
        m.take_along_axis(n, np.array([[1], [-1], [0]]), axis=1),
        m.take_along_axis(n, np.array([3, 0, -1]), axis=None),
        m.choose([[0, 1, 1, 0]], [n, n * 2]),
    ],
    "ordered": lambda m, a, h, b, n: [
        m.sort(a),
        m.sort(a, axis=0),
        m.sort(a, axis=None),
        m.sort(h, axis=1),
        m.sort(n, axis=0),
        m.sort(b, axis=1),
        m.argsort(n[:, ::1], axis=1, **_stable(m)),
        m.argsort(a, axis=0, **_stable(m)),
        m.argsort(b, axis=None, **_stable(m)),
        m.median(a),
        m.median(a, axis=1, keepdims=True),
        m.median(h, axis=0),
        m.median(n, axis=1),
        m.quantile(a, 0.3, axis=2),
        m.quantile(a, [0.0, 0.25, 1.0], axis=0),
        m.quantile(a, 0.9, keepdims=True),
        m.searchsorted(np.arange(-4, 5), n),
        m.searchsorted(np.arange(-4, 5), n, side="right"),
    ],
    "running": lambda m, a, h, b, n: [
        m.cumsum(a),
        m.cumsum(a, axis=1),
        m.cumsum(n, axis=0),
        m.cumsum(b, axis=1),
        m.cumprod(a, axis=-1),
        m.cumprod(n),
    ],
    "more names": lambda m, a, h, b, n: [
        m.percentile(a, 30, axis=1),
        m.percentile(a, [5, 95]),
        m.append(n, n[:1], axis=0),
        m.append(n, 7),
        m.round(a, 2),
        m.around(a),
        m.around(n, -1),
        m.nanargmax(h[::2], axis=1),
        m.nanargmin(h[::2], axis=1),
    ],
    "norms": lambda m, a, h, b, n: [
        _norm(m)(a),
        _norm(m)(a, axis=1),
        _norm(m)(a, 1, axis=0),
        _norm(m)(a, np.inf, axis=2),
        _norm(m)(a, -np.inf, axis=2, keepdims=True),
        _norm(m)(a, 3, axis=1),
        _norm(m)(n),
        _norm(m)(a, 0, axis=1),
        _norm(m)(a, "fro", axis=(0, 1)),
        _norm(m)(a, 1, axis=(0, 1)),
        _norm(m)(a, -np.inf, axis=(2, 0)),
        _norm(m)(a, np.inf, axis=(1, 2), keepdims=True),
        _norm(m)(a, -1, axis=(1, 2)),
    ],
    "made": lambda m, a, h, b, n: [
        m.zeros((2, 3), "int32"),
        m.ones(3, "bool"),
        m.full((2,), 7),
        m.full((2, 4), n[0]),
        m.zeros_like(a),
        m.ones_like(n),
        m.full_like(n, 3),
        m.full_like(a, 2, dtype="int8"),
        m.arange(5),
        m.arange(2, 11, 3),
        m.arange(7, -2, -2),
        m.arange(3, 3),
        m.arange(0.5, 2, 0.25, dtype="float64"),
        m.arange(4, dtype="float64"),
        m.eye(3, dtype="float64"),
        m.eye(2, 4, 1, dtype="int64"),
        m.identity(2, dtype="bool"),
        m.tri(3, 4, -1, dtype="float64"),
        m.linspace(0.0, 1.0, 5, dtype="float64"),
        m.linspace(2, -1, 4, endpoint=False, dtype="float64"),
        m.linspace(a[0, 0], a[1, 1], 3),
        m.linspace(a[0, 0], 2.0, 3, axis=-1),
        m.linspace(1.0, 2.0, 1, dtype="float64"),
        m.logspace(0, 2, 3, dtype="float64"),
        *m.meshgrid(n[0], h[0, :3]),
        *m.meshgrid(n[0], h[0, :3], n[1, :2], indexing="ij"),
        *m.meshgrid(n[0], n[1], sparse=True),
    ],
}


def _stable(m):
    return {"kind": "stable"} if m is np else {}


def _norm(m):
    return np.linalg.norm if m is np else T.norm


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("known", [True, False], ids=["known sizes", "unknown sizes"])
@pytest.mark.parametrize("family", SAME)
def test_like_numpy(family, known, backend):
    values = [A, HOLES, BITS, WHOLE]
    if not known and backend == "cpu" and family in ("made", "norms", "weights", "without nan"):
        pytest.skip("nothing in these depends on sizes being known; compiling is slow")
    xs = [
        T.tensor(f"x{k}", v.shape if known else tuple(f"d{d}" for d in v.shape), v.dtype)
        for k, v in enumerate(values)
    ]
    with np.errstate(all="ignore"):
        wants = SAME[family](np, *values)
    outs = SAME[family](T, *xs)
    assert len(outs) == len(wants)
    got = sg.function(xs, outs, backend=backend, on_unused_input="ignore")(*values)
    for k, (g, want) in enumerate(zip(got, wants)):
        try:
            close(g, want)
        except AssertionError as error:
            raise AssertionError(f"{family}[{k}] {outs[k].op.name}: {error}") from error


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_dtypes(backend):
    values = [rng.integers(0, 100, (3, 4)).astype(d) for d in ("int8", "uint8", "int16", "int32", "float32")]
    xs = [T.tensor(f"x{k}", v.shape, v.dtype) for k, v in enumerate(values)]

    def build(m, x):
        return [
            m.sum(x, axis=0),
            m.max(x, axis=1),
            m.argmin(x, axis=1),
            m.sort(x, axis=1),
            m.cumsum(x, axis=0),
            x[::-1, 1:],
            m.mean(x, dtype="float64"),
            m.concatenate([x, x]),
            m.prod(x[:, :2], axis=1),
            m.pad(x, 1),
            x[[2, 0]],
        ]

    got = sg.function(xs, [y for x in xs for y in build(T, x)], backend=backend)(*values)
    for g, want in zip(got, [y for v in values for y in build(np, v)]):
        close(g, want)


# ---------------------------------------------------------------------------------------- indexing
I, J = np.array([0, -1, 2, 2]), np.array([[1], [0]], "int32")
KEYS = [
    lambda i, j, n: 0,
    lambda i, j, n: -1,
    lambda i, j, n: slice(None, None, -1),
    lambda i, j, n: (slice(1, None), slice(None, -1), 2),
    lambda i, j, n: (..., slice(1, 3)),
    lambda i, j, n: (None, slice(2), None, 0),
    lambda i, j, n: (slice(-2, None, 2), ..., None),
    lambda i, j, n: slice(10, 2, -2),
    lambda i, j, n: (slice(None), slice(-10, -1)),
    lambda i, j, n: slice(3, 1),
    lambda i, j, n: slice(None),
    lambda i, j, n: (None, ..., None),
    lambda i, j, n: (slice(-1, -20, -3), slice(1, 100, 2)),
    lambda i, j, n: (2, -1, 3),
    lambda i, j, n: i,
    lambda i, j, n: (i, slice(1, 3)),
    lambda i, j, n: (slice(None), j),
    lambda i, j, n: (slice(None), j, slice(None, None, 2)),
    lambda i, j, n: (j, slice(None), j),
    lambda i, j, n: (0, slice(None), i),
    lambda i, j, n: (slice(None), 0, i),
    lambda i, j, n: (i, None, slice(None), 1),
    lambda i, j, n: n,
    lambda i, j, n: (slice(None), slice(None), n),
    lambda i, j, n: slice(n, None),
    lambda i, j, n: (slice(None, n), n),
    lambda i, j, n: (slice(None), slice(None), np.array([True, False, True, True])),
    lambda i, j, n: ([0, 2], [1, 2]),
    lambda i, j, n: (slice(None), [0], ..., [1, 1]),
    lambda i, j, n: (i, j),
    lambda i, j, n: ([], slice(1)),
    lambda i, j, n: (slice(None), [[0, 1], [2, -1]]),
    lambda i, j, n: (slice(-n, None), ..., 0),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("known", [True, False], ids=["known sizes", "unknown sizes"])
def test_indexing_reads_sets_and_increments_as_numpy(known, backend):
    a = rng.normal(size=(5, 3, 4))
    x = T.tensor("x", a.shape if known else ("p", None, 4), "float64")
    i, j, n = T.vector("i", dtype="int64"), T.tensor("j", (None, 1), "int32"), T.scalar("n", dtype="int64")
    parts = [x[key(i, j, n)] for key in KEYS]
    outs = [y for p in parts for y in (p, T.set_subtensor(p, 7), T.inc_subtensor(p, p * 2))]
    got = iter(sg.function([x, i, j, n], outs, backend=backend)(a, I, J, np.array(2)))
    for key in KEYS:
        k = key(I, J, 2)
        replaced, added = a.copy(), a.copy()
        replaced[k] = 7
        np.add.at(added, k, a[k] * 2)
        for want in (a[k], replaced, added):
            np.testing.assert_allclose(next(got), want, rtol=1e-12)


def test_indexing_keeps_repeated_updates_apart():
    x = T.vector("x", "float64")
    f = sg.function(
        [x],
        [
            T.set_subtensor(x[[1, 1, 0, 1]], [1.0, 2.0, 3.0, 4.0]),
            T.inc_subtensor(x[[1, 1, 0, 1]], [1.0, 2.0, 3.0, 4.0]),
        ],
        backend="reference",
    )
    replaced, added = f(np.zeros(3))
    np.testing.assert_array_equal(replaced, [3, 4, 0])
    np.testing.assert_array_equal(added, [3, 7, 0])


def test_writing_nested_parts():
    a = rng.normal(size=(4, 5))
    x = T.tensor("x", (4, 5), "float64")
    inner = T.set_subtensor(x[1:][:, ::2], 0.0)  # part of a part: a copy of x[1:]
    f = sg.function(
        [x], [inner, T.inc_subtensor(x[None], 1), T.set_subtensor(x[...], a[::-1])], backend="reference"
    )
    part, plus, whole = f(a)
    want = a[1:].copy()
    want[:, ::2] = 0
    np.testing.assert_array_equal(part, want)
    np.testing.assert_array_equal(plus, a + 1)
    np.testing.assert_array_equal(whole, a[::-1])


def test_integer_arrays_update_without_loss():
    x = T.vector("x", "int32")
    f = sg.function([x], T.inc_subtensor(x[1:], 2), backend="reference")
    close(f(np.array([1, 2, 3], "int32")), np.array([1, 4, 5], "int32"))
    with pytest.raises(sg.DTypeError, match="float"):
        T.set_subtensor(x[1:], 0.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_hot(backend):
    labels = T.vector("labels", "int64")
    f = sg.function([labels], [T.one_hot(labels, 4), T.one_hot(labels, 4, dtype="float32")], backend=backend)
    hot, floats = f(np.array([3, 0, 4, -1]))
    want = np.array([[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    close(hot, want)
    close(floats, want.astype("float32"))


# -------------------------------------------------------------------------------------- torch
def torch_gradient(build, *arrays):
    xs = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    y = build(*xs)
    weights = np.cos(np.arange(y.numel())).reshape(tuple(y.shape))
    (y * torch.tensor(weights)).sum().backward()
    return y.detach().numpy(), weights, [x.grad.numpy() for x in xs if x.requires_grad]


TIED = np.array([[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0], [-1.0, 0.0, -2.0, 0.5]])
LIKE_TORCH = {
    "amax": (lambda x: T.amax(x, axis=1), lambda x: torch.amax(x, 1), TIED),
    "amin": (lambda x: T.amin(x, axis=0, keepdims=True), lambda x: torch.amin(x, 0, keepdim=True), TIED),
    "prod": (lambda x: T.prod(x, axis=1), lambda x: torch.prod(x, 1), with_zeros()),
    "cumprod": (lambda x: T.cumprod(x, axis=1), lambda x: torch.cumprod(x, 1), with_zeros()),
    "cumsum": (lambda x: T.cumsum(x, axis=0), lambda x: torch.cumsum(x, 0), TIED),
    "logsumexp": (lambda x: T.logsumexp(x, axis=1), lambda x: torch.logsumexp(x, 1), TIED * 300),
    "logsumexp of all": (
        lambda x: T.logsumexp(x, keepdims=True),
        lambda x: torch.logsumexp(x, (0, 1), keepdim=True),
        TIED,
    ),
    "var": (lambda x: T.var(x, axis=1, correction=1), lambda x: torch.var(x, 1), TIED),
    "std at 0": (lambda x: T.std(x, axis=1, ddof=1), lambda x: torch.std(x, 1), TIED),
    "norm": (lambda x: T.norm(x, axis=1), lambda x: torch.linalg.vector_norm(x, dim=1), TIED),
    "reflect": (
        lambda x: T.pad(x, ((0, 0), (2, 3)), "reflect"),
        lambda x: torch.nn.functional.pad(x, (2, 3), mode="reflect"),
        TIED,
    ),
    "gather": (
        lambda x: T.take_along_axis(x, np.array([[0, 0, 3], [1, 2, 2], [3, 0, 1]]), 1),
        lambda x: torch.gather(x, 1, torch.tensor([[0, 0, 3], [1, 2, 2], [3, 0, 1]])),
        TIED,
    ),
    "index": (lambda x: x[[0, 2, 2], 1:], lambda x: x[[0, 2, 2], 1:], TIED),
    "index_add": (
        lambda x, v: T.inc_subtensor(x[[0, 2, 2]], v),
        lambda x, v: x.index_add(0, torch.tensor([0, 2, 2]), v),
        TIED,
        normal(3, 4),
    ),
    "topk": (lambda x: T.topk(x, 2, axis=1)[0], lambda x: torch.topk(x, 2, 1)[0], with_zeros()[:1]),
    "sort": (
        lambda x: T.sort(x, descending=True),
        lambda x: torch.sort(x, dim=1, descending=True, stable=True)[0],
        TIED,
    ),
    "roll": (lambda x: T.roll(x, (1, -2), (0, 1)), lambda x: torch.roll(x, (1, -2), (0, 1)), TIED),
    "tril": (lambda x: T.tril(x), lambda x: torch.tril(x), TIED),
    "diag": (lambda x: T.diag(x[0], 1), lambda x: torch.diag(x[0], 1), TIED),
    "quantile": (lambda x: T.quantile(x, 0.4, axis=1), lambda x: torch.quantile(x, 0.4, 1), normal(3, 4)),
}


@needs_torch
@pytest.mark.parametrize("backend", BACKENDS)
def test_values_and_gradients_like_torch(backend):
    xs, arrays, outs, wants = [], [], [], []
    for name, (ours, theirs, *values) in LIKE_TORCH.items():
        own = [T.tensor(f"{name}{k}", v.shape, "float64") for k, v in enumerate(values)]
        y, weights, grads = torch_gradient(theirs, *values)
        mine = ours(*own)
        xs, arrays = xs + own, arrays + values
        outs += [mine, *sg.grad(T.sum(mine * weights), own)]
        wants += [(name, y), *((name, g) for g in grads)]
    for got, (name, want) in zip(sg.function(xs, outs, backend=backend)(*arrays), wants, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("known", [True, False], ids=["known sizes", "unknown sizes"])
def test_long_axes(known, backend):
    n = 3001
    a = np.round(rng.normal(size=(n, 2)), 1)
    a[rng.integers(0, n, 50), 0] = np.nan
    x = T.tensor("x", a.shape if known else (None, 2), "float64")
    down = T.argsort(x, axis=0, descending=True)
    clean = T.where(T.isnan(x), 1.0, x)
    f = sg.function(
        [x],
        [
            T.sort(x, axis=0),
            T.argsort(x, axis=0),
            down,
            *T.topk(x, 7, axis=0),
            T.cumsum(clean, axis=0),
            T.cumprod(1 + clean / 100, axis=0, reverse=True),
            sg.grad(T.sum(T.sort(clean, axis=0) * np.arange(2 * n).reshape(n, 2)), x),
        ],
        backend=backend,
    )
    ranked, order, backward, best, where_best, sums, products, grad = f(a)
    filled = np.where(np.isnan(a), 1.0, a)
    np.testing.assert_array_equal(order, np.argsort(a, axis=0, kind="stable"))
    np.testing.assert_array_equal(ranked, np.sort(a, axis=0))
    np.testing.assert_array_equal(backward, n - 1 - np.argsort(a[::-1], axis=0, kind="stable")[::-1])
    np.testing.assert_array_equal(where_best, backward[:7])
    np.testing.assert_array_equal(best, np.take_along_axis(a, backward[:7], 0))
    close(sums, np.cumsum(filled, axis=0))
    close(products, np.cumprod(1 + filled[::-1] / 100, axis=0)[::-1])
    places = np.argsort(np.argsort(filled, axis=0, kind="stable"), axis=0)
    np.testing.assert_array_equal(grad, np.where(np.isnan(a), 0, 2 * places + np.arange(2)))


def test_running_sums_are_one_node_that_overrides_can_name():
    x = T.vector("x", "float64")
    y = T.cumsum(x, axis=0)
    f = sg.function(
        [x],
        [y, sg.grad(T.sum(y), x), sg.grad(T.sum(y), x, overrides={T.cumsum: lambda g, y, x: g * 10})],
        backend="reference",
    )
    sums, plain, other = f(np.arange(4.0))
    np.testing.assert_array_equal(sums, [0, 1, 3, 6])
    np.testing.assert_array_equal(plain, [4, 3, 2, 1])
    np.testing.assert_array_equal(other, [10, 10, 10, 10])


@needs_torch
def test_topk_values_and_indices():
    x = T.tensor("x", (3, 5), "float64")
    a = rng.permutation(15).reshape(3, 5).astype("float64")
    a[1, 2] = np.nan
    for largest in (True, False):
        values, indices = sg.function([x], list(T.topk(x, 3, largest=largest)), backend="reference")(a)
        want = torch.topk(torch.tensor(a), 3, largest=largest)
        np.testing.assert_array_equal(values, want[0].numpy())
        np.testing.assert_array_equal(indices, want[1].numpy())


@pytest.mark.parametrize("backend", BACKENDS)
def test_corners_of_values(backend):
    x = T.matrix("x", "float64")
    infinite = np.array([[-np.inf, -np.inf], [np.inf, 1.0], [np.nan, 1.0], [-np.inf, 2.0]])
    y = T.logsumexp(x, axis=1)
    value, grad, order = sg.function(
        [x], [y, sg.grad(T.sum(y), x), T.argsort(x, axis=None)], backend=backend
    )(infinite)
    np.testing.assert_array_equal(value, [-np.inf, np.inf, np.nan, 2.0])
    np.testing.assert_array_equal(grad[[0, 3]], [[0, 0], [0, 1]])  # a row of -inf sends nothing back, not NaN
    np.testing.assert_array_equal(order, np.argsort(infinite, axis=None, kind="stable"))


def test_argsort_is_stable_in_both_directions():
    x = T.vector("x", "float64")
    a = np.array([1.0, np.nan, 0.0, 1.0, np.nan, 0.0, 2.0])
    up, down = sg.function([x], [T.argsort(x), T.argsort(x, descending=True)], backend="reference")(a)
    np.testing.assert_array_equal(up, [2, 5, 0, 3, 6, 1, 4])
    np.testing.assert_array_equal(down, [1, 4, 6, 0, 3, 2, 5])


@pytest.mark.parametrize("backend", BACKENDS)
def test_creation_takes_sizes_of_variables(backend):
    x = T.matrix("x")
    m, n = x.shape
    f = sg.function(
        [x],
        [
            T.zeros((n, 2)),
            T.arange(m),
            T.arange(1, 2 * n, 2),
            T.eye(m, n),
            T.full((m * n,), 0.5),
            T.arange(n - m),
        ],
        backend=backend,
    )
    got = f(np.zeros((3, 5), "float32"))
    wants = [
        np.zeros((5, 2), "float32"),
        np.arange(3),
        np.arange(1, 10, 2),
        np.eye(3, 5, dtype="float32"),
        np.full(15, 0.5, "float32"),
        np.arange(2),
    ]
    for g, want in zip(got, wants, strict=True):
        close(g, want)


def test_array_equal():
    x, y = T.tensor("x", (3,)), T.vector("y")
    f = sg.function(
        [x, y], [T.array_equal(x, y), T.array_equal(x, x), T.array_equal(x, x[1:])], backend="reference"
    )
    a = np.arange(3, dtype="float32")
    assert [bool(v) for v in f(a, a)] == [True, True, False]
    assert [bool(v) for v in f(a, a + 1)] == [False, True, False]


def test_flatten_and_unstack():
    x = T.tensor("x", ("a", 3, "b", 2), "float64")
    a = normal(4, 3, 5, 2)
    outs = [T.flatten(x), T.flatten(x, 1), T.flatten(x, 1, 2), *T.unstack(x, 1), T.flatten(T.sum(x))]
    got = sg.function([x], outs, backend="reference")(a)
    wants = [a.ravel(), a.reshape(4, -1), a.reshape(4, 15, 2), a[:, 0], a[:, 1], a[:, 2], a.sum().reshape(1)]
    for g, want in zip(got, wants, strict=True):
        close(g, want)
    with pytest.raises(sg.ShapeError, match=here()):
        T.unstack(x)


def test_creation_defaults_to_floatx():
    assert {
        v.dtype
        for v in (
            T.zeros(2),
            T.ones((1,)),
            T.eye(3),
            T.identity(2),
            T.tri(2),
            T.full(2, 0.5),
            T.linspace(0, 1, 3),
            T.arange(0.0, 1.0, 0.5),
        )
    } == {"float32"}
    assert T.arange(3).dtype == T.full(2, 3).dtype == "int64"
    with sg.config(floatX="float64"):
        assert T.zeros(2).dtype == "float64"


# -------------------------------------------------------------------------------------- sizes and errors
def test_sizes_of_slices_are_polynomials_of_the_sizes():
    n = T.vector("x", shape=("n",)).dims[0]
    x = T.vector("x", shape=("n",))
    assert x[::-1].dims == x[:].dims == (n,)
    assert x[1:].dims == x[:-1].dims == (poly.maximum(n - 1, 0),)
    assert x[::2].dims == (poly.floordiv(n + 1, 2),)
    assert T.concatenate([x, x, x[:0]]).dims == (2 * n,)
    assert T.pad(x, (1, 2)).dims == (n + 3,)


def here() -> str:
    return Path(__file__).name


@pytest.mark.parametrize(
    "bad",
    [
        lambda x: x[3],
        lambda x: x[0, -5],
        lambda x: x[0, 0, 0],
        lambda x: x[..., 0, ...],
        lambda x: x[[0, 3]],
        lambda x: x[:, np.array([[-5]])],
        lambda x: T.take(x, 12),
        lambda x: T.take_along_axis(x, np.array([[4]]), 1),
        lambda x: x[:, T.constant(4)],
    ],
)
def test_an_index_known_to_lie_outside_fails_on_the_users_line(bad):
    x = T.tensor("x", (3, 4))
    with pytest.raises(sg.ShapeError, match=here()) as error:
        bad(x)
    assert isinstance(error.value, IndexError)


@pytest.mark.parametrize(
    "key",
    [
        lambda x, i: x[i],
        lambda x, i: x[:, i],
        lambda x, i: T.take_along_axis(x, i[None], 1),
        lambda x, i: T.set_subtensor(x[i], 0),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_index_found_outside_at_the_call_is_an_error(key, backend):
    x, i = T.tensor("x", (3, 3)), T.vector("i", "int64")
    f = sg.function([x, i], key(x, i), backend=backend)
    f(np.zeros((3, 3), "float32"), np.array([2, -3]))
    for wrong in (3, -4):
        with pytest.raises(IndexError):
            f(np.zeros((3, 3), "float32"), np.array([0, wrong]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_conditions_that_find_indices_outside(backend):
    x, i = T.matrix("x"), T.vector("i", "int64")
    y = x[:, i] + T.take_along_axis(x, T.expand_dims(i, 1), 0)[0, 0]
    checks = bounds.out_of_range([y])
    assert [node.op.name for node, _ in checks] == ["gather", "take_along_axis"]
    f = sg.function([x, i], [c for _, c in checks], backend=backend)
    for indices, want in (
        ([1, -2, 0], [False, False]),
        ([-3, 0, 2], [False, True]),
        ([3, 0, 0], [True, True]),
        ([], [False, False]),
    ):
        assert [bool(v) for v in f(np.zeros((2, 3), "float32"), np.array(indices, "int64"))] == want
    assert isinstance(bounds.refusal(checks[0][0]), IndexError)


def test_indices_known_to_lie_inside_need_no_check():
    x, n = T.tensor("x", (5, 4)), T.tensor("n", ("n", 4))
    i = T.vector("i", "int64")
    safe = [
        x[T.argmax(x, 0)],
        T.topk(n, 2)[0],
        T.pad(x, 3, "reflect"),
        T.pad(x, 1, "wrap"),
        T.take(x, i, 0, mode="wrap"),
        x[T.clip(i, 0, 4)],
        x[T.minimum(abs(i) * 0, 3) * 0 % 5],
        n[T.arange(n.shape[0])],
        n[T.argmin(n, 0)],
        x[T.where(i > 0, 1, -1)],
        T.take(n, i, 0, mode="wrap"),
        n[:-1],
        T.sort(n, 0),
    ]
    assert bounds.out_of_range(safe) == []
    assert [node.op.name for node, _ in bounds.out_of_range([x[i], x[T.clip(i, 0, 5)], n[[0, 1]]])] == [
        "gather"
    ] * 3


def test_positions_to_check_at_the_call():
    x = T.tensor("x", ("n", 4))
    n = x.dims[0]
    assert [(k, size) for _, k, size in bounds.positions([x[2], x[-3], x[:, 1], x[1:]])] == [
        (2, n),
        (n - 3, n),
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_position_beyond_an_unknown_size_is_an_error(backend):
    x = T.vector("x")
    f = sg.function([x], [x[2], x[-3]], backend=backend)
    assert [float(v) for v in f(np.array([1, 2, 3], "float32"))] == [3, 1]
    with pytest.raises(IndexError):
        f(np.array([1, 2], "float32"))


ERRORS = [
    (lambda x: x[x.sum() > 0], sg.DTypeError, "0-d"),
    (lambda x: x[0.5], sg.DTypeError, "integers"),
    (lambda x: x[::0], sg.ShapeError, "step"),
    (lambda x: T.max(x[:0], axis=0), sg.ShapeError, "no elements"),
    (lambda x: T.argmin(x[:, :0], axis=1), sg.ShapeError, "no elements"),
    (lambda x: T.sum(x, axis=2), sg.ShapeError, "axis"),
    (lambda x: T.concatenate([x, x[:, 1:]]), sg.ShapeError, "concatenate"),
    (lambda x: T.concatenate([x, x[0]]), sg.ShapeError, "number of axes"),
    (lambda x: T.stack([x, x[1:]]), sg.ShapeError, "stack"),
    (lambda x: T.split(x, 2), sg.ShapeError, "equal parts"),
    (lambda x: T.pad(x, (1, 2, 3)), sg.ShapeError, "pair"),
    (lambda x: T.pad(x, -1), sg.ShapeError, "width"),
    (lambda x: T.pad(x, 1, "none"), sg.ShapeError, "reflect"),
    (lambda x: T.topk(x, 5), sg.ShapeError, "topk"),
    (lambda x: T.set_subtensor(x + 1, 0), sg.DTypeError, "indexed"),
    (lambda x: T.set_subtensor(x[0], np.zeros(3)), sg.ShapeError, "broadcast"),
    (lambda x: T.take(x, [0.5]), sg.DTypeError, "integer"),
    (lambda x: T.tril(x[0]), sg.ShapeError, "two axes"),
    (lambda x: T.quantile(x, 2), sg.ShapeError, "fraction"),
    (lambda x: T.arange(0, 5, 0), sg.ShapeError, "step"),
    (lambda x: x.__setitem__(0, 1), sg.DTypeError, "set_subtensor"),
    (lambda x: T.moveaxis(x, (0, 0), (0, 1)), sg.ShapeError, "moveaxis"),
    (lambda x: T.average(x, weights=[1, 2]), sg.ShapeError, "weights"),
    (lambda x: T.tile(x, -1), sg.ShapeError, "sizes"),
    (lambda x: T.diag(x[None]), sg.ShapeError, "diagonal"),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_mistakes_fail_on_the_users_line(number):
    bad, kind, says = ERRORS[number]
    with pytest.raises(kind, match=says) as error:
        bad(T.tensor("x", (3, 4)))
    assert here() in str(error.value)


def test_methods_of_variables():
    x = T.tensor("x", (3, 4), "float64")
    a = normal(3, 4)
    pairs = [
        (
            v.prod(1),
            v.mean(),
            v.var(0),
            v.std(0),
            v.max(1),
            v.min(),
            v.argmax(1),
            v.argmin(),
            v.any(),
            v.all(),
            v.take([1], 0),
            v.cumsum(0),
            v.cumprod(1),
            v.repeat(2, 0),
            v.swapaxes(0, 1),
            v.diagonal(),
            v.trace(),
            v.mT,
        )
        for v in (x, a)
    ]
    for got, want in zip(sg.function([x], list(pairs[0]), backend="reference")(a), pairs[1], strict=True):
        close(got, want)
