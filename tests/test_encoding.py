"""A text encoder reads each prompt once in a run of a method, and edits are the same to the bit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zoo_more

import unsee
from unsee import Concept
from unsee.methods.hybrid import Hybrid
from unsee.methods.uce import UCE
from unsee.models.encoding import KEPT, each_text_once

SMALL: dict[str, dict[str, Any]] = {
    "hybrid": {
        "record_steps": 2,
        "updates": 2,
        "batch": 2,
        "runs": 2,
        "keep_runs": 2,
        "preserve_words": 8,
        "context_words": 2,
        "held_out": 0,
    },
    "uce": {"preserve_words": 8, "context_words": 2},
}


def rows_of(encoder: Any) -> list[tuple[int, ...]]:
    """The rows of token ids that an encoder computes from here on."""
    read: list[tuple[int, ...]] = []
    encoder.get_input_embeddings().register_forward_pre_hook(lambda _, args: read.extend(map(tuple, args[0].tolist())))
    return read


@pytest.mark.parametrize("method", [Hybrid(**SMALL["hybrid"]), UCE(**SMALL["uce"])], ids=SMALL)
def test_a_method_encodes_each_prompt_once(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    edits, read = [], []
    for kept in (KEPT, 0):
        monkeypatch.setattr("unsee.methods.two_denoisers.KEPT", kept)
        pipe = unsee.load("tiny")
        read.append(rows_of(pipe.text_encoder))
        edits.append(method(pipe, Concept("church")))
        assert "forward" not in vars(pipe.text_encoder)
    once, more = read
    assert len(once) == len(set(once)) < len(more)
    assert set(once) == set(more)
    edit, again = edits
    for name, delta in edit.deltas.items():
        for one, other in zip(vars(delta).values(), vars(again.deltas[name]).values(), strict=True):
            assert torch.equal(one, other)


def encoded(encoder: Any, kept: int, *calls: torch.Tensor) -> list[torch.Tensor]:
    with each_text_once(SimpleNamespace(components={"text_encoder": encoder}), kept), torch.no_grad():
        return [encoder(ids).last_hidden_state for ids in calls]


def test_the_oldest_text_features_leave_the_cache_first() -> None:
    encoder = unsee.load("tiny").text_encoder
    read = rows_of(encoder)
    a, b, c = torch.randint(2, 500, (3, 1, 24), generator=torch.Generator().manual_seed(0))
    plain = [encoder(ids).last_hidden_state for ids in (a, b, c)]
    row = plain[0].nbytes + encoder(a).pooler_output.nbytes
    for kept, computed in ((0, "abcab"), (row, "abcab"), (2 * row, "abcab"), (3 * row, "abc")):
        read.clear()
        found = encoded(encoder, kept, a, b, c, a, b)
        assert read == [tuple({"a": a, "b": b, "c": c}[name][0].tolist()) for name in computed]
        torch.testing.assert_close(torch.cat(found), torch.cat([*plain, *plain[:2]]))


def test_known_and_new_rows_are_put_together() -> None:
    """Kolors' ChatGLM returns (tokens, B, features)."""
    encoder = zoo_more.chatglm()
    ids = torch.tensor([[1, 5, 6, 3], [1, 7, 8, 3], [1, 5, 6, 3], [1, 9, 8, 3]])
    with torch.no_grad():
        plain = encoder(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        with each_text_once(SimpleNamespace(components={"text_encoder": encoder}), 2**20):
            encoder(input_ids=ids[:2], output_hidden_states=True)
            asked = encoder(input_ids=ids, output_hidden_states=True).hidden_states[-1]
            known = encoder(input_ids=ids[[3, 0]], output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(asked, plain)
    torch.testing.assert_close(known, plain[:, [3, 0]])
