"""Kernels without barriers on the CPU: their threads one after the other, compiled by the CPU backend's own toolchain."""

from __future__ import annotations

import ast
import ctypes
from functools import cache

import numpy as np

from ..cpu import toolchain

PLAIN = {"i32", "i64", "truth", "byte"}         # widths and bytes matter to a device only
DIVISIONS = {"quotient": ast.FloorDiv, "floor_quotient": ast.FloorDiv, "remainder": ast.Mod, "floor_remainder": ast.Mod}
GEOMETRY = ("blocks", "threads")                # what follows the kernel's own arguments in the table


def run(text: str, types: tuple[str, ...], table: list[int], blocks: int, threads: int) -> None:
    """Run a kernel on a table of addresses and sizes."""
    row = np.array([*table, blocks, threads], np.int64)
    _entry(text, types)(row.ctypes.data)


@cache
def _entry(text: str, types: tuple[str, ...]):
    kernel = toolchain.compile_text(cpu_text(text, types), "emulated")
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(kernel.address)


def cpu_text(text: str, types: tuple[str, ...]) -> str:
    """A CUDA kernel text as one that the CPU backend reads: a loop over blocks and threads around it."""
    function = ast.parse(text).body[0]
    assert isinstance(function, ast.FunctionDef)
    names = [a.arg for a in function.args.args]
    lines = [f"{name} = {f'size(args, {k})' if kind == 'i64' else f'ptr_{kind}(args, {k})'}" for k, (name, kind) in enumerate(zip(names, types))]
    lines += [f"{word} = size(args, {len(names) + k})" for k, word in enumerate(GEOMETRY)]
    body = ast.unparse(ast.fix_missing_locations(ast.Module([_Words().visit(statement) for statement in function.body], [])))
    inner = "\n".join("            " + line for line in body.splitlines())
    head = "\n".join(f"    {line}" for line in lines)
    return f"def kernel(args):\n{head}\n    for block in range(blocks):\n        for lane in range(threads):\n{inner}\n"


class _Words(ast.NodeTransformer):
    """Replaces the words that only a device has."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        word = node.func.id if isinstance(node.func, ast.Name) else ""
        if word in PLAIN:
            return node.args[0]
        if word in DIVISIONS:
            return ast.BinOp(node.args[0], DIVISIONS[word](), node.args[1])
        found = {"first_thread": "block * threads + lane", "thread_count": "blocks * threads", "lane": "lane", "block": "block",
                 "block_size": "threads", "block_count": "blocks"}.get(word)
        return ast.parse(found, mode="eval").body if found else node
