"""The page erases, compares and exports as the command line does, and opens nothing that it is not to open."""

import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import browser
import pytest
from conftest import QUICK

import unsee
from unsee.app.jobs import Desk, News
from unsee.app.page import MOST_UPLOAD, QUEUE, Door, opened
from unsee.app.preview import PREVIEW_SHARE, Preview
from unsee.app.shown import framed, rows, told
from unsee.app.studio import EXPORTS, Form, Studio
from unsee.errors import InputError
from unsee.export.formats import FORMATS
from unsee.models.model import Model
from unsee.runs.config import build


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path / "runs", tmp_path / "pictures", ("tiny",))


@pytest.fixture
def with_edit(studio: Studio, edit: Any) -> Studio:
    """A run for "church": a few layers of the edit, so that an export takes no second."""
    (studio.root / "church").mkdir(parents=True)
    layers = [name for name in edit.deltas if "attn2" in name][:6]
    unsee.Edit({name: edit.deltas[name] for name in layers}, edit.card).save(
        studio.root / "church" / "edit.safetensors"
    )
    return studio


def quiet(stage: str, done: int, total: int) -> None:
    pass


def test_news_come_in_order_and_the_last_has_the_result() -> None:
    def work(progress: Any, show: Any) -> str:
        for k in range(3):
            progress("count", k, 3)
            show(k)
        return "done"

    news = list(Desk().watch(work))
    assert [one.shown for one in news if one.shown is not None] == [0, 1, 2]  # nothing that is to be seen is lost
    assert news[-1].result == "done"
    assert all(not one.last for one in news[:-1])


def test_work_is_stopped_at_its_next_step_and_an_error_is_a_line() -> None:
    desk, went_on = Desk(), []

    def work(progress: Any, show: Any) -> str:
        progress("a", 0, 2)
        show(1)
        stopped.wait()
        progress("a", 1, 2)
        went_on.append(1)
        return "done"

    stopped = threading.Event()
    news = []
    for one in desk.watch(work):
        news.append(one)
        desk.stop()
        stopped.set()
    assert news[-1].problem.startswith("stopped")
    assert not went_on

    def broken(progress: Any, show: Any) -> str:
        raise RuntimeError("two\nlines")

    assert list(desk.watch(broken))[-1].problem == "RuntimeError: two lines"


def test_closing_the_page_stops_the_work() -> None:
    ended = threading.Event()

    def work(progress: Any, show: Any) -> str:
        show(1)
        try:
            while True:
                progress("on and on", 0, 2)
        finally:
            ended.set()

    watching = Desk().watch(work)
    next(watching)
    watching.close()  # type: ignore[attr-defined]
    assert ended.is_set()


def test_a_preview_changes_no_bit_of_the_edit(tiny: Any, edit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from unsee.app import preview

    monkeypatch.setattr(preview, "PREVIEW_SHARE", 1e9)  # after every update
    seen: list[Any] = []
    config = build({"model": "tiny", "concepts": "church"})
    watched = Preview(Model.of(tiny), config, seen.append, quiet)
    again = unsee.Hybrid(**QUICK)(tiny, unsee.Concept("church"), progress=watched)
    assert again.fingerprint() == edit.fingerprint()
    assert len(seen) == 1 + QUICK["updates"]
    first, last = seen[-1]
    assert first == seen[0][0]
    assert last != first, "the preview is drawn with the base's weights"


def test_the_page_makes_the_same_configuration_as_the_command(
    studio: Studio, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = []

    def started(plan: Any, *args: Any, **more: Any) -> Any:
        plans.append(plan)
        raise InputError("enough")

    monkeypatch.setattr("unsee.runs.erase.erase", started)
    typed = ["--keep", "castle, house", "--anchor", "barn", "--synonym", "chapel", "--seed", "3", "-n", "4"]
    assert run("erase", "church", *typed)[0] == 2
    form = Form("tiny", "church", None, "barn", "castle, house", "chapel", 4, 3)
    with pytest.raises(InputError, match="enough"):
        studio.erase(form, quiet, lambda shown: None)
    first, second = plans
    assert first.config == second.config
    assert first.method == second.method


def test_a_stopped_run_continues_in_its_folder(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    form = Form("tiny", "church", "uce", pictures=2)

    def impatient(stage: str, done: int, total: int) -> None:
        if stage == "render" and total > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        studio.erase(form, impatient, lambda shown: None)
    made = unsee.Edit.load(studio.root / "church" / "edit.safetensors").fingerprint()
    assert studio.evidence("church")[0].startswith("This edit was not measured here")
    assert studio.place(studio.plan(form)) == (studio.root / "church", True)
    assert studio.place(studio.plan(Form("tiny", "church", "uce", pictures=3)))[0].name == "church-2"

    seen: list[Any] = []
    assert studio.erase(form, quiet, seen.append) == "church"
    assert unsee.Edit.load(studio.root / "church" / "edit.safetensors").fingerprint() == made
    assert seen[0][0] == seen[-1][0]
    assert seen[-1][1] != seen[-1][0]
    verdict, page = studio.evidence("church")
    assert verdict.startswith("church:")
    assert "<h1>Erased: church</h1>" in page
    assert studio.place(studio.plan(form))[0].name == "church-2"  # a finished run is not written over


def test_a_plan_names_time_and_memory(studio: Studio) -> None:
    said = dict(studio.described(studio.plan(Form("tiny", "church", "esd", pictures=2))))
    assert re.match(r"about \d+:\d\d, estimated from one pass", said["time"])
    assert "fit: " in said["memory"]
    assert said["writes"] == "church/"
    assert not studio.root.exists()  # nothing is written


def test_strength_and_the_choice_of_edits_change_the_picture(with_edit: Studio, pipe: Any) -> None:
    before, after = with_edit.draw("a church", ["church"], 1.0, 3, quiet)
    assert before != after
    assert with_edit.draw("a church", ["church"], 0.0, 3, quiet) == (before, before)
    assert with_edit.draw("a church", [], 1.0, 3, quiet) == (before, before)
    assert with_edit.draw("a church", ["church"], 2.0, 3, quiet)[1] != after


@pytest.fixture
def with_two(with_edit: Studio, pipe: Any) -> Studio:
    """A run for "church" and one for "dog"."""
    (with_edit.root / "dog").mkdir()
    unsee.Hybrid(**QUICK)(pipe, unsee.Concept("dog")).save(with_edit.root / "dog" / "edit.safetensors")
    return with_edit


def test_two_edits_are_switched_on_and_off(with_two: Studio) -> None:
    before, both = with_two.draw("a church", ["church", "dog"], 1.0, 3, quiet)
    church, dog = (with_two.draw("a church", [name], 1.0, 3, quiet) for name in ("church", "dog"))
    assert church[0] == dog[0] == before
    after = [picture.tobytes() for picture in (before, church[1], dog[1], both)]
    assert len(set(after)) == 4
    assert with_two.draw("a church", ["dog", "church"], 1.0, 3, quiet)[0] == before  # off again: no bit is left


@pytest.mark.parametrize("what", EXPORTS)
def test_exports_are_those_of_the_command(
    with_edit: Studio, what: str, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    out = tmp_path / "out"
    out.mkdir()
    path, use = with_edit.export("church", what, out)
    assert path.suffix == ".safetensors"
    assert str(tmp_path) not in use  # a place on this machine does not concern the browser
    source = with_edit.root / "church" / "edit.safetensors"
    if EXPORTS[what] == "edit":
        assert unsee.Edit.load(path).fingerprint() == unsee.Edit.load(source).fingerprint()
        return
    monkeypatch.setattr("unsee.runs.export.compared", lambda *_: ())  # pictures of a LoRA beside the edit's: seconds
    assert run("export", source, "--to", EXPORTS[what], "--out", tmp_path / "typed.safetensors")[0] == 0
    ours, theirs = load_file(path), load_file(tmp_path / "typed.safetensors")
    assert ours
    assert ours.keys() == theirs.keys()
    assert all((ours[key] == theirs[key]).all() for key in ours)


def test_the_documentation_says_what_the_page_does() -> None:
    page = (Path(__file__).parents[1] / "docs" / "app.md").read_text()
    assert f"up to {MOST_UPLOAD // 2**30} GB" in page
    assert f"a queue of {QUEUE}" in page
    assert f"a {({0.2: 'fifth'})[PREVIEW_SHARE]} of the time" in page


def test_every_export_has_a_format() -> None:
    assert set(EXPORTS.values()) - {"edit"} == set(FORMATS) - {"pipeline"}


def test_the_browser_cannot_open_a_path(with_edit: Studio, tmp_path: Path) -> None:
    (with_edit.root / "secret").mkdir()
    (tmp_path / "edit.safetensors").write_bytes((with_edit.root / "church" / "edit.safetensors").read_bytes())
    for name in ("..", "../runs/church", str(with_edit.root / "church"), "", "secret", "church/"):
        with pytest.raises(InputError, match="unknown run"):
            with_edit.folder(name)
    for name in ("mini", "/etc", str(tmp_path), "CompVis/stable-diffusion-v1-4"):
        with pytest.raises(InputError, match="unknown model"):
            with_edit.plan(Form(name, "church"))
    with pytest.raises(InputError, match="unknown format"):
        with_edit.export("church", "pipeline", tmp_path)


def test_only_edits_can_be_uploaded(with_edit: Studio, tmp_path: Path) -> None:
    import pickle

    source = with_edit.root / "church" / "edit.safetensors"
    given = tmp_path / "..%2f..evil name.safetensors"
    given.write_bytes(source.read_bytes())
    assert with_edit.take_in(given) == "uploaded-church"
    assert with_edit.take_in(given) == "uploaded-church-2"
    assert unsee.Edit.load(with_edit.root / "uploaded-church" / "edit.safetensors").deltas.keys()
    for name, data in {"evil.pt": pickle.dumps(1), "evil.safetensors": pickle.dumps(1), "no.safetensors": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError):
            with_edit.take_in(tmp_path / name)
    assert set(with_edit.runs()) == {"church", "uploaded-church", "uploaded-church-2"}


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (Form("tiny", ""), "write what to erase"),
        (Form("tiny", "x" * 5000), "5,000 characters"),
        (Form("tiny", "church, dog", synonyms="chapel"), "other names belong to one concept"),
        (Form("tiny", "church", pictures=10**6), "1,000,000 pictures"),
        (Form("tiny", "church", pictures=1), "pictures"),
        (Form("tiny", "church", seed=-1), "seed"),
        (Form("tiny", "church", method="nothing"), "unknown method"),
    ],
)
def test_a_bad_form_is_one_line(studio: Studio, form: Form, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        studio.plan(form)
    assert "\n" not in str(error.value)


def test_what_is_shown_is_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    for text in (rows([(evil, evil)]), told(News(evil, 1, 3)), told(News(problem=evil)), framed(evil)):
        assert "<img" not in text
    assert 'sandbox=""' in framed("x")
    assert rows([("note", "add it with `synonyms` 'churches'")]).count("Other names") == 1


def test_other_machines_need_a_token(studio: Studio) -> None:
    with pytest.raises(InputError, match=r"0\.0\.0\.0 is open to other machines: give a `token`"):
        opened(studio, Door("0.0.0.0"))


def test_without_gradio_one_line_names_the_extra(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert run("app") == (2, "", "unsee: the page needs gradio: pip install 'unsee[app]'\n")


seen = pytest.mark.skipif(
    find_spec("gradio") is None or browser.CHROMIUM is None,
    reason="no gradio or no Chromium: `make app`, `make browser`",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Studio, str]]:
    folder = tmp_path_factory.mktemp("app")
    studio = Studio(folder / "runs", folder / "pictures", ("tiny",))
    blocks, address = opened(studio, Door())
    yield studio, address
    blocks.close()


ABOVE = """(() => {
  const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
                           return [...pen.getImageData(0, 0, 1, 1).data]; };
  const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0);
  const ground = e => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor);
                        if (c[3] > 200) return c; } return rgba("Canvas"); };
  return [...document.querySelectorAll("body *")]
    .filter(e => e.checkVisibility({visibilityProperty: true, opacityProperty: true}))
    .filter(e => e.getBoundingClientRect().width > 1 && !["STYLE", "SCRIPT"].includes(e.tagName))
    .filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()))
    .map(e => { const a = light(rgba(getComputedStyle(e).color)), b = light(ground(e));
                return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), `${e.tagName} ${e.innerText}`]; })
    .filter(one => one[0] < 4.5);
})()"""
"""The texts with a contrast below 4.5 to what is behind them, by WCAG 2."""


def tab(page: browser.Page, name: str) -> None:
    page.run(f"""[...document.querySelectorAll('[role="tab"]')].filter(e => e.checkVisibility())
                 .find(e => e.innerText.trim() == "{name}").click()""")
    page.wait(f"""document.querySelector('[role="tab"][aria-selected="true"]').innerText.trim() == "{name}" """)


def write(page: browser.Page, place: str, text: str) -> None:
    page.run(f'document.querySelector("{place}").focus(); document.querySelector("{place}").select()')
    page.ask("Input.insertText", text=text)


@seen
def test_the_page_works_in_a_browser(served: tuple[Studio, str], tmp_path: Path) -> None:
    studio, address = served
    kept = browser.kept(tmp_path)
    with browser.opened(address, width=1280) as page:
        page.wait('document.querySelector("#concept textarea, #concept input")')
        for _ in range(20):  # by keyboard alone: to the concept, and Enter
            page.press("Tab")
            if page.run('!!document.activeElement.closest("#concept")'):
                break
        page.ask("Input.insertText", text="church")
        page.press("Enter")
        page.wait('document.querySelector("#preview img")')
        page.wait('document.querySelector("#said").innerText.includes("Saved as church")', 300)
        assert list(studio.runs()) == ["church"]
        page.picture(kept / "app-erased-1280-light.png")

        page.run('document.querySelector("#preview input").focus()')
        page.press("ArrowRight")  # the line between before and after
        assert (
            page.run("""getComputedStyle(document.querySelector("#preview .slide")).getPropertyValue("--at")""")
            == "51%"
        )
        box = page.run("""(b => [b.left, b.top, b.width, b.height])(
                       document.querySelector("#preview input").getBoundingClientRect())""")
        middle = box[1] + box[3] / 2
        page.drag((box[0] + box[2] * 0.51, middle), (box[0] + box[2] * 0.2, middle))
        at = page.run("""getComputedStyle(document.querySelector("#preview .slide")).getPropertyValue("--at")""")
        assert 15 < float(at.strip("%")) < 25

        tab(page, "Compare")
        page.wait("""document.querySelector('#edits input[type="checkbox"]')""")
        page.wait("""document.querySelector('#edits input[type="checkbox"]').checked""")  # what was just made
        page.run('document.querySelector("#draw").click()')
        page.wait('document.querySelector("#pair img")', 120)
        page.wait('document.querySelector("#drawing").innerText.includes("church at strength 1;")', 120)
        first = page.run('document.querySelector("#pair .slide > div img").src')
        page.run("""document.querySelector('#strength input[type="range"]').focus()""")
        for _ in range(4):
            page.press("ArrowLeft")
        page.wait('document.querySelector("#drawing").innerText.includes("at strength 0.8;")', 120)
        assert page.run('document.querySelector("#pair .slide > div img").src') != first
        page.picture(kept / "app-compared-1280-light.png")

        tab(page, "Export")
        page.run("""document.querySelector('#what input[value="unsee: the edit itself"]').click()""")
        page.wait("""document.querySelector("#exported input").value == "church" """)
        page.run('document.querySelector("#make").click()')
        page.wait('document.querySelector("#made").innerText.includes("church.safetensors")', 120)
        page.ask("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        page.wait("""document.querySelector("#download").innerText.includes("church.safetensors")""")
        page.run('document.querySelector("#download").click()')
        end = time.monotonic() + 30
        while not (tmp_path / "church.safetensors").is_file():
            assert time.monotonic() < end, list(tmp_path.iterdir())
            time.sleep(0.1)
        edits = [
            unsee.Edit.load(p) for p in (tmp_path / "church.safetensors", studio.root / "church" / "edit.safetensors")
        ]
        assert edits[0].fingerprint() == edits[1].fingerprint()
        assert edits[0].card == edits[1].card

        asked = {said["request"]["url"] for name, said in page.said if name == "Network.requestWillBeSent"}
        assert all(url.startswith((address, "data:", "blob:", "about:")) for url in asked), "it asks other servers"
        assert not [said for name, said in page.said if name == "Runtime.exceptionThrown"]

    faint = []
    for width in (390, 1280):
        for dark in (False, True):
            with browser.opened(address, width=width, dark=dark) as page:
                page.wait('document.querySelector("#erase")')
                for name in ("Erase", "Compare", "Evidence", "Export"):
                    tab(page, name)
                    if name == "Compare":
                        page.run('document.querySelector("#draw").click()')
                        page.wait('document.querySelector("#pair img")', 60)
                    if name == "Evidence":
                        page.wait('document.querySelector("iframe.report")', 60)
                    page.picture(kept / f"app-{name.lower()}-{width}-{'dark' if dark else 'light'}.png")
                    assert page.run("document.documentElement.scrollWidth") <= width, f"{name} is wider than {width}"
                    faint += [(name, width, dark, *text) for text in page.run(ABOVE)]
    assert not faint


AT = """parseFloat(getComputedStyle(document.querySelector("#pair .slide")).getPropertyValue("--at"))"""
"""Where the line between before and after is, in per cent of the width."""


@seen
def test_edits_are_switched_and_the_line_follows_a_finger_on_a_phone(with_two: Studio, tmp_path: Path) -> None:
    blocks, address = opened(with_two, Door())
    try:
        with browser.opened(address, width=390) as page:
            page.ask("Emulation.setTouchEmulationEnabled", enabled=True)
            page.wait('document.querySelector("#erase")')
            tab(page, "Compare")
            page.wait("""document.querySelectorAll("#edits input").length == 2""")
            page.wait("""document.querySelectorAll("#edits input:checked").length == 1""")
            pictures = {}
            for name, using in (
                ("", "dog at"),
                ("church", "dog + church at"),
                ("dog", "church at"),
                ("church", "no edit"),
            ):
                if name:
                    page.run(f"""[...document.querySelectorAll("#edits label")]
                                 .find(e => e.innerText.trim() == "{name}").querySelector("input").click()""")
                else:
                    page.run('document.querySelector("#draw").click()')  # the newest run is ticked
                page.wait(f"""document.querySelector("#drawing").innerText.includes("a church; {using}")""", 60)
                after, before = page.run("""[...document.querySelectorAll("#pair img")].map(e => e.src)""")
                pictures[using] = after
            assert len(set(pictures.values())) == 4
            assert pictures["no edit"] == before

            page.run('document.querySelector("#pair").scrollIntoView({block: "center"})')
            left, top, width, height = page.run("""(b => [b.left, b.top, b.width, b.height])(
                document.querySelector("#pair input").getBoundingClientRect())""")
            assert left >= 0
            assert left + width <= 390
            assert page.run(AT) == 50
            for k in range(9):  # from the middle to the right
                points = [{"x": left + width * (0.5 + 0.04 * k), "y": top + height / 2}]
                page.ask("Input.dispatchTouchEvent", type="touchMove" if k else "touchStart", touchPoints=points)
            page.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            page.wait(f"Math.abs({AT} - 82) < 5")
            page.picture(browser.kept(tmp_path) / "app-touched-390-light.png")
    finally:
        blocks.close()


@seen
def test_stop_ends_the_work_and_the_next_work_starts(studio: Studio, tmp_path: Path) -> None:
    blocks, address = opened(studio, Door())
    said = 'document.querySelector("#said").innerText'
    try:
        with browser.opened(address, width=390) as page:
            page.wait('document.querySelector("#erase")')
            write(page, "#concept textarea, #concept input", "church")
            page.run('document.querySelector("#erase").click()')
            page.wait('document.querySelector("#said progress")', 60)
            page.picture(browser.kept(tmp_path) / "app-erasing-390-light.png")
            page.run('document.querySelector("#stop").click()')
            page.wait(f'{said}.includes("stopped; what was finished is kept")', 60)
            page.picture(browser.kept(tmp_path) / "app-stopped-390-light.png")
            assert not list(studio.root.rglob("index.html"))
            tab(page, "Compare")
            page.run('document.querySelector("#draw").click()')
            page.wait('document.querySelector("#pair img")', 60)  # nothing waits for what was stopped
    finally:
        blocks.close()


@seen
def test_an_upload_that_is_too_large_is_refused(
    with_edit: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = with_edit.root / "church" / "edit.safetensors"
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.safetensors"\r\n\r\n'
    body += source.read_bytes() + b"\r\n--x--\r\n"
    monkeypatch.setattr("unsee.app.page.MOST_UPLOAD", source.stat().st_size - 1)
    blocks, address = opened(with_edit, Door())
    try:
        with pytest.raises(urllib.error.HTTPError) as error:
            post(address, "upload", body, "multipart/form-data; boundary=x")
        assert error.value.code == 413
        with browser.opened(address, width=390) as page:
            page.wait('document.querySelector("#erase")')
            tab(page, "Export")
            page.wait("""document.querySelector('input[type="file"]')""")
            root = page.ask("DOM.getDocument")["root"]["nodeId"]
            field = page.ask("DOM.querySelector", nodeId=root, selector='input[type="file"]')["nodeId"]
            page.ask("DOM.setFileInputFiles", nodeId=field, files=[str(source)])
            page.wait(
                """[...document.querySelectorAll("span")].some(e => e.innerText == "Error" && e.checkVisibility())"""
            )
            page.picture(browser.kept(tmp_path) / "app-too-large-390-light.png")
        assert list(with_edit.runs()) == ["church"]
    finally:
        blocks.close()


@seen
def test_no_file_is_read_for_the_browser(served: tuple[Studio, str], tmp_path: Path, edit: Any) -> None:
    studio, address = served
    secret = edit.save(studio.root.parent / "secret.safetensors")
    for path in (secret, "/etc/passwd", Path(__file__), "../secret.safetensors"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{address}gradio_api/file={path}")
        assert error.value.code in (403, 404)
    config = json.loads(urllib.request.urlopen(f"{address}config").read())
    taken = next(one["id"] for one in config["dependencies"] if any(target[1] == "upload" for target in one["targets"]))

    def success(path: str) -> bool:
        """Whether the page takes in a file that it is told to be at a place."""
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        asked = {"data": [file], "fn_index": taken, "session_hash": "x", "event_data": None, "trigger_id": None}
        post(address, "queue/join", json.dumps(asked).encode(), "application/json")
        said = urllib.request.urlopen(f"{address}gradio_api/queue/data?session_hash=x", timeout=20)
        lines = (json.loads(line[6:]) for line in said if line.startswith(b"data: "))
        return bool(next(one for one in lines if one["msg"] == "process_completed")["success"])

    assert not success(str(secret))
    assert not success("/etc/passwd")
    assert not [name for name in studio.runs() if name.startswith("uploaded")]
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.safetensors"\r\n\r\n'
    there = post(address, "upload", body + secret.read_bytes() + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")
    assert success(there[0])  # what was really uploaded is taken
    assert [name for name in studio.runs() if name.startswith("uploaded")] == ["uploaded-church"]


def post(address: str, place: str, data: bytes, kind: str) -> Any:
    request = urllib.request.Request(f"{address}gradio_api/{place}", data, {"Content-Type": kind})
    return json.loads(urllib.request.urlopen(request, timeout=20).read())


@seen
def test_a_token_is_asked_for(studio: Studio) -> None:
    studio.root.mkdir()
    blocks, address = opened(studio, Door(token="a word"))
    try:
        for place in ("config", "gradio_api/queue/data?session_hash=x"):
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(f"{address}{place}")
            assert error.value.code == 401

        def entered(word: str) -> int:
            form = urllib.parse.urlencode({"username": "unsee", "password": word}).encode()
            try:
                return int(urllib.request.urlopen(urllib.request.Request(f"{address}login", form)).status)
            except urllib.error.HTTPError as error:
                return error.code

        assert entered("another") == 400
        assert entered("a word") == 200
    finally:
        blocks.close()
