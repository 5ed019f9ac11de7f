import torch

from bnexp import seeding


def test_a_stream_depends_on_its_arguments_only():
    first = torch.rand(3, generator=seeding.generator(1, "order", 2))
    torch.rand(100)
    assert torch.equal(first, torch.rand(3, generator=seeding.generator(1, "order", 2)))
    other_arguments = [
        (2, "order", 2),
        (1, "augment", 2),
        (1, "order", 3),
        (12, "order", ""),
        (1, "order", "22"),
    ]
    for arguments in other_arguments:
        assert not torch.equal(first, torch.rand(3, generator=seeding.generator(*arguments)))


def test_derived_seeds_never_change():
    """The next version of bnexp must reproduce a recorded run."""
    assert seeding.derive(0, "order", 1) == 8024286156118006313
    assert 0 <= seeding.derive(2**63 - 1, "init", "a.weight") < 2**63


def test_global_stream_restores_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with seeding.global_stream(0, "init"):
        numbers = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeding.global_stream(0, "init"):
        assert torch.equal(torch.rand(2), numbers)
