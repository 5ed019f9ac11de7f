"""What a comparison leaves in a folder: comparison.json, .csv, .md, report.html, pictures."""

from __future__ import annotations

from pathlib import Path

from bnexp.errors import UserError, one_line
from bnexp.files import write_atomically, write_json
from bnexp.report.analysis.verdict import Comparison
from bnexp.report.read.looks import RECORD
from bnexp.report.render.exports import comparison_dict, markdown, runs_csv

CSV, MARKDOWN, PAGE = "comparison.csv", "comparison.md", "report.html"


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Writes every file and gives the page's path; raises UserError where the folder cannot be written."""
    from bnexp.report.plots.comparison import draw_pictures
    from bnexp.report.render.html import render_page

    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECORD, comparison_dict(comparison))
        _write_text(folder / CSV, runs_csv(comparison))
        _write_text(folder / MARKDOWN, markdown(comparison))
        drawn = draw_pictures(comparison)
        for picture in drawn:
            _write_text(folder / f"{picture.name}.svg", picture.svg)
            write_atomically(folder / f"{picture.name}.png", picture.write_png)
        _write_text(folder / PAGE, render_page(comparison, drawn))
    except OSError as error:
        raise UserError(
            one_line(f"{error.filename or folder}: cannot be written ({error.strerror})")
        ) from None
    return folder / PAGE


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))
