"""What `symgrad` answers to. Each command's work is in a module of its own, imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Symbolic graphs with gradient overrides.")
BACKENDS = "cpu, cuda or reference"


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="the picture to write")] = Path("demo.png"),
    backend: Annotated[str | None, typer.Option(help=BACKENDS)] = None,
) -> None:
    """Train a small network on handwritten digits and draw its saliency maps."""
    from symgrad.cli import demo as work
    typer.echo(work.run(output, backend))


@app.command()
def saliency(
    model: Annotated[Path, typer.Argument(help="a Python file with a variable `model`")],
    image: Annotated[Path, typer.Argument(help="a picture")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the PNG to write")] = Path("heat.png"),
    method: Annotated[str, typer.Option("--method", "-m", help="of sg.saliency")] = "guided_backprop",
    target: Annotated[int | None, typer.Option(help="class to explain; the likeliest if not given")] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH, if the model does not say")] = None,
    mean: Annotated[str, typer.Option(help="subtracted from pixels in 0..1; one or one per channel")] = "0",
    std: Annotated[str, typer.Option(help="pixels are divided by this afterwards")] = "1",
    backend: Annotated[str | None, typer.Option(help=BACKENDS)] = None,
) -> None:
    """Draw which pixels of a picture a model's score depends on."""
    from symgrad.cli import saliency as work
    options = work.Options(method, target, work.parsed_size(size), work.numbers(mean), work.numbers(std),
                           backend)
    typer.echo(work.run(model, image, output, options))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def explain(
    context: typer.Context,
    script: Annotated[Path, typer.Argument(help="a Python file; what follows it are its arguments")],
) -> None:
    """Run a script and print what each function it compiles was turned into."""
    from symgrad.cli import explain as work
    work.run(script, context.args, typer.echo)


@app.command()
def doctor() -> None:
    """Say which backends work here, and why not."""
    from symgrad.cli import doctor as work
    typer.echo(work.report())


@app.command()
def bench(
    cases: Annotated[list[str] | None, typer.Argument(help="workloads, such as mlp lstm; all if none is named")] = None,
    kernels: Annotated[bool, typer.Option("--kernels", help="single kernels, class by class, instead of workloads")] = False,
    only: Annotated[str, typer.Option(help="classes of kernels, such as 'conv*,sum'")] = "*",
    seconds: Annotated[float, typer.Option(help="for each case of a kernel, or each turn of a workload")] = 0.2,
    peer: Annotated[str | None, typer.Option(help="libraries to compare with, by commas: torch, torch_compile, jax, pytensor")] = None,
    threads: Annotated[str, typer.Option(help="of all libraries; 1,2 measures both")] = "1",
    quick: Annotated[bool, typer.Option("--quick", help="few turns, filled caches only")] = False,
    python: Annotated[list[str] | None, typer.Option(help="LIBRARY=PATH: an interpreter that has the library")] = None,
    write: Annotated[Path | None, typer.Option(help="a page whose generated tables are rewritten")] = None,
) -> None:
    """Time workloads beside other libraries, in turns, or kernels beside what the machine can do."""
    if kernels:
        from symgrad.cli import bench as single
        single.kernels(only, seconds, peer, int(threads), typer.echo)
    else:
        from symgrad.cli import workloads as work
        options = work.Options(tuple(cases or ()), work.names(peer), work.numbers(threads), seconds, quick, dict(p.split("=", 1) for p in python or ()))
        work.run(options, write, typer.echo)


@app.command()
def size() -> None:
    """Count the lines of symgrad, file by file."""
    from symgrad.cli import size as work
    typer.echo(work.report())


def main() -> None:
    """Runs the command line; mistakes of the user end in one message, not in a traceback."""
    from symgrad.base.errors import SymgradError
    try:
        app()
    except (SymgradError, FileNotFoundError) as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise SystemExit(1) from None
