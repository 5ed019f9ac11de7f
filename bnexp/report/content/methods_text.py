"""A paragraph for the methods section of a paper, with its sources, from what a verdict really used."""

from __future__ import annotations

import math

from bnexp.report.analysis.epoch_rule import LAST_SHARE
from bnexp.report.analysis.group_comparison import repetition_noun
from bnexp.report.analysis.repeated_looks import AnyLooks, PlannedLooks
from bnexp.report.analysis.verdict import MIN_TESTED, Verdict
from bnexp.report.content.applicable_notes import applicable_methods
from bnexp.report.content.provenance import provenance
from bnexp.report.content.tuning import tuned_keys

EPOCHS = {
    "best": "at the epoch with the best validation value",
    "mean": f"averaged over the last {LAST_SHARE:.0%} of the epochs",
    "final": "after the last epoch",
}
SOURCES = {
    "family": "Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian "
    "Journal of Statistics 6(2), 65-70.",
    "planned looks": "Jennison, C. and Turnbull, B. W. (2000). Group Sequential Methods with Applications to "
    "Clinical Trials. Chapman & Hall/CRC.",
    "other looks": "Wang, H. and Ramdas, A. (2025). Anytime-valid t-tests and confidence sequences for "
    "Gaussian means with unknown variance. Sequential Analysis.",
    "unpaired": "Welch, B. L. (1947). The generalization of 'Student's' problem when several different "
    "population variances are involved. Biometrika 34, 28-35.",
    "stability": "Fagerland, M. W., Lydersen, S. and Laake, P. (2013). The McNemar test for binary "
    "matched-pairs data. BMC Medical Research Methodology 13, 91.",
    "equivalence": "Schuirmann, D. J. (1987). A comparison of the two one-sided tests procedure and the "
    "power approach for assessing the equivalence of average bioavailability. "
    "Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680.",
}


def table_caption(verdict: Verdict) -> str:
    """What the table shows: metric and epoch, n, test, interval, correction."""
    counts = sorted({len(summary.values) for summary in verdict.summaries})
    n = "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    metric = verdict.metric.label.capitalize() + (" in percent" if verdict.metric.is_accuracy else "")
    text = f"{metric} {EPOCHS[verdict.rule]}: mean ± standard deviation, n = {n} {_noun(verdict)} per group."
    tests = _tests(verdict)
    if tests:
        points = ", in percentage points" if verdict.metric.is_accuracy else ""
        text += f" Difference from the baseline (*) with its 95 % interval{points}; {' and '.join(tests)}."
    if verdict.family > 1 and tests:
        text += f" The last column is p adjusted by Holm's method over {verdict.family} tests."
    return text


def methods_text(verdict: Verdict) -> str:
    """methods.txt: the paragraph, the numbers to check in it, and the sources."""
    sentences = [*_design(verdict), *_tuning(verdict), *_analysis(verdict)]
    facts = "; ".join(provenance(verdict))
    if facts:
        sentences.append(f"Runs: {facts}.")
    if versions := sorted({run.versions["bnexp"] for run in verdict.runs if "bnexp" in run.versions}):
        sentences.append(f"Training and analysis: bnexp {' and '.join(versions)}.")
    used = applicable_methods(verdict)
    if not _tests(verdict):
        used = {}
    sources = [source for name, source in SOURCES.items() if name in used]
    lines = [" ".join(sentences), ""]
    return "\n".join([*lines, *(["Sources", "", *sources, ""] if sources else [])])


def _noun(verdict: Verdict) -> str:
    return repetition_noun(verdict.runs)


def _tests(verdict: Verdict) -> list[str]:
    """The tests of accuracy, as words of a sentence."""
    methods = {c.difference.method for c in verdict.comparisons if c.difference.n >= MIN_TESTED}
    return sorted(f"{method.removesuffix(' test')} test" if " t" in method else f"{method}'s t test"
                  for method in methods)  # fmt: skip


def _design(verdict: Verdict) -> list[str]:
    groups = ", ".join(dict.fromkeys(summary.group.value or "all runs" for summary in verdict.summaries))
    sentences = []
    if verdict.comparisons:
        sentences.append(
            f"We compared {verdict.grouping.by} ({groups}) with the baseline {verdict.grouping.baseline}."
        )
    sizes = [len(summary.group.runs) for summary in verdict.summaries]
    counts = [f"{s.group.name}: {len(s.values)} of {len(s.group.runs)}" for s in verdict.summaries]
    epochs = sorted({run.epochs for run in verdict.runs})
    length = "-".join(map(str, dict.fromkeys((epochs[0], epochs[-1]))))
    n = "-".join(map(str, dict.fromkeys((min(sizes), max(sizes)))))
    sentences.append(
        f"Each group has {n} {_noun(verdict)}, and each network was trained for {length} epochs."
    )
    if any(summary.lost_runs for summary in verdict.summaries):
        sentences.append(
            f"Runs that diverged or stayed at chance were left out; kept were {'; '.join(counts)}."
        )
    if any(c.is_paired for c in verdict.comparisons):
        sentences.append(
            "Runs with the same seed started from the same weights in all layers that they share and saw the "
            "same batches; differences were taken within these pairs."
        )
    sentences.append(f"The outcome is the {verdict.metric.label} {EPOCHS[verdict.rule]}.")
    return sentences


def _tuning(verdict: Verdict) -> list[str]:
    if not verdict.tuning:
        return []
    results = [result for _, result in verdict.tuning]
    trials = "-".join(map(str, dict.fromkeys(sorted({len(result.trials) for result in results}))))
    intervals = ", ".join(
        f"{i.name} from {i.low:g} to {i.high:g}{' on a logarithmic scale' if i.is_log else ''}"
        for i in results[0].intervals
    )
    return [
        f"For each group, {tuned_keys(verdict)} was tuned first: {trials} values ({intervals}), "
        f"{len(results[0].trials[0].scores)} runs each, chosen by validation "
        "accuracy. The seeds of the comparison took no part in tuning."
    ]


def _analysis(verdict: Verdict) -> list[str]:
    if not (tests := _tests(verdict)):
        return ["There were too few runs for a test."]
    test = verdict.test
    sentences = [f"Differences were tested with a two-sided {' or a '.join(tests)}; intervals are 95 %."]
    if isinstance(test, PlannedLooks):
        looks = ", ".join(map(str, test.looks))
        sentences.append(
            f"Looks were planned after {looks} seeds, and took place up to {test.reached}: p and intervals "
            "hold at all planned looks together (Jennison and Turnbull 2000)."
        )
    elif isinstance(test, AnyLooks):
        sentences.append(
            "Seeds were added after earlier looks that were not planned: p and intervals hold however often "
            "one looks (Wang and Ramdas 2025)."
        )
    else:
        sentences.append("No earlier look at these groups is recorded.")
    if verdict.family > 1:
        sentences.append(f"p values were adjusted over {verdict.family} tests (Holm 1979).")
    if stability := {c.stability.method for c in verdict.comparisons if not math.isnan(c.stability.p)}:
        sentences.append(f"Numbers of lost runs were compared by {' or '.join(sorted(stability))}.")
    deltas = sorted({c.delta for c in verdict.comparisons if c.delta is not None})
    if deltas:
        limits, unit = " or ".join(f"{delta:g}" for delta in deltas), ""
        if verdict.metric.is_accuracy:
            unit = " percentage point" if deltas == [1] else " percentage points"
        sentences.append(
            f"Differences below {limits}{unit} were taken not to matter; equivalence was "
            "tested by two one-sided tests (Schuirmann 1987)."
        )
    return sentences
