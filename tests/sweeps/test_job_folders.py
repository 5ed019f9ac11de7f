import json

from bnexp.sweeps.job_folders import job_folder


def test_job_folders_have_readable_short_distinct_names(tmp_path):
    assert job_folder(tmp_path, "model=conv,seed=0", "1a2b") == "model=conv,seed=0-1a2b"
    assert "/" not in job_folder(tmp_path, "dataset.root=/a/b", "1a2b")
    assert len(job_folder(tmp_path, "x" * 300, "1a2b")) < 200  # file systems allow 255


def test_a_job_started_under_other_overrides_keeps_its_folder(tmp_path):
    folder = tmp_path / "seed=0-1a2b"
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps({"status": "running"}))
    assert job_folder(tmp_path, "model=conv,seed=0", "1a2b") == "seed=0-1a2b"
    assert job_folder(tmp_path, "model=conv,seed=0", "1a2c") == "model=conv,seed=0-1a2c"
