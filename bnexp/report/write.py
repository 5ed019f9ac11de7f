"""Writes a comparison into a folder: as data, text, pictures and page, and its means for TensorBoard."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

from bnexp.errors import UserError, WriteError, one_line
from bnexp.files import write_atomically, write_json, write_text
from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.methods_text import methods_text
from bnexp.report.read.looks import RECORD_FILE
from bnexp.report.render.csv_export import curves_csv, groups_csv, runs_csv
from bnexp.report.render.json_export import SCHEMA, comparison_record
from bnexp.report.render.latex import render_latex
from bnexp.report.render.markdown import render_markdown
from bnexp.report.render.tensorboard_means import write_means

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # no mistake of the user
MARKDOWN_FILE, PAGE_FILE = "comparison.md", "report.html"
TEXTS: dict[str, Callable[[Verdict], str]] = {
    "comparison.csv": groups_csv, "runs.csv": runs_csv, "curves.csv": curves_csv,
    MARKDOWN_FILE: render_markdown, "comparison.tex": render_latex, "methods.txt": methods_text,
}  # fmt: skip


def write_report(verdict: Verdict, folder: Path) -> Path:
    """Writes every file and returns the page's path.

    Raises UserError where the folder cannot be written, and where a file would replace one that bnexp did not
    write; WriteError where the disk is full or fails.
    """
    from bnexp.report.plots.measurements import MEASUREMENT_PREFIX
    from bnexp.report.plots.pictures import draw_pictures
    from bnexp.report.render.html import render_page

    record, pictures = comparison_record(verdict), draw_pictures(verdict)
    picture_files = [f"{picture.name}.{ending}" for picture in pictures for ending in ("svg", "png", "pdf")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_replaces_own(folder, [RECORD_FILE, *TEXTS, PAGE_FILE, *picture_files])
        write_json(folder / RECORD_FILE, record)
        for name, render in TEXTS.items():
            write_text(folder / name, render(verdict))
        for picture in pictures:
            write_text(folder / f"{picture.name}.svg", picture.svg)
            write_atomically(folder / f"{picture.name}.png", picture.write_png)
            write_atomically(folder / f"{picture.name}.pdf", picture.write_pdf)
        measured = [picture.name for picture in pictures if picture.name.startswith(MEASUREMENT_PREFIX)]
        write_means(verdict, folder, {name: (folder / f"{name}.png").read_bytes() for name in measured})
        write_text(folder / PAGE_FILE, render_page(verdict, pictures, record, folder))
    except OSError as error:
        name = str(error.filename or folder)
        if error.errno in DISK_ERRORS:
            raise WriteError(error.errno, error.strerror, name) from None
        raise UserError(one_line(f"{name}: cannot be written ({error.strerror})")) from None
    return folder / PAGE_FILE


def _check_replaces_own(folder: Path, names: list[str]) -> None:
    """Raises UserError where one of the files exists in a folder without a comparison of bnexp."""
    files = [folder / name for name in names if (folder / name).exists()]
    if files and not _is_comparison(folder / RECORD_FILE):
        raise UserError(f"{files[0]}: not written by bnexp; choose another folder")


def _is_comparison(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_bytes())["schema"] == SCHEMA)
    except (OSError, ValueError, LookupError, TypeError):
        return False
