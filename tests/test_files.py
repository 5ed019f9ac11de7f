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
