"""Exit codes: every error of a command becomes one line on standard error and a number."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

from bnexp.compute import torchrun
from bnexp.errors import (
    Diverged,
    Interrupted,
    OutOfMemory,
    ProcessLost,
    UserError,
    WriteError,
    one_line,
)

log = logging.getLogger("bnexp")


def exit_code(work: Callable[[], Any]) -> int:
    """Runs ``work``; what it raises becomes one line on standard error and an exit code."""
    try:
        work()
    except SystemExit as leave:  # a run inside has said why
        return leave.code if isinstance(leave.code, int) else 0
    except BrokenPipeError:  # the reader, as in "| head", has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for what is still in the buffer
        return 141
    except UserError as error:
        if not torchrun.is_secondary():
            print(f"bnexp: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"bnexp: diverged: {error}", file=sys.stderr)
        return 1
    except ProcessLost as error:
        print(f"bnexp: {error}", file=sys.stderr)
        return 1
    except OutOfMemory as error:
        print(f"bnexp: out of memory: {error}", file=sys.stderr)
        return 1
    except BrokenExecutor as error:  # joblib's, and with it the jobs that were still to come
        print(one_line(f"bnexp: a job's process died and ended the sweep: {error}"), file=sys.stderr)
        return 1
    except WriteError as error:
        print(
            f"bnexp: {error}; what was saved before is whole, bnexp-resume goes on from it", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt as error:  # Ray's own, for one, where a handler raised ours
        told = error if isinstance(error, Interrupted) else Interrupted(Interrupted.latest)
        print(f"bnexp: interrupted ({told})", file=sys.stderr)
        return told.exit_code
    except Exception as error:
        print(one_line(f"bnexp: crashed: {type(error).__name__}: {error}"), file=sys.stderr)
        _log_traceback(error)
        return 1
    return 0


def _log_traceback(error: Exception) -> None:
    files = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    for handler in files:
        record = log.makeRecord(
            log.name, logging.ERROR, __file__, 0, "crashed", (), (type(error), error, error.__traceback__)
        )
        handler.emit(record)
        print(f"bnexp: the traceback is in {os.path.relpath(handler.baseFilename)}", file=sys.stderr)
    if not files:
        sys.excepthook(type(error), error, error.__traceback__)
