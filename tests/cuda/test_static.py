"""Every kernel compiles for the devices that are supported, keeps its values in registers, and computes in the precision it was asked for.

This needs NVIDIA's compiler, which comes in wheels, and no GPU.
"""

from __future__ import annotations

import dataclasses

import pytest
from test_ops_sweep import SWEPT, applied, cases, inputs_for

import symgrad as sg
import symgrad.tensor as T
from symgrad.base.errors import CompileError
from symgrad.ops.row import ROWS

# their arguments are reduced with tables, in memory and in float64; or they are computed in float64 throughout
LIBRARY = {"sin", "cos", "tan", "sinc", "digamma", "trigamma", "gammaln", "polygamma", "poisson_draw", "binomial_draw"}
CAPABILITIES = [(8, 0), (9, 0)]
MOST_REGISTERS = 128            # of a thread: two blocks of 256 fit on a multiprocessor


def complaints(compiler, kernel, capability):
    """What is wrong with the machine code of a kernel."""
    made = compiler.compile_kernel(kernel, capability)
    wide = any("64" in kind for kind in kernel.types) or "float64" in kernel.text
    found = {"spilled bytes": made.spilled, "bytes of stack": made.stack, "float64 operations": 0 if wide else made.float64_operations,
             "registers": made.registers * (made.registers > MOST_REGISTERS)}
    return {what: count for what, count in found.items() if count}


@pytest.mark.parametrize("name", SWEPT)
def test_the_kernels_of_every_op(name, compiler, kernels_of):
    for case, _, arrays in cases(name, 1):
        xs = inputs_for(arrays)
        for kernel in kernels_of(xs, [applied(ROWS[name], xs, case.attrs)]):
            found = complaints(compiler, kernel, (9, 0))
            assert not found or name in LIBRARY, f"{found}\n{kernel.text}"


def dense_net():
    x, w, v = T.tensor("x", (64, 100)), T.tensor("w", (100, 32)), T.tensor("v", (32,))
    y = T.softmax(T.gelu(x @ w) + v)
    return [x, w, v], [y, *sg.grad(T.sum(y ** 2), [w, v])]


def convolutional_net():
    x, w = T.tensor("x", (8, 3, 16, 16)), T.tensor("w", (8, 3, 3, 3))
    y = T.max_pool2d(T.relu(T.conv2d(x, w, padding=1)), 2)
    return [x, w], [y, *sg.grad(T.sum(y), [x, w], overrides={T.relu: lambda g, y, x: T.relu(g) * (x > 0)})]


def products():
    a, b, c = T.tensor("a", (256, 512)), T.tensor("b", (512, 384)), T.tensor("c", (384,))
    d, e = T.tensor("d", (100, 37), "float64"), T.tensor("e", (37, 50), "float64")
    return [a, b, c, d, e], [T.relu(a @ b + c), d @ e]


def convolutions():
    x, w = T.tensor("x", (8, 64, 28, 28)), T.tensor("w", (128, 64, 3, 3))
    y = T.conv2d(x, w, padding=1)
    return [x, w], [y, *sg.grad(T.sum(y ** 2), [x, w])]


def running_sums_and_scatters():
    x, rows = T.tensor("x", (40, 1000)), T.tensor("rows", (300,), "int64")
    y = T.cumsum(x, 1)
    return [x, rows], [y, T.cumsum(x > 0, 1), T.cumsum(x, 0), *sg.grad(T.sum(y[rows] ** 2), [x]), T.argsort(x, 0)]


def recurrent_net():
    xs, h, w = T.tensor("xs", (12, 16, 32)), T.tensor("h", (16, 32)), T.tensor("w", (32, 32))
    last = sg.scan(lambda x, s: T.tanh(x + s @ w), sequences=[xs], outputs_info=[h])[-1]
    return [xs, h, w], [last, *sg.grad(T.sum(last), [h, w])]


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize("graph", [dense_net, convolutional_net, products, convolutions, running_sums_and_scatters, recurrent_net])
def test_the_kernels_of_networks(graph, capability, compiler, kernels_of):
    for kernel in kernels_of(*graph()):
        assert not complaints(compiler, kernel, capability), kernel.text


def test_the_gate_sees_float64(compiler, kernels_of):
    """A literal of the wrong precision, as a careless printer would write it."""
    x = T.tensor("x", (100,))
    kernel, = kernels_of([x], [x * 0.1])
    assert not complaints(compiler, kernel, (9, 0))
    wrong = kernel.text.replace("mul_float32(t0, lit_float32(0.10000000149011612))",
                                "cast_float64_float32(mul_float64(cast_float32_float64(t0), lit_float64(0.1)))")
    assert wrong != kernel.text
    made = compiler.compile_kernel(dataclasses.replace(kernel, text=wrong), (9, 0))
    assert made.float64_operations


def test_a_text_that_is_no_kernel_is_shown_with_its_lines(compiler, kernels_of):
    x = T.tensor("x", (100,))
    kernel, = kernels_of([x], [x + 1])
    with pytest.raises(CompileError, match="no_such_word"):
        compiler.compile_kernel(dataclasses.replace(kernel, text=kernel.text.replace("add_float32", "no_such_word")), (9, 0))
