"""CPU kernel templates against float64 NumPy: inputs end at unmapped memory, outputs lie between canaries."""

import ctypes
import mmap
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.backends.cpu.templates import Target, TemplateText, host_target
from symgrad.backends.cpu.templates.conv import Conv, conv_forward, conv_grad_input
from symgrad.backends.cpu.templates.conv_weight import conv_grad_weight
from symgrad.backends.cpu.templates.conv_weight_outer import conv_grad_weight_outer
from symgrad.backends.cpu.templates.gemm import Gemm, Operand, gemm
from symgrad.backends.cpu.templates.pool import Pool, max_pool_backward, max_pool_forward
from symgrad.backends.cpu.templates.winograd import (
    choose_conv,
    winograd_forward,
    winograd_grad_input,
    winograd_possible,
)
from symgrad.backends.cpu.toolchain import compile_text
from symgrad.backends.plain import run_text

CANARIES = 64
TOLERANCE = {"float32": 3e-5, "float64": 1e-12}
SHARED = replace(host_target(), shared=True)        # texts of which the caller runs part by part
WINOGRAD_TOLERANCE = {"float32": 2e-4, "float64": 1e-11}      # large interpolation points cost a digit


def fenced(array, at_end=True):
    """A copy of the array that ends (or starts) at an unmapped page: a read outside it stops the process."""
    page = mmap.PAGESIZE
    room = -(-max(array.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, room + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for fence in (start, start + page + room):
        assert protect(ctypes.c_void_p(fence), ctypes.c_size_t(page), 0) == 0
    offset = page + (room - array.nbytes if at_end else 0)
    copy = np.frombuffer(memory, array.dtype, array.size, offset)
    copy[:] = array.ravel()
    return copy


def aligned(dtype, elements):
    """Scratch as the templates are promised it: 64-byte aligned, of undefined content."""
    itemsize = np.dtype(dtype).itemsize
    raw = np.empty(elements * itemsize + 64, np.uint8)
    array = raw[-raw.ctypes.data % 64:][:elements * itemsize].view(dtype)
    array[:] = np.nan if array.dtype.kind == "f" else 123456789
    return array


def run(template: TemplateText, inputs, shape, dtype, sizes=None, disorder=True):
    """The output of the kernel for pointers p0, p1, ... (inputs, then output) and sizes; fenced on both sides."""
    sizes = sizes or {}
    lines, slot = [*template.header, "def kernel(args):"], len(inputs) + 1
    lines += [f"    p{i} = ptr_{dtype}(args, {i})" for i in range(slot)]
    for name in sizes:
        lines.append(f"    {name} = size(args, {slot})")
        slot += 1
    for i, (scratch_dtype, _) in enumerate(template.scratch):
        lines.append(f"    s{i} = ptr_{scratch_dtype}(args, {slot + i})")
    if template.stages:
        last = slot + len(template.scratch)
        lines += [f"    {name} = size(args, {last + i})" for i, name in enumerate(("stage", "part0", "part1"))]
    kernel = compile_text("\n".join([*lines, *template.body]) + "\n")
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(kernel.address)
    total = int(np.prod(shape))
    for at_end in (True, False):
        arrays = [fenced(np.asarray(array, dtype), at_end) for array in inputs]
        output = np.full(total + 2 * CANARIES, np.nan, dtype)
        scratch = [aligned(*buffer) for buffer in template.scratch]
        addresses = [array.ctypes.data for array in arrays]
        addresses.append(output[CANARIES:].ctypes.data)
        for part in parts(template, sizes, disorder):
            private = [b if i in template.common else aligned(*template.scratch[i]) for i, b in enumerate(scratch)]
            table = np.array([*addresses, *sizes.values(), *(buffer.ctypes.data for buffer in private), *part], np.int64)
            call(table.ctypes.data)
        assert np.isnan(output[:CANARIES]).all() and np.isnan(output[CANARIES + total :]).all(), (
            "wrote outside"
        )
    return output[CANARIES:CANARIES + total].reshape(shape)


def parts(template: TemplateText, sizes, disorder):
    """(stage, first part, last part + 1) of calls that do everything; disorder: the last parts of a stage first, one or two at a time."""
    if not template.stages:
        yield ()
    for stage, factors in enumerate(template.stages):
        stop = int(np.prod([-(-sizes.get(size, size) // step) for size, step in factors]))
        while stop:
            start = max(stop - 1 - stop % 2, 0) if disorder else 0
            yield stage, start, stop
            stop = start


def run_both(make, problem, epilogue, inputs, shape, dtype, sizes=None):
    """The output of the template that `make` makes, for one thread and for several; how parts are cut changes no bit of it."""
    alone, shared = (make(problem, epilogue, target=target) for target in (host_target(), SHARED))
    whole, pieces = (run(shared, inputs, shape, dtype, sizes, disorder) for disorder in (False, True))
    np.testing.assert_array_equal(pieces, whole)
    result = run(alone, inputs, shape, dtype, sizes)
    np.testing.assert_allclose(pieces, result, rtol=0, atol=(1e-5 if dtype == "float32" else 1e-13) * np.abs(result).max(initial=0, where=np.isfinite(result)))
    return result


def run_plain(template: TemplateText, inputs, shape, dtype):
    """The output of the same text in plain Python, where leaving an input or a scratch buffer raises an error."""
    lines, arrays = [*template.header, "def kernel(args):"], [np.asarray(x, dtype).ravel() for x in inputs]
    arrays.append(np.full(int(np.prod(shape)), np.nan, dtype))
    lines += [f"    p{i} = ptr_{dtype}(args, {i})" for i in range(len(arrays))]
    for i, (scratch_dtype, _) in enumerate(template.scratch):
        lines.append(f"    s{i} = ptr_{scratch_dtype}(args, {len(arrays) + i})")
    run_text("\n".join([*lines, *template.body]) + "\n", arrays + [aligned(*buffer) for buffer in template.scratch])
    return arrays[-1].reshape(shape)


def storing(pointer, shape):
    """The epilogue that stores every value at its place in an array of that shape."""
    def epilogue(indices, value):
        place = indices[0]
        for index, size in zip(indices[1:], shape[1:], strict=True):
            place = f"({place}*{size} + {index})"
        return [f"{pointer}[{place}] = {value}"]
    return epilogue


def assert_near(result, expected, tolerance):
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(result / scale, expected / scale, rtol=0, atol=tolerance)


# ---- matrix products

def gemm_case(m, k, n, flip_a=False, flip_b=False, batch=1, dtype="float32", names=None):
    """(problem, shapes of the stored operands) of one product; `names` replaces sizes by size variables."""
    sizes = {"m": m, "k": k, "n": n} if names is None else names
    rows, depth, columns = sizes["m"], sizes["k"], sizes["n"]
    a = Operand("p0", (m * k, 1, rows) if flip_a else (m * k, depth, 1))
    b = Operand("p1", (k * n, 1, depth) if flip_b else (k * n, columns, 1))
    return Gemm(dtype, batch, rows, columns, depth, a, b)


def check_gemm(m, k, n, flip_a=False, flip_b=False, batch=1, dtype="float32", names=None):
    rng = np.random.default_rng(m * 10007 + k * 101 + n)
    a, b = rng.standard_normal((batch, m, k)), rng.standard_normal((batch, k, n))
    a, b = a.astype(dtype), b.astype(dtype)
    stored = [x.swapaxes(1, 2) if flip else x for x, flip in ((a, flip_a), (b, flip_b))]
    problem = gemm_case(m, k, n, flip_a, flip_b, batch, dtype, names)
    sizes = {names[s]: v for s, v in (("m", m), ("k", k), ("n", n)) if isinstance(names[s], str)} if names else None
    result = run_both(gemm, problem, storing("p2", (batch, m, n)), [np.ascontiguousarray(x) for x in stored], (batch, m, n), dtype, sizes)
    assert_near(result, a.astype("float64") @ b.astype("float64"), TOLERANCE[dtype] * max(k, 1) ** 0.5)


@pytest.mark.parametrize(
    "case",
    [
        dict(m=1, k=1, n=1),
        dict(m=7, k=13, n=5, batch=3),
        dict(m=130, k=600, n=270),
        dict(m=13, k=257, n=33, flip_b=True),
        dict(m=64, k=70, n=10, flip_a=True),
        dict(m=1, k=700, n=300),
        dict(m=1, k=83, n=19, flip_b=True),
        dict(m=70, k=9, n=1),
        dict(m=6, k=40, n=50, flip_a=True, flip_b=True, dtype="float64"),
        dict(m=200, k=20, n=97, flip_a=True),
        dict(m=5, k=0, n=3),
        dict(m=0, k=3, n=3),
        dict(m=40, k=30, n=40, flip_b=True, dtype="float64"),
        dict(m=9, k=5, n=12, batch=10),
    ],
    ids=str,
)
def test_gemm(case):
    check_gemm(**case)


@pytest.mark.parametrize("flips", [(False, False), (False, True), (True, False)], ids=str)
@pytest.mark.parametrize("unknown", ["m", "k", "n"])
def test_gemm_with_one_unknown_size(unknown, flips):
    names = {"m": 45, "k": 33, "n": 70} | {unknown: "n0"}
    check_gemm(45, 33, 70, *flips, names=names)


def test_gemm_with_unknown_rows_takes_any_number_of_them():
    rng = np.random.default_rng(6)
    b = rng.standard_normal((300, 40)).astype("float32")
    problem = Gemm("float32", 1, "n0", 40, 300, Operand("p0", (0, 300, 1)), Operand("p1", (0, 40, 1)))
    for m in (0, 1, 5, 6, 131):
        a = rng.standard_normal((m, 300)).astype("float32")
        result = run_both(gemm, problem, storing("p2", (1, m, 40)), [a, b], (1, m, 40), "float32", {"n0": m})
        assert_near(result[0], a.astype("float64") @ b, 1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 13, 5), (130, 300, 270), (5, 0, 3), (0, 4, 4)])
def test_one_gemm_kernel_serves_every_size(shape):
    m, k, n = shape
    a, b = np.random.default_rng(1).standard_normal((2, 400 * 400)).astype("float32")
    a, b = a[:m * k].reshape(m, k), b[:k * n].reshape(k, n)
    problem = Gemm("float32", 1, "n0", "n2", "n1", Operand("p0", (0, "n1", 1)), Operand("p1", (0, "n2", 1)))
    store = lambda ij, value: [f"p2[{ij[1]}*n2 + {ij[2]}] = {value}"]
    result = run_both(gemm, problem, store, [a, b], (m, n), "float32", {"n0": m, "n1": k, "n2": n})
    assert_near(result, a.astype("float64") @ b.astype("float64"), 1e-5 * max(k, 1) ** 0.5)


def test_epilogue_sees_indices_and_value():
    rng = np.random.default_rng(2)
    a, b, bias = (rng.standard_normal(s).astype("float32") for s in ((9, 21), (21, 11), (11,)))

    def bias_relu(indices, value):
        _, i, j = indices
        return [f"t0 = {value} + p2[{j}]", f"p3[{i}*11 + {j}] = maximum_float32(t0, lit_float32(0.0))"]
    result = run(gemm(gemm_case(9, 21, 11), bias_relu), [a, b, bias], (9, 11), "float32")
    assert_near(result, np.maximum(a.astype("float64") @ b + bias, 0), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gemm_sweep(dtype):
    shapes = [
        (1, 7, 1),
        (1, 300, 17),
        (1, 64, 1000),
        (5, 3, 1),
        (6, 40, 16),
        (64, 500, 10),
        (3, 1, 70),
        (2, 5000, 9),
        (97, 20, 300),
        (17, 1000, 4),
        (4, 700, 900),
        (31, 37, 41),
    ]
    for (m, k, n), flip_a, flip_b in product(shapes, (False, True), (False, True)):
        check_gemm(m, k, n, flip_a, flip_b, dtype=dtype)


# ---- convolutions

def conv_problem(n, c, size, k, kernel, stride=1, padding=0, dilation=1, groups=1, dtype="float32"):
    pair = [v if isinstance(v, tuple) else (v, v) for v in (size, kernel, stride, dilation)]
    sides = padding if isinstance(padding, tuple) else ((padding, padding),) * 2
    return Conv(dtype, n, c, *pair[0], k, *pair[1], pair[2], sides, pair[3], groups)


def taps(c: Conv):
    """Every tap (r, s) with its window into the padded image: the positions that it multiplies."""
    for r, s in product(range(c.r), range(c.s)):
        rows = slice(r * c.dilation[0], r * c.dilation[0] + (c.p - 1) * c.stride[0] + 1, c.stride[0])
        columns = slice(s * c.dilation[1], s * c.dilation[1] + (c.q - 1) * c.stride[1] + 1, c.stride[1])
        yield r, s, (Ellipsis, rows, columns)


def by_group(array, c: Conv, axis):
    shape = array.shape
    return array.reshape(*shape[:axis], c.groups, shape[axis] // c.groups, *shape[axis + 1:])


def reference(c: Conv, x, w, g):
    """(y, gradient to x, gradient to w) in float64, tap by tap."""
    padded = by_group(np.pad(x.astype("float64"), ((0, 0), (0, 0), *c.padding)), c, 1)
    w, g = by_group(w.astype("float64"), c, 0), by_group(g.astype("float64"), c, 1)
    y, to_x, to_w = np.zeros(g.shape), np.zeros(padded.shape), np.zeros(w.shape)
    if c.p and c.q:
        for r, s, window in taps(c):
            y += np.einsum("ngchw,gkc->ngkhw", padded[window], w[..., r, s])
            to_x[window] += np.einsum("ngkhw,gkc->ngchw", g, w[..., r, s])
            to_w[..., r, s] = np.einsum("ngkhw,ngchw->gkc", g, padded[window])
    (top, _), (left, _) = c.padding
    to_x = to_x[..., top:top + c.h, left:left + c.w].reshape(c.n, c.c, c.h, c.w)
    return y.reshape(c.n, c.k, c.p, c.q), to_x, to_w.reshape(c.k, c.c // c.groups, c.r, c.s)


def check_conv(
    c: Conv, forward=conv_forward, to_x=conv_grad_input, to_w=conv_grad_weight, tolerance=TOLERANCE
):
    rng = np.random.default_rng(c.c * 31 + c.k * 7 + c.h)
    x, w, g = (rng.standard_normal(shape).astype(c.dtype) for shape in (
        (c.n, c.c, c.h, c.w), (c.k, c.c // c.groups, c.r, c.s), (c.n, c.k, c.p, c.q)))
    expected = reference(c, x, w, g)
    for make, problem, inputs, wanted in (
        (forward, c, (x, w), expected[0]),
        (to_x, replace(c, g="p0"), (g, w), expected[1]),
        (to_w, replace(c, g="p1"), (x, g), expected[2]),
    ):
        if make:
            result = run_both(make, problem, storing("p2", wanted.shape), inputs, wanted.shape, c.dtype)
            assert_near(result, wanted, tolerance[c.dtype])


@pytest.mark.parametrize(
    "c",
    [
        conv_problem(2, 3, 12, 6, 5),
        conv_problem(1, 16, 11, 10, 3, padding=1),
        conv_problem(1, 5, (7, 40), 3, 3, 2, 1),
        conv_problem(2, 12, 9, 7, 1, dtype="float64"), conv_problem(1, 12, 9, 17, 1),
        conv_problem(1, 3, 23, 4, 7, 2, 3),
        conv_problem(2, 8, 8, 8, 3, 1, 1, groups=8),
        conv_problem(2, 4, (9, 11), 6, (3, 2), (2, 3), ((1, 0), (2, 1)), groups=2, dtype="float64"),
        conv_problem(1, 2, 3, 7, 3, 5, 4),
        conv_problem(1, 3, 13, 5, 3, 1, 2, 2),
        conv_problem(1, 1, 1, 1, 1),
        conv_problem(2, 3, (1, 70), 5, (1, 22), padding=((0, 0), (3, 3)), dilation=(1, 2)),
    conv_problem(1, 2, (1, 90), 3, (1, 30), (1, 3)), conv_problem(0, 3, 5, 4, 3),
        conv_problem(2, 3, (1, 30), 5, (1, 7), padding=((0, 0), (3, 3))),
        conv_problem(9, 2, 6, 5, 3, 2, 1), conv_problem(19, 2, 5, 6, 3, groups=2), conv_problem(3, 2, 5, 40, 3),
        conv_problem(1, 4, 40, 3, 3, 1, 1), conv_problem(1, 8, 5, 8, 3, 1, 1, groups=8),
    ],
    ids=str,
)
def test_conv_and_its_gradients(c):
    check_conv(c)


@pytest.mark.slow
@pytest.mark.parametrize(
    "c",
    [
        conv_problem(2, 3, 32, 6, 5),
        conv_problem(2, 6, 14, 16, 5),
        conv_problem(1, 32, 20, 64, 3, 1, 1),
        conv_problem(1, 16, 28, 32, 3, 2, 1),
        conv_problem(1, 64, 14, 48, 1),
        conv_problem(1, 4, 7, 5, 1, 2),
        conv_problem(1, 2, 5, 3, 3, 1, 4),
        conv_problem(1, 4, 12, 4, 3, 2, 2, 2, 2),
        conv_problem(1, 8, 11, 16, 3, 2, 1, groups=8),
        conv_problem(1, 5, (8, 300), 7, 3, 1, 1),
        conv_problem(1, 3, 67, 8, 11, 4, 2),
        conv_problem(1, 2, 6, 2, 1, 1, 3),
        conv_problem(1, 6, 10, 9, 3, 1, 1, 1, 3),
        conv_problem(1, 3, 5, 2, 2, 3),
        conv_problem(1, 2, 5, 2, 3, 1, 0, 2),
        conv_problem(1, 2, (9, 301), 4, 3, 2, 1),
        conv_problem(5, 70, 7, 37, 3, 1, 1),
        conv_problem(1, 2, 4, 3, 3, 1, 0, 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_conv_sweep(c, dtype):
    check_conv(replace(c, dtype=dtype))


# ---- Winograd

@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize(
    "c",
    [
        conv_problem(1, 1, 1, 1, 3, 1, 1),
        conv_problem(2, 9, (9, 13), 5, 3, 1, 1),
        conv_problem(1, 3, (17, 70), 3, 3, 1, ((0, 2), (2, 1))),
        conv_problem(3, 4, 6, 7, 3, dtype="float64"),
        conv_problem(1, 20, 14, 33, 3, 1, 1),
        conv_problem(9, 3, 21, 7, 3, 1, 1),
    ],
    ids=str,
)
def test_winograd(c, m):
    assert winograd_possible(c, grad_input=True)
    check_conv(c, partial(winograd_forward, m=m), partial(winograd_grad_input, m=m), None, WINOGRAD_TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize(
    "c",
    [
        conv_problem(1, 9, (30, 21), 12, 3, 1, 2),
        conv_problem(3, 16, 8, 16, 3, 1, 1),
        conv_problem(5, 4, 5, 4, 3, 1, 1),
        conv_problem(1, 20, 14, 33, 3, 1, 1),
        conv_problem(1, 40, 60, 40, 3, 1, 1),
        conv_problem(1, 300, 9, 6, 3, 1, 1),
    ],
    ids=str,
)
def test_winograd_sweep(c, m):
    check_conv(c, partial(winograd_forward, m=m), partial(winograd_grad_input, m=m), None, WINOGRAD_TOLERANCE)


def test_choose_conv_takes_winograd_only_when_allowed_and_possible():
    epilogue = storing("p2", (1, 64, 56, 56))
    large = conv_problem(1, 64, 56, 64, 3, 1, 1)
    assert any("winograd" in line for line in choose_conv(large, epilogue).header)
    assert any("winograd" in line for line in choose_conv(large, epilogue, grad_input=True).header)
    for text in (choose_conv(large, epilogue, allow_winograd=False),
                 choose_conv(conv_problem(1, 64, 56, 64, 3, 2, 1), storing("p2", (1, 64, 28, 28))),
                 choose_conv(conv_problem(1, 64, 56, 64, 5, 1, 2), epilogue)):
        assert not any("winograd" in line for line in text.header)


def test_the_number_of_images_may_be_a_variable():
    c = conv_problem(3, 4, 6, 5, 3, 1, 1)
    rng = np.random.default_rng(4)
    x, w, g = (rng.standard_normal(s).astype("float32") for s in ((3, 4, 6, 6), (5, 4, 3, 3), (3, 5, 6, 6)))
    y, to_x, to_w = reference(c, x, w, g)
    named = replace(c, n="n0")
    for make, problem, inputs, wanted in (
        (conv_forward, named, (x, w), y),
        (winograd_forward, named, (x, w), y),
        (partial(choose_conv, grad_input=True), named, (g, w), to_x),
        (conv_grad_weight, replace(named, g="p1"), (x, g), to_w),
    ):
        result = run_both(make, problem, storing("p2", wanted.shape), inputs, wanted.shape, "float32", {"n0": 3})
        assert_near(result, wanted, WINOGRAD_TOLERANCE["float32"])


@pytest.mark.parametrize("c", [
    conv_problem(3, 16, 4, 16, 3, padding=1), conv_problem(2, 17, 5, 13, 3, padding=1), conv_problem(1, 1, 1, 1, 1),
    conv_problem(5, 33, 7, 20, 3, 2, 1), conv_problem(2, 3, (7, 11), 5, (3, 2), (2, 3), ((1, 0), (2, 1)), (1, 2)),
    conv_problem(2, 18, 25, 7, 3, padding=1), conv_problem(70, 16, 3, 6, 2), conv_problem(3, 16, 6, 6, 1, 2), conv_problem(3, 9, 8, 1, 1),
    conv_problem(2, 11, 6, 16, 3, padding=1, dtype="float64"), conv_problem(1, 8, 2, 9, 5, padding=2, dtype="float64"),
    conv_problem(2, 16, (1, 9), 16, (1, 3), padding=((0, 0), (1, 1))), conv_problem(1, 16, 9, 16, 3, 4, 0),
])
def test_weight_gradient_along_channels(c):
    check_conv(c, None, None, conv_grad_weight_outer)


# ---- pooling

def pool_problem(n, c, size, window, stride, padding=0, dilation=1, dtype="float32"):
    pair = [v if isinstance(v, tuple) else (v, v) for v in (size, window, stride, dilation)]
    sides = padding if isinstance(padding, tuple) else ((padding, padding),) * 2
    return Pool(dtype, n, c, *pair[0], *pair[1], pair[2], sides, pair[3])


def pool_reference(o: Pool, x, g):
    """(y, gradient to x): the first maximum of a window wins, or its last NaN, which is what PyTorch does."""
    y, to_x = np.full((o.n, o.c, o.p, o.q), -np.inf), np.zeros(x.shape)
    for n, c, p, q in np.ndindex(y.shape):
        winner = None
        for r, s in product(range(o.r), range(o.s)):
            i = p * o.stride[0] + r * o.dilation[0] - o.padding[0][0]
            j = q * o.stride[1] + s * o.dilation[1] - o.padding[1][0]
            inside = 0 <= i < o.h and 0 <= j < o.w
            if inside and (winner is None or x[n, c, i, j] > y[n, c, p, q] or np.isnan(x[n, c, i, j])):
                winner, y[n, c, p, q] = (n, c, i, j), x[n, c, i, j]
        if winner:
            to_x[winner] += g[n, c, p, q]
    return y, to_x


POOLS = [
    pool_problem(2, 3, 8, 2, 2),
    pool_problem(1, 2, (9, 37), 2, 2),
    pool_problem(1, 2, (9, 11), 3, 2, 1),
    pool_problem(1, 2, (5, 6), (2, 3), (1, 3), ((1, 0), (2, 1)), dtype="float64"),
    pool_problem(1, 1, 7, 3, 2, 0, 2),
    pool_problem(2, 1, 4, 2, 3, 3),
    pool_problem(1, 1, 1, 2, 2),
    pool_problem(0, 3, 4, 2, 2),
    pool_problem(1, 2, 12, 2, 2, dtype="float64"),
    pool_problem(1, 1, 13, 5, 1, 2),
]


@pytest.mark.parametrize("o", POOLS, ids=str)
def test_max_pool_and_its_gradient(o):
    rng = np.random.default_rng(3)
    g = rng.standard_normal((o.n, o.c, o.p, o.q)).astype(o.dtype)
    plain = rng.integers(0, 4, (o.n, o.c, o.h, o.w)).astype(o.dtype)            # with ties
    special = np.where(rng.random(plain.shape) < 0.2, np.nan, plain)
    special = np.where(rng.random(plain.shape) < 0.3, -np.inf, special).astype(o.dtype)
    for x in (plain, special):
        y, to_x = pool_reference(o, x, g)
        forward, backward = (
            run_both(make, o, storing(pointer, shape), inputs, shape, o.dtype)
            for make, pointer, inputs, shape in ((max_pool_forward, "p1", [x], y.shape), (max_pool_backward, "p2", [x, g], x.shape)))
        np.testing.assert_array_equal(forward, y)
        np.testing.assert_allclose(backward, to_x, rtol=1e-5, atol=1e-6)


# ---- other machines, and no machine

TARGETS = [Target(vector_bytes=16, registers=16), Target(vector_bytes=64, registers=32)]


def small_problems(target):
    """(template, inputs, expected output, tolerance) of every generator, small enough for plain Python."""
    rng = np.random.default_rng(5)

    def draw(*shape):
        return rng.standard_normal(shape).astype("float32")
    for m, k, n, flip_a, flip_b in ((5, 40, 7, False, True), (9, 6, 11, False, False), (30, 3, 20, False, True),
                                    (10, 7, 70, True, False)):
        a, b = draw(m, k), draw(k, n)
        stored = [np.ascontiguousarray(x.T if flip else x) for x, flip in ((a, flip_a), (b, flip_b))]
        template = gemm(gemm_case(m, k, n, flip_a, flip_b), storing("p2", (1, m, n)), target=target)
        yield template, stored, a.astype("float64")[None] @ b, 1e-5
    for c in (conv_problem(1, 2, 5, 3, 3, 2, 1), conv_problem(2, 3, (4, 7), 2, 3, 1, 1)):
        x, w, g = draw(c.n, c.c, c.h, c.w), draw(c.k, c.c, c.r, c.s), draw(c.n, c.k, c.p, c.q)
        y, to_x, to_w = reference(c, x, w, g)
        kernels = [(conv_forward, c, (x, w), y), (conv_grad_input, replace(c, g="p0"), (g, w), to_x),
                   (conv_grad_weight, replace(c, g="p1"), (x, g), to_w)]
        if winograd_possible(c, grad_input=True):
            kernels += [(winograd_forward, c, (x, w), y), (winograd_grad_input, replace(c, g="p0"), (g, w), to_x)]
        for make, problem, inputs, wanted in kernels:
            yield make(problem, storing("p2", wanted.shape), target=target), inputs, wanted, 1e-4
    for o in (pool_problem(1, 2, (5, 6), 2, 2), pool_problem(1, 1, (5, 7), 3, 2, 1)):
        x, g = rng.integers(0, 4, (o.n, o.c, o.h, o.w)).astype("float32"), draw(o.n, o.c, o.p, o.q)
        y, to_x = pool_reference(o, x, g)
        yield max_pool_forward(o, storing("p1", y.shape), target=target), [x], y, 1e-6
        yield max_pool_backward(o, storing("p2", to_x.shape), target=target), [x, g], to_x, 1e-6


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_plain_python_runs_every_template(target):
    for template, inputs, expected, tolerance in small_problems(target):
        assert_near(run_plain(template, inputs, expected.shape, "float32"), expected, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_other_vector_widths(target):
    for template, inputs, expected, tolerance in small_problems(target):
        assert_near(run(template, inputs, expected.shape, "float32"), expected, tolerance)


@pytest.mark.parametrize("m, k, n", [(2, 3, 16), (5, 7, 17), (32, 128, 40), (33, 300, 130), (7, 65, 81), (3, 500, 96)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [False, True])
def test_products_with_panels_laid_out_before_a_loop(m, k, n, dtype, transposed):
    """Every step multiplies with one matrix: it is laid out in panels once; the result is that of NumPy's product."""
    rng = np.random.default_rng(m * k + n)
    x, w = rng.normal(size=(3, m, k)).astype(dtype), rng.normal(size=(n, k) if transposed else (k, n)).astype(dtype)
    xs, ws, start = (T.tensor(shape=a.shape, dtype=dtype) for a in (x, w, x[0]))
    back = np.ones((n, k), dtype) / n

    def step(xt, h):
        y = (h + xt) @ (ws.T if transposed else ws)
        return y @ back, y

    f = sg.function([xs, ws, start], sg.scan(step, sequences=xs, outputs_info=[start, None])[1])
    assert "matmul_panels" in f.explain()
    h, want = x[0].astype("f8"), []
    for row in x:
        y = (h + row) @ (w.T if transposed else w).astype("f8")
        h = y @ back.astype("f8")
        want.append(y)
    np.testing.assert_allclose(f(x, w, x[0]), want, rtol=2e-4 if dtype == "float32" else 1e-11, atol=1e-3 if dtype == "float32" else 1e-10)


def test_panels_of_a_step_that_holds_a_loop():
    """Products of the outer step and of the loop inside it, which is rebuilt on the way, both read panels."""
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(3, 4, 8, 40)).astype("float32"), (rng.normal(size=(40, 40)) / 8).astype("float32")
    xs, ws = T.tensor("xs", x.shape), T.tensor("ws", w.shape)

    def step(xt, h):
        inner = sg.scan(lambda rows, s: T.tanh(s @ ws + rows), sequences=xt, outputs_info=h)
        return T.tanh(inner[-1] @ ws)

    f = sg.function([xs, ws], sg.scan(step, sequences=xs, outputs_info=T.zeros((8, 40)))[-1])
    assert sum("matmul_panels" in k.what for k in f.executable.programs[()].plan.flat()) == 2
    h = np.zeros((8, 40))
    for xt in x.astype("f8"):
        for rows in xt:
            h = np.tanh(h @ w + rows)
        h = np.tanh(h @ w)
    np.testing.assert_allclose(f(x, w), h, rtol=2e-4, atol=1e-5)
