"""An edit as a repository of the hub: its file, the run's pictures, and a card that the hub reads."""

from __future__ import annotations

import filecmp
import re
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from unsee.edits.card import Card, read_card
from unsee.errors import InputError

FILE = "edit.safetensors"
PICTURE = "before-after.png"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@[0-9a-f]{40})?")


def repository(edit: Path, repo: str, folder: Path) -> Path:
    """Write the folder that `push` uploads: README.md, edit.safetensors, and the run's pictures.

    repo  owner/name
    A folder that holds this edit already is taken as it is, with whatever was written into its README.
    Raises InputError for another kind of name, a file that is no edit, or a folder of something else.
    """
    if not REPOSITORY.fullmatch(repo):
        raise InputError(f"{repo!r} names no repository: it should be like 'owner/name'")
    card = read_card(edit)
    if (
        (folder / "README.md").is_file()
        and (folder / FILE).is_file()
        and filecmp.cmp(folder / FILE, edit, shallow=False)
    ):
        return folder
    if folder.exists():
        raise InputError(f"{folder} exists already and holds something else: give another `folder`, or remove it")
    folder.mkdir(parents=True)
    shutil.copyfile(edit, folder / FILE)
    # The run's page and record stay here: they may name places on this machine.
    if picture := (edit.parent / PICTURE).is_file():
        shutil.copyfile(edit.parent / PICTURE, folder / PICTURE)
    (folder / "README.md").write_text(readme(card, repo, picture), encoding="utf-8")
    return folder


def readme(card: Card, repo: str, picture: bool = False) -> str:
    """The hub's model card of an edit. Every word of the edit's card is untrusted text, and escaped."""
    erased = ", ".join(concept.erase for concept in card.concepts) or "something"
    base = HUB_ID.fullmatch(card.base)
    results = []
    claims = card.claims
    for row, (before, after) in (claims.rows if claims else {}).items():
        for moment, value in (("before", before), ("after", after)):
            results.append(
                EvalResult(
                    task_type="text-to-image",
                    dataset_type="unsee",
                    dataset_name=f"{row}, {moment}",
                    dataset_config=row,  # results of one type, configuration and split are taken for one
                    dataset_split=moment,
                    metric_type="accuracy",
                    metric_name="share of pictures in which a classifier sees what was asked for",
                    metric_value=round(value, 6),
                )
            )
    said: dict[str, Any] = {"base_model": base["id"], "base_model_relation": "adapter"} if base else {}
    data = ModelCardData(
        library_name="unsee",
        pipeline_tag="text-to-image",
        tags=["unsee", "concept-erasure", "unlearning", card.method],
        model_name=repo.split("/")[1],
        eval_results=results or None,
        **said,
    )
    rows = [
        f"| {plain(row)} | {100 * before:.1f} % | {100 * after:.1f} % |"
        for row, (before, after) in (claims.rows if claims else {}).items()
    ]
    table = ["| | before | after |", "|---|---|---|", *rows, ""] if rows else ["Nothing was measured.", ""]
    lines = [
        f"# {plain(erased)}, erased",
        "",
        f"An edit of {plain(card.base)}, made with unsee: method {plain(card.method)}, for weights"
        f" `{plain(card.base_hash[:12])}`.",
        *(["It was made for other weights, and is used on these by force."] if card.forced_from else []),
        "",
        *([f"![Pictures of the base model above those of the edited model]({PICTURE})", ""] if picture else []),
        "The share of pictures in which a classifier sees what the prompt asked for:" if rows else "",
        "",
        *table,
        "```sh",
        f"hf download {repo} edit.safetensors --local-dir .",
        "unsee verify edit.safetensors",
        "unsee export edit.safetensors --to diffusers-lora",
        "```",
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines) + "\n"))


def push(folder: Path, repo: str, *, private: bool = False) -> str:
    """Upload a folder of `repository`; returns its address. Needs a token of the hub. Raises InputError if it fails."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # whichever version of it the hub uses

    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Edit made with unsee"))
    except (httpx.HTTPError, OSError, ValueError) as error:  # the hub's own errors are OSErrors
        raise InputError(
            f"cannot upload to {repo}: {' '.join(str(error).split())[:300]}; {folder} is ready: once the hub can be "
            "reached and `hf auth login` is done, push again"
        ) from error


def plain(text: str) -> str:
    """Untrusted text as a line of Markdown that shows it and obeys none of it."""
    line = "".join(character if character.isprintable() else " " for character in text)[:300]
    return re.sub(r"([\\`*_{}\[\]()#+!|<>&~-])", lambda mark: f"&#{ord(mark[0])};", line)
