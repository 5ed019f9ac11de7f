"""Tuning: which trial is chosen, which edge is named, and what a budget of trials can be expected to give."""

from __future__ import annotations

import itertools
import json
import statistics

import numpy as np
import pytest

from bnexp.errors import UserError
from bnexp.report.analysis.sweep_verdict import read_evidence
from bnexp.report.analysis.tuning import ArmTuning, Trial, expected_best, tune
from bnexp.report.content.question import headline
from bnexp.report.content.tuning import tuning_sentences, tuning_table
from bnexp.report.plots.pictures import draw_pictures
from bnexp.report.plots.tuning import draw_budget, draw_tuning
from bnexp.report.read.design import Design, Interval, TuningDesign, read_design, write_design
from bnexp.report.read.runs import TUNING_FOLDER, read_runs
from bnexp.report.render.json_export import comparison_record
from bnexp.report.render.terminal import MAX_LINES, render_text
from bnexp.report.write import write_report
from helpers.run_folders import write_run

RATES = Interval("optimizer.lr", 0.001, 10, is_log=True)
SEEDS = (1_000_000_000, 1_000_000_001)


def arm(scores_by_value, interval=RATES):
    trials = [
        Trial((value,), tuple(scores), sum(s == 0 for s in scores), 60.0)
        for value, scores in scores_by_value.items()
    ]
    return ArmTuning((), tuple(trials), (interval,))


def test_values_on_both_scales():
    assert RATES.value_at(0) == 0.001
    assert RATES.value_at(0.5) == 0.1
    assert RATES.position_of(1.0) == pytest.approx(0.75)
    linear = Interval("model.dropout", 0.0, 0.5, is_log=False)
    assert linear.value_at(0.333) == 0.167  # three digits
    assert Interval("batch_size", 16, 128, is_log=False, is_integer=True).value_at(0.5) == 72


def test_the_middle_of_the_plateau_is_chosen():
    """Scores within one standard error of the highest, in one piece; a good one far away does not count."""
    result = arm({
        0.01: (90, 92), 0.1: (96, 97), 0.3: (96.5, 97), 1.0: (96.9, 97.1), 3.0: (50, 60), 10.0: (96.9, 96.9),
    })  # fmt: skip
    assert result.best.values == (0.3,)
    assert result.edges == ()


def test_an_unstable_rate_does_not_widen_the_plateau():
    result = arm({0.01: (95.8, 96.0), 0.1: (97.0, 97.2), 0.3: (97.9, 98.1), 0.5: (97.7, 97.9), 1.0: (30, 60)})
    assert result.best.values == (0.3,)


def test_the_standard_error_is_that_of_normal_scores():
    """Trials of one standard deviation, 0.3: the standard error of the mean of two seeds is 0.21."""
    scores = np.random.default_rng(0).normal(97, 0.3, (4001, 2))
    result = arm(dict(enumerate(map(tuple, scores), 1)))
    assert result._standard_error() == pytest.approx(0.3 / 2**0.5, rel=0.04)


def test_an_edge_is_named_and_lost_runs_count_as_zero():
    rising = arm({0.01: (50, 52), 0.1: (80, 82), 1.0: (95, 96)})
    assert rising.edges == (("optimizer.lr", "high"),)
    inside = arm({0.01: (50, 52), 0.1: (80, 82), 1.0: (0, 96)})
    assert (inside.best.values, inside.edges) == ((0.1,), ())
    assert inside.lost_share == pytest.approx(1 / 6)
    assert arm({0.1: (0, 0), 1.0: (0, 0)}).is_hopeless
    assert not rising.is_hopeless


def test_decades_that_are_nearly_the_best():
    result = arm({0.01: (90, 90), 0.1: (96.8, 96.8), 1.0: (97, 97), 10.0: (20, 20)})
    assert result.nearly_best_span == pytest.approx(1.0)


def test_expected_best_is_the_mean_over_all_subsets():
    scores = [91.0, 97.0, 0.0, 95.5, 95.5]
    for n, expectation in enumerate(expected_best(scores), 1):
        subsets = [max(subset) for subset in itertools.combinations(scores, n)]
        assert expectation == pytest.approx(statistics.fmean(subsets))


def write_tuned_sweep(root, *, best=(0.1, 1.0)):
    """Two norms: each has its best rate of three, and two seeds there."""
    intervals = (Interval("optimizer.lr", 0.01, 10, is_log=True),)
    design = Design(
        looks=(), arms=("model.norm=none", "model.norm=batch"), tuning=TuningDesign(intervals, 5, SEEDS)
    )
    for norm, rate in zip(("none", "batch"), best, strict=True):
        for value in (0.01, 0.1, 1.0, 10.0, 5.0):
            for seed in SEEDS:
                accuracy = 0.97 if value == rate else 0.9
                final = {
                    "test/accuracy": accuracy,
                    "val/accuracy": accuracy + 0.001 * (seed - SEEDS[0]),
                    "train/loss": 0.1,
                }
                write_run(
                    root / TUNING_FOLDER,
                    accuracy,
                    model_norm=norm,
                    optimizer_lr=value,
                    seed=seed,
                    record={"final": final},
                )
        for seed in range(5):
            accuracy = 0.96 + 0.01 * (norm == "batch") + 0.001 * (seed % 3) * (1 + (norm == "batch"))
            write_run(root, accuracy, best=accuracy, model_norm=norm, optimizer_lr=rate, seed=seed)
    write_design(root, design)
    return design


def test_tuned_rates_are_no_confounder_and_the_trials_take_no_part(tmp_path):
    write_tuned_sweep(tmp_path)
    verdict = read_evidence([tmp_path]).verdict()
    (c,) = verdict.comparisons
    assert (c.is_paired, c.confounders, c.difference.n, c.outcome) == (True, (), 5, "better")
    assert (c.candidate.group.label, c.baseline.group.label) == ("batch at lr=1", "none at lr=0.1")
    assert "each at its best lr? Yes:" in headline(verdict)
    assert tuning_sentences(verdict) == [
        "Each at its best lr: 5 values with 2 seeds each were tried on validation images; the verdict has "
        "other seeds."
    ]
    titles, rows = tuning_table(verdict)
    assert len(titles) == len(rows[0]) == 7
    assert [row[:4] for row in rows] == [["none", "0.1", "97.05", "5 x 2"], ["batch", "1", "97.05", "5 x 2"]]
    assert "batch at lr=1 beats none at lr=0.1 by" in " ".join(render_text(verdict).split())
    assert [entry["best"] for entry in json.loads(json.dumps(comparison_record(verdict)))["tuning"]] == [
        [0.1],
        [1.0],
    ]


def test_a_range_that_is_too_narrow_is_named(tmp_path):
    write_tuned_sweep(tmp_path, best=(0.1, 10.0))
    assert tuning_sentences(read_evidence([tmp_path]).verdict())[1:] == [
        "Range too narrow for batch (lr at its high end): a better value may lie beyond it."
    ]


def test_pictures_of_tuning(tmp_path):
    write_tuned_sweep(tmp_path)
    verdict = read_evidence([tmp_path]).verdict()
    tuning, budget = draw_tuning(verdict), draw_budget(verdict)
    assert tuning.title == "Which lr is best for each group?"
    assert tuning.svg.count("<use") >= 2 * (5 + 10)  # means and single runs of both groups
    assert "number of trials" in budget.svg
    plain = read_evidence([tmp_path / "model.norm=none,optimizer.lr=0.1,seed=0"]).verdict()
    assert draw_tuning(plain) is None
    assert draw_budget(plain) is None


def test_a_trial_counts_once_all_its_seeds_have_ended(tmp_path):
    design = write_tuned_sweep(tmp_path)
    runs, _ = read_runs([tmp_path / TUNING_FOLDER])
    results = tune(runs[:-1], design.tuning)
    assert sorted(len(result.trials) for result in results.values()) == [4, 5]


def test_a_design_is_read_back(tmp_path):
    design = write_tuned_sweep(tmp_path)
    assert read_design(tmp_path) == design
    assert read_design(tmp_path / "nowhere") is None


@pytest.mark.parametrize("text", ["", "[]", '{"looks": [10, 5]}', '{"looks": "abc"}', "{}", '{"looks": [1]}'])
def test_a_damaged_design_is_one_line(tmp_path, text):
    (tmp_path / "design.json").write_text(text)
    with pytest.raises(UserError, match=r"design\.json: damaged \(") as error:
        read_design(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_the_page_shows_what_was_tried_in_one_row_of_pictures_and_a_table(tmp_path):
    write_tuned_sweep(tmp_path)
    verdict = read_evidence([tmp_path]).verdict()
    names = [picture.name for picture in draw_pictures(verdict)]
    assert names[:3] == ["forest", "tuning", "budget"]
    write_report(verdict, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<td data-title="trials">5 x 2</td>' in page
    assert page.index("<h2>Checks and methods") < page.index("<h2>Tuning") < page.index("<h2>All metrics")


def test_the_terminal_keeps_what_was_tried_where_lines_are_left_out(tmp_path):
    write_tuned_sweep(tmp_path)
    text = render_text(read_evidence([tmp_path]).verdict())
    assert len(text.splitlines()) <= MAX_LINES
    assert "Each at its best lr: 5 values" in text
