"""Library errors name arguments and calls in backquotes; the command line writes its options in their place."""

from __future__ import annotations

import re

FLAGS = {
    "absent": "--absent",
    "adopt": "unsee import FILE --model MODEL --out EDIT.safetensors",
    "at_least": "--at-least",
    "at_most": "--at-most",
    "batch": "--batch",
    "cache": "--cache",
    "call={'height': 512, 'width': 512}": "--call height=512 --call width=512",
    "host": "--host",
    "gradient_checkpointing=True": "--set gradient_checkpointing=true",
    "concepts": "--concept",
    "edit.forced(pipe)": "--force-base",
    "energy": "--energy",
    "EvalConfig.folder": "--folder",
    "folder": "--out",
    "force": "--force",
    "detector": "--detector",
    "detectors": "--detector",
    "method='balance'": "--method balance",
    "method='lora'": "--method lora",
    "model": "--model",
    "names": "--name",
    "partial": "--partial",
    "path": "--out",
    "pictures": "-n",
    "pipe": "--model",
    "present": "--present",
    "prompts": "--csv",
    "rank": "--rank",
    "resume": "--resume",
    "suites": "--suite",
    "synonyms": "--synonym",
    "from_": "--from",
    "measure": "unsee evaluate",
    "tables": "--csv",
    "token": "--token",
    "unpickle": "--unpickle",
    "unsee.applied(pipe, [edit, edit])": "the edit that unsee merge makes of them",
    "variant": "--variant",
    "words": "--words FILE",
    "workers": "--workers",
}
"""What to type for each argument that a library error names; a test finds names that are missing here."""


def typed(message: str) -> str:
    """A message with options of the command line for arguments in backquotes; other text in backquotes stays."""
    return re.sub(r"`([^`]+)`", lambda match: FLAGS.get(match[1], match[0]), message)
