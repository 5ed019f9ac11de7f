"""An exported network is used without bnexp; its metadata say all that it takes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

import bnexp
from bnexp.data import datasets
from bnexp.training import checkpoint
from helpers.run_folders import forget_identity

WITHOUT_BNEXP = """
import json, sys
import torch
from PIL import Image
from safetensors import safe_open
import numpy as np

with safe_open(sys.argv[1], "pt") as file:
    facts, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
pixels = torch.from_numpy(np.array(Image.open(sys.argv[2]).convert("L")))[None, None]
images = (pixels / 255 - json.loads(facts["mean"])[0]) / json.loads(facts["std"])[0]
size = json.loads(facts["resize"])
images = torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
hidden = torch.nn.functional.linear(
    images.flatten(1), weights["hidden.0.linear.weight"], weights.get("hidden.0.linear.bias"))
hidden = torch.nn.functional.batch_norm(
    hidden, weights["hidden.0.norm.running_mean"], weights["hidden.0.norm.running_var"],
    weights["hidden.0.norm.weight"], weights["hidden.0.norm.bias"]).relu()
logits = torch.nn.functional.linear(hidden, weights["head.weight"], weights["head.bias"])
assert not [name for name in sys.modules if name.split(".")[0] == "bnexp"]
probability, index = logits.softmax(1).max(1)
print(json.loads(facts["classes"])[int(index)], f"{float(probability):.4f}")
"""


@pytest.mark.parametrize("name", ["net.pt", "net", "net.ONNX", "net.onnx.bin"])
def test_an_ending_of_no_format_is_refused(run_folder, commands, name):
    result = commands.eval(str(run_folder), "--export", name)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"bnexp: --export={name}: must end in .safetensors or .onnx\n"
    assert not os.path.exists(name)


def test_summary_and_checkpoint_say_what_the_network_reads(run_folder):
    run = bnexp.open_run(run_folder)
    assert run.summary["version"] == bnexp.__version__
    state = checkpoint.load(run_folder / "checkpoints/last.pt")
    assert (state["input"], state["version"]) == (run.summary["input"], bnexp.__version__)
    train = datasets.load_dataset("digits", None, None).train.pixels.double() / 255
    data = run.input
    assert (data.channels, data.stored_size, data.image_size, data.resize) == (1, 28, 20, 20)
    assert data.mean[0] == pytest.approx(float(train.mean()), abs=0.02)  # of the 200 that were used
    assert data.std[0] == pytest.approx(float(train.std()), abs=0.02)
    assert data.classes == tuple("0123456789")


def test_the_weights_classify_an_image_the_same_without_bnexp(run_folder, digits, commands):
    assert commands.eval(str(run_folder), "--export", "weights.safetensors").code == 0
    result = commands.eval(str(run_folder), "--image", str(digits[0]))
    command = [sys.executable, "-c", WITHOUT_BNEXP, "weights.safetensors", str(digits[0])]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.code == 0
    assert f"{digits[0]}: {process.stdout.strip()}, " in result.out


def test_image_files_need_no_data_set(run_folder, digits, commands):
    result = commands.eval(str(run_folder), "--image", *map(str, digits), "--export", "w.safetensors")
    assert (result.code, result.err) == (0, "")
    predictions = bnexp.open_run(run_folder).predict(digits)
    for path, line, prediction in zip(digits, result.out.splitlines()[1:-1], predictions, strict=True):
        assert line.startswith(f"{path}: {prediction.name} {prediction.probability:.4f}, ")
    assert "tensors in w.safetensors" in result.out.splitlines()[-1]


@pytest.mark.parametrize("checkpoint_name", ["last", "best"])
def test_onnx_gives_the_same_logits(run_folder, digits, commands, checkpoint_name):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    options = ("--export", "net.onnx", "--checkpoint", checkpoint_name)
    assert commands.eval(str(run_folder), *options).code == 0
    result = commands.eval(str(run_folder), *options)  # replaces its own file
    assert (result.code, result.err) == (0, "")
    assert "the network as ONNX in net.onnx" in result.out
    run = bnexp.open_run(run_folder)
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["mean"]) == list(run.input.mean)
    for count in (1, 8):
        inputs = run.preprocess(digits[:count])
        (logits,) = session.run(None, {"images": inputs.numpy()})
        with torch.inference_mode():
            np.testing.assert_allclose(logits, run.model(checkpoint_name)(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_class_whose_name_is_no_utf8_text_can_be_exported(commands):
    for label, name in enumerate((b"gr\xfcn", b"rot")):
        folder = Path("pics", os.fsdecode(name))
        folder.mkdir(parents=True)
        for i in range(6):
            Image.fromarray(np.full((8, 8, 3), 40 * i + label, np.uint8)).save(folder / f"{i}.png")
    images = ("dataset=image_folder", "dataset.root=pics", "epochs=1", "tracking.tensorboard=false")
    assert commands.bnexp(*images, "batch_size=4", "hydra.run.dir=run").code == 0
    assert commands.eval("run", "--export", "weights.safetensors").code == 0
    with safe_open("weights.safetensors", "pt") as file:
        assert json.loads(file.metadata()["classes"]) == ["gr?n", "rot"]


def test_a_missing_package_is_named_before_anything_is_computed(run_folder, commands, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = commands.eval(str(run_folder), "--export", "net.onnx")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(
        "bnexp: --export=net.onnx: onnx is not installed; pip install -e '.[onnx]' in"
    )


def test_a_folder_that_does_not_exist_is_one_line(run_folder, commands):
    result = commands.eval(str(run_folder), "--export", "missing/w.safetensors")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("bnexp: --export=missing/w.safetensors: cannot be written")


@pytest.mark.parametrize(
    "option", [("--split", "val"), ("--device", "cpu"), ("--batch-size", "3"), ("--predictions", "p.csv")]
)
def test_options_of_the_data_set_are_refused_with_image(run_folder, digits, commands, option):
    result = commands.eval(str(run_folder), "--image", str(digits[0]), *option)
    assert result.code == 2
    assert result.err.startswith(f"bnexp: {option[0]}: is for the images of the data set")


def test_a_file_that_is_no_image_is_one_line(run_folder, commands):
    result = commands.eval(str(run_folder), "--image", __file__)
    assert (result.code, result.out) == (2, "")
    assert "cannot be read as an image" in result.err
    assert result.err.count("\n") == 1


def test_a_sweep_lists_its_runs(sweep, commands):
    result = commands.eval(str(sweep))
    assert result.code == 2
    assert [line.split(": ")[1].split(",")[0] for line in result.out.splitlines()] == ["finished"] * 4
    assert result.err == f"bnexp: {sweep}: holds 4 runs; give one of them, or bnexp-compare {sweep}\n"


UNWRITABLE = ("digit0.png/net", "/proc/net", "missing/net")


@pytest.mark.parametrize("ending", [".safetensors", ".onnx"])
@pytest.mark.parametrize("path", UNWRITABLE)
def test_a_place_that_cannot_be_written_is_one_line(commands, run_folder, digits, path, ending):
    result = commands.eval(str(run_folder), "--export", f"{path}{ending}", "--image", str(digits[0]))
    assert (result.code, result.out) == (2, "")
    assert re.fullmatch(rf"bnexp: --export={path}{ending}: cannot be written \(.*\)\n", result.err)


def test_a_run_that_has_not_finished_says_so(commands, run_folder, digits):
    folder = shutil.copytree(run_folder, commands.folder / "stopped")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"status": "interrupted"}))
    result = commands.eval("stopped", "--image", str(digits[0]))
    assert result.out.startswith("stopped (interrupted), checkpoint last: ")
    result = commands.eval("stopped")
    assert result.out.startswith("stopped (interrupted), checkpoint last, test: ")


@pytest.mark.parametrize("options", [(), ("--image", "digit0.png")])
def test_a_class_that_cannot_be_imported_here_is_one_line(commands, run_folder, digits, options):
    """Not a warning of changed code first: the code is not there."""
    folder = shutil.copytree(run_folder, commands.folder / "run")
    path = folder / ".hydra" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(config | {"model": {"_target_": "absent_nets.Net"}}))
    forget_identity(folder)
    result = commands.eval("run", "--trust", "absent_nets.Net", *options)
    assert (result.code, result.out) == (2, "")
    assert re.fullmatch(r"bnexp: model\._target_=absent_nets\.Net: cannot be imported from .*\n", result.err)
