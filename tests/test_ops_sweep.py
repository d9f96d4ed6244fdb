"""Every row of the op table, over its own samples: value, gradient, second gradient, shapes, special values.

A new op is tested from the moment it has a row. Expected values come from the row's NumPy spelling, and from NumPy's function
of the same name where there is one. Samples of a row are compiled together, for compiling is what takes the time.
"""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.backends.cpu import sharing
from symgrad.base import dtypes
from symgrad.graph.node import make, new_input
from symgrad.graph.types import Type
from symgrad.ops.row import ROWS, Row
from symgrad.testing import assert_close, check_grad

assert T.relu.name in ROWS      # importing the tensor module registers every family

# rows whose samples cannot be run by themselves
WITHOUT_SAMPLES = {"size_of"}
SWEPT = [name for name in ROWS if name not in WITHOUT_SAMPLES]
SMOOTH = [name for name in SWEPT if any(s.grad and "float64" in s.dtypes and s.args for s in ROWS[name].samples)]
# forward identities whose gradient is changed on purpose, or blocked
NOT_DERIVATIVES = {"stop_gradient", "grad_clip", "grad_scale"}
# their second derivative is a function that symgrad does not have; asking for it raises
WITHOUT_SECOND = {"digamma"}
ELEMENTWISE = [name for name in SWEPT if ROWS[name].elementwise]
LIBM_ACCURACY = 16.0            # units of the tolerance table that a chain of elementary functions may use


def seeded(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def arrays_of(row, case, dtype, rng):
    """The arguments of one sample; floats stay clear of the row's kinks."""
    found = []
    for a in case.args:
        if not isinstance(a, tuple):
            array = np.asarray(a)
            found.append(array.astype(dtype) if array.dtype.kind == "f" else array)
        elif dtypes.is_float(dtype):
            found.append(away(rng.uniform(case.low, case.high, a), row.kinks).astype(dtype))
        elif dtype == "bool":
            found.append(rng.integers(0, 2, a).astype(bool))
        else:
            found.append(rng.integers(max(int(case.low), np.iinfo(dtype).min if dtype.startswith("i") else 0), int(case.high) + 1, a).astype(dtype))
    return found


def away(x, kinks):
    for kink in kinks:
        x = np.where(np.abs(x - kink) < 0.05, x + 0.11, x)
    return x


def applied(row, xs, attrs):
    return row(*xs, **attrs) if row.elementwise and row.name != "cast" else make(row, xs, **attrs)


def inputs_for(arrays):
    return [new_input(Type(a.dtype.name, a.shape)) for a in arrays]


def run(graphs, backend):
    """Values of many (inputs, outputs, arrays) compiled as one function."""
    xs = [x for ins, _, _ in graphs for x in ins]
    values = sg.function(xs, [y for _, outs, _ in graphs for y in outs], backend=backend, on_unused_input="ignore")(
        *[a for _, _, arrays in graphs for a in arrays])
    return iter(values)


def cases(name, limit=None):
    row, rng = ROWS[name], seeded(name)
    for case in list(row.samples)[:limit]:
        for dtype in case.dtypes:
            yield case, dtype, arrays_of(row, case, dtype, rng)


@pytest.mark.parametrize("name", SWEPT)
def test_every_row_has_samples_a_numpy_spelling_and_an_at(name):
    row = ROWS[name]
    assert row.samples
    for case, _, arrays in cases(name, 1):
        assert np.asarray(row.numpy(*[a.copy() for a in arrays], **case.attrs)) is not None
        assert row.elementwise or type(row).at is not Row.at, "no value at an index"


@pytest.mark.parametrize("name", SWEPT)
def test_value(name):
    """The fast set: the first sample in every dtype, the next ones in their first dtype."""
    values_agree(name, lambda k, first: k == 0 or (k < 4 and first))


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEPT)
def test_value_of_every_sample(name):
    values_agree(name, lambda k, first: True)


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEPT)
def test_value_when_threads_share_every_kernel(name, monkeypatch):
    monkeypatch.setattr(sharing, "WORTH", 0)
    monkeypatch.setattr(sharing, "VECTORS", 1)
    monkeypatch.setattr(sharing, "PART", 1)
    with sg.config(num_threads=3):
        values_agree(name, lambda k, first: first)


def position(row, case):
    return next(k for k, s in enumerate(row.samples) if s is case)


def values_agree(name, wanted):
    row = ROWS[name]
    graphs, labels = [], []
    for case, dtype, arrays in cases(name):
        if not wanted(position(row, case), dtype == case.dtypes[0]):
            continue
        xs = inputs_for(arrays)
        graphs.append((xs, [applied(row, xs, case.attrs)], arrays))
        labels.append(f"{name} {[a.shape for a in arrays]} {dtype} {case.attrs}")
    for label, got, want, (_, (y,), _) in zip(labels, run(graphs, "cpu"), run(graphs, "reference"), graphs):
        assert_close(got, want, label, factor=LIBM_ACCURACY)
        assert got.dtype == y.dtype and got.shape == y.dims, label


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if hasattr(np, n) and n != "where"])
def test_elementwise_value_and_dtype_are_those_of_numpy(name):
    """Against NumPy's own function, on the arrays as they are: promotion included."""
    row = ROWS[name]
    for case, dtype, arrays in cases(name):
        if dtype in ("int8", "uint8") and row.kind == "float":
            continue            # NumPy gives float16 here, which symgrad does not have
        with np.errstate(all="ignore"):
            want = np.asarray(getattr(np, name)(*arrays))
        got = sg.function([], applied(row, [T.constant(a) for a in arrays], case.attrs), backend="reference")()
        assert_close(got, want, f"{name} {dtype}", factor=LIBM_ACCURACY)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradient(name):
    row = ROWS[name]
    for case, dtype, arrays in cases(name):
        if case.grad and dtype == "float64" and name not in NOT_DERIVATIVES and arrays:
            check_grad(named(name, lambda *xs, case=case: applied(row, list(xs), case.attrs)), *arrays)


@pytest.mark.parametrize("name", [n for n in SMOOTH if n not in WITHOUT_SECOND])
def test_gradient_of_the_gradient(name):
    row = ROWS[name]
    done = 0
    for case, dtype, arrays in cases(name):
        if case.grad and dtype == "float64" and name not in NOT_DERIVATIVES and arrays and done < 3:
            check_grad(named(name, lambda *xs, case=case: applied(row, list(xs), case.attrs)), *arrays, order=2, rtol=2e-6)
            done += 1


def named(name, fn):
    fn.__name__ = name
    return fn


def gradients_agree(name, limit):
    row, rng = ROWS[name], seeded(name)
    graphs, labels = [], []
    for case in [s for s in row.samples if s.grad][:limit]:
        for dtype in [d for d in case.dtypes if dtypes.is_float(d)]:
            arrays = arrays_of(row, case, dtype, rng)
            xs = inputs_for(arrays)
            y = applied(row, xs, case.attrs)
            wrt = [x for x in xs if dtypes.is_float(x.dtype)]
            if not wrt or not dtypes.is_float(y.dtype):
                continue
            g = T.constant(rng.uniform(-1, 1, y.dims).astype(y.dtype))
            graphs.append((xs, sg.vjp(y, wrt, g, disconnected="zero"), arrays))
            labels += [f"gradient of {name} {[a.shape for a in arrays]} {dtype} {case.attrs}"] * len(wrt)
    for label, got, want in zip(labels, run(graphs, "cpu"), run(graphs, "reference")):
        assert_close(got, want, label, factor=4 * LIBM_ACCURACY)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradient_on_the_cpu_backend(name):
    gradients_agree(name, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOOTH)
def test_gradient_on_the_cpu_backend_over_all_samples(name):
    gradients_agree(name, None)


# ------------------------------------------------------------------------------------ elementwise rows
SHAPES = {1: [((),), ((0,),), ((2, 0, 3),), ((1,),), ((5, 1, 7),)],
          2: [((), ()), ((0,), ()), ((0,), (1,)), ((1,), (3, 1)), ((2, 1, 3), (4, 1)), ((), (2, 2)), ((1, 1), (1,))],
          3: [((), (), ()), ((3,), (), (2, 1)), ((2, 1), (1, 3), (1,)), ((0, 2), (2,), ())]}


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if n != "cast"])
def test_empty_scalar_and_broadcast_shapes(name):
    shapes_agree(name, slice(0, None, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if n != "cast"])
def test_more_empty_scalar_and_broadcast_shapes(name):
    shapes_agree(name, slice(1, None, 2))


def shapes_agree(name, chosen):
    row, rng = ROWS[name], seeded(name)
    case = row.samples[0]
    graphs = []
    for shapes in SHAPES[len(case.args)][chosen]:
        arrays = [away(rng.uniform(max(case.low, 0) if case.low >= 0 else case.low, case.high, s), row.kinks) for s in shapes]
        arrays = [a.astype(case.dtypes[0]) for a in arrays]
        xs = inputs_for(arrays)
        graphs.append((xs, [applied(row, xs, case.attrs)], arrays))
    for (_, _, arrays), got, want in zip(graphs, run(graphs, "cpu"), run(graphs, "reference")):
        assert got.shape == np.broadcast_shapes(*(a.shape for a in arrays)) == want.shape
        assert_close(got, want, f"{name} {[a.shape for a in arrays]}", factor=LIBM_ACCURACY)


SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, 1e-30, -1e-30, 1e30, -1e30, 88.0, -90.0]
SPECIAL_3 = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -2.0]
# where the sign of a zero result is not part of the meaning: NumPy's own loops differ between builds (maximum of 0 and -0),
# or the textbook formula gives the other one
ZERO_SIGN_IS_FREE = {"maximum", "minimum", "fmax", "fmin", "relu", "clip", "hardtanh", "relu6", "remainder", "floor_divide", "softshrink"}
# far arguments lose all digits in any implementation without exact argument reduction
LIMITS = {"sin": 1e5, "cos": 1e5, "tan": 1e5, "sinc": 1e3}


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if any(map(dtypes.is_float, ROWS[n].samples[0].dtypes)) and n != "cast"])
def test_special_values(name):
    """NaN, infinities, signed zeros, tiny and huge: the kernel gives what NumPy gives."""
    row = ROWS[name]
    case = row.samples[0]
    arity = len(case.args)
    values = SPECIAL_3 if arity == 3 else SPECIAL
    values = [v for v in values if not np.isfinite(v) or abs(v) <= LIMITS.get(name, np.inf)]
    grid = np.array(list(itertools.product(values, repeat=arity))).T
    graphs = []
    for dtype in ("float32", "float64"):
        arrays = [np.ascontiguousarray(g).astype(dtype) for g in grid]
        if name == "where":
            arrays[0] = arrays[0] > 0
        xs = inputs_for(arrays)
        graphs.append((xs, [applied(row, xs, case.attrs)], arrays))
    for (_, _, arrays), got, want in zip(graphs, run(graphs, "cpu"), run(graphs, "reference")):
        for k in range(got.size):
            point = [float(a[k]) for a in arrays]
            assert_close(got[k], want[k], f"{name}{point} in {arrays[-1].dtype}", factor=LIBM_ACCURACY)
            if got.dtype.kind == "f" and want[k] == 0 and name not in ZERO_SIGN_IS_FREE:
                assert np.signbit(got[k]) == np.signbit(want[k]), f"{name}{point} in {arrays[-1].dtype}: the sign of zero"


INTEGER_ROWS = [n for n in ELEMENTWISE if n != "cast" and any(d in dtypes.INTEGERS for s in ROWS[n].samples for d in s.dtypes)]


@pytest.mark.parametrize("name", INTEGER_ROWS)
def test_extreme_integers_wrap_as_in_numpy(name):
    row = ROWS[name]
    arity = len(row.samples[0].args)
    if arity > 2:
        arity = 3
    graphs = []
    for dtype in ("int8", "uint8", "int32", "uint32", "int64", "uint64"):
        info = np.iinfo(dtype)
        values = sorted({info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 7, max(-1, info.min), max(-5, info.min)})
        if name in ("left_shift", "right_shift"):
            values = [v for v in values if 0 <= v < info.bits] + [info.max]
        grid = np.array(list(itertools.product(values, repeat=arity)), dtype=object).T
        arrays = [g.astype(dtype) for g in grid]
        if name in ("left_shift", "right_shift"):
            keep = arrays[1] < info.bits
            arrays = [np.ascontiguousarray(a[keep]) for a in arrays]
        if name == "power":     # NumPy refuses negative integer powers
            arrays = [np.ascontiguousarray(a[grid[1] >= 0]) for a in arrays]
        if name == "where":
            arrays[0] = arrays[0] > 0
        xs = inputs_for(arrays)
        graphs.append((xs, [applied(row, xs, {})], arrays))
    for (_, _, arrays), got, want in zip(graphs, run(graphs, "cpu"), run(graphs, "reference")):
        if got.dtype.kind == "f":
            assert_close(got, want, f"{name} {arrays[0].dtype}", factor=LIBM_ACCURACY)
            continue
        wrong = np.flatnonzero(got != want)
        assert not wrong.size, f"{name} of {[a[wrong[0]] for a in arrays]} {arrays[0].dtype}: {got[wrong[0]]}, NumPy has {want[wrong[0]]}"


@pytest.mark.parametrize("source", dtypes.DTYPES)
def test_casts_between_all_dtypes(source):
    """Every value that the target can hold; what it cannot hold is undefined in C and NumPy alike."""
    wanted = {"bool": [0, 1]}.get(source, [0, 1, 2, 100, 127])
    if source in dtypes.SIGNED or dtypes.is_float(source):
        wanted = [*wanted, -1, -100]
    if dtypes.is_float(source):
        wanted = [*wanted, 0.5, 99.99, -99.99, -0.0]
    x = np.array(wanted).astype(source)
    graphs, targets = [], []
    for target in dtypes.DTYPES:
        data = np.abs(x) if target in dtypes.UNSIGNED and dtypes.is_float(source) else x
        xs = inputs_for([data])
        graphs.append((xs, [T.cast(xs[0], target) + (0 if target != "bool" else False)], [data]))
        targets.append(target)
    for target, (_, _, (data,)), got in zip(targets, graphs, run(graphs, "cpu")):
        assert_close(got, data.astype(target), f"{source} to {target}")
