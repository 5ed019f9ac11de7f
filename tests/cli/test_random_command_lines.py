"""Any command line ends in success or in one line; scripts/torture tries two thousand."""

import pytest
from hypothesis import HealthCheck, given, settings

from helpers.random_command_lines import LINES, run


@settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(line=LINES)
def test_any_command_line_ends_in_success_or_one_line(tmp_path_factory, line):
    done = run(line, tmp_path_factory.getbasetemp())
    assert done.find_fault() is None, (line, done)


# What random lines have found, each mended since.
FOUND = [["hydra/launcher=[]"], ["hydra/launcher=[]", "-m"]]


@pytest.mark.parametrize("line", FOUND, ids=str)
def test_what_random_lines_have_found(tmp_path, line):
    done = run(line, tmp_path)
    assert done.find_fault() is None, done
