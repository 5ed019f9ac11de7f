from bnexp.report.render.confusion import confusion_matrix, format_confusion


def test_rows_are_true_classes_and_end_in_their_accuracy():
    counts = confusion_matrix([0, 0, 1], [0, 1, 1], 3)
    assert counts == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    lines = format_confusion(counts, ["cat", "dog", "owl"]).splitlines()
    assert lines[1].split() == ["cat", "1", "1", "0", "0.5000"]
    assert lines[3].endswith("no images")
