"""A CNN of two branches, one of which is chosen at random at every training step: the other one costs nothing.

    python examples/gated_cnn.py [--steps 20] [--batch 128]

The net is two circuits of conv 5x5 3->6, pool, conv 5x5 6->16, pool, joined and followed by 120-84-10. A gate that is
multiplied onto a circuit would save no time; `sg.ifelse` computes only what is chosen, forward and backward.
"""

import argparse
import statistics
import time

import numpy as np

import symgrad as sg
import symgrad.tensor as T


def circuit(name):
    return sg.nn.Sequential([
        sg.nn.Conv2D(3, 6, 5, activation=T.relu), sg.nn.MaxPool2D(2),
        sg.nn.Conv2D(6, 16, 5, activation=T.relu), sg.nn.MaxPool2D(2)], name=name)


def build(batch):
    """step(images, labels, gate_a, gate_b) -> loss, and the parameters of both circuits."""
    a, b = circuit("a"), circuit("b")
    head = sg.nn.Sequential([sg.nn.Flatten(), sg.nn.Dense(800, 120, activation=T.relu), sg.nn.Dense(120, 84, activation=T.relu),
                             sg.nn.Dense(84, 10)], name="head")
    images, labels = T.tensor("images", (batch, 3, 32, 32)), T.tensor("labels", (batch,), dtype="int64")
    gates = T.scalar("gate_a", dtype="bool"), T.scalar("gate_b", dtype="bool")
    closed = T.zeros((batch, 16, 5, 5))
    joined = T.concatenate([sg.ifelse(gate, c(images), closed) for gate, c in zip(gates, (a, b))], axis=1)
    loss = sg.losses.cross_entropy(head(joined), labels)
    params = [p for part in (a, b, head) for p in part.params().values()]
    step = sg.function([images, labels, *gates], loss, updates=sg.optim.sgd(loss, params, lr=0.01))
    return step, a.params(), b.params()


def seconds(step, *arguments, repeats=7):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step(*arguments)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(argv=None):
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--batch", type=int, default=128)
    options = options.parse_args(argv)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((options.batch, 3, 32, 32), dtype=np.float32)
    labels = rng.integers(0, 10, options.batch)
    step, a, b = build(options.batch)

    before = {name: p.get_value() for name, p in b.items()}
    step(images, labels, True, False)
    untouched = all(np.array_equal(p.get_value(), before[name]) for name, p in b.items())
    losses = [float(step(images, labels, bool(choice), not choice)) for choice in rng.integers(0, 2, options.steps)]

    both, one, none = (seconds(step, images, labels, *gates) for gates in ((True, True), (True, False), (False, False)))
    skipped = sum(row.calls == 0 for row in step.profile(images, labels, True, False))
    print(f"loss          {losses[0]:.3f} -> {losses[-1]:.3f} in {options.steps} steps with one circuit each")
    print(f"both on       {1e3 * both:.2f} ms per step")
    print(f"one off       {1e3 * one:.2f} ms, {one / both:.2f} of both; {skipped} kernels did not run")
    print(f"both off      {1e3 * none:.2f} ms")
    print(f"closed circuit keeps its weights: {untouched}")


if __name__ == "__main__":
    main()
