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
    kernels: Annotated[bool, typer.Option("--kernels", help="single kernels, class by class")] = False,
    only: Annotated[str, typer.Option(help="classes, such as 'conv*,sum'")] = "*",
    seconds: Annotated[float, typer.Option(help="for each case")] = 0.2,
    peer: Annotated[str | None, typer.Option(help="a library to compare with: torch")] = None,
    threads: Annotated[int, typer.Option(help="of both sides")] = 1,
) -> None:
    """Time kernels beside what the machine can do: its multiply-add peak, or a copy of the same bytes."""
    from symgrad.cli import bench as work
    if not kernels:
        raise typer.BadParameter("--kernels says what to time")
    work.kernels(only, seconds, peer, threads, typer.echo)


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
