"""The runtime on a stand-in for `cuda.core`: host memory, launches that run at once, graphs that remember them, errors on demand."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.backends.cuda import blas, cubins, runtime, serial_threads, simt
from symgrad.backends.cuda.array import DeviceArray
from symgrad.backends.cuda.compiler import Cubin
from symgrad.backends.cuda.device import Memory
from symgrad.testing import assert_close


class Stream:
    def __init__(self, handle=7):
        self.handle, self.error = handle, None

    def sync(self):
        if self.error:
            raise self.error

    def create_graph_builder(self):
        return Builder()


class Builder:
    """Records while it is built: launches by being passed, copies by its stream's handle."""

    def __init__(self):
        self.stream, self.recorded, self.open = Stream(8), [], False

    def begin_building(self):
        self.open, Builder.present = True, self
        return self

    def end_building(self):
        self.open = False

    def complete(self):
        assert not self.open
        return SimpleNamespace(launch=lambda stream: [one() for one in self.recorded])


class Core:
    """What the runtime uses of `cuda.core`."""

    def __init__(self):
        self.stream, self.log, self.memory, self.breaks = Stream(), [], 1 << 30, False
        self.utils, self.Buffer = SimpleNamespace(), SimpleNamespace()
        self.ObjectCode = SimpleNamespace(from_cubin=lambda code: SimpleNamespace(get_kernel=lambda entry: json.loads(code)))

    def Device(self):
        return SimpleNamespace(set_current=lambda: None, compute_capability=(9, 0), create_stream=lambda: self.stream, name="a stand-in",
                               allocate=self.allocate)

    def allocate(self, nbytes, stream):
        if nbytes > self.memory:
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: no more")
        array = np.empty(nbytes + 256, np.uint8)
        return SimpleNamespace(handle=-(-array.ctypes.data // 256) * 256, array=array)

    def LaunchConfig(self, grid, block):
        return grid, block

    def launch(self, stream, config, kernel, *values):
        def run():
            self.log.append(kernel["name"])
            if self.breaks:
                self.stream.error = RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")
            arguments = [v if kind == "i64" else Memory(v, kind, 1 << 20) for v, kind in zip(values, kernel["types"])]
            if kernel["barriers"]:
                simt.run(kernel["text"], arguments, *config)
            else:
                serial_threads.run(kernel["text"], tuple(kernel["types"]), list(values), *config)
        assert all(isinstance(v, int) for v in values)
        stream.recorded.append(run) if isinstance(stream, Builder) else run()


class Driver:
    """What the runtime uses of `cuda.bindings.driver`: every function answers with a code first."""

    def cuMemcpyHtoDAsync(self, target, source, nbytes, stream):
        ctypes.memmove(target, source, nbytes)
        return (0,)

    cuMemcpyDtoHAsync = cuMemcpyHtoDAsync

    def cuMemcpyDtoDAsync(self, target, source, nbytes, stream):
        copy = lambda: ctypes.memmove(target, source, nbytes)
        Builder.present.recorded.append(copy) if stream == 8 else copy()
        return (0,)

    def cuMemGetInfo(self):
        return 0, 3 << 20, 80 << 20


class Library:
    """What is used of cuBLAS, in its own terms: matrices whose columns are contiguous."""

    def __init__(self):
        self.calls = []

    def cublasCreate_v2(self, handle):
        return 0

    def cublasSetStream_v2(self, handle, stream):
        self.stream = stream.value
        return 0

    def cublasSetMathMode(self, handle, mode):
        return 0

    def multiply(self, real, ways, m, n, k, a, lda, step_a, b, ldb, step_b, c, ldc, step_c, count):
        width = np.dtype(real).itemsize

        def matrix(start, ld, step, t, rows, columns):
            raw = (ctypes.c_char * (width * (ld * (columns - 1) + rows))).from_address(start.value + width * step.value * t)
            return np.lib.stride_tricks.as_strided(np.frombuffer(raw, real), (rows, columns), (width, width * ld))
        for t in range(count):
            left = matrix(a, lda, step_a, t, k, m).T if ways[0] else matrix(a, lda, step_a, t, m, k)
            right = matrix(b, ldb, step_b, t, n, k).T if ways[1] else matrix(b, ldb, step_b, t, k, n)
            matrix(c, ldc, step_c, t, m, n)[...] = left @ right

    def of(self, real):
        def call(handle, way_a, way_b, m, n, k, alpha, a, lda, step_a, b, ldb, step_b, beta, c, ldc, step_c, count):
            assert (alpha._obj.value, beta._obj.value) == (1, 0)
            self.calls.append((m, n, k, count))
            run = lambda: self.multiply(real, (way_a, way_b), m, n, k, a, lda, step_a, b, ldb, step_b, c, ldc, step_c, count)
            Builder.present.recorded.append(run) if self.stream == 8 else run()
            return 0
        return call

    @property
    def cublasSgemmStridedBatched(self):
        return self.of("float32")

    @property
    def cublasDgemmStridedBatched(self):
        return self.of("float64")


@pytest.fixture
def device(monkeypatch):
    """A device whose machine code is the text of its kernels."""
    def find(kernel, capability):
        code = json.dumps({"text": kernel.text, "types": kernel.types, "name": kernel.name, "barriers": kernel.has_barriers})
        return Cubin(code.encode(), "kernel", 16, 0, 0, 0, 0)

    monkeypatch.setattr(cubins, "find", find)
    found = runtime.CudaDevice(Core(), Driver(), lambda: blas.Cublas(Library()))
    monkeypatch.setattr(runtime, "device", lambda: found)
    return found


def test_the_first_call_launches_and_later_ones_replay(device, rng):
    x = T.tensor("x", (30, 40))
    f = sg.function([x], [T.softmax(x @ x.T), T.sum(x)], backend="cuda")
    reference = sg.function([x], [T.softmax(x @ x.T), T.sum(x)], backend="reference")
    first = None
    for _ in range(3):
        device.core.log.clear()
        a = rng.standard_normal((30, 40)).astype("f")
        for got, want in zip(f(a), reference(a)):
            assert_close(got, want, factor=16.0)
        first = first or list(device.core.log)
        assert device.core.log == first and first


def test_loops_are_recorded_with_their_copies(device, rng):
    x, h = T.tensor("x", (6, 3)), T.tensor("h", (3,))
    last = sg.scan(lambda e, s: T.tanh(s + e), sequences=[x], outputs_info=[h])[-1]
    f, g = (sg.function([x, h], last, backend=b) for b in ("cuda", "reference"))
    for _ in range(3):
        arrays = rng.standard_normal((6, 3)).astype("f"), rng.standard_normal(3).astype("f")
        assert_close(f(*arrays), g(*arrays), factor=16.0)


def test_parameters_and_results_on_the_device(device):
    w, x = sg.shared(np.zeros(4, "f"), "w"), T.tensor("x", (4,))
    step = sg.function([x], w * 2, updates={w: w + x}, backend="cuda", outputs_on_device=True)
    for k in range(3):
        result = step(np.ones(4, "f"))
        assert isinstance(result, DeviceArray) and np.array_equal(np.asarray(result), np.full(4, 2 * k, "f"))
        assert result.__cuda_array_interface__["stream"] == 7 and result.__cuda_array_interface__["shape"] == (4,)
    assert np.array_equal(w.get_value(), np.full(4, 3, "f"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ta, tb", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_matrix_products_are_left_to_the_library(device, ta, tb, dtype, rng):
    shapes = (3, 90, 70) if ta else (3, 70, 90), (3, 80, 90) if tb else (3, 90, 80)
    a, b, c = T.tensor("a", shapes[0], dtype), T.tensor("b", shapes[1], dtype), T.tensor("c", (80,), dtype)
    product = (T.transpose(a, (0, 2, 1)) if ta else a) @ (T.transpose(b, (0, 2, 1)) if tb else b)
    f, g = (sg.function([a, b, c], [T.relu(product + c), *sg.grad(T.sum(product ** 2), [a, b])], backend=k) for k in ("cuda", "reference"))
    for _ in range(2):
        arrays = [rng.standard_normal(s).astype(dtype) for s in (*shapes, (80,))]
        for got, want in zip(f(*arrays), g(*arrays)):
            assert_close(got, want, factor=32.0)
    assert len(device.library.library.calls) == 6 and all(call[3] == 3 for call in device.library.library.calls)


def test_what_the_library_cannot_do_is_done_in_tiles(device, rng):
    x, flag = T.tensor("x", (80, 80)), T.tensor("flag", (), "bool")
    y = sg.ifelse(flag, x @ x, x)                       # under a condition
    z = T.tensor("z", (40, 20, 20, 20))
    f = sg.function([x, flag], y, backend="cuda")
    g = sg.function([z], T.conv2d(z, T.ones((16, 20, 3, 3))), backend="cuda")
    a, b = rng.standard_normal((80, 80)).astype("f"), rng.standard_normal((40, 20, 20, 20)).astype("f")
    assert_close(f(a, True), a @ a, factor=32.0)
    g(b)
    assert not device.library.library.calls


def test_out_of_memory_says_how_much_was_asked_and_leaves_the_device_usable(device):
    x = T.tensor("x", (1000, 1000))
    f = sg.function([x], T.exp(x), backend="cuda")
    device.core.memory = 1 << 20
    with pytest.raises(sg.BackendError, match=r"7\.6 MiB on a stand-in for 1 kernels[\s\S]*3\.0 MiB of 80\.0 MiB are free"):
        f(np.zeros((1000, 1000), "f"))
    device.core.memory = 1 << 30
    assert f(np.zeros((1000, 1000), "f"))[0, 0] == 1


def test_errors_that_come_late_name_the_node(device):
    x = T.tensor("x", (10,))
    f = sg.function([x], T.exp(x), backend="cuda")
    f(np.zeros(10, "f"))
    device.core.breaks = True
    with pytest.raises(sg.BackendError, match=r"ILLEGAL_ADDRESS[\s\S]*k0: exp, made at [^\n]*test_runtime\.py"):
        f(np.zeros(10, "f"))


def test_a_machine_without_cuda_says_what_is_missing():
    code = """
import sys
for name in ("cuda", "numba_cuda"):
    sys.modules[name] = None                    # as if it were not installed
import symgrad as sg, symgrad.tensor as T
x = T.vector("x")
assert sg.function([x], x + 1)([1.0])[0] == 2
try:
    sg.function([x], x + 1, backend="cuda")
except sg.BackendError as error:
    assert "pip install 'symgrad[cuda]'" in str(error) and "cuda-emulated" in str(error), error
else:
    raise AssertionError("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_cpu_backend_touches_no_package_of_cuda():
    code = """
import sys
import symgrad as sg, symgrad.tensor as T
x = T.vector("x")
sg.function([x], T.exp(x))([1.0])
touched = [m for m in sys.modules if m.split(".")[0] in ("cuda", "numba_cuda", "nvmath") or m.startswith("symgrad.backends.cuda")]
assert not touched, touched
"""
    subprocess.run([sys.executable, "-c", code], check=True)
