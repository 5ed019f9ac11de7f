"""The verdict on the terminal: 80 columns, plain ASCII in a pipe."""

import io

from bnexp.report.render.terminal import print_comparison, render_text
from helpers.run_folders import compare_groups

GROUPS = {
    "none": [98.91, 98.83, 99.02, 98.95, 98.84],
    "batch": [99.21, 99.16, 99.25, 99.27, 99.14],
    "layer": [98.97, 98.95, 99.0, 98.88, 99.05],
    "group": [99.02, 98.97, None, 99.08, 98.99],
}

PAGE = """\
compare model.norm vs none | test accuracy, final epoch | 4-5 paired seeds |
Holm, m=3
same in all: dataset=mnist model=MLP optimizer=SGD optimizer.lr=0.1
batch_size=64 epochs=3

norm      n  div  acc % mean±sd  diff, points [95% CI]       p  p.adj  wins
none *    5    0  98.91 ± 0.08
batch     5    0  99.21 ± 0.06   +0.30 [+0.25, +0.34]   <.0001  .0002   5/5  +
group     4    1  99.02 ± 0.05   +0.13 [+0.11, +0.16]    .0006   .001   4/4  +?
layer     5    0  98.97 ± 0.06   +0.06 [-0.08, +0.20]      .29    .29   3/5  ~

group diverged in 1 of 5 runs (4-62 %), none in 0 of 5. Stability is the main
finding; accuracy covers the 4 seeds where both finished.
batch beats none by 0.30 points (0.25 to 0.34), 27 % fewer errors, ahead in 5 of
5 seeds, adjusted p = .0002.
"""


def test_text_fits_eighty_columns(tmp_path):
    text = render_text(compare_groups(tmp_path, GROUPS))
    assert text.splitlines()[: len(PAGE.splitlines())] == PAGE.splitlines()
    prose = [line for line in text.splitlines() if not line.startswith("  bnexp")]  # commands are not broken
    assert max(map(len, prose)) <= 80


def test_sentences_and_notes_follow_the_table(tmp_path):
    text = " ".join(render_text(compare_groups(tmp_path, GROUPS)).split())
    for passage in (
        "batch beats none by 0.30 points",
        "group diverged in 1 of 5 runs (4-62 %), none in 0 of 5.",
        "This is not evidence of equality.",
        "of each, about",
        "bnexp -m model.norm=none,layer",
        "+ better ~ not decided ? provisional",
        "twins correlate: batch",
        "cannot reach .05 with 5 seeds (needs 7)",
        "test accuracy 98.9 % reached (in training time): none 3 of 5, epoch 3, 180.0 s",
        "not new data",
    ):
        assert passage in text, passage


def test_columns_drop_from_the_right(tmp_path):
    narrow = render_text(compare_groups(tmp_path, GROUPS), width=60)
    assert max(len(line) for line in narrow.splitlines() if not line.startswith("  bnexp")) <= 60
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
    table = [line for line in render_text(verdict).splitlines()[:8] if "±" in line]
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
    print_comparison(verdict, pipe)
    print_comparison(verdict, terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    print_comparison(verdict, colourless)
    assert "\x1b[" not in pipe.getvalue()
    assert "\x1b[32m" in terminal.getvalue()
    assert "\x1b[32m" not in colourless.getvalue()
    assert "±" in colourless.getvalue()
