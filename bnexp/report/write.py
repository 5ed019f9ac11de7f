"""Writes a comparison into a folder: comparison.json, .csv, .md, report.html and the pictures."""

from __future__ import annotations

from pathlib import Path

from bnexp.errors import UserError, one_line
from bnexp.files import write_atomically, write_json, write_text
from bnexp.report.analysis.verdict import Comparison
from bnexp.report.read.looks import RECORD_FILE
from bnexp.report.render.csv_export import runs_csv
from bnexp.report.render.json_export import comparison_record
from bnexp.report.render.markdown import render_markdown

CSV_FILE, MARKDOWN_FILE, PAGE_FILE = "comparison.csv", "comparison.md", "report.html"


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Writes every file and returns the page's path. Raises UserError where the folder cannot be written."""
    from bnexp.report.plots.comparison import draw_pictures
    from bnexp.report.render.html import render_page

    record = comparison_record(comparison)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECORD_FILE, record)
        write_text(folder / CSV_FILE, runs_csv(comparison))
        write_text(folder / MARKDOWN_FILE, render_markdown(comparison))
        pictures = draw_pictures(comparison)
        for picture in pictures:
            write_text(folder / f"{picture.name}.svg", picture.svg)
            write_atomically(folder / f"{picture.name}.png", picture.write_png)
        write_text(folder / PAGE_FILE, render_page(comparison, pictures, record))
    except OSError as error:
        raise UserError(
            one_line(f"{error.filename or folder}: cannot be written ({error.strerror})")
        ) from None
    return folder / PAGE_FILE
