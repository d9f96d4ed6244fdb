"""Compiled functions: structures, arguments, updates, sizes, pickling, checks, threads, ownership of results."""

from __future__ import annotations

import gc
import pickle
import threading
import warnings
import weakref

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T

V = np.array([1, -1, 2], "float32")


def f32(*values):
    return np.array(values, "float32")


# ------------------------------------------------------------------------------------------- structures
def test_results_have_the_structure_of_the_outputs(backend):
    x = T.vector("x")
    make = lambda outputs: sg.function([x], outputs, backend=backend)(V)
    one = make(x * 2)
    assert isinstance(one, np.ndarray) and one.dtype == np.float32 and one.tolist() == [2, -2, 4]
    as_list, as_tuple, as_dict = make([x * 2, x + 1]), make((x * 2,)), make({"double": x * 2, "more": x + 1})
    assert isinstance(as_list, list) and [r.tolist() for r in as_list] == [[2, -2, 4], [2, 0, 3]]
    assert isinstance(as_tuple, tuple) and len(as_tuple) == 1
    assert list(as_dict) == ["double", "more"] and as_dict["more"].tolist() == [2, 0, 3]


def test_no_outputs_and_no_inputs(backend):
    w = sg.shared(f32(1, 2), "w")
    step = sg.function([], None, updates={w: w * 2}, backend=backend)
    assert step() is None and w.get_value().tolist() == [2, 4]
    assert sg.function([], w + 1, backend=backend)().tolist() == [3, 5]
    assert sg.function([], T.constant(3.0), backend=backend)() == 3


def test_scalars_are_zero_dimensional_arrays(backend):
    x = T.scalar("x")
    y = sg.function([x], x * 2, backend=backend)(1.5)
    assert isinstance(y, np.ndarray) and y.shape == () and y.dtype == np.float32 and float(y) == 3


def test_a_constant_and_the_same_output_twice(backend):
    x = T.vector("x")
    y = x * 2
    a, b, c = sg.function([x], [y, T.constant(V), y], backend=backend)(V)
    a[0] = 99
    assert c.tolist() == [2, -2, 4] and b.tolist() == V.tolist()


# -------------------------------------------------------------------------------------------- arguments
def test_arguments_by_position_name_and_both(backend):
    x, y = T.vector("x"), T.vector("y")
    f = sg.function([x, y], x - 2 * y, backend=backend)
    for got in (f(V, V + 1), f(V, y=V + 1), f(x=V, y=V + 1), f(y=V + 1, x=V)):
        assert got.tolist() == (V - 2 * (V + 1)).tolist()


@pytest.mark.parametrize("call, message", [
    (lambda f: f(V), "no value for y"), (lambda f: f(), "no value for x, y"), (lambda f: f(V, V, V), "takes 2"),
    (lambda f: f(V, x=V), "x given twice"), (lambda f: f(V, z=V), "z="), (lambda f: f(V, yy=V), "did you mean 'y'"),
])
def test_missing_extra_and_misnamed_arguments(call, message, backend):
    x, y = T.vector("x"), T.vector("y")
    f = sg.function([x, y], x + y, backend=backend, name="plus")
    with pytest.raises(sg.MissingInputError, match=message) as caught:
        call(f)
    assert "plus(x, y)" in str(caught.value) and isinstance(caught.value, ValueError)


def test_safe_conversions_are_made(backend):
    x, k = T.vector("x", "float64"), T.vector("k", "int32")
    f = sg.function([x, k], x + k, backend=backend)
    for a in (V, V.astype("i4"), V.astype("int8"), [1, -1, 2], (1.0, -1.0, 2.0), V.astype(">f4"), np.float64([1, -1, 2])):
        for b in (np.int16([1, 2, 3]), np.uint8([1, 2, 3]), [1, 2, 3], np.array([True, True, False])):
            want = np.asarray(a, "float64") + np.asarray(b)
            assert f(a, b).tolist() == want.tolist()


def test_lossy_conversions_are_refused(backend):
    x, k, b = T.vector("x"), T.vector("k", "int32"), T.vector("b", "bool")
    fx, fk, fb = (sg.function([v], [v], backend=backend) for v in (x, k, b))
    for f, bad in ((fx, V.astype("f8")), (fx, V.astype("i8")), (fx, V.astype("complex64")), (fk, V), (fk, np.int64([1])),
                   (fk, [1.5]), (fb, np.int8([1])), (fx, ["a"]), (fx, [None]), (fk, [2**40])):
        with pytest.raises(sg.DTypeError) as caught:
            f(bad)
        assert isinstance(caught.value, TypeError)


def test_python_numbers_are_weak(backend):
    x = T.vector("x")
    f = sg.function([x], x * 3, backend=backend)
    assert f([0.1, 0.2]).dtype == np.float32
    small = T.scalar("k", dtype="uint8")
    g = sg.function([small], small + 1, backend=backend)
    assert g(200) == 201 and g(200).dtype == np.uint8
    with pytest.raises(sg.DTypeError):
        g(-1)


def test_views_of_any_layout_are_taken(backend):
    m = T.matrix("m")
    f = sg.function([m], m * 2 + 1, backend=backend)
    base = np.arange(48, dtype="f").reshape(6, 8)
    unaligned = np.frombuffer(b"x" + base.tobytes(), np.uint8)[1:].view("f").reshape(6, 8)
    frozen = base.copy()
    frozen.flags.writeable = False
    for a in (base, base.T, base[::2], base[:, ::-1], base[1:, 3:], np.asfortranarray(base), unaligned, frozen,
              np.broadcast_to(base[0], (3, 8)), base[:0], base[:, :0]):
        np.testing.assert_array_equal(f(a), a * 2 + 1)


def test_wrong_rank_and_wrong_fixed_size(backend):
    x = T.tensor("x", (None, 4))
    f = sg.function([x], x * 2, backend=backend)
    for bad in (np.zeros(4, "f"), np.zeros((2, 3), "f"), np.zeros((2, 4, 1), "f"), np.float32(1)):
        with pytest.raises(sg.ShapeError, match="x") as caught:
            f(bad)
        assert isinstance(caught.value, ValueError) and __file__ in str(caught.value)
    with pytest.raises(sg.ShapeError):
        f([[1, 2, 3, 4], [1, 2]])


def test_a_symbolic_argument_is_refused(backend):
    x = T.vector("x")
    with pytest.raises(sg.DTypeError, match="symbolic"):
        sg.function([x], x * 2, backend=backend)(x)


# --------------------------------------------------------------------------------------- what was asked
def test_unused_inputs():
    x, y = T.vector("x"), T.vector("y")
    with pytest.raises(sg.UnusedInputError, match="y "):
        sg.function([x, y], x * 2, backend="reference")
    assert sg.function([x, y], x * 2, backend="reference", on_unused_input="ignore")(V, V).tolist() == [2, -2, 4]
    with pytest.warns(UserWarning, match="y "):
        sg.function([x, y], x * 2, backend="reference", on_unused_input="warn")
    with pytest.raises(sg.SymgradError, match="on_unused_input"):
        sg.function([x, y], x * 2, on_unused_input="maybe")


def test_an_input_that_only_decides_a_size_is_used(backend):
    x = T.vector("x")
    assert sg.function([x], T.zeros_like(x) + 1, backend=backend)(V).tolist() == [1, 1, 1]
    assert int(sg.function([x], x.shape[0] * 2, backend=backend)(V)) == 6


def test_missing_inputs_are_named_with_their_line():
    x, hidden = T.vector("x"), T.vector("hidden")
    with pytest.raises(sg.MissingInputError, match="hidden") as caught:
        sg.function([x], x + hidden)
    assert f"{__file__}:" in str(caught.value)


def test_duplicate_and_foreign_inputs():
    x = T.vector("x")
    with pytest.raises(sg.UnusedInputError, match="twice"):
        sg.function([x, x], x * 2)
    for wrong in (x * 2, sg.shared(V), 3, "x"):
        with pytest.raises(sg.DTypeError, match="inputs"):
            sg.function([wrong], x * 2)


@pytest.mark.parametrize("keyword", ["mode", "allow_input_downcast", "on_unused_inputs", "profile"])
def test_unknown_keywords_raise(keyword):
    x = T.vector("x")
    with pytest.raises(sg.SymgradError, match=keyword):
        sg.function([x], x, **{keyword: 1})


def test_an_unknown_backend_lists_the_known_ones():
    x = T.vector("x")
    with pytest.raises(sg.BackendError, match="did you mean 'cpu'"):
        sg.function([x], x, backend="cpus")


# ----------------------------------------------------------------------------------- updates and givens
def test_updates_follow_the_outputs_and_read_old_values(backend):
    a, b = sg.shared(f32(1, 2), "a"), sg.shared(f32(10, 20), "b")
    f = sg.function([], [a, b], updates=[(a, b), (b, a)], backend=backend)
    before = f()
    assert [r.tolist() for r in before] == [[1, 2], [10, 20]]
    assert a.get_value().tolist() == [10, 20] and b.get_value().tolist() == [1, 2]
    f()
    assert a.get_value().tolist() == [1, 2]
    assert [r.tolist() for r in before] == [[1, 2], [10, 20]], "results belong to the caller"


def test_updates_are_all_or_none():
    a, b = sg.shared(f32(1, 2), "a"), sg.shared(f32(1, 2), "b")
    x = T.vector("x", dtype="int64")
    f = sg.function([x], None, updates={a: a * 2, b: b + a[x]}, backend="reference")
    with pytest.raises(sg.SymgradError):
        f(np.array([0, 7]))
    assert a.get_value().tolist() == [1, 2] and b.get_value().tolist() == [1, 2]


def test_bad_updates_are_refused():
    a, x = sg.shared(f32(1, 2), "a"), T.vector("x")
    with pytest.raises(sg.DTypeError, match="float64"):
        sg.function([], None, updates={a: a.astype("float64")})
    with pytest.raises(sg.ShapeError, match="shape"):
        sg.function([], None, updates={a: T.concatenate([a, a])})
    with pytest.raises(sg.DTypeError, match="shared"):
        sg.function([x], x, updates={x: x * 2})
    with pytest.raises(sg.SymgradError, match="twice"):
        sg.function([], None, updates=[(a, a * 2), (a, a * 3)])


def test_an_update_of_unknown_size_is_checked_at_the_call(backend):
    a, x = sg.shared(f32(1, 2), "a"), T.vector("x")
    f = sg.function([x], None, updates={a: x}, backend=backend)
    f(f32(5, 6))
    assert a.get_value().tolist() == [5, 6]
    with pytest.raises(sg.ShapeError):
        f(f32(1, 2, 3))
    assert a.get_value().tolist() == [5, 6]


def test_an_update_does_not_alias_its_argument(backend):
    a, x = sg.shared(f32(1, 2, 3), "a"), T.tensor("x", (3,))
    f = sg.function([x], x, updates={a: x}, backend=backend)
    argument = V.copy()
    out = f(argument)
    argument[0], out[1] = 50, 60
    assert a.get_value().tolist() == V.tolist()


def test_givens_replace_inputs_shared_and_inner_variables(backend):
    x, z = T.vector("x"), T.vector("z")
    w = sg.shared(f32(2, 2, 2), "w")
    h = x * w
    y = T.exp(h) + h
    run = lambda ins, givens, *args: sg.function(ins, y, givens=givens, backend=backend)(*args)
    for got, h_value in ((run([z], {x: z + 1}, V), 2 * (V + 1)), (run([], {x: V}), 2 * V), (run([z], {h: z}, V), V),
                         (run([x], [(w, T.constant(f32(0, 0, 0)))], V), 0 * V), (run([x, z], {w: z, x: x}, V, V), V * V)):
        np.testing.assert_allclose(got, np.exp(h_value) + h_value, rtol=1e-5)


def test_givens_of_another_dtype_or_rank_are_refused():
    x = T.vector("x")
    for wrong in (T.vector("d", "float64"), T.matrix("m"), T.vector("i", "int32")):
        with pytest.raises(sg.DTypeError, match="givens"):
            sg.function([wrong], x * 2, givens={x: wrong})


# ------------------------------------------------------------------------------------------------ shared
def test_shared_values_copy_and_borrow():
    array = f32(1, 2, 3)
    copied, borrowed = sg.shared(array), sg.shared(array, borrow=True)
    array[0] = 9
    assert copied.get_value()[0] == 1 and borrowed.get_value()[0] == 9
    value = copied.get_value()
    value[0] = 100
    assert copied.get_value()[0] == 1
    assert copied.get_value(borrow=True) is copied.get_value(borrow=True)


def test_set_value_is_seen_by_compiled_functions_and_checked(backend):
    w = sg.shared(f32(1, 2, 3), "w")
    f = sg.function([], w * 2, backend=backend)
    w.set_value([4, 5, 6])
    assert f().tolist() == [8, 10, 12]
    w.set_value(np.int8([1, 1, 1]))
    assert f().tolist() == [2, 2, 2]
    with pytest.raises(sg.ShapeError, match="w"):
        w.set_value(f32(1, 2))
    other = sg.shared(np.arange(3))
    with pytest.raises(sg.DTypeError):
        other.set_value(np.array([0.5, 1, 2]))
    assert f().tolist() == [2, 2, 2]


def test_shared_keeps_dtype_and_rank():
    assert sg.shared(np.float32(3)).dtype == "float32" and sg.shared(np.float32(3)).ndim == 0
    assert sg.shared(3.0).dtype == "float32" and sg.shared([1, 2]).dtype == "int64" and sg.shared(np.float64(1)).dtype == "float64"
    assert sg.shared(np.arange(6, dtype=">f4").reshape(2, 3).T).get_value().tolist() == [[0, 3], [1, 4], [2, 5]]
    with pytest.raises(sg.DTypeError):
        sg.shared(T.vector("x"))
    with pytest.raises(sg.DTypeError):
        sg.shared(np.array(["a"]))


# ------------------------------------------------------------------------------------------------- sizes
def test_named_sizes_must_agree(backend):
    x, y = T.tensor("x", ("n", 2)), T.tensor("y", ("n",))
    f = sg.function([x, y], x.sum(axis=1) * y, backend=backend)
    assert f(np.ones((3, 2), "f"), V).tolist() == (2 * V).tolist()
    with pytest.raises(sg.ShapeError, match="'n'"):
        f(np.ones((4, 2), "f"), V)


def test_unknown_sizes_that_the_graph_takes_to_be_equal_are_checked(backend):
    x, y = T.vector("first"), T.vector("second")
    f = sg.function([x, y], x + y, backend=backend)
    with pytest.raises(sg.ShapeError) as caught:
        f(V, np.zeros(4, "f"))
    assert "first" in str(caught.value) and "second" in str(caught.value) and __file__ in str(caught.value)


def test_a_size_of_one_found_at_the_call_is_told_apart_from_a_declared_one(backend):
    x, y = T.vector("x"), T.tensor("y", (1,))
    assert sg.function([x, y], x + y, backend=backend)(V, f32(1)).tolist() == (V + 1).tolist()
    x, y = T.vector("x"), T.vector("y")
    with pytest.raises(sg.ShapeError, match="declared as 1"):
        sg.function([x, y], x + y, backend=backend)(V, f32(1))


def test_many_sizes_compile_few_programs():
    x = T.matrix("x")
    f = sg.function([x], T.tanh(x).sum(axis=1) * 2, backend="cpu")
    for n in range(1, 40):
        a = np.linspace(-1, 1, 3 * n, dtype="f").reshape(n, 3)
        np.testing.assert_allclose(f(a), np.tanh(a).sum(axis=1) * 2, rtol=2e-5, atol=2e-6)
    executable = f.executable
    assert len(executable.programs) + (executable.generic is not None) <= 5


def test_sizes_are_values_in_the_graph(backend):
    x = T.tensor("x", (None, 3))
    assert isinstance(x.shape[0], sg.Variable) and x.shape[0].dtype == "int64" and x.shape[1] == 3 and isinstance(x.shape[1], int)
    f = sg.function([x], [x.shape[0], x.sum() / x.shape[0], x.size], backend=backend)
    n, mean, size = f(np.ones((4, 3), "f"))
    assert n == 4 and n.dtype == np.int64 and mean == 3 and size == 12


def test_empty_arrays(backend):
    x = T.matrix("x")
    f = sg.function([x], [x * 2, x.sum(), x.sum(axis=0), T.exp(x).prod(axis=1)], backend=backend)
    for shape in ((0, 3), (3, 0), (0, 0)):
        a, b, c, d = f(np.zeros(shape, "f"))
        assert a.shape == shape and b == 0 and c.tolist() == [0] * shape[1] and d.tolist() == [1] * shape[0]


def test_a_negative_size_is_refused(backend):
    n = T.scalar("n", dtype="int64")
    f = sg.function([n], T.zeros((n,)) + 1, backend=backend)
    assert f(3).tolist() == [1, 1, 1]
    with pytest.raises(sg.SymgradError, match="-2|negative") as caught:
        f(-2)
    assert __file__ in str(caught.value)


def test_an_allocation_no_machine_can_make_is_refused(backend):
    n = T.scalar("n", dtype="int64")
    f = sg.function([n], T.zeros((n, n)) + n.astype("float32"), backend=backend)
    with pytest.raises((sg.SymgradError, MemoryError)) as caught:
        f(2**31)
    assert __file__ in str(caught.value)


# --------------------------------------------------------------------------------------- errors at the run
def test_an_index_out_of_range_names_the_line(backend):
    x, k = T.vector("x"), T.vector("k", dtype="int64")
    f = sg.function([x, k], x[k] * 2, backend=backend)
    assert f(V, [0, -1]).tolist() == [2, 4]
    for bad in ([3], [-4], [0, 2**40]):
        with pytest.raises(IndexError) as caught:
            f(V, bad)
        assert isinstance(caught.value, sg.SymgradError) and f"{__file__}:" in str(caught.value)


def test_nan_check_names_the_first_op(backend):
    x = T.vector("x")
    y = T.log(x) * 2
    f = sg.function([x], y.sum(), check="nan", backend=backend)
    assert np.isfinite(f(f32(1, 2, 3)))
    with pytest.raises(sg.NanError, match="log") as caught:
        f(V)
    line = test_nan_check_names_the_first_op.__code__.co_firstlineno + 2
    assert f"{__file__}:{line}" in str(caught.value) and "index (1,)" in str(caught.value)
    assert isinstance(caught.value, FloatingPointError)


@pytest.mark.parametrize("shape", [(3,), (None,)])
def test_nan_check_stops_updates_whatever_is_known_of_the_sizes(backend, shape):
    x, w = T.tensor("x", shape), sg.shared(V, "w")
    f = sg.function([x], None, updates={w: w + T.log(x)}, check="nan", backend=backend)
    with pytest.raises(sg.NanError, match="log"):
        f(V)
    assert w.get_value().tolist() == V.tolist()
    f(np.ones(3, "f"))


def test_nan_check_finds_infinities_and_gradients():
    x = T.vector("x")
    with pytest.raises(sg.NanError, match="inf"):
        sg.function([x], 1 / x, check="nan", backend="reference")(f32(0, 1))
    f = sg.function([x], sg.grad(T.sqrt(x).sum(), x), check="nan", backend="reference")
    with pytest.raises(sg.NanError):
        f(f32(0, 1))


def test_reference_check_passes_on_right_kernels_and_catches_wrong_ones():
    x = T.matrix("x")
    f = sg.function([x], T.softmax(x @ x.T, axis=1), check="reference", backend="cpu")
    f(np.linspace(-1, 1, 12, dtype="f").reshape(3, 4))

    class Wrong:
        backend = "reference"

        def __call__(self, arrays):
            return [arrays[0] * 2.01]
    y = sg.function([x], x * 2, check="reference", backend="reference")
    y.executable.executable = Wrong()
    with pytest.raises(sg.BackendError, match="multiply"):
        y(np.ones((2, 2), "f"))


def test_an_unknown_check_is_refused():
    x = T.vector("x")
    with pytest.raises(sg.SymgradError, match="check="):
        sg.function([x], x * 2, check="everything")


# ----------------------------------------------------------------------------------------- ownership
def test_results_never_alias_arguments_parameters_or_each_other(backend):
    x, w = T.tensor("x", (2, 3)), sg.shared(np.arange(6, dtype="f").reshape(2, 3), "w")
    y = x * 2
    outputs = [x, x.T, x.reshape((3, 2)), x[0], x[:, ::-1], w, w.T, w[1:], w.reshape((6,)), y, y, y.T, y.reshape((6,)), y[0],
               T.constant(np.ones((2, 2), "f")), T.broadcast_to(x[0], (4, 3)), sg.stop_gradient(x), x.astype("float32"), x + 0]
    f = sg.function([x], outputs, updates={w: w + 1}, backend=backend)
    argument = np.arange(6, dtype="f").reshape(2, 3)
    results = f(argument)
    held = w.get_value(borrow=True)
    for k, r in enumerate(results):
        assert r.flags.writeable, k
        assert not np.shares_memory(r, argument), k
        assert not np.shares_memory(r, held), k
        for j in range(k):
            assert not np.shares_memory(r, results[j]), (j, k)
        r[...] = -1
    assert argument.tolist() == [[0, 1, 2], [3, 4, 5]] and w.get_value().tolist() == [[1, 2, 3], [4, 5, 6]]
    again = f(argument)
    assert again[0].tolist() == argument.tolist() and again[14].tolist() == [[1, 1], [1, 1]]


def test_results_of_earlier_calls_stay_as_they_are(backend):
    x = T.tensor("x", (200, 200))
    f = sg.function([x], [x + 1, x * 2], backend=backend)
    base = np.ones((200, 200), "f")
    kept = [f(base * k) for k in range(6)]
    views = [f(base * k)[0][3] for k in range(6)]
    for k in range(6):
        assert (kept[k][0] == k + 1).all() and (kept[k][1] == 2 * k).all() and (views[k] == k + 1).all()


def test_arguments_are_never_written(backend):
    x = T.tensor("x", (3,))
    y = T.set_subtensor(x[0], 7.0)
    argument = V.copy()
    assert sg.function([x], T.exp(y) - T.exp(y) + y, backend=backend)(argument).tolist() == [7, -1, 2]
    assert argument.tolist() == V.tolist()


# ---------------------------------------------------------------------------------- copy, pickle, threads
def training_step(backend):
    x, w = T.vector("x"), sg.shared(f32(1, 2, 3), "w")
    loss = ((x * w) ** 2).sum()
    return w, sg.function([x], {"loss": loss}, updates={w: w - 0.5 * sg.grad(loss, w)}, backend=backend, name="step")


def test_a_copy_has_its_own_parameters(backend):
    w, f = training_step(backend)
    g = f.copy()
    first = g(V)
    assert w.get_value().tolist() == [1, 2, 3]
    assert f(V)["loss"] == first["loss"] and g(V)["loss"] != first["loss"]
    assert [s.name for s in g.shared()] == ["w"] and g.shared()[0] is not w


def test_pickling_keeps_parameters_structure_and_names(backend):
    w, f = training_step(backend)
    f(V)
    g = pickle.loads(pickle.dumps(f))
    assert repr(g) == repr(f) and g.name == "step" and f.shared()[0].get_value().tolist() == g.shared()[0].get_value().tolist()
    for _ in range(3):
        a, b = f(V), g(x=V)
        assert list(a) == list(b) == ["loss"] and a["loss"] == b["loss"]
    np.testing.assert_array_equal(w.get_value(), g.shared()[0].get_value())


def test_pickling_keeps_unknown_sizes_constants_and_shared_structure():
    x, y = T.tensor("x", ("n", None)), T.vector("y")
    h = T.softmax(x @ T.constant(np.eye(3, dtype="f") * 2), axis=-1)
    f = sg.function([x, y], (h, h.sum(axis=0) + y, x.shape[0], T.arange(x.shape[0])), backend="reference")
    g = pickle.loads(pickle.dumps(f))
    for n in (2, 5):
        args = np.linspace(0, 1, 3 * n, dtype="f").reshape(n, 3), V
        for a, b in zip(f(*args), g(*args)):
            np.testing.assert_array_equal(a, b)


def test_pickles_and_copies_continue_the_random_stream_by_themselves(backend):
    rng = sg.random.RandomStream(5)
    x = T.tensor("x", (3,))
    f = sg.function([x], x + rng.normal((3,)), backend=backend)
    f(V)
    others = [f.copy(), pickle.loads(pickle.dumps(f))]
    want = [f(V).tolist() for _ in range(3)]
    assert want[0] != want[1]
    for g in others:
        assert [g(V).tolist() for _ in range(3)] == want


def test_branches_and_checkpoints_pickle(backend):
    x, c = T.tensor("x", (3,)), T.scalar("c", dtype="bool")
    y = sg.ifelse(c, sg.checkpoint(lambda v: T.tanh(v * 2))(x), x * 3)
    f = sg.function([x, c], [y, sg.grad(y.sum(), x)], backend=backend)
    g = pickle.loads(pickle.dumps(f))
    for flag in (True, False):
        for a, b in zip(f(V, flag), g(V, flag)):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(f(V, True)[1], 2 * (1 - np.tanh(2 * V) ** 2), rtol=1e-4)


@pytest.mark.parametrize("check", ["nan", "reference"])
def test_checks_see_the_same_draws_and_branches(backend, check):
    rng = sg.random.RandomStream(5)
    x, c = T.tensor("x", (3,)), T.scalar("c", dtype="bool")
    y = sg.ifelse(c, T.exp(x), x) + rng.uniform((3,))
    plain, checked = (sg.function([x, c], y, backend=backend, check=k).copy() for k in (None, check))
    for flag in (True, False, True):
        np.testing.assert_array_equal(plain(V, flag), checked(V, flag))


def test_nan_check_looks_at_the_branch_that_runs(backend):
    x, c = T.tensor("x", (3,)), T.scalar("c", dtype="bool")
    f = sg.function([x, c], sg.ifelse(c, T.log(x), x), check="nan", backend=backend)
    assert f(V, False).tolist() == V.tolist()
    with pytest.raises(sg.NanError, match="log"):
        f(V, True)


def test_functions_and_parameters_are_freed(backend):
    def once():
        x, w = T.tensor("x", (4,)), sg.shared(np.ones(4, "f"))
        f = sg.function([x], sg.grad(T.softmax(x * w).sum(), [x, w]), backend=backend)
        f(np.ones(4, "f"))
        return weakref.ref(f), weakref.ref(w)
    refs = once()
    gc.collect()
    assert [r() for r in refs] == [None, None]


def test_a_variable_does_not_pickle_and_says_what_does():
    with pytest.raises(TypeError, match="compiled function"):
        pickle.dumps(T.vector("x"))


def test_one_function_in_many_threads(backend):
    x = T.tensor("x", (50, 40))
    f = sg.function([x], [T.tanh(x @ x.T), x.sum(axis=0)], backend=backend)
    wrong = []

    def work(seed):
        a = np.random.default_rng(seed).standard_normal((50, 40)).astype("f")
        for _ in range(20):
            p, q = f(a)
            if not (np.allclose(p, np.tanh(a @ a.T), atol=1e-4) and np.allclose(q, a.sum(axis=0), atol=1e-4)):
                wrong.append(seed)
    threads = [threading.Thread(target=work, args=(s,)) for s in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_updates_in_many_threads_are_not_lost(backend):
    w = sg.shared(np.int64(0), "w")
    f = sg.function([], None, updates={w: w + 1}, backend=backend)
    threads = [threading.Thread(target=lambda: [f() for _ in range(50)]) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert w.get_value() == 200


# ------------------------------------------------------------------------------------------------- eval
def test_eval(backend):
    with sg.config(backend=backend):
        x, w = T.vector("x"), sg.shared(V)
        assert (x * 2 + w).eval({x: V}).tolist() == (V * 3).tolist()
        assert (w * 2).eval().tolist() == (V * 2).tolist()
        assert T.constant(2.0).eval() == 2
        h = x * 2
        assert (h + 1).eval({h: V}).tolist() == (V + 1).tolist(), "values of inner variables may be given"
        with pytest.raises(sg.MissingInputError, match="x"):
            (x * 2).eval()


def test_eval_compiles_once():
    x = T.vector("x")
    y = T.exp(x)
    from symgrad.runtime import function as module
    y.eval({x: V}, backend="reference") if "backend" in y.eval.__code__.co_varnames else y.eval({x: V})
    before = len(module._eval_cache)
    y.eval({x: V + 1})
    assert len(module._eval_cache) <= before + 1
    after = len(module._eval_cache)
    for _ in range(3):
        y.eval({x: V + 2})
    assert len(module._eval_cache) == after


# --------------------------------------------------------------------------------------------- settings
def test_settings_by_attribute_and_context():
    assert sg.config.floatX == "float32"
    with sg.config(floatX="float64"):
        assert T.vector("x").dtype == "float64" and T.zeros((2,)).dtype == "float64" and sg.shared(1.0).dtype == "float64"
        with sg.config(floatX="float32"):
            assert T.scalar().dtype == "float32"
        assert T.scalar().dtype == "float64"
    assert T.vector("x").dtype == "float32"
    with pytest.raises(ZeroDivisionError), sg.config(floatX="float64"):
        raise ZeroDivisionError
    assert sg.config.floatX == "float32"


def test_unknown_settings_and_values_are_refused():
    with pytest.raises(AttributeError, match="did you mean 'floatX'"):
        sg.config.floatx = "float64"
    with pytest.raises(AttributeError):
        _ = sg.config.nothing_of_the_kind
    for name, value in (("floatX", "float16"), ("num_threads", 0), ("debug", "loud"), ("allow_tf32", "perhaps")):
        with pytest.raises(sg.SymgradError, match=name):
            setattr(sg.config, name, value)
    with pytest.raises(AttributeError), sg.config(nonsense=1):
        pass


def test_settings_come_from_the_environment():
    import os
    import subprocess
    import sys
    code = "import symgrad as sg; print(sg.config.floatX, sg.config.backend, sg.config.num_threads, sg.config.allow_winograd)"
    env = {**os.environ, "SYMGRAD_FLOATX": "float64", "SYMGRAD_backend": "reference", "SYMGRAD_NUM_THREADS": "3", "SYMGRAD_ALLOW_WINOGRAD": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["float64", "reference", "3", "False"]
    bad = subprocess.run([sys.executable, "-c", code], env={**os.environ, "SYMGRAD_NUM_THREADS": "many"}, capture_output=True, text=True)
    assert bad.returncode and "num_threads" in bad.stderr


def test_the_default_backend_follows_the_setting():
    x = T.vector("x")
    with sg.config(backend="reference"):
        assert sg.function([x], x * 2).backend == "reference"
    assert sg.function([x], x * 2).backend == sg.config.backend


# ----------------------------------------------------------------------------------------- looking inside
def test_source_explain_and_profile():
    x = T.tensor("x", (40, 30))
    f = sg.function([x], T.softmax(T.tanh(x) * 2, axis=1), backend="cpu", name="look")
    assert "def kernel" in f.source() and "tanh" in f.source()
    assert "kernel" in f.explain() and "tanh" in f.explain()
    table = str(f.profile(np.ones((40, 30), "f")))
    assert "GB/s" in table and "tanh" in table
    assert repr(f) == "<look(x) on cpu>"


def test_no_warnings_from_ordinary_use(backend):
    x = T.matrix("x")
    y = T.log(x).sum() / 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sg.function([x], [y, sg.grad(y, x)], backend=backend)(np.zeros((2, 2), "f"))


def test_arrays_stay_on_the_left_of_operators(backend):
    """An array before a variable gives one variable, not an object array of variables."""
    x = T.vector("x")
    y = V * x + np.float32(2) - np.maximum(V, x)
    assert isinstance(y, sg.Variable)
    assert sg.function([x], y, backend=backend)(V).tolist() == (V * V + 2 - V).tolist()
