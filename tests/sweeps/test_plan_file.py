import json

import pytest

from bnexp.errors import UserError
from bnexp.sweeps.plan_file import PLAN_FILE, read_plan
from helpers.sweep_folders import planned_jobs, write_job, write_made_plan


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = write_made_plan(tmp_path, planned_jobs(seeds=3))
    assert read_plan(tmp_path) == plan
    assert [path.name for path in tmp_path.iterdir()] == [PLAN_FILE]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"jobs": 3}', '{"jobs": [{}]}', '{"jobs": [{"folder": "../run"}]}',
        '{"jobs": [{"folder": "/etc"}]}', '{"jobs": [{"folder": "a", "epochs": "x"}]}', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_plan_is_one_line(tmp_path, text):
    (tmp_path / PLAN_FILE).write_text(text)
    with pytest.raises(UserError, match="damaged") as error_info:
        read_plan(tmp_path)
    assert len(str(error_info.value).splitlines()) == 1


def test_text_of_a_plan_cannot_control_the_terminal(tmp_path):
    jobs = [{"folder": "a", "label": "\x1b[2Jseed=0\n\rseed=1"}]
    (tmp_path / PLAN_FILE).write_text(json.dumps({"jobs": jobs}))
    assert read_plan(tmp_path).jobs[0].label == "?[2Jseed=0 seed=1"


def test_an_older_sweep_has_the_jobs_whose_folders_exist(tmp_path):
    jobs = planned_jobs(seeds=2)
    for job in jobs[:3]:
        write_job(tmp_path, job)
    plan = read_plan(tmp_path)
    assert sorted(job.folder for job in plan.jobs) == sorted(job.folder for job in jobs[:3])
    assert {job.label for job in plan.jobs} >= {"model.norm=none seed=0"}
    assert {job.epochs for job in plan.jobs} == {5}


def test_a_folder_that_is_no_sweep_is_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_plan(tmp_path / "missing")
    with pytest.raises(UserError, match="no sweep"):
        read_plan(tmp_path)
    with pytest.raises(UserError, match="a single run"):
        read_plan(write_job(tmp_path, planned_jobs()[0]))
