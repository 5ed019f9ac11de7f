"""Holdout, folds and subsets: exact counts, exact proportions, the right streams."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnexp.data import splits
from bnexp.errors import UserError


@dataclass(frozen=True)
class Keys:
    val_size: float = 0.1
    train_size: float | None = None
    folds: int | None = None
    fold: int | None = None


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uneven(*members: int) -> torch.Tensor:
    """Labels with so many of class 0, 1, ..., mixed."""
    labels = torch.repeat_interleave(torch.arange(len(members)), torch.tensor(members))
    return labels[torch.randperm(len(labels), generator=stream(9))]


many_labels = st.lists(st.integers(0, 6), min_size=1, max_size=200).map(torch.tensor)


@settings(deadline=None, max_examples=150)
@given(labels=many_labels, share=st.floats(0, 1), seed=st.integers(0, 9))
def test_holdout_is_exact_and_in_proportion(labels, share, seed):
    count = round(share * len(labels))
    rest, held = splits.holdout(labels, count, stream(seed))
    assert len(held) == count
    assert torch.equal(torch.cat([rest, held]).sort().values, torch.arange(len(labels)))
    for part in (rest, held):
        assert torch.equal(part, part.sort().values)
    for value in labels.unique():
        quota = count * (labels == value).sum().item() / len(labels)
        assert abs((labels[held] == value).sum().item() - quota) < 1


def test_largest_remainders_get_the_odd_images():
    labels = uneven(50, 29, 21)  # of 10: 5.0, 2.9, 2.1
    _, held = splits.holdout(labels, 10, stream())
    assert labels[held].bincount().tolist() == [5, 3, 2]
    _, held = splits.holdout(labels, 0.1, stream())
    assert labels[held].bincount().tolist() == [5, 3, 2]


def test_holdout_picks_at_random_within_a_class():
    labels = uneven(500, 500)
    one, same, other = (splits.holdout(labels, 100, stream(seed))[1] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert len(set(one.tolist()) & set(other.tolist())) < 30  # 10 expected
    assert one.double().mean().sub(500).abs() < 100, "not only from the front"


@pytest.mark.parametrize("size", [-1, 11])
def test_holdout_outside_the_data(size):
    with pytest.raises(ValueError, match="from 0 to 10"):
        splits.holdout(uneven(5, 5), size, stream())


@settings(deadline=None, max_examples=100)
@given(labels=many_labels, folds=st.integers(2, 7))
def test_folds_partition_the_data_in_proportion(labels, folds):
    parts = [splits.fold(labels, folds, k, stream(4)) for k in range(folds)]
    held = torch.cat([held for _, held in parts])
    assert torch.equal(held.sort().values, torch.arange(len(labels)))
    for rest, mine in parts:
        assert torch.equal(torch.cat([rest, mine]).sort().values, torch.arange(len(labels)))
    for value in (*labels.unique(), None):
        sizes = [len(mine) if value is None else (labels[mine] == value).sum().item() for _, mine in parts]
        assert max(sizes) - min(sizes) <= 1


def test_split_depends_on_the_seed_alone():
    labels = uneven(300, 300)
    torch.manual_seed(1)
    train, val = splits.train_val_indices(labels, Keys(), 5)
    torch.manual_seed(2)
    again, same = splits.train_val_indices(labels, Keys(), 5)
    other, _ = splits.train_val_indices(labels, Keys(), 6)
    assert torch.equal(train, again)
    assert torch.equal(val, same)
    assert not torch.equal(train, other)
    assert len(train) == 540
    assert labels[val].bincount().tolist() == [30, 30]


def test_train_size_leaves_validation_alone():
    labels = uneven(300, 300)
    _, val = splits.train_val_indices(labels, Keys(val_size=60), 0)
    for size, count in ((100, 100), (0.5, 270), (540, 540)):
        train, same = splits.train_val_indices(labels, Keys(val_size=60, train_size=size), 0)
        assert torch.equal(val, same)
        assert torch.equal(train, splits.train_val_indices(labels, Keys(val_size=60, train_size=size), 0)[0])
        assert len(train) == count
        assert not set(train.tolist()) & set(val.tolist())
        assert labels[train].bincount().tolist() == [count // 2, count // 2]


@pytest.mark.parametrize("nothing", [0, 0.0])
def test_no_validation(nothing):
    train, val = splits.train_val_indices(uneven(10, 10), Keys(val_size=nothing), 0)
    assert val is None
    assert torch.equal(train, torch.arange(20))


def test_folds_take_the_place_of_val_size():
    labels = uneven(10, 20)
    held = [splits.train_val_indices(labels, Keys(folds=5, fold=k), 3)[1] for k in range(5)]
    assert torch.equal(torch.cat(held).sort().values, torch.arange(30))
    assert [labels[part].bincount().tolist() for part in held] == [[2, 4]] * 5


def test_the_test_set_is_the_same_whatever_was_drawn():
    labels = uneven(100, 100)
    torch.manual_seed(1)
    first = splits.test_indices(labels, 0.3)
    torch.manual_seed(2)
    splits.train_val_indices(labels, Keys(), 8)
    assert torch.equal(first, splits.test_indices(labels, 60))
    assert labels[first].bincount().tolist() == [30, 30]
    assert splits.test_indices(labels, None) is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (Keys(val_size=70000), "dataset.val_size=70000: must be below 600 (the training images)"),
        (Keys(val_size=600), "dataset.val_size=600: must be below 600 (the training images)"),
        (
            Keys(val_size=0.0001),
            "dataset.val_size=0.0001: takes no image out of 600 (the training images)",
        ),
        (
            Keys(val_size=0.9999),
            "dataset.val_size=0.9999: leaves no image to train with out of 600 (the training images)",
        ),
        (
            Keys(val_size=60, train_size=541),
            "dataset.train_size=541: must be at most 540 (the training images that validation leaves)",
        ),
        (
            Keys(val_size=0, train_size=601),
            "dataset.train_size=601: must be at most 600 (the training images)",
        ),
        (
            Keys(train_size=0.0001),
            "dataset.train_size=0.0001: takes no image out of 540"
            " (the training images that validation leaves)",
        ),
        (
            Keys(folds=200, fold=0),
            "dataset.folds=200: must be at most 100, the training images of class 1",
        ),
    ],
)
def test_sizes_that_do_not_fit(keys, message):
    with pytest.raises(UserError) as caught:
        splits.train_val_indices(uneven(500, 100), keys, 0)
    assert str(caught.value) == message


def test_a_test_size_that_does_not_fit():
    with pytest.raises(UserError) as caught:
        splits.test_indices(uneven(50, 50), 101)
    assert str(caught.value) == "dataset.test_size=101: must be at most 100 (the test images)"
