import os
import signal

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
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is handler
