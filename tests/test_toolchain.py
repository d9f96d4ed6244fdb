"""Kernel text to machine code: kernels, errors, the cache on disk, programs, the binder, plain Python."""

import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from kernel_numerics import call, values

from symgrad.backends.cpu import driver, toolchain
from symgrad.backends.cpu.driver import Binding, Branch, Call, Entry, Loop, assemble
from symgrad.backends.cpu.objects import CacheWarning, ObjectCache
from symgrad.backends.plain import run_text
from symgrad.base import progress
from symgrad.base.config import config
from symgrad.base.errors import CompileError

DOUBLE = """
def kernel(args):
    p0 = ptr_float32(args, 0)
    p1 = ptr_float32(args, 1)
    n0 = size(args, 2)
    for i0 in range(n0):
        p1[i0] = p0[i0] * lit_float32(2.0)
"""
FOUR_POINTERS = """
def kernel(args):
    p0 = ptr_float32(args, 0)
    p1 = ptr_float32(args, 1)
    p2 = ptr_float32(args, 2)
    p3 = ptr_float32(args, 3)
    n0 = size(args, 4)
    for i0 in range(n0):
        p3[i0] = exp_float32(p0[i0]) * p1[i0] + tanh_float32(p2[i0])
"""


@pytest.fixture(params=["numba", "reader"])
def front_end(request):
    """Each test that takes this runs with Numba's front end and with the dialect's own reader."""
    with config(front_end=request.param):
        yield request.param


both = pytest.mark.usefixtures("front_end")


# ---- kernels -----------------------------------------------------------------------------------------------

@both

def test_a_kernel_runs():
    x, y = np.arange(37, dtype=np.float32), np.zeros(37, np.float32)
    call(toolchain.compile_text(DOUBLE).address, [x, y, 37])
    np.testing.assert_array_equal(y, 2 * x)


@both
def test_kernels_compile_together_and_one_broken_one_is_named():
    texts = [(DOUBLE + f"# number {k}\n", f"number{k}") for k in range(5)]
    kernels = toolchain.compile_texts([*texts, texts[0]])
    assert [k.name for k in kernels[:5]] == [f"number{k}" for k in range(5)]
    assert kernels[5] is kernels[0]
    for kernel in kernels:
        x, y = np.arange(9, dtype=np.float32), np.zeros(9, np.float32)
        call(kernel.address, [x, y, 9])
        np.testing.assert_array_equal(y, 2 * x)
    with pytest.raises(CompileError, match="kernel 'wrong'"):
        toolchain.compile_texts([(DOUBLE + "# fine\n", "fine"),
                                 (DOUBLE.replace("p0[i0]", "p0[n1]"), "wrong")])


def test_the_same_text_is_the_same_kernel():
    assert toolchain.compile_text(DOUBLE) is toolchain.compile_text(DOUBLE, "another name")


@both
@pytest.mark.parametrize("text", [FOUR_POINTERS, DOUBLE], ids=["fused", "double"])
def test_loops_over_several_slots_vectorise_without_overlap_checks(text):
    ir_text, assembly = toolchain.assembly(text)
    assert "vector.body" in ir_text
    assert "memcheck" not in ir_text
    assert "call" not in assembly


@both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["acc_add", "acc_mul", "acc_maximum", "acc_minimum"])
def test_reductions_vectorise_and_keep_nan(dtype, name):
    start = {"acc_add": "0.0", "acc_mul": "1.0", "acc_maximum": '"-inf"', "acc_minimum": '"inf"'}[name]
    text = (f"def kernel(args):\n    p0 = ptr_{dtype}(args, 0)\n    p1 = ptr_{dtype}(args, 1)\n"
            f"    total = lit_{dtype}({start})\n    for i0 in range(size(args, 2)):\n"
            f"        total = {name}_{dtype}(total, p0[i0])\n    p1[0] = total\n")
    assert "vector.body" in toolchain.assembly(text)[0]
    numpy_function = {"acc_add": np.sum, "acc_mul": np.prod, "acc_maximum": np.max,
                      "acc_minimum": np.min}[name]
    x = np.random.default_rng(1).uniform(0.9, 1.1, 1003).astype(dtype)
    for poison in (None, 0, 500, 1002):
        if poison is not None:
            x[poison] = np.nan
        out = np.zeros(1, dtype)
        call(toolchain.compile_text(text).address, [x, out, x.size])
        np.testing.assert_allclose(out[0], numpy_function(x), rtol=1e-5)
        assert poison is None or np.isnan(out[0])
        x[:] = np.nan_to_num(x, nan=1.0)


@both
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint64", "bool"])
def test_pointers_of_each_width_move_and_store(dtype):
    text = (f"def kernel(args):\n    p0 = ptr_{dtype}(args, 0)\n"
            f"    p1 = advance(ptr_{dtype}(args, 1), size(args, 2))\n"
            f"    for i0 in range(3, 40, 4):\n        q = advance(p0, i0)\n        p1[i0 - 3] = q[1]\n"
            f"        p1[i0 - 2] = lit_{dtype}({'True' if dtype == 'bool' else '7'})\n")
    x = values(dtype, np.random.default_rng(3))[:64].copy()
    y, expected = np.zeros(64, dtype), np.zeros(64, dtype)
    call(toolchain.compile_text(text).address, [x, y, 5])
    for i in range(3, 40, 4):
        expected[5 + i - 3], expected[5 + i - 2] = x[i + 1], 7
    np.testing.assert_array_equal(y, expected)


@both
def test_one_slot_may_be_read_and_written_in_order():
    text = ("def kernel(args):\n    p0 = ptr_int64(args, 0)\n    for i0 in range(1, size(args, 1)):\n"
            "        p0[i0] = p0[i0] + p0[i0 - 1]\n")
    x = np.arange(100)
    expected = np.cumsum(x)
    call(toolchain.compile_text(text).address, [x, 100])
    np.testing.assert_array_equal(x, expected)


@both
def test_index_arithmetic_branches_and_reused_names():
    text = """
def kernel(args):
    p0 = ptr_int64(args, 0)
    p1 = ptr_float32(args, 1)
    n0 = size(args, 2)
    for i0 in range(n0):
        if i0 % 3 == 0 and i0 // 2 > 4 or i0 == 1:
            t = index_to_int64(i0)
            p0[i0] = t * 10 + min(i0, 7, n0) - max(i0, 9)
        else:
            t = lit_float32("-inf")
            p1[i0] = t
"""
    ints, floats = np.zeros(20, np.int64), np.zeros(20, np.float32)
    call(toolchain.compile_text(text).address, [ints, floats, 20])
    plain_ints, plain_floats = np.zeros(20, np.int64), np.zeros(20, np.float32)
    run_text(text, [plain_ints, plain_floats, 20])
    chosen = [i for i in range(20) if i % 3 == 0 and i // 2 > 4 or i == 1]
    np.testing.assert_array_equal(ints[chosen], [i * 10 + min(i, 7) - max(i, 9) for i in chosen])
    assert np.isneginf(np.delete(floats, chosen)).all() and not floats[chosen].any()
    np.testing.assert_array_equal(ints, plain_ints)
    np.testing.assert_array_equal(floats, plain_floats)


@both
@pytest.mark.parametrize("dtype, written, expected", [
    ("float32", "0.1", np.float32(0.1)), ("float32", '"nan"', np.float32("nan")),
    ("float32", "1e-45", np.float32(1e-45)),
    ("float64", '"-inf"', -np.inf), ("float64", "-0.0", -0.0), ("float64", "1e308", 1e308),
    ("int8", "-128", -128),
    ("int64", "-9223372036854775808", -2 ** 63), ("uint64", "18446744073709551615", 2 ** 64 - 1),
    ("bool", "True", True), ("bool", "False", False)])
def test_literals_are_rounded_once(dtype, written, expected):
    text = f"def kernel(args):\n    p0 = ptr_{dtype}(args, 0)\n    p0[0] = lit_{dtype}({written})\n"
    for run in (lambda out: call(toolchain.compile_text(text).address, [out]),
                lambda out: run_text(text, [out])):
        out = np.zeros(1, dtype)
        run(out)
        np.testing.assert_array_equal(out[0], np.dtype(dtype).type(expected))
        assert np.signbit(out[0]) == np.signbit(expected) if dtype.startswith("float") else True


@both
# ---- errors ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("body, cause, line", [
    ("p0[0] = exp_float64(p0[0])", "exp_float64: takes (float64), not (float32)", 3),
    ("p0[0] = expp_float32(p0[0])", "did you mean 'exp_float32'", None),
    ("p0[0] = lit_float64(1.0)", "setitem(Ptr(float32, 0)|cannot store float64 through", 3),
    ("p0[0] = ptr_float32(args, size(args, 1))[0]", "the slot of an argument is a literal integer", 3),
    ("p0[0] = = 1", "invalid syntax", 3),
    ("p0[0] = no_such", "'no_such', which does not exist|'no_such' before it has a value", None)])
def test_a_broken_kernel_says_what_and_where(body, cause, line):
    text = f"def kernel(args):\n    p0 = ptr_float32(args, 0)\n    {body}\n"
    with pytest.raises(CompileError) as caught:
        toolchain.compile_text(text, "broken")
    message = str(caught.value)
    assert message.startswith("kernel 'broken' does not compile")
    assert any(each in message for each in cause.split("|")), message
    assert f"   3      {body}" in message
    assert line is None or f">   {line}" in message
    assert isinstance(caught.value, RuntimeError)


# ---- the cache on disk -------------------------------------------------------------------------------------

KEY = "ab" * 32


def test_objects_come_back_as_they_went(tmp_path):
    cache = ObjectCache(tmp_path / "kernels")
    assert cache.load(KEY) is None
    cache.store(KEY, b"code")
    assert ObjectCache(tmp_path / "kernels").load(KEY) == b"code"


def test_the_cache_is_private(tmp_path):
    cache = ObjectCache(tmp_path / "kernels")
    cache.store(KEY, b"code")
    path = tmp_path / "kernels" / "ab" / f"{KEY}.o"
    assert [p.stat().st_mode & 0o777 for p in (path.parent.parent, path.parent, path)] == [0o700, 0o700,
                                                                                           0o600]
    path.chmod(0o666)
    with pytest.warns(CacheWarning, match="others may write"):
        assert cache.load(KEY) is None


@pytest.mark.parametrize("harm", [lambda b: b[:-1], lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:],
                                  lambda b: b"", lambda b: b + b"x"],
                         ids=["cut", "flipped", "emptied", "grown"])
def test_a_damaged_object_is_dropped(tmp_path, harm):
    cache = ObjectCache(tmp_path)
    cache.store(KEY, b"some machine code" * 10)
    path = tmp_path / "ab" / f"{KEY}.o"
    path.write_bytes(harm(path.read_bytes()))
    with pytest.warns(CacheWarning, match="damaged"):
        assert cache.load(KEY) is None
    assert not path.exists()


def test_a_folder_that_cannot_be_used_is_said_once_and_left_alone(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    cache = ObjectCache(tmp_path / "file" / "kernels")
    with pytest.warns(CacheWarning, match="cannot use"):
        cache.store(KEY, b"code")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.load(KEY) is None


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    with pytest.warns(CacheWarning, match="another user"):
        ObjectCache(tmp_path).store(KEY, b"code")
    assert not list(tmp_path.iterdir())


def test_the_least_recently_used_objects_are_pruned(tmp_path):
    cache = ObjectCache(tmp_path, limit=10_000)
    keys = [f"{k:02x}" * 32 for k in range(20)]
    for age, key in enumerate(keys):
        cache.store(key, bytes(1000))
        path = tmp_path / key[:2] / f"{key}.o"
        os.utime(path, (1e9 + age, 1e9 + age))
    assert cache.load(keys[0])                                # a use makes it young again
    cache.prune()
    kept = {path.stem for path in tmp_path.glob("*/*.o")}
    assert keys[0] in kept and keys[-1] in kept and keys[1] not in kept
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*.o")) <= 9_000


WARM = """
import sys, warnings
warnings.simplefilter("error")
from symgrad.backends.cpu import toolchain
assert not {"numba", "llvmlite"} & set(sys.modules)
kernel = toolchain.compile_text(%r)
import ctypes, numpy as np
x, y = np.full(5, 3.0, np.float32), np.zeros(5, np.float32)
table = np.array([x.ctypes.data, y.ctypes.data, 5])
ctypes.CFUNCTYPE(None, ctypes.c_void_p)(kernel.address)(table.ctypes.data)
from symgrad.backends.cpu.driver import assemble, run
run(assemble([]))
print(kernel.cached, "numba" in sys.modules, y.tolist())
"""


def test_a_second_process_needs_no_numba(tmp_path, front_end):
    text = DOUBLE.replace("* lit_float32(2.0)", "+ digamma_float32(gammaln_float32(p0[i0]))")
    environment = os.environ | {"SYMGRAD_CACHE_DIR": str(tmp_path), "SYMGRAD_FRONT_END": front_end}
    command = [sys.executable, "-c", WARM % text]
    lines = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
             for _ in range(2)]
    assert lines[0].startswith(f"False {front_end == 'numba'}") and lines[1].startswith("True False")
    assert lines[0].split("[")[1] == lines[1].split("[")[1]


def test_a_damaged_cache_never_gives_a_wrong_result(tmp_path):
    text = DOUBLE + "# damaged\n"
    with config(cache_dir=str(tmp_path)):
        toolchain.compile_text(text)
        for path in tmp_path.glob("*/*.o"):
            path.write_bytes(path.read_bytes()[:100])
        toolchain._kernels.clear()
        with pytest.warns(CacheWarning, match="damaged"):
            kernel = toolchain.compile_text(text)
    assert not kernel.cached
    x, y = np.ones(3, np.float32), np.zeros(3, np.float32)
    call(kernel.address, [x, y, 3])
    np.testing.assert_array_equal(y, 2)


# ---- programs ----------------------------------------------------------------------------------------------

APPEND = """
def kernel(args):
    p0 = ptr_int64(args, 0)
    p1 = ptr_int64(args, 1)
    p0[0] = p0[0] * 10 + p1[0]
"""
AT_LEAST_TWO = """
def kernel(args):
    p0 = ptr_int64(args, 0)
    p1 = ptr_bool(args, 1)
    p1[0] = ge_int64(p0[0], lit_int64(2))
"""


class Memory:
    """Cells of memory and argument tables that stay alive as long as this object."""

    def __init__(self) -> None:
        self.alive: list[np.ndarray] = []

    def cell(self, value, dtype=np.int64) -> np.ndarray:
        self.alive.append(np.array([value], dtype))
        return self.alive[-1]

    def call(self, text: str, *cells: np.ndarray) -> Call:
        table = np.array([at(c) for c in cells])
        self.alive.append(table)
        return Call(toolchain.compile_text(text).address, at(table))


def at(cell: np.ndarray) -> int:
    return cell.ctypes.data


@both
@pytest.mark.parametrize("taken", [True, False])
def test_programs_branch_loop_and_stop(taken):
    memory = Memory()
    log, count, counter, inner = memory.cell(0), memory.cell(5), memory.cell(-1), memory.cell(2)
    condition, stop = memory.cell(taken, bool), memory.cell(False, bool)
    three, four = memory.cell(3), memory.cell(4)
    program = assemble([
        Branch(at(condition), (memory.call(APPEND, log, three),), (memory.call(APPEND, log, four),)),
        Loop(at(count), at(counter), (memory.call(APPEND, log, counter),
                                      memory.call(AT_LEAST_TWO, counter, stop)), at(stop)),
        Loop(at(inner), at(memory.cell(0)), (Branch(at(stop), (memory.call(APPEND, log, three),)),)),
        Branch(at(condition), ()),
    ])
    driver.run(program)
    assert log[0] == (301233 if taken else 401233)
    assert counter[0] == 3                                     # turns 0, 1 and 2; the last one set the stop


@pytest.mark.parametrize("turns", [0, 1, 4])
def test_loops_leave_the_number_of_turns(turns):
    memory = Memory()
    count, counter, outer, log = memory.cell(turns), memory.cell(-1), memory.cell(2), memory.cell(0)
    body = Loop(at(count), at(counter), (memory.call(APPEND, log, counter),))
    driver.run(assemble([Loop(at(outer), at(memory.cell(0)), (body,))]))
    assert counter[0] == turns
    assert log[0] == int("".join(map(str, range(turns))) * 2 or 0)


# ---- the argument binder -----------------------------------------------------------------------------------

def entry_with_table(*bindings_of):
    table = np.zeros(8, np.int64)
    word = lambda k: table.ctypes.data + 8 * k
    return Entry([make(word) for make in bindings_of], assemble([])), table


FIRST = lambda word: Binding("float32", (2, None), (word(0), word(3)), sizes=((1, word(4)),))
SECOND = lambda word: Binding("int64", (None,), (word(1),), equal=((0, word(4)),))
THIRD = lambda word: Binding("bool", (), (word(2),))


@pytest.fixture(params=["native", "python"])
def bound(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(driver, "layout_is_known", lambda: False)
    entry, table = entry_with_table(FIRST, SECOND, THIRD)
    assert entry.native == (request.param == "native")
    return entry, table


def test_the_native_layout_is_known_here():
    assert driver.layout_is_known()


def test_good_arguments_reach_their_slots(bound):
    entry, table = bound
    arguments = np.zeros((2, 3), np.float32), np.zeros(3, np.int64), np.array(True)
    assert entry.call(*arguments) == 0
    addresses = [at(a) for a in arguments]
    assert table[:5].tolist() == [*addresses, addresses[0], 3]
    assert entry.call(arguments[0], np.zeros(3, np.longlong), arguments[2]) == 0


@pytest.mark.parametrize("position, wrong", [
    (0, np.zeros((2, 3))), (0, np.zeros((3, 3), np.float32)), (0, np.zeros((2, 3, 1), np.float32)),
    (0, np.zeros((3, 2), np.float32).T), (0, np.zeros((2, 6), np.float32)[:, ::2]),
    (0, [[1.0, 2.0, 3.0]] * 2), (0, None),
    (0, np.zeros((2, 3), ">f4")), (0, np.zeros((2, 3), np.float32).view(np.matrix)),
    (0, np.frombuffer(bytes(25), np.uint8)[1:].view(np.float32).reshape(2, 3)),
    (1, np.zeros(4, np.int64)), (1, np.zeros(3, np.uint64)), (1, np.zeros(3, "M8[s]")),
    (2, np.zeros(1, bool)), (2, True)])
def test_an_argument_that_does_not_fit_is_named(bound, position, wrong):
    arguments = [np.zeros((2, 3), np.float32), np.zeros(3, np.int64), np.array(True)]
    arguments[position] = wrong
    assert bound[0].call(*arguments) == 1 + position


def test_a_wrong_number_of_arguments_is_noticed(bound):
    good = np.zeros((2, 3), np.float32), np.zeros(3, np.int64), np.array(True)
    assert [bound[0].call(*good[:k]) for k in range(3)] == [1, 2, 3]
    assert bound[0].call(*good, 1) == 4


def test_binding_alone_takes_a_tuple():
    table = np.zeros(8, np.int64)
    spec = driver.specification([THIRD(lambda k: table.ctypes.data + 8 * k)])
    flag = np.array(False)
    assert driver.bind((flag,), spec) == 0 and table[2] == at(flag)
    assert driver.bind((1,), spec) == 1


def test_an_entry_keeps_its_memory_and_counts_no_references():
    entry, _ = entry_with_table(THIRD)
    call_it, flag = entry.call, np.array(True)
    del entry
    before = sys.getrefcount(flag)
    for _ in range(1000):
        assert call_it(flag) == 0
    assert sys.getrefcount(flag) == before


SPIN = """
def kernel(args):
    p0 = ptr_int64(args, 0)
    for i0 in range(size(args, 1)):
        for i1 in range(p0[0] % 2 + 1000):
            p0[0] = p0[0] * 3 + i1
"""


def test_an_entry_lets_other_threads_run_and_refuses_a_second_caller():
    memory = Memory()
    total = memory.cell(1)
    table = np.array([at(total), 300_000])
    entry = Entry([], assemble([Call(toolchain.compile_text(SPIN).address, at(table))]))
    answers = []
    thread = threading.Thread(target=lambda: answers.append(entry.call()))
    thread.start()
    seen = set()
    while thread.is_alive():                                # for the driver lets go of Python's lock
        seen.add(entry.call())
        if driver.BUSY in seen:
            break
    thread.join()
    assert answers == [0] and driver.BUSY in seen


# ---- plain Python ------------------------------------------------------------------------------------------

def test_plain_python_runs_the_same_text():
    rng = np.random.default_rng(0)
    x = [rng.normal(size=33).astype(np.float32) for _ in range(3)]
    compiled, plain = np.zeros(33, np.float32), np.zeros(33, np.float32)
    call(toolchain.compile_text(FOUR_POINTERS).address, [*x, compiled, 33])
    run_text(FOUR_POINTERS, [*x, plain, 33])
    np.testing.assert_allclose(plain, compiled, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(plain, np.exp(x[0]) * x[1] + np.tanh(x[2]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("body, error", [
    ("p0[-1] = lit_float32(1)", IndexError), ("p0[9] = lit_float32(1)", IndexError),
    ("p0[0] = lit_float64(1)", TypeError),
    ("p0[0] = exp_float64(p0[0])", TypeError), ("p0[0] = no_such_float32(p0[0])", NameError),
    ("advance(p0, -1)", IndexError)])
def test_plain_python_is_strict(body, error):
    with pytest.raises(error):
        run_text(f"def kernel(args):\n    p0 = ptr_float32(args, 0)\n    {body}\n", [np.zeros(9, np.float32)])


MICRO = """
mk0 = tile_micro("float32", 8, 2, 2, w_row=3, w_red=1, x_red=16, y_row=16)
def kernel(args):
    p0 = ptr_float32(args, 0)
    p1 = ptr_float32(args, 1)
    p2 = ptr_float32(args, 2)
    mk0(p0, p1, p2, 0, 3, 0)
"""


@both
def test_micro_kernels_are_called_by_name():
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(3, 16)).astype(np.float32), rng.normal(size=(2, 3)).astype(np.float32)
    y = np.zeros((2, 16), np.float32)
    call(toolchain.compile_text(MICRO).address, [x, w, y])
    np.testing.assert_allclose(y, w @ x, rtol=1e-5, atol=1e-6)


@both
def test_kernels_share_their_micro_kernels_on_disk(tmp_path):
    texts = [MICRO + f"    p2[{k}] = lit_float32(0.0)\n" for k in (0, 31)]
    objects = lambda: sorted(tmp_path.glob("*/*.o"))
    x, w = np.ones((3, 16), np.float32), np.ones((2, 3), np.float32)
    toolchain._present.clear()
    with config(cache_dir=str(tmp_path)):
        toolchain.compile_texts([(text, "kernel") for text in texts])
        assert len(objects()) == 3                                  # two kernels and one micro-kernel
        for missing in (None, *objects()):
            if missing:
                missing.unlink()
            toolchain._kernels.clear()
            toolchain._present.clear()
            again = toolchain.compile_texts([(text, "kernel") for text in texts])
            assert all(kernel.cached for kernel in again) == (missing is None)
            assert len(objects()) == 3
            for kernel, zero in zip(again, (0, 31)):
                y = np.zeros(32, np.float32)
                call(kernel.address, [x, w, y])
                np.testing.assert_array_equal(y, np.where(np.arange(32) == zero, 0, 3))


@both
@pytest.mark.parametrize("call_text", ["mk0(p0, p1, p2, 0, 3)", "mk0(p0, p1, 0, 0, 3, 0)", "mk0(p0, p1, p2, 0, 3, lit_float32(0.0))",
                                       "mk0(p0, p1, p2, 0, 3, 0, 0)"])
def test_a_micro_kernel_is_strict_about_its_arguments(call_text):
    with pytest.raises(CompileError, match="mk0.* takes 3 pointers and 3 indices"):
        toolchain.compile_text(MICRO.replace("mk0(p0, p1, p2, 0, 3, 0)", call_text))


@pytest.mark.parametrize("shown", [True, False])
def test_a_long_compilation_shows_a_bar_if_wanted(shown, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with config(progress="on" if shown else "off", cache_dir=None):
        toolchain.compile_texts([(DOUBLE + f"# bar {k} {os.getpid()}\n", "double") for k in range(3)])
    assert ("compiling kernels" in capsys.readouterr().err) == shown
