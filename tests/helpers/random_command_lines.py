"""Command lines nobody would write, and what must come of each: success or one line, never a traceback.

What would rightly take for ever or write elsewhere is left out by construction: more than 2 epochs, sizes
between what is trained in a moment and what no machine can hold, threads by the hundred, compilation,
paths that begin at the root or climb.
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
DEADLINE = 120  # seconds for one command line, on a machine that does other things too

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
WORDS = (
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
LATERS = (
    "${seed}", "${oc.env:HOME}", "${oc.env:NO_SUCH_VARIABLE}", "${nothing}", "${model}", "${name}",
    "${.name}",
    "${hydra:job.name}", "${oc.decode:'[1'}", "${", "$", "${bnexp.scaled:1,2,0}", "\\${seed}", "${oc.env:}",
)  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12).filter(
    lambda text: ".." not in text and not text.startswith(("/", "~"))
)
PIECES = st.text(st.sampled_from("ab1.,=[]{}()'\":;+~@$\\ -_\t\n\x1b"), max_size=8).filter(
    lambda text: ".." not in text
)
SCALARS = st.one_of(NUMBERS.map(str), st.sampled_from(WORDS + LATERS), TEXTS, PIECES)
LISTS = st.lists(st.one_of(SIZES.map(str), SCALARS), max_size=4).map(lambda items: f"[{','.join(items)}]")
VALUES = st.one_of(SCALARS, LISTS, SCALARS.map(lambda text: f"{{a:{text}}}"), SCALARS.map(repr))
NOTHING_HUGE = st.one_of(st.integers(-2, 64), st.sampled_from(HUGE), st.floats(0, 1)).map(str)

# Keys whose every value of a certain kind would be obeyed, at a price.
LIMITED = {
    "epochs": st.one_of(
        st.integers(-2, 2).map(str), st.sampled_from(("1.5", "x", "", "null", "10000000", "1e3"))
    ),
    "device.threads": st.sampled_from(("0", "1", "2", "-1", "x", "1025", "null", "1.0", "[1]")),
    "device.compile": st.sampled_from(("false", "1", "x", "null")),
    "dataset.resize": st.one_of(st.integers(-1, 40).map(str), st.sampled_from(("4097", "x", "null", "1.5"))),
    "dataset.crop_padding": NOTHING_HUGE,
    "model.arch": st.sampled_from(("x", "", "null", "1", "vgg99", "resnet", "get_model", "[alexnet]")),
    "model": st.sampled_from(
        ("mlp", "mlp_bn", "conv", "conv_bn", "lenet", "custom", "x", "", "null", "[mlp]", "1")
    ),
    "dataset": st.sampled_from(("digits", "image_folder", "x", "", "null", "[digits]")),
    "experiment": st.sampled_from(("null", "x", "", "[]", "mnist", "../x", "norm_zoo ")),
    "device": st.sampled_from(("cpu", "auto", "cuda", "mps", "x", "")),
}


def keys() -> list[str]:
    """Every key of every group, dotted, and the groups."""
    found = set(GROUPS)
    for path in CONF.rglob("*.yaml"):
        group = path.parent.relative_to(CONF).parts
        if group[:1] in (("experiment",), ("hydra",)):
            continue
        for key, value in OmegaConf.to_container(OmegaConf.load(path), resolve=False).items():
            if key in ("defaults", "hydra"):
                continue
            inner = value if isinstance(value, dict) else {"": None}
            found |= {".".join(filter(None, (*group, key, name))) for name in inner}
    return sorted(found)


KEYS = st.one_of(
    st.sampled_from(keys()),
    st.sampled_from(keys()),
    st.sampled_from(
        ("hydra.job.name", "hydra.mode", "hydra.verbose", "hydra.nothing", "hydra", "hydra/launcher")
    ),
    TEXTS,
    PIECES,
)


@st.composite
def words(draw: st.DrawFn) -> str:
    key = draw(KEYS)
    sign = draw(st.sampled_from(("",) * 7 + ("+", "++", "~")))
    group = choices(key) if key in GROUPS and key not in LIMITED else []
    value = draw(LIMITED.get(key, st.one_of(VALUES, *[st.sampled_from(group)] * bool(group))))
    if any(
        part in key
        for part in ("widths", "hidden", "depths", "blocks", "growth", "kernel", "padding", "stem_w")
    ):
        value = draw(
            st.one_of(NOTHING_HUGE, st.lists(NOTHING_HUGE, max_size=3).map(lambda v: f"[{','.join(v)}]"))
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
    st.lists(words(), min_size=1, max_size=3),
    st.lists(words(), min_size=1, max_size=3),
    st.tuples(st.sampled_from(FLAGS), words()).map(list),
)


@dataclass(frozen=True)
class Done:
    """How a command line ended."""

    code: object
    out: str
    err: str

    def wrong(self) -> str | None:
        """What is wrong with this end; None for success and for one line."""
        lines = self.err.strip().split("\n")
        if "Traceback" in self.out + self.err:
            return "a traceback"
        if self.code == 0:
            return None
        if self.code == 1 and "no finished run to compare" in self.err:
            return None  # a sweep, whose job says why behind its folder's name
        if self.code == 1 and all(": diverged: " in line or ": out of memory: " in line for line in lines):
            return None
        if self.code == 2 and len(lines) == 1 and lines[0].startswith("bnexp: "):
            return None
        return "neither success nor one line"


class Hangs(BaseException):
    """Nothing may catch it."""


@contextlib.contextmanager
def deadline(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(line: list[str], folder: Path) -> Done:
    """The command line in this process, through the same door as a user's; nothing stays behind."""
    out, err = io.StringIO(), io.StringIO()
    argv, here, environment = sys.argv, Path.cwd(), dict(os.environ)
    place = folder / "case"
    place.mkdir()
    os.chdir(place)
    sys.argv = ["bnexp", *BASE, *line]
    HydraConfig.instance().cfg = None
    OmegaConf.clear_resolver("hydra")
    code: object = "nothing"
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), deadline(DEADLINE):
            main()
    except SystemExit as ended:
        code = ended.code or 0
    except Hangs:
        code = "hangs"
    except BaseException as error:
        code = f"{type(error).__name__}: {error}"
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(here)
        shutil.rmtree(place)
        for handler in list(logging.getLogger().handlers):
            if type(handler) in (logging.FileHandler, logging.StreamHandler):
                logging.getLogger().removeHandler(handler)
                handler.close()
    return Done(code, out.getvalue(), err.getvalue())
