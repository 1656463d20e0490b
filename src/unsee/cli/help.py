"""The command `help`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unsee.cli.allowed import installed
from unsee.cli.terminal import brief, plain
from unsee.errors import unknown


def help_(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A command, a method, a suite or an attack.")
    ] = None,
) -> None:
    """Explain a command, a method with its settings and presets, a suite or an attack."""
    parent: Any = context.parent
    commands = parent.command.commands
    if name is None:
        print(parent.get_help())
    elif name in commands:
        print(commands[name].make_context(name, [], parent, resilient_parsing=True).get_help())
    elif name in installed("methods"):
        _explain(name)
    elif name in installed("suites"):
        from unsee.evaluate import suites

        print(f"{name}: {suites.find(name).about}\nunsee evaluate MODEL-or-RUN --suite {name}")
    elif name in installed("attacks"):
        from unsee import attacks

        one = attacks.find(name)
        print(f"{name}: {one.about}\naxis: {one.axis}; needs: {', '.join(sorted(one.needs))}")
        print(f"unsee attack RUN-or-EDIT --attack {name}")
    else:
        raise unknown(
            "name", name, [*commands, *(one for kind in ("methods", "suites", "attacks") for one in installed(kind))]
        )


def _explain(name: str) -> None:
    """Print a method's documentation, its settings with their defaults, and its presets."""
    import inspect
    from dataclasses import MISSING, fields, is_dataclass

    from unsee import methods

    method = methods.find(name)
    print(f"{name}: {inspect.getdoc(method)}\n")
    for base in (one for one in method.__mro__[1:] if is_dataclass(one)):
        print(f"{inspect.getdoc(base)}\n")
    print("Settings with their defaults; --set KEY=VALUE changes one:" if fields(method) else "It has no settings.")
    wide = max((len(one.name) for one in fields(method)), default=0)
    for one in fields(method):
        print(plain(f"  {one.name:<{wide}} {'' if one.default is MISSING else brief(one.default)}"))
    if method.presets:
        print("Presets; --preset NAME takes one:")
    for preset, settings in method.presets.items():
        print(plain(f"  {preset:<16} {', '.join(f'{key} {brief(value)}' for key, value in settings.items())}"))
