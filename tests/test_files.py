import json
import math

import pytest

from bnexp.files import write_atomically, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"epoch": 1})

    def write_half(file):
        file.write(b'{"epo')
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, write_half)
    assert path.read_text() == '{\n  "epoch": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_null_for_nan_and_infinity(tmp_path):
    path = tmp_path / "values.json"
    write_json(path, {"loss": math.nan, "all": [1.5, (math.inf, -math.inf)], "n": 3, "text": "nan"})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "loss": None, "all": [1.5, [None, None]], "n": 3, "text": "nan",
    }  # fmt: skip
