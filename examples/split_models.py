"""A CNN split in two models that are compiled apart and trained as one: by ports, and by Jacobians.

    python examples/split_models.py [--batch 3]

A port is one more input: the second model returns the cotangent of what it was handed, the first takes it and returns the
gradients of its weights (sg.vjp). Exact, and as cheap as the joined model. The chain rule by Jacobians, d cost/d w =
(d cost/d h) . (d h/d w), gives the same numbers, and shows what it costs.
"""

import argparse
import statistics
import time

import numpy as np

import symgrad as sg
import symgrad.tensor as T


def median_ms(function, *arguments):
    times = []
    for _ in range(15):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main(argv=None):
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--batch", type=int, default=3)
    n = options.parse_args(argv).batch
    sg.nn.seed(0)
    front = sg.nn.Conv2D(1, 6, 3, activation=T.relu, name="front")
    middle = sg.nn.Conv2D(6, 8, 3, activation=T.relu, name="middle")
    back = sg.nn.Sequential([sg.nn.Flatten(), sg.nn.Dense(8 * 6 * 6, 1)], name="back")
    cost = lambda h: T.mean(T.sigmoid(back(middle(h))))

    x, h, dh = T.tensor("x", (n, 1, 10, 10)), T.tensor("h", (n, 6, 8, 8)), T.tensor("dh", (n, 6, 8, 8))
    weights = [front.w, front.b]
    joined = sg.function([x], sg.grad(cost(front(x)), weights))

    # by ports: three functions that know nothing of each other
    forward = sg.function([x], front(x))
    handed_back = sg.function([h], sg.grad(cost(h), h))
    through = sg.function([x, dh], sg.vjp(front(x), weights, dh))

    # by Jacobians: of every value handed over with respect to every weight
    slopes = sg.function([x], sg.jacobian(front(x), weights))
    per_example = sg.function([h], sg.batch_jacobian(middle(h), h))

    images = np.random.default_rng(0).standard_normal((n, 1, 10, 10)).astype("float32")
    by_ports = lambda: through(images, handed_back(forward(images)))
    by_jacobians = lambda: [np.tensordot(handed_back(forward(images)), slope, axes=4) for slope in slopes(images)]

    expected = joined(images)
    for name, way in (("ports", by_ports), ("Jacobians", by_jacobians)):
        valid = all(np.allclose(got, want, atol=1e-6) for got, want in zip(way(), expected))
        print(f"{name:<10} valid: {valid}   {median_ms(way):8.3f} ms   (joined model {median_ms(joined, images):.3f} ms)")

    # a middle model passed over by its batch Jacobian: each example's values depend on that example alone
    each = per_example(forward(images))
    top = sg.function([m := T.tensor("m", (n, 8, 6, 6))], sg.grad(T.mean(T.sigmoid(back(m))), m))
    values = sg.function([h], middle(h))(forward(images))
    chained = np.einsum("nabc,nabcdef->ndef", top(values), each)
    print(f"{'batch':<10} valid: {np.allclose(chained, handed_back(forward(images)), atol=1e-6)}   Jacobian of {each.nbytes / 2**20:.1f} MiB, "
          f"cotangent of {chained.nbytes / 2**20:.3f} MiB")


if __name__ == "__main__":
    main()
