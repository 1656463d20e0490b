"""The command `app`."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.terminal import Cache, Debug, cache_folder
from unsee.progress import starting


def app(
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model that the page offers; default mini. May be repeated. The page opens no other."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of runs, shared with the command line.")] = Path("runs"),
    host: Annotated[
        str, typer.Option(help="Address to listen on. With any other than the default, visitors need a token.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; default: a free one from 7860 up.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="UNSEE_TOKEN", help="Password of visitors; default: random, and printed.")
    ] = None,
    cache: Cache = None,
    debug: Debug = False,
) -> None:
    """Serve a web page that erases, compares and exports. By default only this machine can open it."""
    with starting():
        from unsee.app.page import Door, opened
        from unsee.app.studio import Studio
        from unsee.models.model_card import model_card

    door = Door(host, port, token)
    if not door.local and not token:
        door = Door(host, port, secrets.token_urlsafe(16))
    for name in model or ():
        model_card(name)  # a name that leads nowhere is reported before the page opens
    runs.mkdir(parents=True, exist_ok=True)
    blocks, address = opened(Studio(runs, cache_folder(cache), tuple(model or ("mini",))), door)
    print(f"open {address} in a browser; Ctrl-C ends it")
    if door.token:
        print(f"user unsee, password {door.token}")
    try:
        blocks.block_thread()
    finally:
        blocks.close()
