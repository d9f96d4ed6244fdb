"""Guided backpropagation three ways. All give the same map; only the first changes the model."""

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


def main():
    photo = np.random.default_rng(1).uniform(size=(1, 3, 16, 16)).astype("float32")
    results = maps(photo)
    for way, heat in zip(("op", "override", "method"), results):
        print(f"{way:<10}|heat| = {np.abs(heat).sum():.6f}")
    assert all(np.allclose(results[0], heat, atol=1e-6) for heat in results)


if __name__ == "__main__":
    main()
