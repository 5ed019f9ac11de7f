import json
import os
import signal
import subprocess
import sys
import time

import pytest

from bnexp.errors import Interrupted
from bnexp.signals import StopSignal


@pytest.mark.parametrize("number", StopSignal.SIGNALS)
def test_the_first_signal_is_recorded_and_the_second_raises(number):
    handler = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.received is None
        os.kill(os.getpid(), number)
        assert stop.received == number
        assert stop.interrupted().exit_code == 128 + number
        if number == getattr(signal, "SIGHUP", None):  # a terminal that closes sends two
            os.kill(os.getpid(), number)
        else:
            with pytest.raises(Interrupted):
                os.kill(os.getpid(), number)
    assert signal.getsignal(number) is handler


@pytest.mark.parametrize("mode", ["run", "sweep"])
def test_a_run_whose_terminal_is_closed_is_saved(tmp_path, mode):
    """As where a connection to the machine ends: the system sends SIGHUP, and nothing can be printed."""
    pty = pytest.importorskip("pty")
    main, terminal = pty.openpty()
    arguments = ["-m", "seed=0,1"] if mode == "sweep" else []
    command = [
        sys.executable, "-c",
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "os.execv(sys.executable, [sys.executable, '-m', 'bnexp.train', *sys.argv[1:]])",
        *arguments, "epochs=100000", "checkpoint.every=1000", f"hydra.{mode}.dir=here",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    steps = "here/steps.csv" if mode == "run" else "here/seed=*/steps.csv"
    os.set_blocking(main, False)
    deadline = time.monotonic() + 120
    while (
        time.monotonic() < deadline
        and process.poll() is None
        and not [p for p in tmp_path.glob(steps) if p.stat().st_size > 100]
    ):
        time.sleep(0.1)
        try:
            os.read(main, 1 << 16)
        except OSError:  # nothing to read
            continue
    os.close(main)
    assert process.wait(120) == 128 + signal.SIGHUP
    summaries = [json.loads(path.read_text()) for path in tmp_path.rglob("summary.json")]
    assert [summary["status"] for summary in summaries] == ["interrupted"] * (1 + len(arguments) // 2)
    assert len(list(tmp_path.rglob("last.pt"))) == len(summaries)
