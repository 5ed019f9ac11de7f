"""Random command lines for hypothesis. Each must end in success or in one line, never in a traceback.

The strategies leave out what would rightly take long or write elsewhere: more than 2 epochs; sizes between
those that train in a moment and those that no machine can hold; hundreds of threads; compilation; absolute
paths and paths with "..".
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bnexp.cli.help import CONF, GROUPS, choices
from bnexp.train import main

BASE = ("dataset.train_size=64", "dataset.test_size=64", "epochs=1", "device.threads=1")
DEADLINE = 120  # seconds for one command line, on a busy machine

HUGE = (10**13, 2**63 - 1, 2**63, 10**30, -1, 0)
SMALL = st.integers(1, 40)
NUMBERS = st.one_of(
    st.integers(-3, 100),
    st.sampled_from(HUGE),
    st.floats(),
    st.floats(0, 1),
    st.sampled_from((1e-300, 1e300)),
)
SIZES = st.one_of(SMALL, st.sampled_from(HUGE))
SPECIAL_VALUES = (
    "null",
    "true",
    "False",
    "",
    "nan",
    "inf",
    "-inf",
    "none",
    "auto",
    "[]",
    "{}",
    "''",
    "???",
    "1e400",
    "0x10",
)
INTERPOLATIONS = (
    "${seed}", "${oc.env:HOME}", "${oc.env:NO_SUCH_VARIABLE}", "${nothing}", "${model}", "${name}",
    "${.name}",
    "${hydra:job.name}", "${oc.decode:'[1'}", "${", "$", "${bnexp.scaled:1,2,0}", "\\${seed}", "${oc.env:}",
)  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12).filter(
    lambda text: ".." not in text and not text.startswith(("/", "~"))
)
PUNCTUATION = st.text(st.sampled_from("ab1.,=[]{}()'\":;+~@$\\ -_\t\n\x1b"), max_size=8).filter(
    lambda text: ".." not in text
)
SCALARS = st.one_of(NUMBERS.map(str), st.sampled_from(SPECIAL_VALUES + INTERPOLATIONS), TEXTS, PUNCTUATION)
LISTS = st.lists(st.one_of(SIZES.map(str), SCALARS), max_size=4).map(lambda items: f"[{','.join(items)}]")
VALUES = st.one_of(SCALARS, LISTS, SCALARS.map(lambda text: f"{{a:{text}}}"), SCALARS.map(repr))
SMALL_OR_HUGE = st.one_of(st.integers(-2, 64), st.sampled_from(HUGE), st.floats(0, 1)).map(str)

# Keys for which some valid values take too long or depend on the machine, with the values to try instead.
LIMITED_KEYS = {
    "epochs": st.one_of(
        st.integers(-2, 2).map(str), st.sampled_from(("1.5", "x", "", "null", "10000000", "1e3"))
    ),
    "device.threads": st.sampled_from(("0", "1", "2", "-1", "x", "1025", "null", "1.0", "[1]")),
    "device.compile": st.sampled_from(("false", "1", "x", "null")),
    "dataset.resize": st.one_of(st.integers(-1, 40).map(str), st.sampled_from(("4097", "x", "null", "1.5"))),
    "dataset.crop_padding": SMALL_OR_HUGE,
    "model.arch": st.sampled_from(("x", "", "null", "1", "vgg99", "resnet", "get_model", "[alexnet]")),
    "model": st.sampled_from(
        ("mlp", "mlp_bn", "conv", "conv_bn", "lenet", "custom", "x", "", "null", "[mlp]", "1")
    ),
    "dataset": st.sampled_from(("digits", "image_folder", "x", "", "null", "[digits]")),
    "experiment": st.sampled_from(("null", "x", "", "[]", "mnist", "../x", "norm_zoo ")),
    "device": st.sampled_from(("cpu", "auto", "cuda", "mps", "x", "")),
}


def all_keys() -> list[str]:
    """Every key of every group, with dots, and the groups."""
    keys = set(GROUPS)
    for path in CONF.rglob("*.yaml"):
        group = path.parent.relative_to(CONF).parts
        if group[:1] in (("experiment",), ("hydra",)):
            continue
        for key, value in OmegaConf.to_container(OmegaConf.load(path), resolve=False).items():
            if key in ("defaults", "hydra"):
                continue
            inner = value if isinstance(value, dict) else {"": None}
            keys |= {".".join(filter(None, (*group, key, name))) for name in inner}
    return sorted(keys)


KEYS = st.one_of(
    st.sampled_from(all_keys()),
    st.sampled_from(all_keys()),
    st.sampled_from(
        ("hydra.job.name", "hydra.mode", "hydra.verbose", "hydra.nothing", "hydra", "hydra/launcher")
    ),
    TEXTS,
    PUNCTUATION,
)


SIZE_KEYS = ("widths", "hidden", "depths", "blocks", "growth", "kernel", "padding", "stem_w")


@st.composite
def overrides(draw: st.DrawFn) -> str:
    key = draw(KEYS)
    sign = draw(st.sampled_from(("",) * 7 + ("+", "++", "~")))
    group = choices(key) if key in GROUPS and key not in LIMITED_KEYS else []
    value = draw(LIMITED_KEYS.get(key, st.one_of(VALUES, *[st.sampled_from(group)] * bool(group))))
    if any(size in key for size in SIZE_KEYS):
        value = draw(
            st.one_of(SMALL_OR_HUGE, st.lists(SMALL_OR_HUGE, max_size=3).map(lambda v: f"[{','.join(v)}]"))
        )
    return draw(st.sampled_from((f"{sign}{key}={value}",) * 9 + (f"{sign}{key}",)))


FLAGS = (
    "--cfg",
    "-c",
    "--help",
    "-h",
    "--nothing",
    "--epochs",
    "--info",
    "-p",
    "--version",
    "-m",
    "--",
    "-",
    "-x",
)
LINES = st.one_of(
    st.lists(overrides(), min_size=1, max_size=3),
    st.lists(overrides(), min_size=1, max_size=3),
    st.tuples(st.sampled_from(FLAGS), overrides()).map(list),
)


@dataclass(frozen=True)
class CommandResult:
    """``code`` is the exit code, or a text: the exception that came out, or "deadline exceeded"."""

    code: object
    out: str
    err: str

    def find_fault(self) -> str | None:
        """What is wrong with the result; None for success and for one line."""
        lines = self.err.strip().split("\n")
        if "Traceback" in self.out + self.err:
            return "a traceback"
        if self.code == 0:
            return None
        if self.code == 1 and "no finished run to compare" in self.err:
            return None  # a sweep: its job has printed the reason, after the name of its folder
        if self.code == 1 and all(": diverged: " in line or ": out of memory: " in line for line in lines):
            return None
        if self.code == 2 and len(lines) == 1 and lines[0].startswith("bnexp: "):
            return None
        return "neither success nor one line"


class DeadlineExceeded(BaseException):
    """No Exception, so that the code under test does not catch it."""


@contextlib.contextmanager
def deadline(seconds: int) -> Iterator[None]:
    def on_alarm(*_: object) -> None:
        raise DeadlineExceeded

    previous_handler = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous_handler)


def run(line: list[str], folder: Path) -> CommandResult:
    """Runs ``bnexp`` with these arguments in this process. Leaves no files and no changes in the process."""
    out, err = io.StringIO(), io.StringIO()
    argv, previous_folder, environment = sys.argv, Path.cwd(), dict(os.environ)
    run_folder = folder / "case"
    run_folder.mkdir()
    os.chdir(run_folder)
    sys.argv = ["bnexp", *BASE, *line]
    HydraConfig.instance().cfg = None
    OmegaConf.clear_resolver("hydra")
    code: object = "main returned without an exit code"
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), deadline(DEADLINE):
            main()
    except SystemExit as error:
        code = error.code or 0
    except DeadlineExceeded:
        code = "deadline exceeded"
    except BaseException as error:
        code = f"{type(error).__name__}: {error}"
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(previous_folder)
        shutil.rmtree(run_folder)
        for handler in list(logging.getLogger().handlers):
            if type(handler) in (logging.FileHandler, logging.StreamHandler):
                logging.getLogger().removeHandler(handler)
                handler.close()
    return CommandResult(code, out.getvalue(), err.getvalue())
