"""Attention and recurrent layers beside torch's with the same weights: values, and the gradients of inputs and parameters."""

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T

torch = pytest.importorskip("torch", reason="torch is not installed")
rng = np.random.default_rng(12)
BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def doubles():
    with sg.config(floatX="float64"):
        yield


def loaded(layer, module):
    """The layer with the values of the torch module: names, shapes and order are the same."""
    state = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    assert {name: p.get_value().shape for name, p in layer.params().items()} == {name: a.shape for name, a in state.items()}
    for name, p in layer.params().items():
        p.set_value(state[name])
    return layer


def agree(layer, module, ours, theirs, arrays, backend="reference"):
    """ours(layer, *variables) and theirs(module, *tensors) give lists of floats; so do the gradients of a random weighting of them."""
    xs = [T.tensor(f"x{k}", a.shape, a.dtype.name) for k, a in enumerate(arrays)]
    tensors = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    wanted = theirs(module, *tensors)
    outputs = ours(layer, *xs)
    weights = [rng.normal(size=tuple(y.shape)) for y in wanted]
    sum((y * torch.tensor(w)).sum() for y, w in zip(wanted, weights)).backward()
    wrt = [x for x in xs if x.dtype == "float64"] + list(layer.params().values())
    gradients = sg.grad(sum(((y * w).sum() for y, w in zip(outputs, weights)), 0.0), wrt)
    values = sg.function(xs, [*outputs, *gradients], backend=backend)(*arrays)
    slopes = [t.grad for t in tensors if t.requires_grad] + [dict(module.named_parameters())[name].grad for name in layer.params()]
    for got, want in zip(values, [*wanted, *slopes]):
        np.testing.assert_allclose(got, want.detach().numpy(), rtol=1e-9, atol=1e-11)


# ------------------------------------------------------------------------------------------ attention
def attention(batch_first=True, **options):
    module = torch.nn.MultiheadAttention(8, 2, batch_first=batch_first, dtype=torch.float64, **options)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_()
    return loaded(sg.nn.MultiHeadAttention(8, 2, batch_first=batch_first, **options), module), module


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_to_another_sequence(batch_first, backend):
    layer, module = attention(batch_first)
    query, memory = rng.normal(size=(3, 5, 8)), rng.normal(size=(3, 7, 8) if batch_first else (7, 5, 8))
    agree(layer, module, lambda f, q, m: list(f(q, m, need_weights=True)), lambda f, q, m: list(f(q, m, m)), [query, memory], backend)


def test_self_attention_gives_one_result_and_may_stand_in_sequential():
    layer, module = attention()
    x = rng.normal(size=(2, 5, 8))
    agree(sg.nn.Sequential([layer])[0], module, lambda f, x: [sg.nn.Sequential([f])(x)], lambda f, x: [f(x, x, x)[0]], [x])


def test_attention_without_a_batch_and_per_head():
    layer, module = attention(bias=False)
    ours = lambda f, x: list(f(x, need_weights=True, average_attn_weights=False))
    agree(layer, module, ours, lambda f, x: list(f(x, x, x, average_attn_weights=False)), [rng.normal(size=(5, 8))])


def test_keys_and_values_of_other_widths():
    layer, module = attention(kdim=6, vdim=3)
    arrays = [rng.normal(size=(2, 4, 8)), rng.normal(size=(2, 5, 6)), rng.normal(size=(2, 5, 3))]
    agree(layer, module, lambda f, q, k, v: [f(q, k, v)], lambda f, q, k, v: [f(q, k, v)[0]], arrays)


MASKS = {
    "bool": dict(attn_mask=rng.random((5, 5)) < 0.3), "float": dict(attn_mask=rng.normal(size=(5, 5))),
    "per head": dict(attn_mask=rng.random((4, 5, 5)) < 0.3), "padding": dict(key_padding_mask=np.array([[False] * 5, [False, False, True, False, True]])),
    "both": dict(attn_mask=np.triu(np.full((5, 5), -np.inf), 1), key_padding_mask=np.array([[0.0] * 5, [0, 0, 0, 0, -np.inf]])),
}
for masks in MASKS.values():            # a place that sees nothing is NaN, in torch too
    if masks.get("attn_mask", MASKS["float"]["attn_mask"]).dtype == bool:
        masks["attn_mask"][..., 0] = False


@pytest.mark.parametrize("kind", MASKS)
def test_attention_masks(kind):
    layer, module = attention()
    masks = MASKS[kind]
    theirs = lambda f, x: list(f(x, x, x, **{k: torch.tensor(m) for k, m in masks.items()}))
    agree(layer, module, lambda f, x: list(f(x, need_weights=True, **masks)), theirs, [rng.normal(size=(2, 5, 8))])


def test_causal_attention_sees_no_later_place():
    layer, module = attention()
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    agree(layer, module, lambda f, x: [f(x, is_causal=True)], lambda f, x: [f(x, x, x, attn_mask=later)[0]], [rng.normal(size=(2, 5, 8))])


def test_attention_drops_places_while_training_only():
    layer = sg.nn.MultiHeadAttention(8, 2, dropout=0.5, batch_first=True, rng=0)
    x = T.tensor("x", (16, 20, 8))
    weights = lambda **mode: layer(x, need_weights=True, average_attn_weights=False, **mode)[1]
    kept, dropped = sg.function([x], [weights(), weights(training=True)])(rng.normal(size=(16, 20, 8)))
    np.testing.assert_allclose(kept.sum(-1), 1)
    assert abs((dropped == 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(dropped.size)
    np.testing.assert_allclose(dropped[dropped > 0], 2 * kept[dropped > 0])


def test_heads_must_divide_the_features():
    with pytest.raises(ValueError, match="heads=3 must divide n=8"):
        sg.nn.MultiHeadAttention(8, 3)


# ------------------------------------------------------------------------------------------ embedding
def test_the_padding_row_of_an_embedding_is_zero_and_stays():
    layer, index = sg.nn.Embedding(6, 3, padding_idx=-2, rng=0), np.array([[1, 4, 0], [4, -2, 1]])
    module = torch.nn.Embedding(6, 3, padding_idx=-2, dtype=torch.float64)
    np.testing.assert_array_equal(layer.w.get_value()[4], 0)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(layer.w.get_value()))
    x, weights = T.matrix("x", "int64"), rng.normal(size=(2, 3, 3))
    got = sg.function([x], [layer(x), sg.grad((layer(x) * weights).sum(), layer.w)], backend="reference")(index)
    rows = module(torch.tensor(index % 6))
    (rows * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(got[0], rows.detach().numpy())
    np.testing.assert_allclose(got[1], module.weight.grad.numpy())
    with pytest.raises(ValueError, match="none of 6 rows"):
        sg.nn.Embedding(6, 3, padding_idx=6)


# ------------------------------------------------------------------------------------------ recurrent
KINDS = {"RNN": {}, "RNN relu": {"nonlinearity": "relu"}, "GRU": {}, "LSTM": {}}


def recurrent(kind, **options):
    name, options = kind.split()[0], {**KINDS[kind], **options}
    module = getattr(torch.nn, name)(3, 4, dtype=torch.float64, **options)
    return loaded(getattr(sg.nn, name)(3, 4, **options), module), module


def results(answer):
    """(rows, last) or (rows, (h, c)) as a list."""
    rows, last = answer
    return [rows, *(last if isinstance(last, tuple) else [last])]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_layers(kind, backend):
    layer, module = recurrent(kind)
    agree(layer, module, lambda f, x: results(f(x)), lambda f, x: results(f(x)), [rng.normal(size=(5, 2, 3))], backend)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_deep_recurrent_layers_both_ways_from_given_states(kind):
    layer, module = recurrent(kind, num_layers=2, bidirectional=True, batch_first=True)
    states = [rng.normal(size=(4, 2, 4)) for _ in range(2 if kind == "LSTM" else 1)]
    start = lambda s: tuple(s) if kind == "LSTM" else s[0]
    run = lambda f, x, *s: results(f(x, start(s)))
    agree(layer, module, run, run, [rng.normal(size=(2, 5, 3)), *states])


@pytest.mark.parametrize("options", [dict(bias=False), dict(bidirectional=True)])
def test_recurrent_layers_without_bias_and_without_a_batch(options):
    layer, module = recurrent("GRU", **options)
    agree(layer, module, lambda f, x: results(f(x)), lambda f, x: results(f(x)), [rng.normal(size=(5, 3))])


def test_sequences_of_any_length_and_batches_of_any_size():
    layer, module = recurrent("LSTM", batch_first=True)
    x = T.tensor("x", ("batch", "length", 3))
    f = sg.function([x], layer(x)[0], backend="reference")
    for shape in ((2, 5, 3), (4, 1, 3)):
        a = rng.normal(size=shape)
        np.testing.assert_allclose(f(a), module(torch.tensor(a))[0].detach().numpy(), rtol=1e-9)


def test_dropout_between_layers_differs_from_step_to_step_and_spares_the_last():
    layer = sg.nn.RNN(3, 64, num_layers=2, dropout=0.5, rng=0)
    for name, p in layer.params().items():              # nothing is remembered, so equal rows give equal rows
        if name.startswith("weight_hh"):
            p.set_value(np.zeros_like(p.get_value()))
    x = T.tensor("x", (6, 8, 3))
    plain, trained = sg.function([x], [layer(x)[0], layer(x, training=True)[0]], backend="reference")(np.ones((6, 8, 3)))
    np.testing.assert_allclose(plain, np.broadcast_to(plain[0, 0], plain.shape))
    assert len(np.unique(trained.reshape(48, 64), axis=0)) == 48 and (trained != 0).all()


def test_recurrent_layers_save_load_and_name_their_parameters(tmp_path):
    layer = sg.nn.LSTM(3, 4, num_layers=2, rng=0)
    assert list(layer.params())[:4] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    sg.nn.save(layer, tmp_path / "lstm.safetensors")
    other = sg.nn.load(sg.nn.LSTM(3, 4, num_layers=2, rng=1), tmp_path / "lstm.safetensors")
    for name, p in layer.params().items():
        np.testing.assert_array_equal(other.params()[name].get_value(), p.get_value())
    assert repr(layer) == "LSTM(3, 4, num_layers=2)"
    limit = 1 / np.sqrt(4)
    assert all(np.abs(p.get_value()).max() <= limit for p in layer.params().values())
