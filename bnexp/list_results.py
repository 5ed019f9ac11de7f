"""``bnexp-list [DIR]``: the sweeps and runs below a folder, newest first, one line each with its result."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bnexp.cli import argument_parser, exit_codes
from bnexp.errors import UserError, one_line
from bnexp.runs.lock import is_locked
from bnexp.runs.summary import DESCENT, SUMMARY
from bnexp.sweeps.plan_file import COMMAND_FILE, PLAN_FILE, printable, read_summary
from bnexp.sweeps.progress.status import RUNNING, SweepReader, SweepStatus, read_answer
from bnexp.sweeps.progress.view import percent

DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Entry:
    """A run or a sweep: ``name`` is its folder below the listed one, ``time`` when it last changed."""

    name: str
    time: float
    progress: str = ""  # of a sweep: jobs done and all jobs; of a run: its seed
    result: str = ""


def list_entries(root: Path) -> list[Entry]:
    """Every sweep, and every run outside of one, newest first. A damaged folder is an entry that says so.

    Raises UserError where there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    entries = []
    for folder, is_sweep in find_folders(root):
        name = os.path.relpath(folder, root)
        try:
            entry = read_sweep(folder, name) if is_sweep else read_run(folder, name)
        except (UserError, OSError) as error:
            reason = str(error).replace(f"{folder}{os.sep}", "").removeprefix(f"{folder}: ")
            entry = Entry(name, _changed(folder), result=f"cannot be read: {one_line(reason)}")
        entries.append(entry)
    return sorted(entries, key=lambda entry: (-entry.time, entry.name))


def find_folders(root: Path) -> Iterator[tuple[Path, bool]]:
    """The folders of sweeps and of runs outside of one, and whether each is a sweep's. Follows no links."""
    for folder, subfolders, files in os.walk(root):
        path = Path(folder)
        is_sweep = PLAN_FILE in files or COMMAND_FILE in files
        if SUMMARY in files or (is_sweep and path != root):
            yield path, is_sweep
            subfolders.clear()
        subfolders.sort()


def read_sweep(folder: Path, name: str) -> Entry:
    status = SweepReader(folder).read()
    result = read_answer(folder)
    if status.counts[RUNNING]:
        result = f"{status.counts[RUNNING]} running"
    elif not result:
        result = "no verdict yet"
    newest = max((job.changed for job in status.jobs), default=0.0)
    return Entry(name, max(newest, status.plan.started) or _changed(folder), _progress(status), result)


def _progress(status: SweepStatus) -> str:
    return f"{status.done}/{len(status.jobs)}"


def read_run(folder: Path, name: str) -> Entry:
    summary = read_summary(folder)
    if "status" not in summary:
        raise UserError(f"{SUMMARY}: damaged")
    if summary.get("kind") == DESCENT:
        return read_descent(folder, name, summary)
    status, final, best = summary["status"], summary.get("final"), summary.get("best")
    if status == RUNNING and not is_locked(folder):  # killed: nothing could record it
        status = "lost: its process is gone"
    sections = [section for section in (best, final) if isinstance(section, dict)]
    accuracy = next((s["test/accuracy"] for s in sections if s.get("test/accuracy") is not None), None)
    if status == "finished" and isinstance(accuracy, int | float):
        result = f"test {percent(accuracy)}"
    else:
        result = ": ".join(str(text) for text in (status, summary.get("error")) if text)
    return Entry(name, _changed(folder / SUMMARY), f"seed {summary.get('seed')}", printable(result))


def read_descent(folder: Path, name: str, summary: dict[str, Any]) -> Entry:
    """One descent of bnexp-descend, or several with their ranking."""
    result = summary.get("result")
    sentence = result.get("sentence") if isinstance(result, dict) else None
    progress = f"seed {summary['seed']}" if "seed" in summary else f"{summary.get('descents')} descents"
    texts = [summary["status"] if summary["status"] != "finished" else None, summary.get("error"), sentence]
    return Entry(name, _changed(folder / SUMMARY), progress, printable("; ".join(str(t) for t in texts if t)))


def _changed(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def format_entries(entries: list[Entry], width: int | None) -> list[str]:
    """One line for each entry, of at most ``width`` characters; None does not cut them.

    A date is added where the name has none. A narrow terminal shows the end of a name, and of a sweep's
    first line the answer without its question.
    """
    names = [printable(_dated_name(entry)) for entry in entries]
    name_width = max(map(len, names), default=0)
    progress_width = max((len(entry.progress) for entry in entries), default=0)
    results = [entry.result for entry in entries]
    if width is not None:
        name_width = min(name_width, max(12, width * 11 // 20 - progress_width))
        if name_width + progress_width + 4 + max(map(len, results), default=0) > width:
            results = [re.sub(r"^[^?]*\? ", "", result) for result in results]
    lines = []
    for name, entry, result in zip(names, entries, results, strict=True):
        if len(name) > name_width:
            name = printable(entry.name)  # without its date
        if len(name) > name_width:
            name = "…" + name[1 - name_width :]
        line = f"{name:<{name_width}}  {entry.progress:>{progress_width}}  {result}".rstrip()
        lines.append(line if width is None or len(line) <= width else line[: width - 1] + "…")
    return lines


def _dated_name(entry: Entry) -> str:
    if DATE.search(entry.name) or not entry.time:
        return entry.name
    return f"{entry.name} ({datetime.fromtimestamp(entry.time):%Y-%m-%d})"


def print_list(root: Path, limit: int | None) -> None:
    entries = list_entries(root)
    width = os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else None
    for line in format_entries(entries[:limit], width):
        print(line)
    if not entries:
        print(f"{root}: no run and no sweep in this folder")
    elif limit is not None and len(entries) > limit:
        print(f"and {len(entries) - limit} older")


def arguments() -> argparse.Namespace:
    parser = argument_parser.ArgumentParser(
        prog="bnexp-list",
        description="Lists the sweeps and runs below a folder, newest first. A sweep has its jobs (done/all)"
        " and the answer of its verdict, a run its seed and test accuracy.",
    )
    parser.add_argument(
        "folder", nargs="?", type=argument_parser.named_folder, default=Path("outputs"), metavar="DIR",
        help="default: outputs",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="only the newest N")
    args = parser.parse_args()
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit={args.limit}: must be 1 or more")
    return args


def main() -> None:
    def run() -> None:
        args = arguments()
        print_list(args.folder, args.limit)

    sys.exit(exit_codes.printed_exit_code(run))


if __name__ == "__main__":
    main()
