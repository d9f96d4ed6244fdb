"""Gradient rules of your own, chosen where the gradient is taken. The value of the model never changes."""

import numpy as np

import symgrad as sg
import symgrad.tensor as T


def small_model(seed=0):
    """Three blocks in scopes of their own: (1, 3, 16, 16) -> 10 scores."""
    rng = np.random.default_rng(seed)
    return sg.nn.Sequential([
        *(sg.nn.Conv2D(3 if k == 0 else 8, 8, 3, padding=1, activation=T.relu, name=f"block{k + 1}", rng=rng)
          for k in range(3)),
        sg.nn.GlobalAvgPool(), sg.nn.Dense(8, 10, rng=rng),
    ], name="net")


def leaky_backward(g, y, x):
    """A tenth of the cotangent passes where the ReLU was off."""
    return g * T.where(x > 0, 1.0, 0.1)


def loud(g, y, x):
    """Only the cotangents above their mean pass."""
    return g * (x > 0) * (g > T.mean(g))


def lrp_epsilon(g, y, *inputs, node, eps=0.1):
    """Layer-wise relevance of a linear op, small outputs damped. Bach et al. 2015.

    Relevance is y * g here, so the rule rescales g and leaves the rest to the op's ordinary rule, `node.vjp`.
    """
    damped = y / (y + eps * T.where(y >= 0, 1.0, -1.0))
    return node.vjp(g * damped, *inputs)


def main():
    image = T.tensor("image", (1, 3, 16, 16))
    score = T.max(small_model()(image))
    everywhere = sg.grad(score, image, overrides={T.relu: leaky_backward})
    mixed = sg.grad(score, image, overrides=sg.Overrides([
        (sg.on(T.relu) & sg.within("*block3*"), loud),          # the first rule that matches a node wins
        (sg.on(T.relu), leaky_backward),
    ], name="mixed"))
    print(sg.receipt(mixed))
    relevance = image * sg.grad(score, image, overrides={T.conv2d: lrp_epsilon, T.matmul: lrp_epsilon})

    f = sg.function([image], [score, sg.grad(score, image), everywhere, mixed, relevance])
    value, *maps = f(np.random.default_rng(1).uniform(size=image.shape).astype("float32"))
    for name, heat in zip(("plain", "leaky", "mixed", "lrp"), maps):
        print(f"{name:<8}score {value:.4f}   |heat| {np.abs(heat).sum():.4f}")

    try:
        sg.grad(score, image, overrides={T.gelu: leaky_backward})
    except sg.UnusedOverrideError as error:            # a rule that hits nothing is never ignored
        print(str(error).splitlines()[0])


if __name__ == "__main__":
    main()
