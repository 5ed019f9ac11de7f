"""Every text file is opened as UTF-8: the encoding of the user's locale may be ASCII."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "bnexp"
FILES = sorted(PACKAGE.rglob("*.py"))
OTHER_LIBRARIES = ("Image.open", "os.open")


def text_opens_without_encoding(code: str) -> list[int]:
    """The lines that open, read or write a file as text and do not say encoding="utf-8"."""
    lines = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call) or ast.unparse(node.func) in OTHER_LIBRARIES:
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        arguments = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        is_binary = any(
            isinstance(arg, ast.Constant) and arg.value in ("rb", "wb", "ab") for arg in arguments
        )
        as_text = any(keyword.arg in ("text", "universal_newlines") for keyword in node.keywords)
        opens_text = name in ("read_text", "write_text") or (name == "open" and not is_binary) or as_text
        if name == "write_text" and isinstance(node.func, ast.Name):  # files.write_text
            opens_text = False
        encodings = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "encoding"]
        if opens_text and encodings not in (["'utf-8'"], ["'utf-8-sig'"]):
            lines.append(node.lineno)
    return lines


def test_the_check_sees_every_kind_of_opening():
    code = (
        "open(p)\np.open('w')\np.read_text()\np.write_text(t)\nsubprocess.run(c, text=True)\n"
        "open(p, 'rb')\np.open('wb')\np.read_text(encoding='utf-8')\nwrite_text(p, t)\nos.open(p)"
    )
    assert text_opens_without_encoding(code) == [1, 2, 3, 4, 5]


def test_text_files_are_utf_8():
    lines = {str(path): text_opens_without_encoding(path.read_text(encoding="utf-8")) for path in FILES}
    assert {name: numbers for name, numbers in lines.items() if numbers} == {}
