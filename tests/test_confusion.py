from bnexp.report.confusion import confusion, render


def test_confusion():
    counts = confusion([0, 0, 1], [0, 1, 1], 3)
    assert counts == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    lines = render(counts, ["cat", "dog", "owl"]).splitlines()
    assert lines[1].split() == ["cat", "1", "1", "0", "0.5000"]
    assert lines[3].endswith("no images")
