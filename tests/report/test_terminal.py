"""The verdict on the terminal: 80 columns, plain ASCII in a pipe."""

import io

import pytest

from bnexp.report.analysis.verdict import compare
from bnexp.report.read.runs import read_runs
from bnexp.report.render.terminal import MAX_LINES, print_verdict, render_text
from helpers.run_folders import NONE, compare_groups, shifted, write_run

GROUPS = {
    "none": [98.91, 98.83, 99.02, 98.95, 98.84],
    "batch": [99.21, 99.16, 99.25, 99.27, 99.14],
    "layer": [98.97, 98.95, 99.0, 98.88, 99.05],
    "group": [99.02, 98.97, None, 99.08, 98.99],
}

PAGE = """\
Which norm beats no norm for an MLP on MNIST? Better: batch (+0.30);
provisionally better: group (+0.13); not decided: layer.
model.norm vs none | test accuracy, mean of the last epochs | 4-5 paired seeds
norm      n  lost  acc % mean±sd  diff, points [95% CI]       p  p.adj  wins
none *    5     0  98.91 ± 0.08
batch     5     0  99.21 ± 0.06   +0.30 [+0.25, +0.34]   <.0001  .0003   5/5  +
group     4     1  99.02 ± 0.05   +0.13 [+0.11, +0.16]    .0006   .002   4/4  +?
layer     5     0  98.97 ± 0.06   +0.06 [-0.08, +0.20]      .29    .59   3/5  ~

"""


def test_text_fits_eighty_columns(tmp_path):
    text = render_text(compare_groups(tmp_path, GROUPS))
    assert text.splitlines()[: len(PAGE.splitlines())] == PAGE.splitlines()
    prose = [line for line in text.splitlines() if not line.startswith("next (")]  # commands are not broken
    assert max(map(len, prose)) <= 80


def test_sentences_and_notes_follow_the_table(tmp_path):
    text = " ".join(render_text(compare_groups(tmp_path, GROUPS), details=True).split())
    for passage in (
        "batch beats none by 0.30 points",
        "group trained in 4 of 5 runs (diverged), model.norm=none in 5 of 5, which chance gives often",
        "This is not evidence of equality.",
        "next (1 more seed of each, about 1 min",
        "bnexp -m model.norm=none,group seed=5",
        "bnexp -m model.norm=none,layer 'seed=range(5,55)'",
        "* baseline + better ~ not decided ? provisional",
        "cannot reach .05 with 5 seeds (needs 8)",
        "test accuracy 98.9 % reached (in training time): none 3 of 5, epoch 3, 180.0 s",
        "not new data",
    ):
        assert passage in text, passage


ONE_COMPARISON = {
    "decided": {"none": NONE, "batch": shifted(1, 1.1, 1, 0.9, 1)},
    "undecided": {"none": NONE, "batch": shifted(0.5, -0.4, 0.3, 0.6, -0.2)},
    "few seeds": {"none": NONE[:3], "batch": shifted(0.1, 0.6, -0.3)},
    "lost runs": {"none": [97, 97.2, None, 97.1, 97], "batch": shifted(1, 1.1, 1, 0.9, 1)},
    "all lost": {"none": [None] * 5, "batch": NONE},
}


@pytest.mark.parametrize("name", ONE_COMPARISON)
def test_one_comparison_takes_few_lines_and_answers_first(tmp_path, name):
    verdict = compare_groups(tmp_path, ONE_COMPARISON[name])
    lines = render_text(verdict).splitlines()
    assert len(lines) <= MAX_LINES
    assert lines[0].startswith("Does batch norm help an MLP on MNIST? ")
    details = render_text(verdict, details=True)
    assert len(details.splitlines()) > len(lines)
    assert "not new data" in details


def test_the_crowded_verdict_of_one_comparison_leaves_out_the_least_important_lines(tmp_path):
    """Choices that bring settings along, a final epoch that disagrees, a third look."""
    optimizers = {
        "sgd": {
            "_target_": "torch.optim.SGD",
            "lr": 0.05,
            "momentum": 0,
            "weight_decay": 0,
            "nesterov": False,
        },
        "adam": {
            "_target_": "torch.optim.Adam",
            "lr": 0.001,
            "betas": [0.9, 0.999],
            "eps": 1e-8,
            "weight_decay": 1,
        },
    }
    for shift, (name, settings) in zip((0.0, 0.01), optimizers.items(), strict=True):
        for seed, noise in enumerate((0.002, 20 * shift * shift, 0.004, -0.001, 0.003)):
            record = {"choices": {"optimizer": name}, "overrides": [f"optimizer={name}", f"seed={seed}"]}
            best = 0.95 + shift + noise
            write_run(
                tmp_path, 0.99 - 3 * noise, best=best, folder=f"{name}{seed}", seed=seed, optimizer=settings,
                curve=[best - 0.4, best - 0.2, best], record=record,
            )  # fmt: skip
    looks = [{"at": f"2026-11-2{n}", "runs": {"sgd": n, "adam": n}} for n in (3, 4)]
    verdict = compare(*read_runs([tmp_path]), looks=looks)
    lines, everything = (render_text(verdict, details=details).splitlines() for details in (False, True))
    text = "\n".join(lines)
    assert len(lines) <= MAX_LINES
    assert "Look 3, unplanned" in text  # it can change the meaning of the p value
    assert "adam beats sgd" in text
    assert "settings that come along" not in text
    for passage in ("settings that come along", "Final epoch", "still gaining", "Look 3, unplanned"):
        assert passage in "\n".join(everything), passage


def test_columns_drop_from_the_right(tmp_path):
    narrow = render_text(compare_groups(tmp_path, GROUPS), width=60)
    assert max(len(line) for line in narrow.splitlines() if not line.startswith("next (")) <= 60
    header = next(line for line in narrow.splitlines() if line.startswith("norm"))
    assert "wins" not in header
    assert "diff, points [95% CI]" in header


def test_a_table_wider_than_the_terminal_keeps_its_numbers(tmp_path):
    text = render_text(compare_groups(tmp_path, GROUPS), width=40)
    assert "batch     5  99.21 ± 0.06   +0.30 [+0.25, +0.34]   +" in text.splitlines()


def test_plain_text_is_ascii(tmp_path):
    assert render_text(compare_groups(tmp_path, GROUPS), plain=True).isascii()


def test_long_names_are_cut(tmp_path):
    long_name = "my.package.with.a.very.long.path.VeryLongNorm" * 2
    verdict = compare_groups(tmp_path, {"none": [97, 98, 97], long_name: [98, 99, 98.5]})
    table = [line for line in render_text(verdict).splitlines()[:12] if "±" in line]
    assert max(map(len, table)) <= 80
    assert "…" in table[-1]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_only_a_terminal_gets_colour(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    verdict = compare_groups(tmp_path, GROUPS)
    pipe, terminal, colourless = io.StringIO(), Terminal(), Terminal()
    print_verdict(verdict, pipe)
    print_verdict(verdict, terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    print_verdict(verdict, colourless)
    assert "\x1b[" not in pipe.getvalue()
    assert "\x1b[32m" in terminal.getvalue()
    assert "\x1b[32m" not in colourless.getvalue()
    assert "±" in colourless.getvalue()
