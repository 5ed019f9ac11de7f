"""The record: CSV files as they are read back, TensorBoard through a real server."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from torch import nn

from bnexp.runs.loggers import ConsoleLogger, CsvLogger, LoggerGroup, TensorBoardLogger

VALUES = {
    "train/loss": 0.5, "train/accuracy": 0.9, "val/loss": 0.6, "val/accuracy": 0.8, "lr": 0.1,
    "images_per_s": 1234.5, "epoch_s": 0.7,
}  # fmt: skip


def test_csv_has_a_row_an_epoch_and_a_row_a_step(tmp_path):
    logger = CsvLogger(tmp_path)
    logger.steps(1, [0.9, 0.8])
    logger.steps(3, [0.7])
    logger.epoch(VALUES, 1, nn.Identity())
    rows = list(
        csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
    )  # flushed: a killed run keeps it
    steps = list(csv.DictReader((tmp_path / "steps.csv").read_text().splitlines()))
    logger.close()
    assert len(rows) == 1
    assert rows[0]["epoch"] == "1"
    assert {key: float(rows[0][key]) for key in VALUES} == VALUES
    assert rows[0]["test/loss"] == ""
    assert [(int(row["step"]), float(row["train/loss"])) for row in steps] == [(1, 0.9), (2, 0.8), (3, 0.7)]


def test_console_prints_one_line_an_epoch_and_no_bar_into_a_pipe(capfd, caplog):
    console = ConsoleLogger(epochs=10, steps=3)
    with caplog.at_level("INFO"):
        console.steps(1, [0.5])
        console.epoch(VALUES, 3, nn.Identity())
    console.close()
    assert caplog.messages == [
        "epoch  3/10 | train loss 0.5000 acc 0.9000 | val loss 0.6000 acc 0.8000"
        " | lr 0.1 | 1,234 images/s | 0.70 s"
    ]
    assert capfd.readouterr() == ("", "")


def test_tracker_passes_everything_on(tmp_path):
    tracker = LoggerGroup([CsvLogger(tmp_path)], tmp_path)
    tracker.text("config", "x")
    tracker.steps(1, [0.1])
    tracker.epoch(VALUES, 1, nn.Identity())
    tracker.final({"test/accuracy": 1.0}, 1)
    tracker.close()
    assert len((tmp_path / "steps.csv").read_text().splitlines()) == 2
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2


@pytest.fixture
def server(tmp_path):
    """A real TensorBoard over the folder; gives a function that asks it for JSON."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        for line in process.stderr:
            if match := re.search(r"http://\S+:(\d+)/", line):
                break
        else:
            pytest.fail("TensorBoard did not start")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever the environment says
        address = f"http://localhost:{match[1]}/data/plugin/"

        def ask(path: str, **body):
            data = json.dumps(body).encode() if body else None
            request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
            for _ in range(40):
                try:
                    with direct.open(request, timeout=30) as answer:
                        return json.load(answer)
                except urllib.error.HTTPError as error:
                    pytest.fail(f"{path}: {error} {error.read()}")
                except urllib.error.URLError:  # on a busy machine it says where it is before it is there
                    assert process.poll() is None, "TensorBoard is gone"
                    time.sleep(0.5)
            return pytest.fail("TensorBoard does not answer")

        yield ask
    finally:
        process.terminate()
        process.wait(10)
        process.stderr.close()


@pytest.mark.slow
def test_a_real_tensorboard_serves_every_tag(tmp_path, server):
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    network[0].weight.grad = network[0].weight.detach().clone()
    for run in ("a", "b"):
        logger = TensorBoardLogger(
            tmp_path / run, every=2, histograms=True, hparams={"model.norm": run, "optimizer.lr": 0.1}
        )
        logger.text("config", "```yaml\nepochs: 2\n```")
        logger.text("model", "| layer |\n")
        logger.steps(1, [0.9, 0.8, 0.7, 0.6])
        for epoch in (1, 2):
            logger.epoch(VALUES, epoch, network)
        logger.final({"test/accuracy": 0.75}, 2)
        logger.close()

    for _ in range(60):  # it reads the folder in the background
        tags = server("scalars/tags")
        if len(tags) == 2 and all("test/accuracy" in found for found in tags.values()):
            break
        time.sleep(0.5)
    wanted = {*VALUES, "test/accuracy", "train/step_loss"}
    assert set(tags) == {"a", "b"}
    for run in ("a", "b"):
        assert set(tags[run]) == wanted
        assert set(server("text/tags")[run]) == {"config/text_summary", "model/text_summary"}
        histograms = set(server("histograms/tags")[run])
        assert {"weights/0.weight", "gradients/0.weight", "running/1.running_mean"} <= histograms
    (chart, *_) = server("custom_scalars/layout")["category"][0]["chart"]
    assert chart["multiline"]["tag"] == ["train/accuracy", "val/accuracy", "test/accuracy"]
    status = ["STATUS_SUCCESS", "STATUS_RUNNING", "STATUS_UNKNOWN"]
    found = server("hparams/session_groups", allowedStatuses=status, colParams=[], startIndex=0, sliceSize=9)
    groups = [group["hparams"] for group in found["sessionGroups"]]
    assert sorted(group["model.norm"] for group in groups) == ["a", "b"]
    assert [group["optimizer.lr"] for group in groups] == [0.1, 0.1]
    points = server("scalars/scalars?tag=train/loss&run=a")
    assert [(point[1], round(point[2], 6)) for point in points] == [(1, 0.5), (2, 0.5)]
    steps = server("scalars/scalars?tag=train/step_loss&run=b")
    assert [(point[1], round(point[2], 6)) for point in steps] == [(2, 0.8), (4, 0.6)]
