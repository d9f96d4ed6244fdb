"""Kernel text to LLVM text without Numba: a reader for exactly the dialect of kernel text.

The dialect, which is a part of what Numba compiles:

    kernel     = header* def kernel(args): statement*          header = name = factory(literal*)
    statement  = name = e | p[e] = e | name op= e | p[e] op= e | e | pass
               | if e: statement* else: statement* | while e: statement* | for name in range(e*): statement*
    e          = name | literal | p[e] | f(e*) | e op e | -e | e < e | not e | e and e | e or e
               | e if e else e

Every value has a dtype that the text fixes; nothing converts by itself but integer literals, which are int64.
A name may hold values of several types one after the other: a use sees the assignment that stands before it
in the text.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from llvmlite import ir

from symgrad.base.errors import close_match

from . import memory, scalars
from .micro_code import KernelError, Micro, named_by
from .values import LLVM_TYPES, Value, constant, empty_module, is_float, keep_rolled

ENTRY = "kernel"
INDEX = "int64"
OPERATORS = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.FloorDiv: "floordiv", ast.Mod: "mod",
             ast.Div: "div"}
# LLVM unrolls loops before it looks for vectors, and copies whole micro-kernels when it finds two turns: much
# code that is no faster. Only loops of fewer literal turns than this, with no micro-kernel inside, may be
# unrolled.
FEW_TURNS = 8
COMPARISONS = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne"}


@dataclass(frozen=True)
class Pointer:
    """A typed pointer in the kernel being read."""

    llvm: ir.Value
    dtype: str
    slot: int

    @property
    def kind(self) -> tuple[str, int]:
        return self.dtype, self.slot

    def __str__(self) -> str:
        return f"pointer to {self.dtype}"


class Table:
    """The argument table, of which there is one."""

    def __str__(self) -> str:
        return "argument table"


Thing = Value | Pointer | Table


def llvm_text(text: str, symbol: str) -> tuple[str, list[Micro]]:
    """(unoptimised LLVM assembly, micro-kernels) of a kernel text, with entry point `void symbol(int64_t *)`.

    Raises SyntaxError for what is not Python, and KernelError, with the line, for what is not a kernel.
    """
    tree = ast.parse(text, "<kernel>")
    *header, definition = tree.body
    if not isinstance(definition, ast.FunctionDef):
        raise KernelError(f"a kernel text ends with `def {ENTRY}(args):`", definition.lineno)
    if (definition.name, len(definition.args.args)) != (ENTRY, 1):
        raise KernelError(f"a kernel text ends with `def {ENTRY}(args):`", definition.lineno)
    module = empty_module(symbol)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.PointerType(LLVM_TYPES[INDEX])]),
                           symbol)
    function.attributes.add("nounwind")
    reader = _Reader(function, definition, named_by(header))
    reader.read(definition.body)
    return str(module), list(reader.micro_kernels.values())


class _Reader:
    """Walks one kernel and emits it."""

    def __init__(self, function: ir.Function, definition: ast.FunctionDef,
                 micro_kernels: dict[str, Micro]) -> None:
        self.function, self.micro_kernels = function, micro_kernels
        self.slots_of_names = function.append_basic_block("entry")      # where every variable gets its memory
        self.builder = ir.IRBuilder(function.append_basic_block("body"))
        self.first = self.builder.block
        self.names: dict[str, tuple[ir.Value, Any]] = {}
        self.memory_of: dict[tuple[str, Any], ir.Value] = {}
        self.table_name = definition.args.args[0].arg
        self.line, self.micro_calls = definition.lineno, 0

    def read(self, body: Sequence[ast.stmt]) -> None:
        self.statements(body)
        self.builder.ret_void()
        ir.IRBuilder(self.slots_of_names).branch(self.first)

    # ---- statements ----------------------------------------------------------------------------------------

    def statements(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            self.line = statement.lineno
            getattr(self, f"do_{type(statement).__name__}", self.unknown)(statement)

    def unknown(self, node: ast.AST) -> Any:
        raise KernelError(f"kernel text has no {type(node).__name__.lower()}",
                          getattr(node, "lineno", self.line))

    def do_Pass(self, statement: ast.Pass) -> None:
        """Nothing."""

    def do_Expr(self, statement: ast.Expr) -> None:
        if not isinstance(statement.value, ast.Constant):     # a docstring says nothing
            self.value(statement.value)

    def do_Assign(self, statement: ast.Assign) -> None:
        if len(statement.targets) != 1:
            self.fail("one assignment per line")
        self.assign(statement.targets[0], self.value(statement.value))

    def do_AugAssign(self, statement: ast.AugAssign) -> None:
        target = ast.copy_location(_as_load(statement.target), statement)
        value = self.operation(statement.op, self.scalar(target), self.scalar(statement.value))
        self.assign(statement.target, value)

    def assign(self, target: ast.expr, value: Thing | None) -> None:
        if value is None:
            self.fail("a micro-kernel gives no value")
        if isinstance(target, ast.Subscript):
            pointer, index = self.value(target.value), self.index(target.slice)
            fits = isinstance(pointer, Pointer) and isinstance(value, Value) and pointer.dtype == value.dtype
            if not fits:
                self.fail(f"cannot store {_described(value)} through a {_described(pointer)}")
            memory.store(self.builder, pointer.llvm, index, value.llvm, pointer.dtype, pointer.slot)
        elif isinstance(target, ast.Name):
            self.set_name(target.id, value)
        else:
            self.fail("assigns to names and elements only")

    def set_name(self, name: str, value: Thing | None) -> None:
        if value is None or isinstance(value, Table):
            self.fail("the argument table stays where it is")
        kind = value.kind if isinstance(value, Pointer) else value.dtype
        if (name, kind) not in self.memory_of:
            self.memory_of[name, kind] = ir.IRBuilder(self.slots_of_names).alloca(value.llvm.type)
        self.names[name] = self.memory_of[name, kind], kind
        self.builder.store(value.llvm, self.memory_of[name, kind])

    def do_If(self, statement: ast.If) -> None:
        then, otherwise, after = (self.function.append_basic_block() for _ in range(3))
        self.builder.cbranch(self.truth(statement.test).llvm, then, otherwise)
        for block, body in ((then, statement.body), (otherwise, statement.orelse)):
            self.builder.position_at_end(block)
            self.statements(body)
            self.builder.branch(after)
        self.builder.position_at_end(after)

    def do_For(self, statement: ast.For) -> None:
        start, stop, step = self.range_of(statement.iter)
        if not isinstance(statement.target, ast.Name) or statement.orelse:
            self.fail("a loop is `for name in range(...):`")
        b, before, micro_calls = self.builder, self.builder.block, self.micro_calls
        head, body, after = (self.function.append_basic_block() for _ in range(3))
        b.branch(head)
        b.position_at_end(head)
        counter = b.phi(LLVM_TYPES[INDEX])
        counter.add_incoming(start, before)
        b.cbranch(self.more(counter, stop, step), body, after)
        b.position_at_end(body)
        self.set_name(statement.target.id, Value(b, counter, INDEX))
        self.statements(statement.body)
        counter.add_incoming(b.add(counter, step, flags=("nsw",)), b.block)
        again = b.branch(head)
        if self.micro_calls > micro_calls or not 0 < _turns(start, stop, step) < FEW_TURNS:
            keep_rolled(again)
        b.position_at_end(after)

    def more(self, counter: ir.Value, stop: ir.Value, step: ir.Value) -> ir.Value:
        """Whether a loop goes on: counters of negative steps go down to `stop`."""
        b = self.builder
        up, down = lambda: b.icmp_signed("<", counter, stop), lambda: b.icmp_signed(">", counter, stop)
        if isinstance(step, ir.Constant):
            return up() if _signed(step) > 0 else down()
        return b.select(b.icmp_signed(">", step, self.integer(0).llvm), up(), down())

    def do_While(self, statement: ast.While) -> None:
        if statement.orelse:
            self.fail("a loop is `while condition:`")
        head, body, after = (self.function.append_basic_block() for _ in range(3))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        self.builder.cbranch(self.truth(statement.test).llvm, body, after)
        self.builder.position_at_end(body)
        self.statements(statement.body)
        self.builder.branch(head)
        self.builder.position_at_end(after)

    def range_of(self, call: ast.expr) -> tuple[ir.Value, ir.Value, ir.Value]:
        """(start, stop, step) of a loop."""
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"
                and 1 <= len(call.args) <= 3):
            self.fail("loops run over range(...)")
        bounds = [self.literal_or_index(a) for a in call.args]
        start, stop = bounds[:2] if len(bounds) > 1 else (self.integer(0).llvm, bounds[0])
        step = bounds[2] if len(bounds) == 3 else self.integer(1).llvm
        if isinstance(step, ir.Constant) and step.constant == 0:
            self.fail("the step of a range is not 0")
        return start, stop, step

    def literal_or_index(self, node: ast.expr) -> ir.Value:
        """An index; a negative literal is one number, not the negation of another."""
        try:
            number = ast.literal_eval(node)
        except ValueError:
            return self.index(node)
        return self.integer(number).llvm if type(number) is int else self.index(node)

    # ---- expressions ---------------------------------------------------------------------------------------

    def fail(self, message: str) -> NoReturn:
        raise KernelError(message, self.line)

    def integer(self, number: int) -> Value:
        return Value(self.builder, constant(INDEX, number), INDEX)

    def value(self, node: ast.expr) -> Any:
        """What an expression stands for: a Value, a Pointer or the Table; None for a call without result."""
        return getattr(self, f"of_{type(node).__name__}", self.unknown)(node)

    def scalar(self, node: ast.expr) -> Value:
        value = self.value(node)
        return value if isinstance(value, Value) else self.fail(f"takes a number, not a {_described(value)}")

    def index(self, node: ast.expr) -> ir.Value:
        value = self.scalar(node)
        return value.llvm if value.dtype == INDEX else self.fail(f"an index is an int64, not {value.dtype}")

    def truth(self, node: ast.expr) -> Value:
        value = self.scalar(node)
        return value if value.dtype == "bool" else value.differs(0)

    def of_Constant(self, node: ast.Constant) -> Value:
        dtype = {bool: "bool", int: INDEX, float: "float64"}.get(type(node.value))
        if dtype is None:
            self.fail(f"{node.value!r} is no number")
        return Value(self.builder, constant(dtype, node.value), dtype)

    def of_Name(self, node: ast.Name) -> Thing:
        if node.id in self.names:
            place, kind = self.names[node.id]
            loaded = self.builder.load(place)
            return Value(self.builder, loaded, kind) if isinstance(kind, str) else Pointer(loaded, *kind)
        if node.id == self.table_name:
            return Table()
        near = close_match(node.id, self.names)
        return self.fail(f"the kernel uses {node.id!r} before it has a value{near}")

    def of_Subscript(self, node: ast.Subscript) -> Value:
        pointer = self.value(node.value)
        if not isinstance(pointer, Pointer):
            self.fail(f"only pointers have elements, not a {_described(pointer)}")
        element = memory.load(self.builder, pointer.llvm, self.index(node.slice), pointer.dtype, pointer.slot)
        return Value(self.builder, element, pointer.dtype)

    def of_BinOp(self, node: ast.BinOp) -> Value:
        return self.operation(node.op, self.scalar(node.left), self.scalar(node.right))

    def operation(self, operator: ast.operator, x: Value, y: Value) -> Value:
        name = OPERATORS.get(type(operator)) or self.unknown(operator)
        if x.dtype != y.dtype:
            self.fail(f"{name} of {x.dtype} and {y.dtype}")
        if name == "div" and not is_float(x.dtype):
            self.fail("/ divides floats; // divides indices")
        if x.dtype == INDEX and name in ("add", "sub", "mul"):          # sizes of memory never overflow
            return x.new(getattr(self.builder, name)(x.llvm, y.llvm, flags=("nsw",)))
        return self.applied(f"{name}_{x.dtype}", [x, y])

    def of_UnaryOp(self, node: ast.UnaryOp) -> Value:
        if isinstance(node.op, ast.Not):
            return ~self.truth(node.operand)
        value = self.scalar(node.operand)
        return value if isinstance(node.op, ast.UAdd) else -value

    def of_Compare(self, node: ast.Compare) -> Value:
        operands = [self.scalar(n) for n in (node.left, *node.comparators)]
        results = []
        for operator, x, y in zip(node.ops, operands, operands[1:]):
            name = COMPARISONS.get(type(operator)) or self.unknown(operator)
            if x.dtype != y.dtype:
                self.fail(f"compares {x.dtype} with {y.dtype}")
            results.append(self.applied(f"{name}_{x.dtype}", [x, y]))
        total = results[0]
        for result in results[1:]:
            total = total & result
        return total

    def of_BoolOp(self, node: ast.BoolOp) -> Value:
        """`and`, `or`: later operands are computed only where they matter, for they may guard a load."""
        first, *others = node.values
        result = self.truth(first)
        for other in others:
            rest = lambda node=other: self.truth(node)
            known = lambda result=result: result
            sides = (rest, known) if isinstance(node.op, ast.And) else (known, rest)
            result = self.branched(result, *sides)
        return result

    def of_IfExp(self, node: ast.IfExp) -> Value:
        condition = self.truth(node.test)
        return self.branched(condition, lambda: self.scalar(node.body), lambda: self.scalar(node.orelse))

    def branched(self, condition: Value, then: Callable[[], Value], otherwise: Callable[[], Value]) -> Value:
        """One of two values, of which only the chosen one is computed."""
        b = self.builder
        blocks = [self.function.append_basic_block() for _ in range(2)]
        after = self.function.append_basic_block()
        b.cbranch(condition.llvm, *blocks)
        found = []
        for block, compute in zip(blocks, (then, otherwise)):
            b.position_at_end(block)
            value = compute()
            found.append((value, b.block))
            b.branch(after)
        b.position_at_end(after)
        (x, _), (y, _) = found
        if x.dtype != y.dtype:
            self.fail(f"chooses between {x.dtype} and {y.dtype}")
        phi = b.phi(x.llvm.type)
        for value, block in found:
            phi.add_incoming(value.llvm, block)
        return x.new(phi)

    # ---- calls ---------------------------------------------------------------------------------------------

    def of_Call(self, node: ast.Call) -> Any:
        if not isinstance(node.func, ast.Name) or node.keywords:
            self.fail("calls functions by name, without keywords")
        name = node.func.id
        if name.startswith("lit_"):
            return self.literal(name[4:], node)
        if name in self.micro_kernels:
            self.micro_kernel(name, [self.value(a) for a in node.args])
            return None
        arguments = [self.value(a) for a in node.args]
        if name in ("size", "advance", "min", "max") or name.startswith("ptr_"):
            return getattr(self, f"call_{name.split('_')[0]}")(name, node, arguments)
        return self.applied(name, arguments)

    def applied(self, name: str, arguments: list) -> Value:
        """A scalar function by its full name."""
        function = scalars.scalar(name)
        if function is None:
            self.fail(f"the kernel names {name!r}, which does not exist{close_match(name, scalars.names())}")
        found = tuple(a.dtype if isinstance(a, Value) else str(a) for a in arguments)
        if found != function.arguments:
            self.fail(f"{name}: takes ({', '.join(function.arguments)}), not ({', '.join(found)})")
        return Value(self.builder, function(self.builder, *(a.llvm for a in arguments)), function.result)

    def literal(self, dtype: str, node: ast.Call) -> Value:
        try:
            number = literal_value(dtype, ast.literal_eval(node.args[0]))
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            return self.fail(f"lit_{dtype} takes one number: {error}")
        return Value(self.builder, constant(dtype, number), dtype)

    def call_ptr(self, name: str, node: ast.Call, arguments: list) -> Pointer:
        dtype = name[4:]
        if dtype not in LLVM_TYPES:
            self.fail(f"no pointers to {dtype!r}")
        slot = self.slot(name, node, arguments)
        return Pointer(memory.bound_pointer(self.builder, self.function.args[0], dtype, slot), dtype, slot)

    def call_size(self, name: str, node: ast.Call, arguments: list) -> Value:
        entry = memory.table_entry(self.builder, self.function.args[0], self.slot(name, node, arguments))
        return Value(self.builder, entry, INDEX)

    def slot(self, name: str, node: ast.Call, arguments: list) -> int:
        number = node.args[1] if len(node.args) == 2 else None
        if not isinstance(number, ast.Constant) or type(number.value) is not int:
            self.fail(f"{name}: the slot of an argument is a literal integer")
        if not isinstance(arguments[0], Table):
            self.fail(f"{name} looks into the argument table, not into a {_described(arguments[0])}")
        return number.value

    def call_advance(self, name: str, node: ast.Call, arguments: list) -> Pointer:
        if len(arguments) != 2 or not isinstance(arguments[0], Pointer):
            self.fail("advance moves a pointer by an index")
        pointer = arguments[0]
        return Pointer(memory.moved(self.builder, pointer.llvm, self.index_of(arguments[1])), *pointer.kind)

    def index_of(self, value: Any) -> ir.Value:
        if not isinstance(value, Value) or value.dtype != INDEX:
            self.fail("an offset is an int64")
        return value.llvm

    def call_min(self, name: str, node: ast.Call, arguments: list) -> Value:
        best, *others = arguments
        if not others or any(not isinstance(a, Value) or a.dtype != INDEX for a in arguments):
            self.fail(f"{name}: compares two or more indices")
        for other in others:
            best = ((best < other) if name == "min" else (best > other)).choose(best, other)
        return best

    call_max = call_min

    def micro_kernel(self, name: str, arguments: list) -> None:
        """The call of a micro-kernel."""
        kernel = self.micro_kernels[name]
        self.micro_calls += 1
        wanted = [Pointer] * kernel.pointers + [Value] * kernel.sizes
        fits = len(arguments) == len(wanted) and all(map(isinstance, arguments, wanted))
        if not fits or any(a.dtype != INDEX for a in arguments[kernel.pointers:]):
            self.fail(f"{name} takes {kernel.pointers} pointers and {kernel.sizes} indices, not ({', '.join(map(_described, arguments))})")
        kernel.emit(self.builder, *(a.llvm for a in arguments))


def literal_value(dtype: str, written: Any) -> Any:
    """The number that `lit_<dtype>(written)` stands for, rounded once; a string names nan, inf or -inf."""
    if dtype == "bool":
        return written in (True, 1, "True", "1")
    return np.dtype(dtype).type(written)


def _turns(*bounds: ir.Value) -> int:
    """How often a loop runs, if its start, stop and step are literals; else 0."""
    if not all(isinstance(bound, ir.Constant) for bound in bounds):
        return 0
    return len(range(*(_signed(bound) for bound in bounds)))


def _signed(constant_: ir.Constant) -> int:
    """An int64 constant as Python's number; constants are kept without sign."""
    number = constant_.constant % 2 ** 64
    return number - 2 ** 64 if number >= 2 ** 63 else number


def _as_load(target: ast.expr) -> ast.expr:
    """The expression that reads what an assignment writes."""
    if isinstance(target, ast.Subscript):
        return ast.Subscript(target.value, target.slice, ast.Load())
    return ast.Name(target.id, ast.Load()) if isinstance(target, ast.Name) else target


def _described(value: Any) -> str:
    return value.dtype if isinstance(value, Value) else str(value)
