"""An op of your own: built from others, with a gradient you choose, checked against finite differences."""

import numpy as np

import symgrad as sg
import symgrad.tensor as T


# 1. A plain function of ops needs nothing more: its gradient is derived.
def mish(x):
    """x * tanh(softplus(x)). Misra 2020."""
    return x * T.tanh(T.softplus(x))


# 2. A block carries its own rule. This one is a better-behaved gradient of the same value: the derivative of
#    log(1 + exp(x)) written as a sigmoid, with x and y at hand and no need to differentiate the body.
@sg.op_from_graph(vjp=lambda g, y, x: g * T.sigmoid(x))
def log_one_plus_exp(x):
    return T.log(1 + T.exp(x))


# 3. A block whose gradient is deliberately not that of its value: rounding, seen from behind as the identity.
@sg.op_from_graph(vjp=lambda g, y, x: g)
def quantise(x):
    """x rounded to steps of 1/8. The straight-through gradient: Bengio, Leonard and Courville 2013."""
    return T.rint(x * 8) / 8


def main():
    points = np.linspace(-3, 3, 7).astype("float32")
    sg.testing.check_grad(mish, points)
    sg.testing.check_grad(log_one_plus_exp, points)

    x = T.vector("x")
    y = quantise(mish(x))
    f = sg.function([x], [y, sg.grad(T.sum(y), x), sg.grad(T.sum(mish(x)), x)])
    rounded, through, exact = f(points)
    print("value   ", rounded)
    print("gradient", through.round(4))
    assert np.allclose(through, exact)                 # quantise passes the cotangent on untouched


if __name__ == "__main__":
    main()
