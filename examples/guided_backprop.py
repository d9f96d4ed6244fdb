"""Guided backpropagation three ways. All give the same map; only the first changes the model.

The same rules hold wherever a gradient is taken: in a loop over the steps of sequences, in Jacobians, over a new axis, in a branch.
"""

import numpy as np

import symgrad as sg
import symgrad.tensor as T


def guided(g, y, x):                                   # Springenberg et al. 2015
    return g * (x > 0) * (g > 0)


def small_model(relu, seed=0):
    """An image (1, 3, 16, 16) -> 10 scores, with a chosen ReLU."""
    rng = np.random.default_rng(seed)
    first, second = sg.nn.Conv2D(3, 8, 3, padding=1, rng=rng), sg.nn.Conv2D(8, 8, 3, padding=1, rng=rng)
    dense = sg.nn.Dense(8, 10, rng=rng)
    return lambda x: dense(T.mean(relu(second(relu(first(x)))), axis=(2, 3)))


class GuidedReLU:
    """The Lasagne recipe: the op is changed where it is made, one op per type of variable, remembered."""

    def __init__(self):
        self.ops = {}

    def __call__(self, x):
        if x.type not in self.ops:
            inp = x.type("inp")
            self.ops[x.type] = sg.OpFromGraph([inp], [T.maximum(inp, 0)], vjp=guided, name="guided_relu")
        return self.ops[x.type](x)


def maps(photo):
    """The guided map of the winning score: by op, by override, by method."""
    image = T.tensor("image", photo.shape)
    by_op = sg.grad(T.max(small_model(GuidedReLU())(image)), image)
    score = T.max(small_model(T.relu)(image))
    by_override = sg.grad(score, image, overrides={T.relu: guided})
    by_method = sg.saliency.guided_backprop(score, image)
    return sg.function([image], [by_op, by_override, by_method])(photo)


def recurrent(relu, x, seed=0):
    """Sequences (64, 20, 32) -> 5 scores each: a loop over the 20 steps whose state goes through a ReLU."""
    rng = np.random.default_rng(seed)
    w, u, v = (T.constant((rng.normal(size=shape) / 6).astype("float32")) for shape in ((32, 16), (16, 16), (16, 5)))
    states = sg.scan(lambda row, state: relu(row @ w + state @ u), sequences=T.swapaxes(x, 0, -2), outputs_info=T.zeros((*x.shape[:-2], 16)))
    return states[-1] @ v


def sequence_maps(relu, x, flag, **rule):
    """Maps of sequences by every kind of derivative; `rule` is overrides=..., or nothing where the op has the rule in it."""
    scores = recurrent(relu, x)
    branch = sg.ifelse(flag, recurrent(relu, x)[:, 0], T.tanh(scores)[:, 0])
    return {
        "scan": sg.grad(scores[:, 0].sum(), x, **rule),
        "batch_jacobian": sg.batch_jacobian(scores, x, **rule)[:, 0],
        "jacobian": sg.jacobian(scores[:, 0].sum(), x, **rule),
        "vectorize": sg.vectorize(lambda one: sg.grad(recurrent(relu, one)[0], one, **rule))(x),
        "ifelse": sg.grad(branch.sum(), x, **rule),
    }


def main():
    photo = np.random.default_rng(1).uniform(size=(1, 3, 16, 16)).astype("float32")
    results = maps(photo)
    for way, heat in zip(("op", "override", "method"), results):
        print(f"{way:<10}|heat| = {np.abs(heat).sum():.6f}")
    assert all(np.allclose(results[0], heat, atol=1e-6) for heat in results)

    x, flag = T.tensor("x", (64, 20, 32)), T.scalar("flag", dtype="bool")
    outputs = {("op", way): heat for way, heat in sequence_maps(GuidedReLU(), x, flag).items()}
    outputs |= {("override", way): heat for way, heat in sequence_maps(T.relu, x, flag, overrides={T.relu: guided}).items()}
    sequences = np.random.default_rng(2).normal(size=(64, 20, 32)).astype("float32")
    results = sg.function([x, flag], outputs)(sequences, True)
    for (rule, way), heat in results.items():
        print(f"{rule:<10}{way:<15}|heat| = {np.abs(heat).sum():.4f}")
        assert np.allclose(heat, results["op", "scan"], atol=1e-5)


if __name__ == "__main__":
    main()
