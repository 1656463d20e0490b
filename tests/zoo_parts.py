"""Parts that several families share, and stand-ins for those that come from the hub only."""

from __future__ import annotations

from typing import Any

import transformers as t
from zoo import _SIGHT, _TEXT, _tokenizer


def qwen_vl() -> Any:
    rope = {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"}
    language = {**_TEXT, "num_key_value_heads": 2, "rope_scaling": rope}
    return t.Qwen2_5_VLForConditionalGeneration(t.Qwen2_5_VLConfig(text_config=language, vision_config=_SIGHT))


class Processor:
    """A tokenizer in the place of a processor of texts and pictures."""

    def __init__(self) -> None:
        self.tokenizer = _tokenizer()

    def __call__(self, text: Any = None, images: Any = None, videos: Any = None, **options: Any) -> Any:
        return self.tokenizer(text, **options)

    def apply_chat_template(self, messages: Any, **options: Any) -> Any:
        found = self.tokenizer.apply_chat_template(messages, **options)
        return [found] if options.get("return_dict") is False else found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["tokenizer"], name)
