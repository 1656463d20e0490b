"""Padding that no denoiser reads is not encoded; all else is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
import zoo
from zoo import ZOO

import unsee
from unsee.denoising.padding import reads_padding
from unsee.methods.uce import UCE
from unsee.models.encoding import each_text_once

HIDDEN = {"z-image", "sana", "pixart-sigma", "lumina2", "wan", "wan-2.2"}
"""Families that pad prompts and hide the padding. Chroma's denoiser reads one token of it."""


@pytest.mark.parametrize("family", ZOO)
def test_whether_padding_is_read_is_measured(family: str) -> None:
    assert reads_padding(zoo.build(family)) == (family not in HIDDEN)


def test_a_denoiser_that_reads_what_stands_in_the_place_of_padding_gets_it() -> None:
    pipe = zoo.build("pixart-sigma")
    encode = pipe.encode_prompt

    def unmasked(*args: Any, **options: Any) -> Any:
        found = encode(*args, **options)
        return found[0], torch.ones_like(found[1]), found[2], found[3]

    pipe.encode_prompt = unmasked
    assert reads_padding(pipe)


def encoder() -> Any:
    torch.manual_seed(0)
    size = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 16}
    return transformers.BertModel(transformers.BertConfig(vocab_size=100, **size)).eval()


@pytest.mark.parametrize("kept", [0, 2**20])
def test_rows_give_the_same_prediction_without_their_padding(kept: int) -> None:
    bert = encoder()
    lengths = torch.tensor([3, 12, 7, 3, 1])
    mask = (torch.arange(12) < lengths[:, None]).long()
    ids = torch.randint(2, 90, mask.shape, generator=torch.Generator().manual_seed(1)) * mask
    said = {"input_ids": ids, "attention_mask": mask}
    read: list[int] = []
    with torch.no_grad():
        plain = bert(**said)
        bert.embeddings.register_forward_hook(lambda _, args, out: read.append(out.shape[0] * out.shape[1]))
        with each_text_once(SimpleNamespace(components={"text_encoder": bert}), kept, padded=False):
            found = bert(**said)
            bert(**said)
    torch.testing.assert_close(found.last_hidden_state, plain.last_hidden_state * mask[..., None])
    torch.testing.assert_close(found.pooler_output, plain.pooler_output)
    assert found.keys() == plain.keys()
    assert sum(read) == int(lengths.sum()) * (1 if kept else 2)


def test_a_mask_that_hides_the_beginning_is_left_alone() -> None:
    bert = encoder()
    mask = (torch.arange(6) >= torch.tensor([[2], [4]])).long()
    said = {"input_ids": torch.arange(2, 14).reshape(2, 6), "attention_mask": mask}
    with torch.no_grad(), each_text_once(SimpleNamespace(components={"text_encoder": bert}), padded=False):
        torch.testing.assert_close(bert(**said).last_hidden_state, bert.forward.computes(**said).last_hidden_state)


@pytest.mark.parametrize("family", ["pixart-sigma", "wan"])
def test_an_edit_is_the_same_with_padding_and_without(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = UCE(preserve_words=8, context_words=2)
    edits = []
    for reads in (True, False):
        monkeypatch.setattr("unsee.methods.two_denoisers.reads_padding", lambda _, reads=reads: reads)
        edits.append(method(zoo.build(family), unsee.Concept("church")))
    plain, short = edits
    assert plain.deltas.keys() == short.deltas.keys()
    for name, delta in plain.deltas.items():
        one, other = delta.up @ delta.down, short.deltas[name].up @ short.deltas[name].down
        torch.testing.assert_close(one, other, atol=1e-3 * float(one.abs().max()), rtol=0)
