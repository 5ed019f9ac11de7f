"""The Python of the documents is run as it stands: the how-to page, the README, the notebook."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "how_to" / "python.md"
NOTEBOOK = ROOT / "docs" / "notebooks" / "first_look.ipynb"
SWEEP = "bnexp -m model.norm=none,batch seed=0,1,2 epochs=2 hydra.sweep.dir=outputs/norms"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the sweep of the page, and an image."""
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "bnexp.train", *SWEEP.split()[1:]]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=240)
    Image.new("L", (28, 28)).save(folder / "digit.png")
    return folder


def run_code(code: str, folder: Path) -> str:
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def test_the_code_of_the_how_to_page_runs(folder):
    text = PAGE.read_text(encoding="utf-8")
    assert f"    {SWEEP}\n" in text
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    output = run_code("".join(blocks), folder)
    assert "Does batch norm help an MLP on the digits?" in output
    assert "(0.3055,) (0.3249,) ('0', '1'" in output


def test_the_code_of_the_readme_runs(folder):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(block.splitlines()) <= 7
    assert "Does batch norm help an MLP on the digits?" in run_code(block, folder)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")], "committed without outputs"
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    texts = [
        "".join(output.data.get("text/markdown", output.data.get("text/plain", "")))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    assert any("Does batch norm help an MLP on the digits?" in text for text in texts)
    assert any(
        "image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert texts[-1].endswith(", 1.0)")
