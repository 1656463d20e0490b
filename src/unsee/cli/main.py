"""The command line. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import io
import os
import sys
from functools import cache
from typing import Annotated, Any

import typer

from unsee.cli import app as page
from unsee.cli import files
from unsee.cli.attack import attack
from unsee.cli.check import check
from unsee.cli.erase import erase
from unsee.cli.evaluate import evaluate, reproduce
from unsee.cli.export import export
from unsee.cli.flags import typed
from unsee.cli.generate import generate
from unsee.cli.help import help_
from unsee.cli.show import show
from unsee.cli.sweep import sweep
from unsee.cli.terminal import (
    forgiving,
    plain,
)
from unsee.errors import Diverged, Ended, InputError, Unsupported
from unsee.progress import speaks

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="unsee help NAME explains a command, a method, a suite or an attack, such as: unsee help erase",
)


def _version(wanted: bool) -> None:
    if wanted:
        import unsee

        print(f"unsee {unsee.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _unsee(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Remove concepts from a text-to-image diffusion model, and measure what was removed and what was damaged."""
    if context.invoked_subcommand is None:
        print(context.get_help())


app.command()(erase)
app.command()(generate)
app.command()(show)
app.command(name="help")(help_)
app.command()(evaluate)
app.command()(attack)
app.command()(check)
app.command()(sweep)
app.command()(page.app)
app.command()(reproduce)
app.command()(export)
app.add_typer(files.app)

# typer raises the errors of its own copy of click, whose base class it does not name publicly.
UsageError: Any = typer.BadParameter.__mro__[1]


@cache
def _command() -> Any:
    """All commands with their options, of which typer would make new ones each time that `main` is called."""
    return typer.main.get_command(app)


def main() -> None:
    """Run the command line: exit code 2 and one line for bad input, 130 after Ctrl-C."""
    # Loading bars and advice of the libraries would drown what a run says of itself.
    for variable in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(variable, "error")
    # Idle threads that spin for long slow two busy processes on a few cores tenfold; those that sleep at once slow one
    # process by a third. A short spin does neither.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    for stream in (sys.stdout, sys.stderr):
        forgiving(stream)
    if not speaks():
        sys.stdout = io.StringIO()
    if "--debug" in sys.argv:
        app()
    message = ""
    try:
        code = _command()(standalone_mode=False) or 0
    except InputError as error:
        message, code = str(error), 1 if isinstance(error, Diverged) else 2
        if isinstance(error, Unsupported) and not isinstance(error.__cause__, InputError | None):
            message += " (--debug shows where)"
    except Ended as error:
        message, code = str(error), error.code
    except UsageError as error:
        message, code = error.format_message(), 2
    except OSError as error:  # a disk that is full
        message, code = str(error), 1
    except (MemoryError, RuntimeError) as error:
        from unsee.models.memory import OutOfMemory, advice, out_of_memory

        if not out_of_memory(error):
            raise
        message, code = (
            str(error) if isinstance(error, OutOfMemory) else f"{advice(error)}; --debug says where it was",
            1,
        )
    if code == 130 and not message:  # typer's own answer to Ctrl-C
        message = "stopped; finished files are kept"
    if message:
        print(f"unsee: {plain(typed(message))}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
