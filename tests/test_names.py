"""A name says what a thing is: no variable, parameter, function or class is a pronoun or a participle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("bnexp", "scripts", "tests") for path in (ROOT / folder).rglob("*.py"))
BANNED = {
    "asked", "found", "gone", "held", "here", "kept", "lost", "mine", "one", "ours", "said", "seen", "theirs",
    "there", "told", "tried", "way", "ways", "words",
}  # fmt: skip


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that the code binds, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name, node.lineno


def test_the_check_sees_every_kind_of_binding():
    code = (
        "found = 1\nfor one in x: pass\nwith a as kept: pass\n"
        "self.said = [ours for ours in x]\ndef f(words): pass"
    )
    assert {name for name, _ in bound_names(ast.parse(code))} & BANNED == {
        "found", "kept", "one", "ours", "said", "words",
    }  # fmt: skip


def test_no_name_is_a_pronoun_a_participle_or_a_filler():
    banned_names = [
        f"{path.relative_to(ROOT)}, line {line}: {name}"
        for path in FILES
        for name, line in bound_names(ast.parse(path.read_text()))
        if name.lower().strip("_") in BANNED
    ]
    assert banned_names == []
