"""Settings of the whole process: garbage collection, memory allocator, threads, environment variables.

Imports torch only inside functions: commands that do not train start without it.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Idle OpenMP threads spin before they sleep. libgomp's default of 300,000 turns makes a convolutional step 20
# times slower when another process needs a core. 1,000 turns cost 40 % of the speed of two threads on a quiet
# machine, 10,000 turns cost 10 %.
SPIN_COUNT = "10000"
# glibc gives memory above this size back to the system.
TRIM_THRESHOLD_BYTES = 1 << 30
# glibc takes larger blocks from the system one by one; this is the maximum of
# glibc's own automatic threshold.
MMAP_THRESHOLD_BYTES = 32 << 20
# A step with less forward work than this runs on one thread: waking a second one costs as much as it saves.
# On 2 quiet cores MNIST's MLP ran 0.9 to 1.1 times as fast on two threads (10 to 40 MFLOP a batch), its
# convolutional net 1.4 times (37 MFLOP). With one other busy process two threads were 3 times slower than
# one.
ONE_THREAD_FLOPS = 30e6
# Python's resource tracker removes the semaphores of a worker that was killed. It need not warn of them: the
# sweep says that the worker was lost.
LOST_SEMAPHORES = "ignore:resource_tracker:UserWarning"


def prepare_process() -> None:
    """Settings that must stand before torch is imported. Called once, when a command starts."""
    gc.disable()  # no garbage collection during imports: saves 0.3 s; tune_process_once enables it again
    logging.raiseExceptions = False  # on a full disk train.log cannot be written; the run reports it itself
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises its errors instead of printing them
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    if LOST_SEMAPHORES not in sys.warnoptions:
        sys.warnoptions.append(LOST_SEMAPHORES)  # for the Python processes that this one starts


@functools.cache
def tune_process_once() -> None:
    """Settings that need all imports done. Only the first call in a process does anything."""
    _initial_threads()  # remembers the number before a run changes it
    gc.enable()
    gc.freeze()  # imported modules live for ever: collections skip them from here on
    atexit.register(gc.unfreeze)  # leak detectors look at all objects in the last collection
    # A step frees what the next one allocates. By default glibc gives large blocks back to the system in
    # between, and the system clears every page again: 5 % of a small convolutional step, more with large
    # batches.
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if (mallopt := getattr(libc, "mallopt", None)) is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3  # from malloc.h
        mallopt(m_trim_threshold, TRIM_THRESHOLD_BYTES)
        mallopt(m_mmap_threshold, MMAP_THRESHOLD_BYTES)


@functools.cache
def _initial_threads() -> int:
    """The threads that torch chose (OMP_NUM_THREADS, else the cores) before any run changed them."""
    import torch

    return torch.get_num_threads()


@contextmanager
def default_dtype(dtype: torch.dtype | None = None) -> Iterator[None]:
    """Sets torch's default type for the block, if one is given; afterwards it is as before the block."""
    import torch

    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype or previous)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


@contextmanager
def restored_process() -> Iterator[None]:
    """Restores what a user's own code may change for the whole process, so that no later job depends on it.

    These are the current folder and torch's default type, default device and gradient mode.
    """
    import torch

    folder, dtype, mode = os.getcwd(), torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_default_device(None)
        torch.set_grad_enabled(mode)
        os.chdir(folder)


def set_threads(threads: int | None, flops: float, jobs: int = 1) -> int:
    """Sets torch's CPU threads and returns their number.

    ``threads`` None: one thread for a step of few ``flops`` (forward, a batch), else the cores divided among
    the ``jobs`` that share the machine.
    """
    import torch

    threads_per_job = max(1, _initial_threads() // jobs)
    torch.set_num_threads(threads or (1 if flops < ONE_THREAD_FLOPS else threads_per_job))
    return torch.get_num_threads()
