"""Fig. 10 of Gandikota et al. (2023), reversed: the concept is erased by its name, and prompts use other names."""

from __future__ import annotations

from unsee.evaluate.context import EvalContext, NotMeasured
from unsee.evaluate.questions import Question
from unsee.evaluate.suites import Suite
from unsee.evaluate.words import article


def ask(context: EvalContext) -> list[Question]:
    """For each erased object its synonyms and its names in other languages, half a row each; and names of the user."""
    asked: list[Question] = []
    targets = context.targets("objects")
    for target in targets:
        known = context.words.get("objects", {}).get(target, {})
        synonyms = [(article(name), target) for name in known.get("synonyms", ())]
        foreign = [(name, target) for name in known.get("languages", {}).values()]
        if synonyms:
            title = f"synonyms of {target}"
            asked.append(context.question(f"synonyms/{target}", title, "objects", synonyms, 2))
        if foreign:
            title = f"{target} in other languages"
            asked.append(context.question(f"languages/{target}", title, "objects", foreign, 2))
    if context.names:
        given = [(name, target) for target in targets[:1] for name in context.names]
        asked.append(context.question(f"names/{targets[0]}", f"other names of {targets[0]}", "objects", given))
    if not asked:
        raise NotMeasured("no other names are known for what is erased: give some with `names`")
    return asked


SUITE = Suite(
    "paraphrase", "The erased concept, asked for by names that were not erased.", ask, lambda asked, c: c.count(asked)
)
