"""Several blocks in a sentence: where a group is better than the baseline, where worse, where undecided."""

from __future__ import annotations

from bnexp.report.analysis.verdict import Comparison, GroupComparison

STANDINGS = (
    "fewer runs lost",
    "more runs lost",
    *(
        word + sure
        for word in (
            "better",
            "worse",
            "a difference smaller than what matters",
            "no difference that matters",
        )
        for sure in ("", ", provisionally,")
    ),
    "not decided",
    "no verdict",
)
MOST_PLACES = 8  # places that a sentence names


def overview(comparison: Comparison) -> list[str]:
    """Of several blocks, a sentence a group: where it is better, where worse, where nothing is decided."""
    grouping, found = comparison.grouping, comparison.comparisons
    if len({one.candidate.group.block for one in found}) < 2:
        return []
    said = []
    for value in dict.fromkeys(one.candidate.group.value for one in found):
        own = [one for one in found if one.candidate.group.value == value]
        places: dict[str, list[str]] = {}
        for one in own:
            for word in _standing(one):
                places.setdefault(word, []).append(_place(one, grouping.blocked))
        parts = [f"{word} {_count(places[word])}" for word in STANDINGS if word in places]
        over = f"values of {grouping.blocked[0]}" if len(grouping.blocked) == 1 else "settings"
        said.append(f"{value} vs {grouping.baseline} over {len(own)} {over}: {'; '.join(parts)}.")
    return said


def _standing(one: GroupComparison) -> list[str]:
    """How a group stands within one block, as one of STANDINGS; divergence beside accuracy."""
    ours, theirs = one.candidate.divergence_rate, one.baseline.divergence_rate
    said = [f"{'fewer' if ours < theirs else 'more'} runs lost"] if ours != theirs else []
    word = {
        "better": "better",
        "worse": "worse",
        "small": "a difference smaller than what matters",
        "equivalent": "no difference that matters",
        "undecided": "not decided",
    }.get(one.outcome)
    if word is None:
        return said or ["no verdict"]
    sure = not one.provisional or one.outcome == "undecided"
    return [*said, word if sure else f"{word}, provisionally,"]


def _place(one: GroupComparison, keys: tuple[str, ...]) -> str:
    block = one.candidate.group.block
    return block.removeprefix(f"{keys[0]}=") if len(keys) == 1 else block


def _count(places: list[str]) -> str:
    word = "at" if all(place[0].isdigit() for place in places) else "for"
    return f"{word} {', '.join(places) if len(places) <= MOST_PLACES else len(places)}"
