"""Several blocks in one answer: where a group is better than the baseline, worse, or undecided."""

from __future__ import annotations

from bnexp.report.analysis.group_comparison import GroupComparison
from bnexp.report.analysis.verdict import Verdict

ACCURACY_STANDINGS = {
    "better": "better",
    "worse": "worse",
    "small": "a difference smaller than what matters",
    "equivalent": "no difference that matters",
}
PROVISIONAL = ", provisionally,"
LEANING = {True: "leaning to better", False: "leaning to worse"}
CONFOUNDED = "cannot be told"
STANDINGS = (
    "fewer runs lost",
    "more runs lost",
    "leaning to fewer runs lost",
    "leaning to more runs lost",
    *(text + suffix for text in ACCURACY_STANDINGS.values() for suffix in ("", PROVISIONAL)),
    *LEANING.values(),
    "not decided",
    "no verdict",
    CONFOUNDED,
)
MAX_BLOCKS = 8  # more blocks are counted, not listed


def overview(verdict: Verdict) -> list[str]:
    """One sentence a group over all blocks; nothing where there are fewer than two blocks."""
    comparisons, keys = verdict.comparisons, verdict.grouping.block_keys
    if len({c.candidate.group.block for c in comparisons}) < 2:
        return []
    answers = {}
    for label in dict.fromkeys(c.candidate.group.label for c in comparisons):
        members = [c for c in comparisons if c.candidate.group.label == label]
        blocks: dict[str, list[str]] = {}
        for member in members:
            for standing in _standings(member):
                blocks.setdefault(standing, []).append(_block_name(member, keys))
        parts = [
            f"{standing} {_list_blocks(blocks[standing])}" for standing in STANDINGS if standing in blocks
        ]
        answers[label] = f"{'; '.join(parts)}."
    if len(answers) > 1:
        return [f"{label}: {answer}" for label, answer in answers.items()]
    return [answer[0].upper() + answer[1:] for answer in answers.values()]


def _standings(c: GroupComparison) -> list[str]:
    """How a group stands in one block, from STANDINGS: in stability where it is decided, and in accuracy."""
    if c.is_confounded:
        return [CONFOUNDED]
    standings = []
    if c.differs_in_stability:
        standings.append("fewer runs lost" if c.is_more_stable else "more runs lost")
    elif c.leans_in_stability:
        standings.append("leaning to fewer runs lost" if c.is_more_stable else "leaning to more runs lost")
    if c.outcome == "leaning":
        return [*standings, LEANING[c.metric.sign * c.difference.mean > 0]]
    if c.outcome == "undecided":
        return [*standings, "not decided"]
    if c.outcome not in ACCURACY_STANDINGS:
        return standings or ["no verdict"]
    return [*standings, ACCURACY_STANDINGS[c.outcome] + (PROVISIONAL if c.is_provisional else "")]


def _block_name(c: GroupComparison, keys: tuple[str, ...]) -> str:
    """The value alone where one key tells the blocks apart."""
    block = c.candidate.group.block
    return block.removeprefix(f"{keys[0]}=") if len(keys) == 1 else block


def _list_blocks(names: list[str]) -> str:
    preposition = "at" if all(name[0].isdigit() for name in names) else "for"
    return f"{preposition} {', '.join(names) if len(names) <= MAX_BLOCKS else len(names)}"
