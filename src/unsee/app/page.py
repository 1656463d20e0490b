"""The page itself: its elements, and what each button does. gradio is imported here and nowhere else."""

from __future__ import annotations

import hmac
import html
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from unsee import methods
from unsee.app.jobs import Desk
from unsee.app.shown import CSS, framed, problem, rows, slide, told
from unsee.app.studio import EXPORTS, Form, Studio
from unsee.errors import InputError

MOST_UPLOAD = 4 * 2**30
"""The largest upload, in bytes. Edits of the largest models here have 2 GB."""
QUEUE = 16
"""How many pieces of work can wait."""
AUTO = "by the concept"
PAGE = "unsee"


@dataclass(frozen=True)
class Door:
    """Where the page is served.

    host   127.0.0.1 is this machine alone
    port   None: a free one from 7860 on
    token  what a visitor must give as the password of the user "unsee"; None asks for nothing
    """

    host: str = "127.0.0.1"
    port: int | None = None
    token: str | None = None

    @property
    def local(self) -> bool:
        return self.host in ("127.0.0.1", "localhost", "::1")


def opened(studio: Studio, door: Door) -> tuple[Any, str]:
    """Serve the page; the running page, which `close()` ends, and its address.

    Raises InputError if gradio is not installed, the port is taken, or another machine could come in without a token.
    """
    if not door.local and not door.token:
        raise InputError(f"{door.host} is open to other machines: give a `token`, or leave out `host`")
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1" if "DISABLE" in name else "False"
    try:
        gr: Any = import_module("gradio")
    except ImportError as error:
        raise InputError("the page needs gradio: pip install 'unsee[app]'") from error
    blocks = page(gr, studio)
    token = door.token

    def known(user: str, word: str) -> bool:
        return token is not None and hmac.compare_digest(word.encode(), token.encode())

    try:
        _, address, _ = blocks.queue(default_concurrency_limit=1, max_size=QUEUE, api_open=False).launch(
            server_name=door.host,
            server_port=door.port,
            auth=known if token else None,
            auth_message='User "unsee"; the password is the token that `unsee app` printed.' if token else None,
            max_file_size=MOST_UPLOAD,
            allowed_paths=[],
            share=False,
            show_error=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            ssr_mode=False,
            css=CSS,
            theme=theme(gr),
        )
    except OSError as error:
        raise InputError(f"the page cannot be served at {door.host}: {error}") from error
    return blocks, address


def theme(gr: Any) -> Any:
    """gradio's own theme, with colours in which every text has a contrast of 4.5 at least (WCAG 2, AA)."""
    blue: Any = gr.themes.colors.blue
    return gr.themes.Default(primary_hue=blue).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_cancel_background_fill="#b91c1c",
        button_cancel_background_fill_hover="#991b1b",
        button_cancel_text_color="white",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


def page(gr: Any, studio: Studio) -> Any:
    """The page of a studio, as gradio's Blocks."""
    desk = Desk()
    out = Path(tempfile.mkdtemp(prefix="unsee-app-"))
    runs = list(studio.runs())
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    work = {**private, "concurrency_id": "work", "concurrency_limit": 1}
    with gr.Blocks(title=PAGE) as blocks:
        gr.Markdown("# unsee\nErase a concept from a text-to-image model, and see what it did.")
        with gr.Tab("Erase"), gr.Row():
            with gr.Column():
                model = gr.Radio(list(studio.models), value=studio.models[0], label="Model")
                concept = gr.Textbox(
                    label="Concept", placeholder="church", info="A word, or a list: church, castle", elem_id="concept"
                )
                method = gr.Dropdown([AUTO, *methods.names()], value=AUTO, label="Method")
                with gr.Accordion("More", open=False):
                    anchor = gr.Textbox(label="Drawn in its place", placeholder="nothing in particular")
                    keep = gr.Textbox(label="What must stay", placeholder="castle, house")
                    synonyms = gr.Textbox(label="Other names, erased too", placeholder="chapel, churches")
                    pictures = gr.Number(value=16, precision=0, minimum=2, label="Pictures for each row")
                    seed = gr.Number(value=0, precision=0, minimum=0, maximum=2**32 - 1, label="Random seed")
                with gr.Row():
                    plan = gr.Button("Plan")
                    erase = gr.Button("Erase", variant="primary", elem_id="erase")
                    stop = gr.Button("Stop", variant="stop", elem_id="stop")
            with gr.Column():
                said = gr.HTML("", elem_classes="say", elem_id="said")
                preview = gr.HTML("", elem_id="preview")
        with gr.Tab("Compare") as compare_tab, gr.Row():
            with gr.Column():
                chosen = gr.CheckboxGroup(runs, label="Edits in use", elem_id="edits")
                prompt = gr.Textbox(value="a church", label="Prompt")
                strength = gr.Slider(
                    0,
                    2,
                    value=1,
                    step=0.05,
                    label="Strength",
                    info="0 is the base model, 1 the edit",
                    elem_id="strength",
                )
                drawn_seed = gr.Number(value=0, precision=0, minimum=0, maximum=2**32 - 1, label="Random seed")
                draw = gr.Button("Draw", variant="primary", elem_id="draw")
            with gr.Column():
                drawing = gr.HTML("", elem_classes="say", elem_id="drawing")
                pair = gr.HTML("", elem_id="pair")
        with gr.Tab("Evidence") as evidence_tab:
            run = gr.Dropdown(runs, value=None, label="Run", elem_id="run")
            verdict = gr.HTML("", elem_classes="say", elem_id="verdict")
            report = gr.HTML("")
        with gr.Tab("Export") as export_tab, gr.Row():
            with gr.Column():
                exported = gr.Dropdown(runs, value=None, label="Run", elem_id="exported")
                what = gr.Radio(list(EXPORTS), value=next(iter(EXPORTS)), label="For", elem_id="what")
                make = gr.Button("Write the file", variant="primary", elem_id="make")
                most = f"Or upload an edit (.safetensors, up to {MOST_UPLOAD / 2**30:g} GB)"
                upload = gr.File(file_types=[".safetensors"], label=most)
            with gr.Column():
                made = gr.HTML("", elem_classes="say", elem_id="made")
                file = gr.DownloadButton("Download", visible=False, elem_id="download")

        form = [model, concept, method, anchor, keep, synonyms, pictures, seed]
        lists = [chosen, run, exported]

        def refreshed(on: list[str], *named: str | None) -> list[Any]:
            """The lists of runs as they are now; what is chosen stays, and else it is the newest."""
            names = list(studio.runs())
            newest = names[0] if names else None
            kept = [one if one in names else newest for one in named]
            there = [one for one in on or [] if one in names]
            ticks = (
                {} if there == (on or []) else {"value": there}
            )  # unchanged ones are not sent: a click may be on its way
            return [gr.update(choices=names, **ticks), *(gr.update(choices=names, value=one) for one in kept)]

        def renewed() -> list[Any]:
            """The same with the newest run chosen."""
            names = list(studio.runs())
            return [gr.update(choices=names, value=one) for one in (names[:1], *[names[0] if names else None] * 2)]

        def planned(*values: Any) -> Iterator[Any]:
            asked = _form(*values)

            def described(progress: Any, show: Any) -> str:
                progress("load", 0, 1)
                return rows(studio.described(studio.plan(asked)))

            for news in desk.watch(described):
                yield news.result or told(news)

        def erased(*values: Any) -> Iterator[Any]:
            asked = _form(*values)
            for news in desk.watch(lambda progress, show: studio.erase(asked, progress, show)):
                if news.result:
                    first, _ = studio.evidence(news.result)
                    place = f"Saved as {news.result}. Compare, Evidence and Export show it."
                    yield [f"<p>{html.escape(first)}</p><p>{html.escape(place)}</p>", gr.skip()]
                elif news.shown:
                    yield [gr.skip(), slide(news.shown, "now")]
                else:
                    yield [told(news), gr.skip()]

        def compared(names: list[str], text: str, scale: float, number: float) -> Iterator[Any]:
            for news in desk.watch(lambda progress, _: studio.draw(text, names, scale, int(number or 0), progress)):
                using = f"{' + '.join(names)} at strength {scale:g}" if names else "no edit in use"
                note = f"<p>{html.escape(f'{text}; {using}; seed {int(number or 0)}')}</p>"
                yield [note, slide(news.result, "after")] if news.result else [told(news), gr.skip()]

        def shown(name: str | None) -> list[str]:
            first, text = studio.evidence(name) if name else ("", "")
            return [
                "" if text else f"<p>{html.escape(first)}</p>",
                framed(text),
            ]  # a run's page begins with its verdict

        def written(name: str | None, wanted: str) -> Iterator[Any]:
            hidden = gr.update(visible=False)
            if not name:
                yield ["<p>Choose a run.</p>", hidden]
                return
            for news in desk.watch(lambda progress, _: studio.export(name, wanted, out)):
                if news.result:
                    path, use = news.result
                    size = path.stat().st_size / 1e6
                    yield [
                        f"<p>{html.escape(path.name)}, {size:.2f} MB. {html.escape(use)}</p>",
                        gr.update(value=str(path), label=f"Download {path.name}", visible=True),
                    ]
                else:
                    yield [told(news), hidden]

        def taken(path: str | None) -> Any:
            return f"<p>Added as {html.escape(studio.take_in(Path(path)))}.</p>" if path else ""

        def safe(action: Callable[..., Any], outputs: int) -> Callable[..., Any]:
            """An action whose InputError is shown in its first output."""

            def tried(*values: Any) -> Any:
                try:
                    return action(*values)
                except InputError as error:
                    return [problem(error), *[gr.skip()] * (outputs - 1)] if outputs > 1 else problem(error)

            return tried

        plan.click(planned, form, said, **work)
        erase.click(erased, form, [said, preview], **work).then(renewed, None, lists, **private)
        concept.submit(erased, form, [said, preview], **work).then(renewed, None, lists, **private)
        stop.click(desk.stop, None, None, queue=False, **private)
        asked = [chosen, prompt, strength, drawn_seed]
        for happens in (draw.click, prompt.submit, strength.input, chosen.input):
            happens(compared, asked, [drawing, pair], trigger_mode="always_last", **work)
        run.change(safe(shown, 2), run, [verdict, report], **private)
        make.click(written, [exported, what], [made, file], **work)
        upload.upload(safe(taken, 1), upload, made, **private).then(renewed, None, lists, **private)
        for tab in (compare_tab, evidence_tab, export_tab):
            tab.select(refreshed, lists, lists, **private)
        blocks.load(renewed, None, lists, **private)
    return blocks


def _form(*values: Any) -> Form:
    model, concept, method, anchor, keep, synonyms, pictures, seed = values
    chosen = None if method == AUTO else method
    return Form(
        str(model), str(concept or ""), chosen, str(anchor or ""), str(keep or ""), str(synonyms or ""),
        int(pictures) if pictures else None, int(seed or 0),
    )  # fmt: skip
