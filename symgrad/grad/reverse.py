"""Reverse mode: from cotangents of some variables to cotangents of others, as more graph.

The driver undoes broadcasting, adds the contributions of every use, and asks `Ruling.rule_for` whose rule applies; rules do
none of that. Iterative, except that a block's body is a walk of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..base import dtypes
from ..base.errors import DisconnectedError, DTypeError, OverrideError, ShapeError, SymgradError, four_parts
from ..base.origin import show, user_line
from ..base.structure import flat, rebuilt
from ..graph.block import block_attrs, is_call, refuse_unknown
from ..graph.node import ITEM, Node, is_leaf, make
from ..graph.scan import is_scan
from ..graph.types import TupleType, shape_text
from ..graph.walk import order
from ..ops.branch import conditions, gated, if_else, zeros_like
from ..ops.control import stop_gradient
from ..ops.reduce import sum as sum_
from ..ops.row import DEFAULT, STOP, Elementwise, Undefined, as_tensor
from ..ops.shape import broadcast_to, reshape
from .loops import through_loop
from .overrides import Ruling, declared_inputs, rule_line, rule_name, takes_node
from .receipts import receipts_in, with_receipts

Cotangent = Any         # Node, or None where nothing flows


def grad(cost: Node | None, wrt: Any, *, known_grads: Mapping[Node, Any] | None = None, consider_constant: Iterable[Node] = (),
         disconnected: str = "raise", overrides: Any = None, **unknown: Any) -> Any:
    """The gradient of a scalar with respect to `wrt`, as new graph in the structure of `wrt`.

    cost: a 0-d float variable, or None to start from `known_grads` alone.
    wrt: one variable or a list, tuple or dict of them: inputs, shared or intermediate.
    known_grads: {variable: its cotangent}; these are taken as given instead of being derived.
    consider_constant: variables the gradient does not pass.
    disconnected: "raise", or "zero" for variables the cost does not depend on.
    overrides: Overrides, a dict {op: rule} or a list of (selector, rule): replacement gradient rules.
    Raises ShapeError for a cost that is not a scalar, DisconnectedError, OverrideError, UnusedOverrideError.
    """
    refuse_unknown(unknown, "grad", ("known_grads", "consider_constant", "disconnected", "overrides"))
    seeds: dict[Node, Node] = {}
    if cost is not None:
        cost = as_tensor(cost)
        if cost.ndim or not dtypes.is_float(cost.dtype):
            kind = ShapeError if cost.ndim else DTypeError
            raise kind(four_parts("the gradient of a scalar cost", f"{cost.name or cost.op.name}: {cost._type}, made at {cost.where}",
                                  show(user_line()), "cost.sum() or cost.mean(); sg.vjp or sg.jacobian for arrays" if cost.ndim
                                  else "a float cost: integers have no gradient"))
        seeds[cost] = as_tensor(1.0, cost.dtype)
    known = {x: _matching_cotangent(x, g) for x, g in (known_grads or {}).items()}
    if not seeds and not known:
        raise SymgradError(four_parts("grad(None, ...)", "no known_grads to start from", show(user_line())))
    return _gradients({**seeds, **known}, known, wrt, consider_constant, disconnected, overrides)


def vjp(outputs: Any, wrt: Any, cotangents: Any, *, consider_constant: Iterable[Node] = (), disconnected: str = "raise",
        overrides: Any = None, **unknown: Any) -> Any:
    """Cotangents of `wrt` from cotangents of `outputs` (Theano's Lop): v^T J, in the structure of `wrt`."""
    refuse_unknown(unknown, "vjp", ("consider_constant", "disconnected", "overrides"))
    ys = [outputs] if isinstance(outputs, Node) else list(outputs)
    gs = [cotangents] if isinstance(outputs, Node) else list(cotangents)
    if len(ys) != len(gs):
        raise ShapeError(four_parts("vjp with one cotangent per output", f"{len(ys)} outputs, {len(gs)} cotangents", show(user_line())))
    seeds: dict[Node, Node] = {}
    for y, g in zip(ys, gs):
        g = _matching_cotangent(y, g)
        seeds[y] = seeds[y] + g if y in seeds else g
    return _gradients(seeds, {}, wrt, consider_constant, disconnected, overrides)


def _gradients(seeds: dict[Node, Node], fixed: Mapping[Node, Node], wrt: Any, consider_constant: Iterable[Node], disconnected: str,
               overrides: Any) -> Any:
    if disconnected not in ("raise", "zero"):
        raise SymgradError(four_parts(f"disconnected={disconnected!r}", "it is 'raise' or 'zero'", show(user_line())))
    variables = flat(wrt)
    for x in variables:
        if not isinstance(x, Node):
            raise DTypeError(four_parts("gradients with respect to variables", f"{type(x).__name__}", show(user_line())))
        if not dtypes.is_float(x.dtype) and disconnected == "raise":
            raise DTypeError(four_parts(f"the gradient with respect to {x.name or x.op.name}", f"{x._type}, made at {x.where}", show(user_line()),
                                        "a float variable, for example the embedding looked up with these integers"))
    constants = {consider_constant} if isinstance(consider_constant, Node) else set(consider_constant)
    ruling = Ruling(overrides)
    found = pull_back(seeds, variables, ruling, constants, fixed)
    ruling.check_used()
    # a gradient of a gradient tells of the rules in both
    receipts = [*([ruling.receipt] if ruling.receipt.hits else []), *receipts_in(seeds)]
    result = []
    for x in variables:
        g = found.get(x)
        if g is None:
            if disconnected == "raise":
                raise _disconnected(seeds, x, constants)
            g = broadcast_to(as_tensor(0, x.dtype), x.dims)
        result.append(with_receipts(g, receipts))
    return rebuilt(wrt, result)


def _matching_cotangent(y: Node, g: Any) -> Node:
    g = as_tensor(g, y.dtype) if not isinstance(g, Node) else g
    if g.dtype != y.dtype or not _same_dims(g.dims, y.dims):
        raise (ShapeError if g.dtype == y.dtype else DTypeError)(four_parts(
            f"a cotangent for {y.name or y.op.name}: {y._type}", f"{g._type}, made at {g.where}", show(user_line()),
            "a cotangent has the shape and dtype of its variable"))
    return g


def _same_dims(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(not (isinstance(x, int) and isinstance(y, int)) or x == y for x, y in zip(a, b))


# ------------------------------------------------------------------------------------------ the walk
def flows(node: Node) -> bool:
    """Whether a cotangent can pass this node: it is float and not a stop_gradient."""
    if isinstance(node._type, TupleType):
        return any(dtypes.is_float(t.dtype) for t in node._type.items)
    return dtypes.is_float(node.dtype) and node.op is not stop_gradient


def path(seeds: Iterable[Node], variables: Iterable[Node], constants: Collection[Node], leaves: Collection[Node] = ()) -> list[Node]:
    """The nodes through which cotangents travel from seeds to variables, inputs first. Leaves are not entered."""
    reached = {x for x in variables if x not in constants and dtypes.is_float(x.dtype)}
    nodes = []
    for node in order(seeds, stop=lambda n: n in constants or n in leaves):
        if node not in reached and node not in constants and flows(node) and any(x in reached for x in node.inputs):
            reached.add(node)
        if node in reached:
            nodes.append(node)
    return nodes


def split_at_cuts(nodes: list[Node], seeds: Collection[Node]) -> tuple[list[Node], list[Node]]:
    """(the nodes from which cotangents of the seeds can arrive, those behind a stop_gradient or an integer), in order."""
    arrives = set(seeds)
    for node in reversed(nodes):
        if node in arrives:
            arrives.update(node.inputs)
    return [n for n in nodes if n in arrives], [n for n in nodes if n not in arrives]


def pull_back(seeds: Mapping[Node, Node], variables: Sequence[Node], ruling: Ruling,
              constants: Collection[Node] = frozenset(), fixed: Mapping[Node, Node] = MappingProxyType({}),
              leaves: Collection[Node] = frozenset()) -> dict[Node, Cotangent]:
    """{variable: cotangent}; absent where no path leads. Nodes in `leaves` are not entered."""
    nodes, behind = split_at_cuts(path(seeds, variables, constants, leaves), seeds)
    ruling.unreached.extend(n for n in behind if not is_leaf(n))
    on_path = set(nodes)
    parts: dict[Node, list[Part]] = {y: [((), g)] for y, g in seeds.items()}
    done: dict[Node, tuple[Guarding, Cotangent]] = {}
    for node in reversed(nodes):
        guard, g = ((), fixed[node]) if node in fixed else total(node, parts.pop(node, []))
        done[node] = guard, g
        if is_leaf(node) or node in leaves:
            continue
        if g is None:       # behind a cut: no rule runs here
            ruling.unreached.append(node)
            continue
        rule = ruling.rule_for(node)
        for x, inner, dx in guarded_cotangents(node, guard, g, rule, ruling):
            if dx is not STOP and x in on_path:
                parts.setdefault(x, []).append((inner, dx))
    return {x: zeros_like(x) if done[x][1] is None else gated(*done[x]) for x in variables if x in done}


# The conditions, outermost first, under which a contribution is not zero: inside them it is computed as if they held, and only
# where it meets others, or leaves the walk, it becomes an `ifelse` with zeros. So nothing of an untaken side is computed.
Guarding = tuple[tuple[Node, bool], ...]
Part = tuple[Guarding, Any]


def guarded_cotangents(node: Node, guard: Guarding, g: Any, rule: Any, ruling: Ruling) -> list[tuple[Node, Guarding, Any]]:
    """(variable, guard, cotangent) for what one node contributes; a choice passes g to both sides, each under its condition."""
    if node.op is if_else and rule is None:
        test, then, otherwise = node.inputs
        return [(then, (*guard, (test, True)), g), (otherwise, (*guard, (test, False)), g)]
    return [(x, guard, dx) for x, dx in zip(*node_cotangents(node, g, rule, ruling))]


def total(node: Node, parts: list[Part]) -> tuple[Guarding, Any]:
    """The sum of the contributions and its guard; for a node with several results a list with one sum (or None) per result."""
    if not isinstance(node._type, TupleType):
        return total_of(parts)
    sums = [total_of([(guard, g) for guard, (k, g) in parts if k == j]) for j in range(len(node._type.items))]
    shared = {guard for guard, g in sums if g is not None}
    if len(shared) <= 1:
        return (shared.pop() if shared else ()), ([g for _, g in sums] if any(g is not None for _, g in sums) else None)
    return (), [None if g is None else gated(guard, g) for guard, g in sums]


def total_of(parts: list[Part]) -> tuple[Guarding, Cotangent]:
    """The sum of contributions: as it is where all have one guard, else of the gated sums per guard."""
    sums: dict[Guarding, Node] = {}
    for guard, g in parts:
        sums[guard] = sums[guard] + g if guard in sums else g
    if len(sums) <= 1:
        return next(iter(sums.items()), ((), None))
    opposite = _two_sides(sums)
    if opposite is not None:
        return opposite
    result = None
    for guard, g in sums.items():
        result = gated(guard, g) if result is None else result + gated(guard, g)
    return (), result


def _two_sides(sums: dict[Guarding, Node]) -> tuple[Guarding, Node] | None:
    """One choice, when there are two contributions and they are the two sides of one condition."""
    if len(sums) != 2:
        return None
    (a, first), (b, second) = sums.items()
    if not a or not b or conditions(a[:-1]) != conditions(b[:-1]) or a[-1][0] is not b[-1][0]:
        return None
    then, otherwise = (first, second) if a[-1][1] else (second, first)
    return a[:-1], make(if_else, [a[-1][0], then, otherwise])


def node_cotangents(node: Node, g: Any, rule: Any, ruling: Ruling) -> tuple[Sequence[Node], Sequence[Any]]:
    """(variables, their cotangents) that one node contributes."""
    if node.op is ITEM:
        return node.inputs, [(node.attrs["k"], g)]
    if rule is not None:
        chosen, xs = rule
        return overridden(node, g, chosen, xs, ruling)
    return node.inputs, ordinary(node, g, ruling)


def ordinary(node: Node, g: Any, ruling: Ruling) -> list[Any]:
    """The cotangents of a node's inputs by its own rule: the row's vjp, or the body of a block."""
    if is_call(node):
        return through_body(node, g, ruling)
    if is_scan(node):
        return through_loop(node, g, ruling, pull_back)
    answer = node.op.vjp(g, node, *node.inputs, **node.attrs)
    return [_settled(node, x, dx) for x, dx in zip(node.inputs, answer)]


def _settled(node: Node, x: Node, dx: Any) -> Any:
    if isinstance(dx, Undefined):
        if not dtypes.is_float(x.dtype):
            return STOP
        raise SymgradError(four_parts(f"the gradient of {node.op.name}", dx.why, node.where, "an override: overrides={T." + node.op.name + ": rule}"))
    if dx is STOP or not dtypes.is_float(x.dtype):
        return STOP
    return fit(dx, x)


def fit(g: Node, x: Node) -> Node:
    """g with the dims of x: what broadcasting repeated is summed (in one reduction), what is missing is repeated."""
    g = as_tensor(g, x.dtype)
    if g.dims == x.dims:
        return g
    extra = g.ndim - x.ndim
    is_1 = lambda d: isinstance(d, int) and d == 1
    repeated = [k for k in range(max(extra, 0), g.ndim) if is_1(x.dims[k - extra]) and not is_1(g.dims[k])]
    summed = (*range(extra), *repeated) if extra > 0 else tuple(repeated)
    if summed:
        g = reshape(sum_(g, axis=summed), tuple(1 if k in repeated else d for k, d in enumerate(g.dims) if k >= extra or extra <= 0))
    missing = any(is_1(d) and d != e for d, e in zip(reversed(g.dims), reversed(x.dims)))
    return broadcast_to(g, x.dims) if g.ndim != x.ndim or missing else g


def through_body(node: Node, g: Any, ruling: Ruling) -> list[Any]:
    """Differentiate a block by its body; overrides reach inside."""
    body = node.op.body
    scope = node.notes.scopes[0] if node.notes.scopes else ""
    outputs = body.inlined(node.inputs, scope)
    gs = g if isinstance(node._type, TupleType) else [g]
    seeds: dict[Node, Node] = {}
    for y, gy in zip(outputs, gs):
        if gy is not None:
            seeds[y] = seeds[y] + gy if y in seeds else gy
    wanted = [x for x in node.inputs if dtypes.is_float(x.dtype)]
    found = pull_back(seeds, wanted, ruling, leaves=set(node.inputs))
    answer, seen = [], set()
    for x in node.inputs:           # a variable passed twice gets its whole cotangent once
        answer.append(found.get(x, STOP) if x not in seen else STOP)
        seen.add(x)
    return answer


# --------------------------------------------------------------------------------------- user rules
class RuleNode:
    """What a rule that names `node` receives: the op it stands in for, its attributes and ordinary behaviour."""

    def __init__(self, node: Node, xs: Sequence[Node], ruling: Ruling):
        self._node, self._ruling, self.inputs = node, ruling, tuple(xs)
        self.op = node.op.body.owner if is_call(node) else node.op
        self.attrs = dict(block_attrs(node))
        self.name = node.name or node.op.name
        self.where, self.scopes = node.where, node.notes.scopes
        self.dtype, self.output = getattr(node._type, "dtype", None), node

    @property
    def ruling(self) -> Ruling:
        """The overrides of the gradient being taken, for rules that differentiate further graph."""
        return self._ruling

    def body_on(self, new_inputs: Sequence[Node]) -> list[Node]:
        """The results of a block on other inputs, as plain graph."""
        return self._node.op.body.inlined([*new_inputs, *self._node.inputs[len(new_inputs):]], self.scopes[0] if self.scopes else "")

    def apply(self, *new_inputs: Any) -> Node:
        """The same op on other inputs."""
        given = [as_tensor(x, old.dtype) for x, old in zip(new_inputs, self.inputs)]
        if len(given) != len(self.inputs):
            raise OverrideError(four_parts(f"node.apply for {self.name}", f"{len(new_inputs)} inputs for {len(self.inputs)}", show(user_line())))
        return make(self._node.op, [*given, *self._node.inputs[len(given):]], **self._node.attrs)

    def vjp(self, g: Any, *new_inputs: Any) -> Any:
        """The cotangents by the ordinary rule, at these inputs (by default the node's own); bare for one input."""
        twin = self.apply(*new_inputs) if new_inputs else self._node
        answer = ordinary(twin, g, Ruling(None))[:len(self.inputs)]
        answer = [broadcast_to(as_tensor(0, x.dtype), x.dims) if dx is STOP and dtypes.is_float(x.dtype) else dx
                  for x, dx in zip(twin.inputs, answer)]
        return answer[0] if len(answer) == 1 else tuple(answer)


def overridden(node: Node, g: Any, rule: Any, xs: tuple[Node, ...], ruling: Ruling) -> tuple[Sequence[Node], Sequence[Any]]:
    """The cotangents a user's rule gives, checked; inputs it does not speak for keep the ordinary rule."""
    answers = call_rule(node, g, rule, xs, ruling)
    extra = node.inputs[len(xs):] if is_call(node) and xs == declared_inputs(node) else ()
    need_default = any(a is DEFAULT for a in answers) or extra
    usual = dict(zip(range(len(node.inputs)), ordinary(node, g, ruling))) if need_default else {}
    settled = []
    for k, (x, dx) in enumerate(zip(xs, answers)):
        settled.append(usual.get(k, STOP) if dx is DEFAULT else check_cotangent(node, rule, k, x, dx))
    return [*xs, *extra], [*settled, *(usual[len(xs) + k] for k in range(len(extra)))]


def call_rule(node: Node, g: Any, rule: Any, xs: tuple[Node, ...], ruling: Ruling) -> list[Any]:
    if rule is STOP:
        return [STOP] * len(xs)
    if isinstance(g, list):
        y: Any = tuple(make(ITEM, [node], k=k) for k in range(len(g)))
        g = tuple(gk if gk is not None else broadcast_to(as_tensor(0, yk.dtype), yk.dims) for gk, yk in zip(g, y))
    else:
        y = node
    if isinstance(rule, (list, tuple)):
        if len(rule) != len(xs):
            raise _rule_error(rule[0], node, f"{len(rule)} rules for {len(xs)} inputs", "one rule or sg.DEFAULT per input")
        return [r if r is DEFAULT or r is STOP else _single(r, node, _run(r, node, g, y, xs, ruling)) for r in rule]
    answer = _run(rule, node, g, y, xs, ruling)
    answers = list(answer) if isinstance(answer, (tuple, list)) else [answer]
    if len(answers) != len(xs):
        raise _rule_error(rule, node, f"{len(answers)} cotangents for {len(xs)} inputs",
                          "return one per input, as a tuple; sg.STOP for none, sg.DEFAULT for the ordinary one")
    return answers


def _single(rule: Callable, node: Node, answer: Any) -> Any:
    if isinstance(answer, (tuple, list)):
        if len(answer) != 1:
            raise _rule_error(rule, node, f"{len(answer)} cotangents for one input", "a rule in a list speaks for one input")
        return answer[0]
    return answer


def _run(rule: Callable, node: Node, g: Any, y: Any, xs: tuple[Node, ...], ruling: Ruling) -> Any:
    if takes_node(rule):
        return rule(g, y, *xs, node=RuleNode(node, xs, ruling))
    return rule(g, y, *xs)


def check_cotangent(node: Node, rule: Any, k: int, x: Node, dx: Any) -> Any:
    """dx if it is a legal cotangent of x. Raises OverrideError that names rule, node and both lines."""
    if dx is STOP or not dtypes.is_float(x.dtype):
        return STOP
    if dx is None:
        raise _rule_error(rule, node, f"None for input {k}", "sg.STOP if nothing flows, sg.DEFAULT for the ordinary rule")
    if not isinstance(dx, Node):
        try:
            dx = as_tensor(dx, x.dtype if isinstance(dx, (int, float)) else None)
        except SymgradError:
            raise _rule_error(rule, node, f"{type(dx).__name__} for input {k}", "a variable") from None
        if dx.ndim == 0 and x.ndim and not dx.inputs:
            dx = broadcast_to(dx, x.dims)
    if isinstance(node.op, Elementwise) and dx.dims == node.dims and dx.dtype == x.dtype and x.dims != node.dims:
        return fit(dx, x)
    if dx.dtype != x.dtype:
        raise _rule_error(rule, node, f"dtype {dx.dtype} for input {k}, which is {x.dtype}", f"cast the result: .astype({x.dtype!r})")
    if not _same_dims(dx.dims, x.dims):
        raise _rule_error(rule, node, f"shape {shape_text(dx.dims)} for input {k}, which has shape {shape_text(x.dims)}",
                          "a cotangent has the shape of its input")
    return dx


def _rule_error(rule: Any, node: Node, found: str, attempt: str) -> OverrideError:
    first = rule[0] if isinstance(rule, (list, tuple)) else rule
    return OverrideError(four_parts(f"rule {rule_name(first)!r} ({rule_line(first)}) for {node.name or node.op.name}", f"it returned {found}",
                                    f"{node.op.name} made at {node.where}", attempt))


# ------------------------------------------------------------------------------------- explanations
def _disconnected(seeds: Iterable[Node], x: Node, constants: set[Node]) -> DisconnectedError:
    cost = next(iter(seeds))
    nodes = order(seeds)
    label = x.name or x.op.name
    if x in set(nodes):
        # the first node after x, seen from x, that no cotangent passes
        reached = {x}
        breaks = []
        for node in nodes:
            if node in reached or any(i in reached for i in node.inputs):
                if node is not x and (node in constants or not flows(node)):
                    breaks.append(node)
                else:
                    reached.add(node)
        found = [f"{label} is used, but every path is cut: " + ", ".join(
            f"{b.op.name} ({b._type}) at {b.where}" for b in breaks[:4])]
    else:
        known = [n.name or f"{n.op.name} at {n.where}" for n in nodes if is_leaf(n) and n.op.name != "constant"]
        found = [f"{cost.name or cost.op.name} does not depend on {label} ({x._type}, made at {x.where})",
                 f"it depends on: {', '.join(known[:10]) or 'nothing'}"]
    return DisconnectedError(four_parts(f"the gradient with respect to {label}", found, show(user_line()),
                                        'disconnected="zero" if that is intended'))


