"""The same mathematics with less rounding and no overflow on the way. Judged against the true value,
computed in float64.

Besides the textbook forms of log, exp and softmax, their gradients: the derivative of log(softmax(x))
divides by the softmax and multiplies by it again, which is 0/0 where it underflows.
"""

from __future__ import annotations

from ..graph.node import Node
from ..ops.row import ROWS
from .pattern import anything, attribute, computed, floating, op, uniform
from .rule import TRUER, RuleBook, examples, when

x, y, z, g = floating("x"), floating("y"), floating("z"), anything("g")
p, q = floating("p"), floating("q")
a, s = attribute("a"), attribute("s")
exp, log, log1p, expm1, sqrt = op("exp"), op("log"), op("log1p"), op("expm1"), op("sqrt")
softmax, log_softmax, logsumexp = op("softmax"), op("log_softmax"), op("logsumexp")
sigmoid, logsigmoid, softplus, logaddexp = op("sigmoid"), op("logsigmoid"), op("softplus"), op("logaddexp")
sum_, max_, absolute, erf, erfc, reshape = (
    op("sum"),
    op("max"),
    op("absolute"),
    op("erf"),
    op("erfc"),
    op("reshape"),
)

ROWWISE = examples({"x": (3, 4), "a": (1,)}, {"x": (2, 3), "a": (0,)})
ONE_AXIS = when(lambda a: len(a) == 1)
the_axis = computed(lambda a: a[0])

_ALWAYS_POSITIVE = {ROWS[name] for name in ("exp", "exp2", "softmax", "sigmoid")}


def is_positive(node: Node) -> bool:
    """Greater than 0 and finite in exact arithmetic, though it may round to 0."""
    if node.op.name == "subtract":
        return uniform(node.inputs[0]) == 1 and node.inputs[1].op.name == "sigmoid"
    return node.op in _ALWAYS_POSITIVE


positive = when(lambda p: is_positive(p))
both_positive = when(lambda p, q: is_positive(p) and is_positive(q))
POSITIVE = examples({"p": ROWS["sigmoid"]}, {"p": ROWS["exp"]})
COMPLEMENTS = examples({"p": ROWS["sigmoid"], "q": ROWS["sigmoid"]})

# fmt: off
stable = RuleBook("stable", [
    (log(exp(x)),                       x, "exp overflows above 88"),
    (log(softmax(x, axis=a)),           log_softmax(x, axis=a), examples({"x": (3, 4), "a": 1})),
    (log(sigmoid(x)),                   logsigmoid(x)),
    (log(1 - sigmoid(x)),               -softplus(x)),
    (log1p(-sigmoid(x)),                -softplus(x)),
    (1 - sigmoid(x),                    sigmoid(-x), when(lambda uses, x, node: uses(node.inputs[1]) == 1), "only if the sigmoid is not needed besides"),
    (1 / (1 + exp(x)),                  sigmoid(-x)),
    (exp(x) / (1 + exp(x)),             sigmoid(x)),
    (log(1 + x),                        log1p(x)),
    (log(1 - x),                        log1p(-x)),
    (log1p(exp(x)),                     softplus(x)),
    (log(exp(x) + exp(y)),              logaddexp(x, y)),
    (exp(x) - 1,                        expm1(x)),
    (log1p(expm1(x)),                   x),
    (1 - erf(x),                        erfc(x)),
    (sqrt(x * x),                       absolute(x), "x * x overflows above 1.8e19"),
    # softmax and its relatives, written out
    (exp(x) / sum_(exp(x), axis=a, keepdims=True), softmax(x, axis=the_axis), ONE_AXIS, ROWWISE),
    (exp(x) / reshape(sum_(exp(x), axis=a, keepdims=False), shape=s), softmax(x, axis=the_axis),
     when(lambda x, a, s: len(a) == 1 and s == (*x.dims[:a[0]], 1, *x.dims[a[0] + 1:])), examples({"x": (3, 4), "a": (1,), "s": (3, 1)})),
    (log(sum_(exp(x), axis=a, keepdims=s)), logsumexp(x, axis=a, keepdims=s), examples({"x": (3, 4), "a": (0, 1), "s": False})),
    (softmax(x - max_(x, axis=a, keepdims=True), axis=s), softmax(x, axis=s), when(lambda a, s: a == (s,)), examples({"x": (3, 4), "a": (1,), "s": 1})),
    (log_softmax(x - max_(x, axis=a, keepdims=True), axis=s), log_softmax(x, axis=s), when(lambda a, s: a == (s,)),
     examples({"x": (3, 4), "a": (1,), "s": 1})),
    (logsumexp(x - max_(x, axis=a, keepdims=s), axis=a, keepdims=s) + max_(x, axis=a, keepdims=s), logsumexp(x, axis=a, keepdims=s),
     examples({"x": (3, 4), "a": (1,), "s": True})),
    (x - logsumexp(x, axis=a, keepdims=True), log_softmax(x, axis=the_axis), ONE_AXIS, ROWWISE),
    # divided by what is multiplied by again: 0/0 where it underflows
    ((g / p) * p,                       g, positive, POSITIVE),
    ((g * p) / p,                       g, positive, POSITIVE),
    ((g / p - z) * p,                   g - z * p, positive, POSITIVE),
    (((g / p) * q) * p,                 g * q, positive, POSITIVE),
    (((g / q + z / p) * p) * q,         g * p + z * q, both_positive, COMPLEMENTS, "binary cross-entropy, of p = sigmoid(x) and q = 1 - p"),
    (((g / q - z / p) * p) * q,         g * p - z * q, both_positive, COMPLEMENTS),
    (((z / p - g / q) * p) * q,         z * q - g * p, both_positive, COMPLEMENTS),
    # the same where the sigmoid was written out, so that its gradient is exp(z) / (1 + exp(z)), inf/inf where exp overflows
    ((g / (1 + exp(z))) * exp(z),       g * sigmoid(z)),
    ((g * exp(z)) / (1 + exp(z)),       g * sigmoid(z)),
    (((g / (1 - sigmoid(x))) * p) * sigmoid(-x), g * p, positive, POSITIVE),
    (((g / (1 - sigmoid(x)) + z / p) * p) * sigmoid(-x), g * p + z * sigmoid(-x), positive, POSITIVE),
    (((g / (1 - sigmoid(x)) - z / p) * p) * sigmoid(-x), g * p - z * sigmoid(-x), positive, POSITIVE),
    (((z / p - g / (1 - sigmoid(x))) * p) * sigmoid(-x), z * sigmoid(-x) - g * p, positive, POSITIVE),
], default=[TRUER])
# fmt: on
