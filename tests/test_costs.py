"""What the plans of the workloads cost, in counts and not in times: kernels, memory, traffic, operations, and vectors in inner loops.

tests/golden/costs.txt holds the counts of full-size workloads, planned for a processor with AVX2 and one thread, without compiling
or running anything. A count that grows fails the test; `--update-golden` writes what is true now. What shrinks should be written
too, so that it stays.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.backends.cpu import build, machine, toolchain
from symgrad.backends.cpu.templates import host_target
from symgrad.base import poly
from symgrad.bench import in_symgrad
from symgrad.bench.workloads import CASES

GOLDEN = Path(__file__).parent / "golden" / "costs.txt"
COUNTS = ("kernels", "stored", "separate", "arena", "moved", "flops")
SLACK = {"arena": (1.02, 4096), "moved": (1.02, 4096)}      # bytes shift a little with padding; the rest is exact


@pytest.fixture
def plans(monkeypatch):
    """The programs that are built, planned for one kind of machine and not compiled."""
    from llvmlite import binding
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: binding.targets.FeatureMap({"avx2": True, "fma": True}))
    host_target.cache_clear()
    monkeypatch.setattr(toolchain, "compile_texts", lambda kernels: [SimpleNamespace(address=0, cached=False) for _ in kernels])
    programs = []
    monkeypatch.setattr(build, "_report", programs.append)
    with sg.config(num_threads=1, check=False):
        yield programs
    host_target.cache_clear()


def costs(program):
    """The counts of one program; `separate` are stored values with memory of their own."""
    plan, bound = program.plan, program.bound({})
    value = lambda size: int(poly.evaluate(size, bound.size_of))
    stored = plan.temporaries()
    return dict(zip(COUNTS, (len(plan.flat()), len(stored), sum(n not in plan.taken for n in (*stored, *plan.outputs)), bound.arena_bytes,
                             sum(value(k.moved_bytes()) for k in plan.kernels), sum(value(k.flops) for k in plan.kernels))))


def read():
    """The counts of the golden file, by workload."""
    lines = GOLDEN.read_text().splitlines()
    rows = [re.split(r" {2,}", line.strip()) for line in lines[1:]]
    return {name: dict(zip(COUNTS, map(int, numbers))) for name, *numbers in rows}


def written(counts):
    """The file: a line per workload, columns aligned."""
    rows = [["workload", *COUNTS], *([name, *(str(own[c]) for c in COUNTS)] for name, own in counts.items())]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))]) for row in rows) + "\n"


def grown(name, now, before):
    """What grew, in words."""
    most = lambda c: before[c] * SLACK.get(c, (1, 0))[0] + SLACK.get(c, (1, 0))[1]
    return [f"{name}: {c} grew from {before[c]:,} to {now[c]:,}" for c in COUNTS if now[c] > most(c)]


@pytest.mark.parametrize("name", CASES)
def test_plans_cost_no_more_than_before(name, plans, request):
    CASES[name].build(in_symgrad, **CASES[name].sizes)
    (program,) = plans
    now, before = costs(program), read() if GOLDEN.exists() else {}
    if request.config.getoption("--update-golden"):
        found = before | {name: now}
        GOLDEN.write_text(written({case: found[case] for case in CASES if case in found}))
        return
    assert name in before, f"{GOLDEN.name} lacks {name}; pytest --update-golden writes it"
    assert not (more := grown(name, now, before[name])), "\n".join([*more, "pytest --update-golden accepts it"])


def test_growth_is_named():
    before = dict(zip(COUNTS, (3, 2, 2, 100_000, 500_000, 0)))
    assert grown("mlp", before | {"kernels": 4, "arena": 101_000}, before) == ["mlp: kernels grew from 3 to 4"]
    assert grown("mlp", before | {"arena": 120_000}, before) == ["mlp: arena grew from 100,000 to 120,000"]
    assert not grown("mlp", before | {"kernels": 2}, before)


# -------------------------------------------------------------------------------------------- vectors in inner loops
LABEL, JUMP = re.compile(r"^(\.L\w+):"), re.compile(r"^\s+j\w+\s+(\.L\w+)")
ARITHMETIC = re.compile(r"^\s+v(?:f[nm]\w*add|f[nm]\w*sub|add|sub|mul|div|max|min|sqrt|cmp|and)\w*([ps])[sd]\s")
CALL = re.compile(r"^\s+call\w*\s")


def inner_loops(assembly):
    """The lines of every loop that contains no other."""
    lines = assembly.splitlines()
    labels = {m[1]: k for k, line in enumerate(lines) if (m := LABEL.match(line))}
    spans = [(labels[m[1]], k) for k, line in enumerate(lines) if (m := JUMP.match(line)) and labels.get(m[1], k) < k]
    return [lines[a:b + 1] for a, b in spans if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in spans)]


def vectors(loop):
    """(packed arithmetic on full registers, scalar arithmetic) of a loop."""
    found = [(m[1], "%ymm" in line or "%zmm" in line) for line in loop if (m := ARITHMETIC.match(line))]
    return sum(kind == "p" and wide for kind, wide in found), sum(kind == "s" for kind, _ in found)


def has_avx2():
    from llvmlite import binding
    features = binding.get_host_cpu_features()
    return features.get("avx2", False) and features.get("fma", False)


x, w = T.matrix("x", shape=(256, 256)), T.matrix("w", shape=(256, 256))
image, filters = T.tensor("image", (2, 16, 28, 28)), T.tensor("filters", (32, 16, 3, 3))
KERNELS = {
    "chain": T.tanh(x) * T.sigmoid(w) + T.exp(-x * x) * T.sqrt(w * w + 1) - T.log1p(x * x),
    "sum of squares": T.sum(x * x, axis=1),
    "largest of a row": T.max(x * w, axis=1),
    "matrix product with its epilogue": T.relu(x @ w + 1),
    "convolution with its epilogue": T.relu(T.conv2d(image, filters, padding=1)),
    "gradient to filters": sg.grad(T.sum(T.conv2d(image, filters, padding=1) ** 2), filters),
    "guided mask": sg.grad(T.sum(T.relu(x) * w), x, overrides={T.relu: lambda g, y, x: g * (x > 0) * (g > 0)}),
    "update in place": x - 0.01 * w,
}


@pytest.mark.skipif(not has_avx2(), reason="the processor has no AVX2")
@pytest.mark.parametrize("name", KERNELS)
def test_inner_loops_use_whole_vectors(name):
    """The loop with the most arithmetic is packed; scalar loops are remainders of it; only micro-kernels are called."""
    f = sg.function([x, w, image, filters], KERNELS[name], backend="cpu", on_unused_input="ignore")
    for kernel in f.executable.latest().plan.flat():
        ir_text, micros = toolchain._read(kernel.text, "kernel_entry")
        own, *called = (machine.assembly(text)[1] for text in (ir_text, *(m.llvm_text() for m in micros)))
        strange = [line for line in own.splitlines() if CALL.match(line) and not re.search("symgrad_micro|%r", line)]
        assert not strange, f"{kernel.what} calls a library: {strange}"
        counts = [c for text in (own, *called) for loop in inner_loops(text) if any(c := vectors(loop))]
        packed, scalar = max(counts, key=sum)
        assert packed and not scalar, f"{kernel.what}: (packed, scalar) arithmetic of its inner loops {counts}"
        if called:
            epilogue = [c for loop in inner_loops(own) if any(c := vectors(loop))]
            assert not epilogue or max(epilogue, key=sum)[0], f"the epilogue of {kernel.what} is scalar: {epilogue}"
