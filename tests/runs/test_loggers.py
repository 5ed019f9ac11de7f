"""The loggers of a run: CSV files, console lines, TensorBoard files as a real server reads them."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from torch import nn

from bnexp.errors import WriteError
from bnexp.runs.console_logger import ConsoleLogger
from bnexp.runs.csv_logger import CsvLogger
from bnexp.runs.loggers import LoggerGroup
from bnexp.runs.tensorboard_logger import TensorBoardLogger

METRICS = {
    "train/loss": 0.5, "train/accuracy": 0.9, "val/loss": 0.6, "val/accuracy": 0.8, "lr": 0.1,
    "images_per_s": 1234.5, "epoch_s": 0.7,
}  # fmt: skip


def test_csv_has_a_row_per_epoch_and_a_row_per_step(tmp_path):
    logger = CsvLogger(tmp_path)
    logger.steps(1, [0.9, 0.8])
    logger.steps(3, [0.7])
    logger.epoch(METRICS, 1, nn.Identity())
    # Read before the files are closed: a run that is killed keeps its rows.
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    steps = list(csv.DictReader((tmp_path / "steps.csv").read_text().splitlines()))
    logger.close()
    assert len(rows) == 1
    assert rows[0]["epoch"] == "1"
    assert {key: float(rows[0][key]) for key in METRICS} == METRICS
    assert rows[0]["test/loss"] == ""
    assert [(int(row["step"]), float(row["train/loss"])) for row in steps] == [(1, 0.9), (2, 0.8), (3, 0.7)]


def test_console_prints_one_line_per_epoch_and_no_bar_into_a_pipe(capfd, caplog):
    console = ConsoleLogger(epochs=10, steps=3)
    with caplog.at_level("INFO"):
        console.steps(1, [0.5])
        console.epoch(METRICS, 3, nn.Identity())
    console.close()
    assert caplog.messages == ["epoch  3/10 | train 0.5000 90.00% | val 0.6000 80.00% | lr 0.1 | 0.7 s"]
    assert capfd.readouterr() == ("", "")


def test_group_calls_each_of_its_loggers(tmp_path):
    group = LoggerGroup([CsvLogger(tmp_path)], tmp_path)
    group.text("config", "x")
    group.steps(1, [0.1])
    group.epoch(METRICS, 1, nn.Identity())
    group.final({"test/accuracy": 1.0}, 1)
    group.close()
    assert len((tmp_path / "steps.csv").read_text().splitlines()) == 2
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2


@pytest.fixture
def printed_errors(monkeypatch) -> list[threading.ExceptHookArgs]:
    """The errors of threads that Python would print."""
    errors: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    return errors


def join_writer_thread() -> None:
    for thread in threading.enumerate():
        if type(thread).__module__ == "tensorboard.summary.writer.event_file_writer":
            thread.join(timeout=10)
            assert not thread.is_alive()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a full disk")
def test_a_full_disk_is_reported_by_the_run_and_not_by_the_writer_thread(tmp_path, printed_errors):
    group = LoggerGroup([TensorBoardLogger(tmp_path, every=1, histograms=False, hparams={})], tmp_path)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    events.unlink()
    events.symlink_to("/dev/full")
    with pytest.raises(WriteError, match=f"^{re.escape(str(tmp_path))}: cannot be written .No space left"):
        group.epoch(METRICS, 1, nn.Identity())
    join_writer_thread()
    assert printed_errors == []
    with pytest.raises(WriteError):
        group.close()


def test_an_error_in_any_other_thread_is_still_printed(tmp_path, printed_errors):
    for name in ("a", "b"):  # the second logger must not hide the errors either
        TensorBoardLogger(tmp_path / name, every=1, histograms=False, hparams={}).close()
    error = RuntimeError("in a thread")

    def fail() -> None:
        raise error

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert [printed.exc_value for printed in printed_errors] == [error]


@pytest.fixture
def server(tmp_path):
    """A real TensorBoard server over the folder; the fixture is a function that requests JSON from it."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        for line in process.stderr:
            if match := re.search(r"http://\S+:(\d+)/", line):
                break
        else:
            pytest.fail("TensorBoard did not start")
        # Without the proxy that the environment may name.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        address = f"http://localhost:{match[1]}/data/plugin/"

        def get_json(path: str, **body):
            data = json.dumps(body).encode() if body else None
            request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
            for _ in range(40):
                try:
                    with opener.open(request, timeout=30) as response:
                        return json.load(response)
                except urllib.error.HTTPError as error:
                    pytest.fail(f"{path}: {error} {error.read()}")
                except urllib.error.URLError:  # on a busy machine it prints its address before it listens
                    assert process.poll() is None, "TensorBoard has ended"
                    time.sleep(0.5)
            return pytest.fail("TensorBoard does not answer")

        yield get_json
    finally:
        process.terminate()
        process.wait(10)
        process.stderr.close()


@pytest.mark.slow
def test_a_real_tensorboard_serves_every_tag(tmp_path, server):
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    network[0].weight.grad = network[0].weight.detach().clone()
    for run, key, value in (("a", "model.norm", "batch"), ("b", "optimizer.lr", 0.1)):  # of two sweeps
        logger = TensorBoardLogger(
            tmp_path / run, every=2, histograms=True, hparams={"model": "mlp", key: value}
        )
        logger.text("config", "```yaml\nepochs: 2\n```")
        logger.text("model", "| layer |\n")
        logger.steps(1, [0.9, 0.8, 0.7, 0.6])
        for epoch in (1, 2):
            logger.epoch(METRICS, epoch, network)
        logger.final({"test/accuracy": 0.75}, 2)
        logger.close()

    for _ in range(60):  # the server reads the folder in the background
        tags = server("scalars/tags")
        if len(tags) == 2 and all("test/accuracy" in run_tags for run_tags in tags.values()):
            break
        time.sleep(0.5)
    expected_tags = {*METRICS, "test/accuracy", "train/step_loss"} - {"epoch_s"}
    assert set(tags) == {"a", "b"}
    for run in ("a", "b"):
        assert set(tags[run]) == expected_tags
        assert set(server("text/tags")[run]) == {"config/text_summary", "model/text_summary"}
        histograms = set(server("histograms/tags")[run])
        assert {"weights/0.weight", "gradients/0.weight", "running/1.running_mean"} <= histograms
    charts = server("custom_scalars/layout")["category"][0]["chart"]
    assert charts[0]["multiline"]["tag"] == ["train/accuracy", "val/accuracy", "test/accuracy"]
    assert charts[-1]["multiline"]["tag"] == ["images_per_s"]
    status = ["STATUS_SUCCESS", "STATUS_RUNNING", "STATUS_UNKNOWN"]
    response = server(
        "hparams/session_groups", allowedStatuses=status, colParams=[], startIndex=0, sliceSize=9
    )
    groups = [group["hparams"] for group in response["sessionGroups"]]
    columns = [{key: value for key, value in group.items() if value not in (None, "")} for group in groups]
    assert sorted(columns, key=sorted) == [
        {"model": "mlp", "model.norm": "batch"},
        {"model": "mlp", "optimizer.lr": 0.1},
    ]
    points = server("scalars/scalars?tag=train/loss&run=a")
    assert [(point[1], round(point[2], 6)) for point in points] == [(1, 0.5), (2, 0.5)]
    steps = server("scalars/scalars?tag=train/step_loss&run=b")
    assert [(point[1], round(point[2], 6)) for point in steps] == [(2, 0.8), (4, 0.6)]
