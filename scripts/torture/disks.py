"""Full disks, folders that vanish, files that are not what they were, downloads that end half way."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import resource
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

from stops import reference
from trial import RUN, Skip, Trial, require

from bnexp.data.torchvision_sets import IDX


def full_by_limit(trial: Trial) -> None:
    """No file may grow beyond a random size: some are hit at once, the events file late."""
    kept = reference(trial)
    size = int(10 ** trial.random.uniform(3.7, 5.3))
    words = (*RUN, "hydra.run.dir=run")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # noqa: E731
    done = trial.run(*words, preexec_fn=limit)
    if done.code:
        done.one_line(1, naming="cannot be written")
    trial.readable()
    trial.well(*words)
    trial.same(kept.path)


@contextlib.contextmanager
def mounted(trial: Trial, size: str) -> Iterator[Path]:
    place = trial.folder / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True).returncode:
        raise Skip("mounting a small disk needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def full_disk(trial: Trial) -> None:
    """A real file system without room left, which is made larger afterwards."""
    kept = reference(trial)
    words = (*RUN, "hydra.run.dir=disk/run")
    with mounted(trial, f"{trial.random.randint(100, 900)}k") as place:
        trial.run(*words).one_line(1, naming="cannot be written (No space left on device)")
        trial.readable("disk/run")
        remount(place, "size=50m")
        trial.well(*words)
        trial.same(kept.path, "disk/run")


def vanished(trial: Trial) -> None:
    """The output folder is removed while the run is under way, or something else takes its place."""
    process = trial.start(*RUN, "epochs=500", "hydra.run.dir=run")
    trial.wait(process, trial.rows())
    os.rename(trial.folder / "run", trial.folder / "gone")
    if trial.number % 2:
        (trial.folder / "run").write_text("in the way")
    trial.end(process).one_line(1, naming="cannot be written (No")
    require(not (trial.folder / "run").is_dir(), "it made the folder again")


MNIST = (
    "dataset=mnist", "dataset.root=data", "dataset.train_size=200", "dataset.test_size=100", "epochs=1",
    "tracking.tensorboard=false", "device.threads=1",
)  # fmt: skip


def copy_of_mnist(trial: Trial) -> Path:
    root = Path(os.environ.get("BNEXP_DATA_DIR", ""), "MNIST", "raw")
    if not os.environ.get("BNEXP_DATA_DIR") or not all((root / name).exists() for name in IDX):
        raise Skip("BNEXP_DATA_DIR names no folder with MNIST")
    raw = trial.folder / "data/MNIST/raw"
    raw.mkdir(parents=True)
    for name in IDX:
        shutil.copyfile(root / name, raw / name)
    return raw


def damage(path: Path, how: str, trial: Trial) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[trial.random.randrange(len(content)) :]
    else:
        content[trial.random.randrange(len(content))] ^= 1 << trial.random.randrange(8)
    path.write_bytes(content)


def data_file(trial: Trial) -> None:
    """A file of the data set is cut, has one bit flipped, or is another one under its name."""
    raw = copy_of_mnist(trial)
    name, how = trial.random.choice(IDX), ("cut", "flipped", "other")[trial.number % 3]
    if how == "other":
        shutil.copyfile(raw / trial.random.choice([other for other in IDX if other != name]), raw / name)
    else:
        damage(raw / name, how, trial)
    trial.run(*MNIST, "hydra.run.dir=run").one_line(2, naming=f"MNIST/raw/{name} is damaged or another file")
    require(not (trial.folder / "run/summary.json").exists(), "it left a run behind")


def data_cache(trial: Trial) -> None:
    """The decoded images are cut or flipped: they are made again, and the result is what it was."""
    copy_of_mnist(trial)
    trial.well(*MNIST, "hydra.run.dir=first")
    damage(trial.folder / "data/.bnexp/mnist.safetensors", ("cut", "flipped")[trial.number % 2], trial)
    done = trial.well(*MNIST, "hydra.run.dir=run")
    require("is damaged" in done.out and "built again" in done.out, f"it did not say so: {done.out[:300]}")
    trial.same(trial.folder / "first")


DOWNLOAD = """
import sys, torchvision.datasets as sets
sets.MNIST.mirrors = [sys.argv[1]]
sets.CIFAR10.url = sys.argv[1] + "cifar-10-python.tar.gz"
sys.argv[1:2] = []
from bnexp.train import main
main()
"""


def archive() -> bytes:
    """A tar that would write beside the folder it is unpacked in."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name in ("../../outside", "cifar-10-batches-py/data_batch_1"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return out.getvalue()


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as its class says: half a file, wrong bytes, nothing."""

    how = ""

    def do_GET(self) -> None:
        body = archive() if self.path.endswith("tar.gz") else os.urandom(50_000)
        if self.how == "nothing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) * (2 if self.how == "half" else 1)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None: ...


def download(trial: Trial) -> None:
    name = ("mnist", "cifar10")[trial.number % 2]
    how = ("half", "wrong", "nothing")[trial.number // 2 % 3]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("How", (Server,), {"how": how}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (trial.folder / "get.py").write_text(DOWNLOAD)
    address = f"http://127.0.0.1:{server.server_port}/"
    words = (address, f"dataset={name}", "dataset.root=data", "epochs=1", "hydra.run.dir=run")
    environment = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    try:
        done = trial.run(*words, argv=["get.py"], env=environment)
    finally:
        server.shutdown()
        server.server_close()
    done.one_line(2, naming="could not be downloaded")
    left = [path.name for path in trial.folder.rglob("*") if path.name not in ("data", "get.py")]
    require(not left, f"{how}: left behind: {left}")
