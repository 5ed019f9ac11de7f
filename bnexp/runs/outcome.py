"""How a run ended: its summary.json says so, whatever happened."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bnexp.errors import Diverged, UserError, describe, forbid_exit, one_line
from bnexp.runs.folder import RunFolder, discard
from bnexp.runs.summary import SUMMARY

log = logging.getLogger(__name__)


@contextmanager
def record_outcome(folder: RunFolder, *, keep: bool) -> Iterator[None]:
    """Records how the block ends: finished, failed, diverged or interrupted.

    After a user's mistake before the first checkpoint the folder is restored: a new run's files and
    ``new_folders`` are removed, a resumed run gets its previous files. With ``keep``, for a job of a sweep,
    the folder stays and says that the job failed.
    """
    start = time.monotonic()
    recorded = ((folder.previous_summary or {}).get("time") or {}).get("total_s")
    previous_seconds = recorded if isinstance(recorded, int | float) else 0.0

    def record(status: str, error: str | None = None) -> None:
        seconds = round(previous_seconds + time.monotonic() - start, 3)
        try:
            folder.update(status=status, error=error, time=folder.summary["time"] | {"total_s": seconds})
        except OSError as write_error:  # logged only: the user has to see the error that ended the run
            reason = write_error.strerror
            log.error(f"{folder.path / SUMMARY}: cannot be written ({reason}); it still says running")

    try:
        folder.update()
        with forbid_exit("the network, loss, optimizer or scheduler"):
            yield
        record("finished")
    except UserError as error:
        if keep or (folder.previous_summary is None and folder.has_checkpoints):
            record("failed", str(error))
        elif folder.previous_summary is None:
            discard(folder.path, folder.new_folders)
        else:
            folder.restore()
        raise
    except Diverged as error:
        record("diverged", str(error))
        raise
    except KeyboardInterrupt as error:
        record("interrupted", one_line(error) or "SIGINT")
        raise
    except Exception as error:
        log.debug("the traceback", exc_info=True)
        record("failed", describe(error))
        raise
