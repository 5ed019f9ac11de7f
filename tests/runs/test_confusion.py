"""confusion.csv, and what is computed from a confusion matrix."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bnexp.runs.confusion import (
    CONFUSION_FILE,
    balanced_accuracy,
    effective_images,
    predicted_classes,
    read_confusion,
    write_confusion,
)


def test_balanced_accuracy_is_the_mean_recall_where_the_classes_are_uneven():
    confusion = {(0, 0): 8, (1, 0): 1, (1, 1): 1}
    assert balanced_accuracy(confusion) == pytest.approx(0.75)
    assert balanced_accuracy(confusion | {(0, 2): 8}) == pytest.approx(0.5)  # class 2 has no images
    assert balanced_accuracy({(0, 1): 3, (1, 0): 2}) == 0  # 3 is 1.5 times 2
    assert balanced_accuracy({(0, 0): 7, (0, 1): 1, (1, 0): 1, (1, 1): 6}) is None


def test_balanced_accuracy_varies_as_accuracy_on_the_effective_images():
    sizes, error = {0: 400, 1: 40, 2: 15}, 0.1
    confusion = {(label, label): size for label, size in sizes.items()}
    images = effective_images(confusion)
    assert images == pytest.approx(9 / (1 / 400 + 1 / 40 + 1 / 15))
    random = np.random.default_rng(0)
    recalls = [random.binomial(size, 1 - error, 40_000) / size for size in sizes.values()]
    assert np.mean(recalls, 0).std() == pytest.approx((error * (1 - error) / images) ** 0.5, rel=0.02)


def test_the_file_holds_each_pair_of_classes_that_has_images(tmp_path):
    names = ["cat, black", "dog", 'the "eel"']
    confusion = {(2, 0): 1, (0, 0): 5, (1, 2): 3}
    write_confusion(tmp_path, {"final": confusion, "best": {(1, 1): 9}}, names)
    by_name = {(names[label], names[prediction]): n for (label, prediction), n in confusion.items()}
    assert read_confusion(tmp_path) == {"final": by_name, "best": {("dog", "dog"): 9}}
    labels = [label for label, _ in read_confusion(tmp_path)["final"]]
    assert labels == names  # in the order of the data set
    assert predicted_classes(confusion, 4) == [6, 0, 3, 0]


def test_the_file_is_small_with_1000_classes(tmp_path):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(1000), 50)
    predictions = np.where(random.random(50_000) < 0.7, labels, random.integers(0, 1000, 50_000))
    confusion = Counter(zip(labels.tolist(), predictions.tolist(), strict=True))
    write_confusion(tmp_path, {"final": confusion}, [f"n{i:08}" for i in range(1000)])
    assert (tmp_path / CONFUSION_FILE).stat().st_size < 500_000
    assert sum(read_confusion(tmp_path)["final"].values()) == 50_000


@pytest.mark.parametrize(
    "text", [None, "", "epoch,label\nfinal,cat\n", "epoch,label,prediction,images\nfinal,cat,cat,many\n"]
)
def test_without_the_file_or_with_a_damaged_one_there_is_no_matrix(tmp_path, text):
    if text is not None:
        (tmp_path / CONFUSION_FILE).write_text(text)
    assert read_confusion(tmp_path) == {}
