"""What the line of a failure says."""

from __future__ import annotations

import errno
import os

import pytest

from bnexp.cli.exit_codes import failure_of
from bnexp.errors import WriteError


@pytest.mark.parametrize("is_run", [True, False])
def test_only_the_line_of_a_run_names_bnexp_resume(tmp_path, is_run):
    """A descent and a comparison cannot be resumed."""
    if is_run:
        (tmp_path / "checkpoints").mkdir()

    def fail():
        raise WriteError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "path.csv"))

    code, (line,) = failure_of(fail)
    assert code == 1
    saved = (
        f"bnexp: {tmp_path}/path.csv: cannot be written (No space left on device); what was saved before is"
    )
    assert line == f"{saved} complete" + (", and bnexp-resume continues from it" if is_run else "")
