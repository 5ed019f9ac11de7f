"""--published: whether a published value was reproduced."""

import pytest
from scipy import stats

from bnexp.report.analysis.verdict import compare
from bnexp.report.content.numbers import p_is
from bnexp.report.content.published import published_sentences
from bnexp.report.read.runs import read_runs
from helpers.run_folders import NONE, compare_groups, write_run


@pytest.mark.parametrize(
    ("published", "delta", "ending"),
    [
        (97.05, 0.5, "reproduced within 0.50 points."),
        (97.05, 0.1, "not decided; the published value lies within the interval."),
        (98.5, 0.5, "not reproduced."),
    ],
)
def test_one_sample_test(tmp_path, published, delta, ending):
    for seed, accuracy in enumerate(NONE):
        write_run(tmp_path, accuracy / 100, seed=seed, dataset_delta=delta)
    verdict = compare(read_runs([tmp_path])[0], published=published)
    (sentence,) = published_sentences(verdict)
    assert sentence.startswith(f"all runs against the published {published:.2f} %: ")
    assert p_is(stats.ttest_1samp(NONE, published).pvalue) in sentence
    assert sentence.endswith(ending)


def test_no_sentence_without_a_value_and_no_test_of_two_runs(tmp_path):
    assert published_sentences(compare_groups(tmp_path / "a", {"none": NONE})) == []
    (sentence,) = published_sentences(compare_groups(tmp_path / "b", {"none": NONE[:2]}, published=97.0))
    assert sentence == "all runs against the published 97.00 %: too few runs for a test (2)."


def test_the_command(commands, tmp_path):
    compare_groups(tmp_path / "runs", {"none": NONE, "batch": [x + 1 for x in NONE]})
    result = commands.compare("runs", "--published", "98.05")
    assert result.code == 0
    assert "batch against the published 98.05 %" in " ".join(result.out.split())
    assert commands.compare("runs", "--published", "high").code == 2
