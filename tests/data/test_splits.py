"""Holdout, folds and subsets: exact counts, class proportions, and which seed they depend on."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnexp.data import splits
from bnexp.errors import UserError


@dataclass(frozen=True)
class Settings:
    val_size: float = 0.1
    train_size: float | None = None
    folds: int | None = None
    fold: int | None = None


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shuffled_labels(*class_sizes: int) -> torch.Tensor:
    """Labels of classes with these sizes, in random order."""
    labels = torch.repeat_interleave(torch.arange(len(class_sizes)), torch.tensor(class_sizes))
    return labels[torch.randperm(len(labels), generator=stream(9))]


label_lists = st.lists(st.integers(0, 6), min_size=1, max_size=200).map(torch.tensor)


@hypothesis.settings(deadline=None, max_examples=150)
@given(labels=label_lists, share=st.floats(0, 1), seed=st.integers(0, 9))
def test_holdout_takes_an_exact_count_in_proportion_to_the_classes(labels, share, seed):
    count = round(share * len(labels))
    remainder, sample = splits.holdout(labels, count, stream(seed))
    assert len(sample) == count
    assert torch.equal(torch.cat([remainder, sample]).sort().values, torch.arange(len(labels)))
    for part in (remainder, sample):
        assert torch.equal(part, part.sort().values)
    for value in labels.unique():
        quota = count * (labels == value).sum().item() / len(labels)
        assert abs((labels[sample] == value).sum().item() - quota) < 1


def test_the_largest_remainders_give_the_odd_images():
    labels = shuffled_labels(50, 29, 21)  # the quotas of 10 images are 5.0, 2.9 and 2.1
    _, sample = splits.holdout(labels, 10, stream())
    assert labels[sample].bincount().tolist() == [5, 3, 2]
    _, sample = splits.holdout(labels, 0.1, stream())
    assert labels[sample].bincount().tolist() == [5, 3, 2]


def test_holdout_samples_at_random_within_a_class():
    labels = shuffled_labels(500, 500)
    first, repeated, other = (splits.holdout(labels, 100, stream(seed))[1] for seed in (1, 1, 2))
    assert torch.equal(first, repeated)
    assert len(set(first.tolist()) & set(other.tolist())) < 30  # the expected number is 10
    assert first.double().mean().sub(500).abs() < 100, "the sample must not come from the front alone"


@pytest.mark.parametrize("size", [-1, 11])
def test_holdout_refuses_a_size_out_of_range(size):
    with pytest.raises(ValueError, match="from 0 to 10"):
        splits.holdout(shuffled_labels(5, 5), size, stream())


@hypothesis.settings(deadline=None, max_examples=100)
@given(labels=label_lists, folds=st.integers(2, 7))
def test_folds_partition_the_data_in_proportion_to_the_classes(labels, folds):
    parts = [splits.fold(labels, folds, k, stream(4)) for k in range(folds)]
    union = torch.cat([val for _, val in parts])
    assert torch.equal(union.sort().values, torch.arange(len(labels)))
    for train, val in parts:
        assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(len(labels)))
    for value in (*labels.unique(), None):
        sizes = [len(val) if value is None else (labels[val] == value).sum().item() for _, val in parts]
        assert max(sizes) - min(sizes) <= 1


def test_the_split_depends_on_the_seed_alone():
    labels = shuffled_labels(300, 300)
    torch.manual_seed(1)
    train, val = splits.train_val_indices(labels, Settings(), 5)
    torch.manual_seed(2)
    repeated_train, repeated_val = splits.train_val_indices(labels, Settings(), 5)
    other_train, _ = splits.train_val_indices(labels, Settings(), 6)
    assert torch.equal(train, repeated_train)
    assert torch.equal(val, repeated_val)
    assert not torch.equal(train, other_train)
    assert len(train) == 540
    assert labels[val].bincount().tolist() == [30, 30]


def test_train_size_does_not_change_a_counted_validation_set():
    labels = shuffled_labels(300, 300)
    _, val = splits.train_val_indices(labels, Settings(val_size=60), 0)
    for size, count in ((100, 100), (0.5, 270), (540, 540)):
        settings = Settings(val_size=60, train_size=size)
        train, val_of_subset = splits.train_val_indices(labels, settings, 0)
        assert torch.equal(val, val_of_subset)
        assert torch.equal(train, splits.train_val_indices(labels, settings, 0)[0])
        assert len(train) == count
        assert not set(train.tolist()) & set(val.tolist())
        assert labels[train].bincount().tolist() == [count // 2, count // 2]


@pytest.mark.parametrize(("size", "val_count"), [(60, 7), (0.5, 30), (540, 60), (2, 1)])
def test_a_share_of_validation_images_shrinks_with_train_size(size, val_count):
    labels = shuffled_labels(300, 300)
    whole_train, whole_val = splits.train_val_indices(labels, Settings(), 3)
    train, val = splits.train_val_indices(labels, Settings(train_size=size), 3)
    same_train, _ = splits.train_val_indices(labels, Settings(val_size=60, train_size=size), 3)
    assert len(val) == val_count
    assert abs(int(labels[val].sum()) - val_count / 2) < 1, "each class must keep its share"
    assert set(val.tolist()) <= set(whole_val.tolist())
    assert set(train.tolist()) <= set(whole_train.tolist())
    assert torch.equal(train, same_train), "the training images must not depend on it"


def test_folds_keep_all_their_validation_images():
    labels = shuffled_labels(30, 30)
    settings = Settings(folds=5, fold=0, train_size=10)
    train, val = splits.train_val_indices(labels, settings, 0)
    assert (len(train), len(val)) == (10, 12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(val_size=0.8), "dataset.val_size=0.8: leaves no training image of class owl"),
        (
            Settings(val_size=0, train_size=100),
            "dataset.train_size=100: leaves no training image of class owl",
        ),
        (
            Settings(val_size=0, train_size=1),
            "dataset.train_size=1: leaves no training image of 2 classes: dog, owl",
        ),
    ],
)
def test_a_class_without_a_training_image_is_named(caplog, settings, message):
    labels = shuffled_labels(600, 400, 1)
    splits.train_val_indices(labels, settings, 0, ("cat", "dog", "owl"))
    assert caplog.messages == [message]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(val_size=5), "dataset.val_size=5: leaves no validation image of class owl"),
        (
            Settings(val_size=0.01, train_size=100),
            "dataset.train_size=100: leaves no training image of class owl; no validation image of 2 classes:"
            " dog, owl",
        ),
    ],
)
def test_a_class_without_a_validation_image_is_named(caplog, settings, message):
    labels = shuffled_labels(600, 400, 2)
    splits.train_val_indices(labels, settings, 0, ("cat", "dog", "owl"))
    assert caplog.messages[-1] == message


def test_a_class_that_is_too_small_for_the_folds_is_named():
    with pytest.raises(UserError, match="at most 2, the training images of class owl"):
        splits.train_val_indices(
            shuffled_labels(9, 9, 2), Settings(folds=3, fold=0), 0, ("cat", "dog", "owl")
        )


def test_many_classes_without_a_training_image_make_one_short_line(caplog):
    splits.train_val_indices(shuffled_labels(*[5] * 100), Settings(val_size=0, train_size=90), 0)
    start = "dataset.train_size=90: leaves no training image of 10 classes: "
    assert caplog.messages[0].startswith(start)
    assert len(caplog.messages[0].removeprefix(start).split(", ")) == 6


@pytest.mark.parametrize("zero", [0, 0.0])
def test_val_size_zero_means_no_validation(zero):
    train, val = splits.train_val_indices(shuffled_labels(10, 10), Settings(val_size=zero), 0)
    assert val is None
    assert torch.equal(train, torch.arange(20))


def test_folds_replace_val_size():
    labels = shuffled_labels(10, 20)
    vals = [splits.train_val_indices(labels, Settings(folds=5, fold=k), 3)[1] for k in range(5)]
    assert torch.equal(torch.cat(vals).sort().values, torch.arange(30))
    assert [labels[val].bincount().tolist() for val in vals] == [[2, 4]] * 5


def test_the_test_set_depends_on_no_seed():
    labels = shuffled_labels(100, 100)
    torch.manual_seed(1)
    first = splits.test_indices(labels, 0.3)
    torch.manual_seed(2)
    splits.train_val_indices(labels, Settings(), 8)
    assert torch.equal(first, splits.test_indices(labels, 60))
    assert labels[first].bincount().tolist() == [30, 30]
    assert splits.test_indices(labels, None) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(val_size=70000), "dataset.val_size=70000: must be below 600 (the training images)"),
        (Settings(val_size=600), "dataset.val_size=600: must be below 600 (the training images)"),
        (
            Settings(val_size=0.0001),
            "dataset.val_size=0.0001: takes no image out of 600 (the training images)",
        ),
        (
            Settings(val_size=0.9999),
            "dataset.val_size=0.9999: leaves no image to train with out of 600 (the training images)",
        ),
        (
            Settings(val_size=60, train_size=541),
            "dataset.train_size=541: must be at most 540 (the training images without the validation images)",
        ),
        (
            Settings(val_size=0, train_size=601),
            "dataset.train_size=601: must be at most 600 (the training images)",
        ),
        (
            Settings(train_size=0.0001),
            "dataset.train_size=0.0001: takes no image out of 540"
            " (the training images without the validation images)",
        ),
        (
            Settings(folds=200, fold=0),
            "dataset.folds=200: must be at most 100, the training images of class 1",
        ),
    ],
)
def test_a_size_out_of_range_is_named(settings, message):
    with pytest.raises(UserError) as caught:
        splits.train_val_indices(shuffled_labels(500, 100), settings, 0)
    assert str(caught.value) == message


def test_classes_without_a_test_image_are_named(caplog):
    splits.test_indices(shuffled_labels(50, 50, 5), 4, ("cat", "dog", "owl"))
    assert caplog.messages == ["dataset.test_size=4: leaves no test image of class owl"]


def test_a_test_size_out_of_range_is_named():
    with pytest.raises(UserError) as caught:
        splits.test_indices(shuffled_labels(50, 50), 101)
    assert str(caught.value) == "dataset.test_size=101: must be at most 100 (the test images)"
