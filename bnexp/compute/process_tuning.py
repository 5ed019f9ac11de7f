"""Settings of the whole process: garbage collection, the C allocator, threads, environment variables."""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import os


@functools.cache
def tune_process_once() -> None:
    """Once in a process, when everything is imported: nothing is looked for or fetched twice from here on."""
    _initial_threads()
    gc.enable()  # cli.launch has put it off
    gc.freeze()  # modules stay: no collection needs to walk through them again,
    atexit.register(gc.unfreeze)  # but the last, for those who look for leaks
    # A step frees what the next one allocates. glibc gives large blocks back to the system between the two,
    # which then clears every page anew: a twentieth of a small convolutional step, more with large batches.
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if (mallopt := getattr(libc, "mallopt", None)) is not None:
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        mallopt(trim_threshold, _KEPT_BYTES)
        mallopt(mmap_threshold, _HEAP_BYTES)


_KEPT_BYTES = 1 << 30  # more than this is given back
_HEAP_BYTES = 32 << 20  # what glibc would go up to by itself


@functools.cache
def _initial_threads() -> int:
    """torch's own choice (OMP_NUM_THREADS, else the cores), before any run in this process changed it."""
    import torch

    return torch.get_num_threads()


# A step of less forward work than this is as fast on one thread, waking the others costs what they do: on 2
# quiet cores MNIST's MLP ran 0.9 to 1.1 x as fast on two threads (10 to 40 MFLOP a batch), its convolutional
# net 1.4 x (37 MFLOP). With one other process at work two threads were 3 x slower than one.
_ONE_THREAD_FLOPS = 30e6


def set_threads(wanted: int | None, flops: float, jobs: int = 1) -> int:
    """Sets and returns torch's CPU threads: ``wanted``, or what suits a step of ``flops`` forward.

    ``jobs`` runs side by side share the cores.
    """
    import torch

    share = max(1, _initial_threads() // jobs)
    torch.set_num_threads(wanted or (1 if flops < _ONE_THREAD_FLOPS else share))
    return torch.get_num_threads()
