"""CompletionShapes: reproducible samples, disjoint splits, partial views."""

from __future__ import annotations

import pytest
import torch

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.functional import nearest_neighbours
from apml_plugin.shapes import CompletionShapes
from apml_plugin.shapes.families import FAMILIES


def test_samples_are_reproducible_and_of_the_asked_sizes() -> None:
    one, other = (CompletionShapes(size=6, num_partial=100, num_gt=300) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        assert (a["inputs"].shape, a["gt"].shape) == ((100, 3), (300, 3))
        assert a["inputs"].dtype == a["gt"].dtype == torch.float32
        assert torch.equal(a["inputs"], b["inputs"])
        assert torch.equal(a["gt"], b["gt"])
    assert {one[i]["label"] for i in range(5)} == set(FAMILIES)
    assert torch.equal(one[-1]["gt"], one[5]["gt"])
    with pytest.raises(IndexError, match="6 is out of range for 6"):
        one[6]


def test_no_shape_is_in_both_splits_nor_twice_in_one() -> None:
    seen = [
        tuple(sample["gt"][0].tolist())
        for split in ("train", "test")
        for seed in (0, 1)
        for sample in CompletionShapes(split, size=10, num_partial=8, num_gt=8, families=["chair"], seed=seed)
    ]
    assert len(set(seen)) == 40


def test_a_partial_cloud_lies_on_the_shape_and_leaves_some_of_it_out() -> None:
    # As many points of each: a sample of the whole shape would be as near to gt as gt is to it.
    for sample in CompletionShapes(size=10, num_partial=2048, num_gt=2048):
        on, _ = nearest_neighbours(sample["inputs"], sample["gt"])
        left, _ = nearest_neighbours(sample["gt"], sample["inputs"])
        assert on.max() < 0.1
        assert left.mean() > 1.5 * on.mean(), sample["label"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(split="val"), LossValueError, "split='val' must be one of train, test"),
        (dict(families=["boat"]), LossValueError, "boat.*airplane, chair"),
        (dict(families="chair"), LossValueError, "families='chair' must be a list"),
        (dict(size=0), LossValueError, "size=0 must be at least 1"),
        (dict(num_gt=1.5), LossArgumentError, "num_gt=1.5 must be a whole number"),
        (dict(seed=-1), LossArgumentError, "seed=-1"),
    ],
)
def test_bad_arguments(options, error, message) -> None:
    with pytest.raises(error, match=message):
        CompletionShapes(**options)
