"""Any command line ends in success or in one line. scripts/torture tries two thousand of them."""

import pytest
from hypothesis import HealthCheck, given, settings

from helpers.random_command_lines import LINES, run

pytestmark = pytest.mark.usefixtures("no_workers", "no_pictures")


@settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(line=LINES)
def test_any_command_line_ends_in_success_or_one_line(tmp_path_factory, line):
    result = run(line, tmp_path_factory.getbasetemp())
    assert result.find_fault() is None, (line, result)


# Command lines that once ended in a traceback.
FORMER_CRASHES = [["hydra/launcher=[]"], ["hydra/launcher=[]", "-m"]]


@pytest.mark.parametrize("line", FORMER_CRASHES, ids=str)
def test_a_former_crash_ends_in_success_or_one_line(tmp_path, line):
    result = run(line, tmp_path)
    assert result.find_fault() is None, result
