"""Fig. 10 of Gandikota et al. (2023) turned round: the concept is erased by its name and asked for by other names."""

from __future__ import annotations

from functools import partial

from unsee.evaluate.questions import Question
from unsee.evaluate.suites import NotMeasured, Suite, World, article, count

NAME = "paraphrase"


def ask(world: World) -> list[Question]:
    """For each erased object its synonyms and its names in other languages, half a row each; and names of the user."""
    asked: list[Question] = []
    targets = world.targets("objects")
    for target in targets:
        said = world.words.get("objects", {}).get(target, {})
        synonyms = [(article(name), target) for name in said.get("synonyms", ())]
        foreign = [(name, target) for name in said.get("languages", {}).values()]
        if synonyms:
            asked.append(world.question(f"synonyms of {target}", "objects", synonyms, 2))
        if foreign:
            asked.append(world.question(f"{target} in other languages", "objects", foreign, 2))
    if world.names:
        given = [(name, target) for target in targets[:1] for name in world.names]
        asked.append(world.question(f"other names of {targets[0]}", "objects", given))
    if not asked:
        raise NotMeasured("no other names are known for what is erased: --name gives one")
    return asked


SUITE = Suite(NAME, "The erased thing under names that were not erased.", ask, partial(count, NAME))
