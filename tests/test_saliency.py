"""Saliency methods against slow NumPy copies of their papers, and pictures against what went in."""

import os
import struct
import zlib

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.saliency import font, image, png

# formulas are checked op by op, which compiles nothing; SYMGRAD_BACKEND=cpu checks the kernels as well
CHOSEN = dict(backend=os.environ.get("SYMGRAD_BACKEND", "reference"))
RELUS = {
    "named": lambda x: T.relu(x),
    "maximum": lambda x: T.maximum(x, 0),
    "product": lambda x: x * (x > 0),
    "where": lambda x: T.where(x > 0, x, 0),
    "clip": lambda x: T.clip(x, 0, np.inf),
}


@pytest.fixture
def rng():
    return np.random.default_rng(0x5EED)


@pytest.fixture
def weights(rng):
    return [rng.normal(size=shape).astype("float32") for shape in ((6, 8), (8, 7), (7, 3))]


def network(x, weights, relu=RELUS["named"]):
    """Two hidden layers and a linear one: (n, 6) -> (n, 3)."""
    hidden = relu(relu(x @ weights[0]) @ weights[1])
    return hidden @ weights[2]


def plain_rule(g, x):
    return g * (x > 0)


def guided_rule(g, x):
    return g * (x > 0) * (g > 0)


def deconv_rule(g, x):
    return np.maximum(g, 0)


def by_hand(data, weights, rule, target):
    """The map of one score of each row, layer by layer from the output, with a rule at each ReLU."""
    first = data @ weights[0]
    second = np.maximum(first, 0) @ weights[1]
    g = np.broadcast_to(weights[2][:, target], (len(data), 7))
    return rule(rule(g, second) @ weights[1].T, first) @ weights[0].T


def run(output, x, data):
    # without pooling a deconvnet map does not depend on the image at all
    return sg.function([x], output, on_unused_input="ignore", **CHOSEN)(data)


@pytest.mark.parametrize("spelling", RELUS)
@pytest.mark.parametrize("method, rule", [("gradient", plain_rule), ("guided_backprop", guided_rule),
                                          ("deconvnet", deconv_rule)])
def test_maps_are_those_of_the_papers(method, rule, spelling, weights, rng):
    data = rng.normal(size=(1, 6)).astype("float32")
    x = T.matrix("x", shape=(1, 6))
    heat = sg.saliency.METHODS[method](network(x, weights, RELUS[spelling])[0, 1], x)
    np.testing.assert_allclose(run(heat, x, data), by_hand(data, weights, rule, 1), rtol=1e-4, atol=1e-5)


def test_a_score_per_image_gives_a_map_per_image(weights, rng):
    data = rng.normal(size=(4, 6)).astype("float32")
    x = T.matrix("x", shape=(None, 6))
    heat = sg.saliency.guided_backprop(network(x, weights)[:, 2], x)
    expected = by_hand(data, weights, guided_rule, 2)
    np.testing.assert_allclose(run(heat, x, data), expected, rtol=1e-4, atol=1e-5)


def test_input_x_gradient_of_a_bias_free_relu_network_is_complete(weights, rng):
    data = rng.normal(size=(1, 6)).astype("float32")
    x = T.matrix("x", shape=(1, 6))
    score = network(x, weights)[0, 0]                 # homogeneous of degree 1: x . gradient = score (Euler)
    total, value = run([T.sum(sg.saliency.input_x_gradient(score, x)), score], x, data)
    np.testing.assert_allclose(total, value, rtol=1e-4)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_a_model_without_relus_is_refused(method):
    x = T.vector("x")
    with pytest.raises(sg.UnusedOverrideError):
        sg.saliency.METHODS[method](T.sum(T.tanh(x)), x)


def test_receipts_name_the_rule_and_count_the_relus(weights):
    x = T.matrix("x", shape=(1, 6))
    receipt = sg.receipt(sg.saliency.guided_backprop(network(x, weights)[0, 0], x))
    assert receipt.name == "guided_backprop" and receipt.counts == {"guided": 2}


POINTS = np.array([-2, -0.5, 0.5, 2], "float32")
COTANGENTS = np.array([[1, -3, 1, -3], [3, 1, -3, 1]], "float32")
ON = POINTS > 0
RULES = {
    "guided_backprop": lambda g: g * ON * (g > 0),
    "deconvnet": lambda g: np.maximum(g, 0),
    "straight_through": lambda g: g,
    "clipped": lambda g: np.clip(g * ON, -1, 1),
    "smooth": lambda g: g / (1 + np.exp(-10.0 * POINTS)),
    "rectified": lambda g: g * (POINTS * g > 0),
}


@pytest.mark.parametrize("name", sg.saliency.rules.RULE_SETS)
@pytest.mark.parametrize("cotangent", COTANGENTS, ids=["first", "second"])
def test_rule_is_its_formula(name, cotangent):
    x = T.vector("x")
    heat = sg.grad(T.sum(T.relu(x) * cotangent), x, overrides=sg.saliency.rules.RULE_SETS[name])
    np.testing.assert_allclose(run(heat, x, POINTS), RULES[name](cotangent), rtol=1e-4, atol=1e-6)


def test_overrides_leave_the_score_alone(weights, rng):
    data = rng.normal(size=(1, 6)).astype("float32")
    x = T.matrix("x", shape=(1, 6))
    score = network(x, weights)[0, 0]
    together, alone = run([score, sg.saliency.guided_backprop(score, x)], x, data)[0], run(score, x, data)
    assert together == alone


def test_integrated_gradients_sum_to_the_difference_of_scores(rng):
    x, data = T.vector("x", shape=(5,)), rng.normal(size=5).astype("float32")
    baseline = np.full(5, 0.3, "float32")
    score = lambda v: T.sum(T.exp(v) * T.sin(3 * v))
    heat = sg.saliency.integrated_gradients(score(x), x, baseline=baseline, steps=12)
    expected = np.exp(data) * np.sin(3 * data) - np.exp(baseline) * np.sin(3 * baseline)
    np.testing.assert_allclose(run(heat, x, data), expected, rtol=1e-3, atol=1e-4)


def test_integrated_gradients_take_other_methods(weights, rng):
    data = rng.normal(size=(1, 6)).astype("float32")
    x = T.matrix("x", shape=(1, 6))
    score = network(x, weights)[0, 1]
    heat = sg.saliency.integrated_gradients(score, x, steps=3, method=sg.saliency.guided_backprop)
    # along the line from zero the same ReLUs are on, so every point has the map of the image
    expected = data * by_hand(data, weights, guided_rule, 1)
    np.testing.assert_allclose(run(heat, x, data), expected, rtol=1e-4, atol=1e-5)


def test_grad_cam_weighs_features_by_mean_gradients(rng):
    w, v = rng.normal(size=(4, 2, 3, 3)).astype("float32"), rng.normal(size=(4, 6, 6)).astype("float32")
    data = rng.normal(size=(1, 2, 8, 8)).astype("float32")
    x = T.tensor("x", data.shape)
    features = T.conv2d(x, w)
    score = T.sum(features * v)
    cam, values = run([sg.saliency.grad_cam(score, x, features, resize=False), features], x, data)
    expected = np.maximum((v.mean((1, 2))[:, None, None] * values[0]).sum(0), 0)
    np.testing.assert_allclose(cam[0], expected, rtol=1e-4, atol=1e-5)
    large = run(sg.saliency.grad_cam(score, x, features), x, data)
    np.testing.assert_allclose(large[0], image.resize(expected, (8, 8)), rtol=1e-4, atol=1e-5)


def test_guided_grad_cam_is_the_product(rng):
    w, v = rng.normal(size=(4, 2, 3, 3)).astype("float32"), rng.normal(size=(4, 6, 6)).astype("float32")
    data = rng.normal(size=(1, 2, 8, 8)).astype("float32")
    x = T.tensor("x", data.shape)
    features = T.relu(T.conv2d(x, w))
    score = T.sum(features * v)
    maps = [sg.saliency.guided_grad_cam(score, x, features), sg.saliency.guided_backprop(score, x),
            sg.saliency.grad_cam(score, x, features)]
    both, guided, cam = run(maps, x, data)
    np.testing.assert_allclose(both, guided * cam[:, None], rtol=1e-4, atol=1e-5)


def test_smoothgrad_is_the_mean_of_maps_of_noisy_images(weights, rng):
    data = rng.normal(size=(1, 6)).astype("float32")
    x, stream = T.matrix("x", shape=(1, 6)), sg.random.RandomStream(4)
    heat = sg.saliency.smoothgrad(network(x, weights)[0, 1], x, samples=5, noise=0.3, stream=stream)
    noise = sg.random.RandomStream(4).normal((5, 1, 6))
    drawn = sg.function([], noise, **CHOSEN)()
    expected = np.mean([by_hand(data + 0.3 * np.ptp(data) * z, weights, plain_rule, 1) for z in drawn], axis=0)
    first, second = (sg.function([x], heat, **CHOSEN) for _ in range(2))
    np.testing.assert_allclose(first(data), expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(second(data), expected)      # the stream has moved on


def rescale_by_hand(data, baseline, weights, target):
    """DeepLIFT's rescale rule, layer by layer: the multipliers of the inputs times their differences."""
    sums, references = [data @ weights[0]], [baseline @ weights[0]]
    for w in weights[1:]:
        sums.append(np.maximum(sums[-1], 0) @ w)
        references.append(np.maximum(references[-1], 0) @ w)
    m = weights[2][:, target]
    for w, z, z0 in zip(weights[1::-1], sums[1::-1], references[1::-1]):
        m = w @ (m * ((np.maximum(z, 0) - np.maximum(z0, 0)) / (z - z0))[0])
    return m * (data - baseline)


@pytest.mark.parametrize("spelling", RELUS)
def test_deep_lift_is_the_rescale_rule(spelling, weights, rng):
    data, baseline = (rng.normal(size=(1, 6)).astype("float32") for _ in range(2))
    x = T.matrix("x", shape=(1, 6))
    heat = sg.saliency.deep_lift(network(x, weights, RELUS[spelling])[0, 1], x, baseline=baseline)
    np.testing.assert_allclose(run(heat, x, data), rescale_by_hand(data, baseline, weights, 1), rtol=1e-4, atol=1e-5)


def convolutional(rng, activation):
    layers = [sg.nn.Conv2D(2, 4, 3, activation=activation, rng=rng, bias_init=sg.nn.init.normal(0.3)), sg.nn.MaxPool2D(2),
              sg.nn.Conv2D(4, 3, 2, activation=activation, rng=rng), sg.nn.MaxPool2D(2, 1), sg.nn.Flatten(), sg.nn.Dense(12, 3, rng=rng)]
    return sg.nn.Sequential(layers)


@pytest.mark.parametrize("activation", [T.relu, T.tanh, T.softplus])
def test_deep_lift_adds_up_to_the_change_of_the_score_through_pooling(activation, rng):
    model, x = convolutional(rng, activation), T.tensor("x", (2, 2, 10, 10))
    data, baseline = rng.normal(size=(2, 2, 10, 10)).astype("float32"), rng.normal(size=(2, 10, 10)).astype("float32")
    score = model(x)[:, 1]
    heat, scores = run([sg.saliency.deep_lift(score, x, baseline=baseline), score], x, data)
    before = run(score, x, np.broadcast_to(baseline, data.shape))
    np.testing.assert_allclose(heat.sum((1, 2, 3)), scores - before, rtol=1e-3, atol=1e-4)


def test_deep_lift_of_equal_values_falls_back_to_the_derivative(weights, rng):
    x, data = T.matrix("x", shape=(1, 6)), rng.normal(size=(1, 6)).astype("float32")
    same = data.copy()
    same[0, 0] += 1
    heat = run(sg.saliency.deep_lift(network(x, weights)[0, 1], x, baseline=data), x, same)
    assert np.isfinite(heat).all() and (heat[0, 1:] == 0).all()
    assert np.isfinite(run(sg.saliency.deep_lift(network(x, weights)[0, 1], x, baseline=data), x, data)).all()


def relevance(data, weights, biases, target, favoured, epsilon):
    """Relevance passed down layer by layer, R_i = x_i sum_j w_ij R_j / z_j. What the bias adds to z_j keeps its share."""
    activations = [data]
    for w, b in zip(weights, biases):
        activations.append(np.maximum(activations[-1] @ w + b, 0))
    activations[-1] = activations[-2] @ weights[-1] + biases[-1]
    r = np.zeros_like(activations[-1])
    r[0, target] = activations[-1][0, target]
    for layer in range(len(weights) - 1, -1, -1):
        x, w, b = activations[layer], weights[layer], biases[layer]
        z = x @ w + b
        if favoured is None:                            # epsilon rule: z with its bias, stabilised below a ReLU
            stable = z + epsilon * np.where(z >= 0, 1, -1) if layer < len(weights) - 1 else z
            r = x * ((r / np.where(r == 0, 1, stable)) @ w.T)
        else:                                           # the products' part of z, shared by the favoured weights
            part = r * np.where(z == 0, 0, (x @ w) / np.where(z == 0, 1, z))
            shared = x @ favoured(w)
            r = x * ((part / (shared + epsilon * np.where(shared >= 0, 1, -1))) @ favoured(w).T)
    return r


@pytest.mark.parametrize("rule, favoured, options", [
    ("epsilon", None, {"epsilon": 0.2}), ("gamma", lambda w: w + 0.5 * np.maximum(w, 0), {"gamma": 0.5, "epsilon": 0.01}),
    ("zplus", lambda w: np.maximum(w, 0), {"epsilon": 0.01})])
def test_lrp_passes_relevance_down(rule, favoured, options, weights, rng):
    data, x = rng.uniform(0.1, 1, size=(1, 6)).astype("float32"), T.matrix("x", shape=(1, 6))
    biases = [rng.normal(size=w.shape[1]).astype("float32") for w in weights]
    h = x
    for w, b in zip(weights[:-1], biases[:-1]):
        h = T.relu(h @ w + b)
    score = (h @ weights[-1] + biases[-1])[0, 1]
    expected = relevance(data.astype("f8"), weights, biases, 1, favoured, options["epsilon"])
    np.testing.assert_allclose(run(sg.saliency.lrp(score, x, rule=rule, **options), x, data), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "zplus"])
def test_lrp_of_a_convolutional_network_without_biases_keeps_the_score(rule, rng):
    layers = [sg.nn.Conv2D(2, 4, 3, bias=False, activation=T.relu, rng=rng), sg.nn.MaxPool2D(2),
              sg.nn.Conv2D(4, 5, 3, bias=False, activation=T.relu, rng=rng), sg.nn.GlobalAvgPool(), sg.nn.Dense(5, 3, bias=False, rng=rng)]
    x, data = T.tensor("x", (1, 2, 10, 10)), rng.uniform(0, 1, size=(1, 2, 10, 10)).astype("float32")
    score = T.max(sg.nn.Sequential(layers)(x))
    heat, value = run([sg.saliency.lrp(score, x, rule=rule), score], x, data)
    np.testing.assert_allclose(heat.sum(), value, rtol=1e-3)


def test_lrp_refuses_unknown_rules(weights):
    x = T.matrix("x", shape=(1, 6))
    with pytest.raises(ValueError, match="epsilon, gamma, zplus"):
        sg.saliency.lrp(network(x, weights)[0, 0], x, rule="magic")


@pytest.mark.parametrize("batch", [100, 4])
@pytest.mark.parametrize("stride", [None, (2, 3)])
def test_occlusion_covers_every_window(batch, stride, rng):
    model, x = convolutional(rng, T.relu), T.tensor("x", (2, 2, 10, 10))
    data = rng.normal(size=(2, 2, 10, 10)).astype("float32")
    score = model(x)[:, 1]
    heat = run(sg.saliency.occlusion(score, x, window=(4, 3), stride=stride, baseline=0.5, batch=batch), x, data)
    f = sg.function([x], score, **CHOSEN)
    total, seen = np.zeros((2, 10, 10)), np.zeros((10, 10))
    down, right = stride or (2, 1)
    for i in sorted({*range(0, 6, down), 6}):
        for j in sorted({*range(0, 7, right), 7}):
            covered = data.copy()
            covered[:, :, i:i + 4, j:j + 3] = 0.5
            total[:, i:i + 4, j:j + 3] += (f(data) - f(covered))[:, None, None]
            seen[i:i + 4, j:j + 3] += 1
    assert heat.shape == data.shape
    np.testing.assert_allclose(heat, np.broadcast_to((total / seen)[:, None], data.shape), rtol=1e-3, atol=1e-5)


def test_occlusion_needs_known_sizes():
    x = T.tensor("x", (1, 1, None, 8))
    with pytest.raises(sg.ShapeError, match="declare the sizes"):
        sg.saliency.occlusion(T.sum(x), x)


def test_grad_cam_finds_the_last_feature_maps(rng):
    x = T.tensor("x", (1, 2, 8, 8))
    first = sg.nn.Conv2D(2, 4, 3, rng=rng)(x)
    last = T.relu(sg.nn.Conv2D(4, 3, 3, rng=rng)(T.relu(first)))
    score = sg.nn.Dense(3, 2, rng=rng)(T.mean(last, axis=(2, 3)))[0, 1]
    data = rng.normal(size=(1, 2, 8, 8)).astype("float32")
    found, chosen = run([sg.saliency.grad_cam(score, x), sg.saliency.grad_cam(score, x, last)], x, data)
    np.testing.assert_array_equal(found, chosen)
    with pytest.raises(ValueError, match="pass features="):
        sg.saliency.grad_cam(T.sum(T.tanh(T.sum(x, axis=(2, 3)))), x)


# pictures

def test_normalise_keeps_zero_and_sign():
    heat = np.array([[-4, 0], [1, 2.0]])
    np.testing.assert_allclose(image.normalise(heat, percentile=100), heat / 4)
    np.testing.assert_array_equal(image.normalise(np.zeros((2, 2))), np.zeros((2, 2)))
    assert image.normalise(np.r_[np.ones(999), 50].reshape(20, 50), percentile=99).max() == 1


def test_normalise_sums_channels_in_every_layout(rng):
    heat = rng.normal(size=(3, 4, 5))
    flat = heat.sum(0)
    for layout in (heat, heat[None], np.moveaxis(heat, 0, -1), flat):
        np.testing.assert_allclose(image.flat_map(layout), flat)


def test_maps_with_nan_and_maps_of_many_images_are_refused():
    with pytest.raises(ValueError, match="1 values that are NaN"):
        image.normalise(np.array([[np.nan, 1]]))
    with pytest.raises(ValueError, match="found"):
        image.normalise(np.zeros((2, 3, 4, 4)))


def test_colours_are_blue_white_red():
    blue, white, red = image.colours(np.array([-1.0, 0.0, 1.0]))
    np.testing.assert_array_equal(white, [1, 1, 1])
    assert blue[2] > blue[0] and red[0] > red[2]


def test_overlay_of_nothing_is_the_grey_photo(rng):
    photo = rng.uniform(size=(6, 4, 3))
    grey = photo @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(image.overlay(photo, np.zeros((3, 2))), np.repeat(grey[..., None], 3, -1))


def test_resize_averages_areas_and_keeps_constants():
    ramp = np.arange(6.0).reshape(1, 6)
    thirds = np.array([[1, 5, 10, 14]]) / 3           # 1.5 pixels each
    np.testing.assert_allclose(image.resize(ramp, (1, 4)), thirds)
    np.testing.assert_allclose(image.resize(np.ones((3, 5, 2)), (7, 2)), np.ones((7, 2, 2)))
    np.testing.assert_allclose(image.resize(np.array([[0.0, 4.0]]), (1, 4)), [[0, 1, 3, 4]])


def test_picture_takes_bytes_and_normalised_inputs(rng):
    pixels = rng.integers(0, 256, size=(4, 5, 3), dtype="uint8")
    np.testing.assert_allclose(image.picture(pixels), pixels / 255)
    np.testing.assert_allclose(image.picture(np.array([[[[-1.0, 3.0]]]])), [[[0, 0, 0], [1, 1, 1]]])


def test_grid_places_panels_below_titles():
    panels = [[np.full((4, 6, 3), 0.25), np.full((4, 6, 3), 0.5)], [np.full((4, 6, 3), 0.75)]]
    canvas = image.grid(panels, titles=["a", "long title"], labels=["7"], scale=2, gap=3)
    for shade in (0.25, 0.5, 0.75):
        assert (canvas == shade).all(-1).sum() == 8 * 12
    ink = (canvas == 0).all(-1)
    assert ink[:3 + font.HEIGHT].sum() == font.bitmap("a").sum() + font.bitmap("long title").sum()
    assert ink.sum() == ink[:3 + font.HEIGHT].sum() + font.bitmap("7").sum()


def test_every_glyph_is_seven_rows_and_its_own():
    assert all(len(rows) == font.HEIGHT for rows in font.GLYPHS.values())
    assert len(set(font.GLYPHS.values())) == len(font.GLYPHS)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
def test_png_round_trip(shape, rng, tmp_path):
    pixels = rng.integers(0, 256, size=shape, dtype="uint8")
    png.write_png(pixels, tmp_path / "a.png")
    np.testing.assert_array_equal(png.decode_png((tmp_path / "a.png").read_bytes()).reshape(shape), pixels)
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    np.testing.assert_array_equal(np.asarray(pillow.open(tmp_path / "a.png")), pixels)


def test_png_reader_undoes_every_filter(rng):
    """Each row is filtered by another of the five kinds, as section 9.2 of the specification defines them."""
    pixels = rng.integers(0, 256, size=(5, 6, 3), dtype="uint8").astype(int)
    rows, above = [], np.zeros(18, int)
    for kind, row in enumerate(pixels.reshape(5, 18)):
        left, corner = np.r_[[0] * 3, row[:-3]], np.r_[[0] * 3, above[:-3]]
        estimate = left + above - corner
        nearest = np.argmin([abs(estimate - left), abs(estimate - above), abs(estimate - corner)], axis=0)
        paeth = np.choose(nearest, [left, above, corner])
        guess = [0 * left, left, above, (left + above) // 2, paeth][kind]
        rows.append(bytes([kind]) + ((row - guess) % 256).astype("uint8").tobytes())
        above = row
    header = struct.pack(">IIBBBBB", 6, 5, 8, 2, 0, 0, 0)
    number = lambda n: struct.pack(">I", n)
    chunk = lambda kind, body: number(len(body)) + kind + body + number(zlib.crc32(kind + body))
    pixel_data = zlib.compress(b"".join(rows))
    data = png.SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", pixel_data) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(png.decode_png(data), pixels)
    with pytest.raises(ValueError, match="damaged"):
        png.decode_png(data[:-20] + b"x" + data[-19:])


def test_read_image_lays_transparency_on_white(tmp_path, monkeypatch):
    png.write_png(np.array([[[255, 0, 0, 0], [255, 0, 0, 255]]], "uint8"), tmp_path / "a.png")
    with_pillow = png.read_image(tmp_path / "a.png")
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    for picture in (with_pillow, png.read_image(tmp_path / "a.png")):
        np.testing.assert_array_equal(picture, np.array([[[1, 1, 1], [1, 0, 0]]], "float32"))
    (tmp_path / "b.jpg").write_bytes(b"not a png")
    with pytest.raises(ValueError, match="symgrad.image."):
        png.read_image(tmp_path / "b.jpg")


def test_show_draws_the_map(monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    pyplot.switch_backend("agg")
    shown = []
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.gca().images[0].get_array()))
    sg.saliency.show(np.array([[-1.0, 1.0]]), title="map")
    np.testing.assert_allclose(shown[0], image.colours(np.array([[-1.0, 1.0]])))


def test_save_image_writes_colours_of_the_map(tmp_path):
    sg.saliency.save_image(np.array([[[[0.0, 2.0], [-2.0, 0.0]]]]), tmp_path / "heat.png")
    pixels = png.decode_png((tmp_path / "heat.png").read_bytes())
    expected = image.to_bytes(image.colours(np.array([[0, 1], [-1, 0]])))
    np.testing.assert_array_equal(pixels, expected)
    sg.saliency.save_image(np.ones((2, 2)), tmp_path / "over.png", image=np.zeros((3, 8, 8)))
    assert png.decode_png((tmp_path / "over.png").read_bytes()).shape == (8, 8, 3)
    with pytest.raises(ValueError, match=".png"):
        sg.saliency.save_image(np.ones((2, 2)), tmp_path / "heat.jpg")
