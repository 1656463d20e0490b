"""Which words an edit was made to preserve, and why, in a line."""

from __future__ import annotations

from unsee.concepts import to_keep
from unsee.edits.card import Card
from unsee.report.before_after import brief


def preserved(card: Card, most: int = 3) -> list[str]:
    """A sentence with the first words of each reason and how many more there are; none if the card names no word.

    A method that chooses words for another reason than these has its own row in `reasons`.
    """
    named = to_keep(card.concepts)
    others = [word for word in dict.fromkeys(card.kept) if word not in named]
    reasons = [
        (named, "because you named them"),
        (list(card.alike), "because their pictures would have gone along"),
        (list(card.hurt), "because the edit would hurt them most"),
        (others, "so that everything else stays"),
    ]
    parts = [f"{brief(words, most)}, {why}" for words, why in reasons if words]
    return [f"preserved: {'; '.join(parts)}"] if parts else []
