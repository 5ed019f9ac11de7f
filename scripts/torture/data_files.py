"""Data files and caches that are damaged, and downloads that fail."""

from __future__ import annotations

import http.server
import io
import os
import shutil
import tarfile
import threading
from pathlib import Path

from trial import Trial, TrialSkipped, require

from bnexp.data.torchvision_sets import IDX

MNIST = (
    "dataset=mnist", "dataset.root=data", "dataset.train_size=200", "dataset.test_size=100", "epochs=1",
    "tracking.tensorboard=false", "device.threads=1",
)  # fmt: skip


def copy_mnist(trial: Trial) -> Path:
    source = Path(os.environ.get("BNEXP_DATA_DIR", ""), "MNIST", "raw")
    if not os.environ.get("BNEXP_DATA_DIR") or not all((source / name).exists() for name in IDX):
        raise TrialSkipped("BNEXP_DATA_DIR names no folder with MNIST")
    raw = trial.folder / "data/MNIST/raw"
    raw.mkdir(parents=True)
    for name in IDX:
        shutil.copyfile(source / name, raw / name)
    return raw


def damage(path: Path, kind: str, trial: Trial) -> None:
    """Cuts the file at a random byte ("cut"), or flips a random bit of it."""
    content = bytearray(path.read_bytes())
    if kind == "cut":
        del content[trial.random.randrange(len(content)) :]
    else:
        content[trial.random.randrange(len(content))] ^= 1 << trial.random.randrange(8)
    path.write_bytes(content)


def data_file(trial: Trial) -> None:
    """A file of the data set is cut, has a flipped bit, or has the content of another file."""
    raw = copy_mnist(trial)
    name, kind = trial.random.choice(IDX), ("cut", "flipped", "swapped")[trial.number % 3]
    if kind == "swapped":
        shutil.copyfile(raw / trial.random.choice([file for file in IDX if file != name]), raw / name)
    else:
        damage(raw / name, kind, trial)
    result = trial.run(*MNIST, "hydra.run.dir=run")
    result.require_one_line(2, f"MNIST/raw/{name} is damaged or another file")
    require(not (trial.folder / "run/summary.json").exists(), "the command left a run")


def data_cache(trial: Trial) -> None:
    """The cache of decoded images is cut or has a flipped bit: it is built again, with the same result."""
    copy_mnist(trial)
    trial.run_successfully(*MNIST, "hydra.run.dir=first")
    damage(trial.folder / "data/.bnexp/mnist.safetensors", ("cut", "flipped")[trial.number % 2], trial)
    out = trial.run_successfully(*MNIST, "hydra.run.dir=run").out
    require("is damaged" in out and "built again" in out, f"no message about the cache: {out[:300]}")
    trial.require_same_record(trial.folder / "first")


# The command with the mirrors of MNIST and CIFAR-10 replaced by the address in its first argument.
DOWNLOAD = """
import sys, torchvision.datasets as sets
sets.MNIST.mirrors = [sys.argv[1]]
sets.CIFAR10.url = sys.argv[1] + "cifar-10-python.tar.gz"
sys.argv[1:2] = []
from bnexp.train import main
main()
"""


def malicious_archive() -> bytes:
    """A tar with a file outside of its folder, and a link to one."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name in ("../../outside", "cifar-10-batches-py/data_batch_1"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return out.getvalue()


class FaultyServer(http.server.BaseHTTPRequestHandler):
    """Answers with half of a file ("half"), with wrong bytes ("wrong"), or with 404 ("nothing")."""

    fault = ""

    def do_GET(self) -> None:
        body = malicious_archive() if self.path.endswith("tar.gz") else os.urandom(50_000)
        if self.fault == "nothing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) * (2 if self.fault == "half" else 1)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None: ...


def download(trial: Trial) -> None:
    name = ("mnist", "cifar10")[trial.number % 2]
    fault = ("half", "wrong", "nothing")[trial.number // 2 % 3]
    handler = type("Handler", (FaultyServer,), {"fault": fault})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (trial.folder / "download.py").write_text(DOWNLOAD)
    address = f"http://127.0.0.1:{server.server_port}/"
    args = (address, f"dataset={name}", "dataset.root=data", "epochs=1", "hydra.run.dir=run")
    no_proxy = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    try:
        result = trial.run(*args, python_args=["download.py"], env=no_proxy)
    finally:
        server.shutdown()
        server.server_close()
    result.require_one_line(2, "could not be downloaded")
    paths = [path.name for path in trial.folder.rglob("*") if path.name not in ("data", "download.py")]
    require(not paths, f"{fault}: the command left {paths}")
