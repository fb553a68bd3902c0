"""EM: the likelihood never falls, and what an exact fit must find is found."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixtures import random_hierarchy, random_mixture

from apml_plugin.errors import LossValueError
from apml_plugin.losses.mixture import GMM, Mixture
from apml_plugin.models.pointgmm import refine, sample


@given(
    st.integers(1, 8),
    st.integers(1, 30),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 1e-9, 1e-6, 1.0]),
    st.sampled_from([1e-8, 1e-6, 1e-2]),
    st.booleans(),
)
def test_never_lowers_the_likelihood(
    components: int, points: int, seed: int, shrink: float, bound: float, doubled: bool
) -> None:
    logits, means, frames, eigenvalues = random_mixture(components, seed=seed).tensors
    mixture = Mixture(logits, means, frames, eigenvalues * shrink)
    cloud = torch.randn(2, points, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    cloud = cloud.repeat_interleave(2, dim=1) if doubled else cloud
    before = GMM("none")(mixture, cloud)
    for _ in range(3):
        mixture = refine(mixture, cloud, 1, min_eigenvalue=bound)
        after = GMM("none")(mixture, cloud)
        assert torch.isfinite(after).all()
        assert bool((after <= before + 1e-9 * (1 + before.abs())).all())
        before = after


def test_one_component_becomes_the_points_moments() -> None:
    cloud = torch.randn(2, 60, 3, dtype=torch.float64)
    fitted = refine(random_mixture(1), cloud)
    torch.testing.assert_close(fitted.means[:, 0], cloud.mean(1))
    centred = cloud - cloud.mean(1, keepdim=True)
    torch.testing.assert_close(fitted.covariances()[:, 0], centred.mT @ centred / 60)


def test_finds_a_mixture_again_from_a_near_one() -> None:
    true = random_mixture(3, seed=5)
    points = sample(true, 3000, generator=torch.Generator().manual_seed(1))
    near = Mixture(torch.zeros(2, 3), *(t.clone() for t in true.tensors[1:]))
    fitted = refine(Mixture(near.logits.double(), near.means + 0.1, *near.tensors[2:]), points, 60)
    assert float(GMM()(fitted, points)) <= float(GMM()(true, points)) + 1e-6


def test_a_hierarchy_is_refined_on_its_last_level_and_left_as_it_was() -> None:
    hierarchy, cloud = random_hierarchy((2, 6), dtype=torch.float32), torch.randn(2, 80, 3)
    before = [t.clone() for level in hierarchy.levels for t in level.tensors]
    fitted = refine(hierarchy, cloud, 5)
    assert fitted.means.dtype == torch.float32
    assert GMM()(fitted, cloud) < GMM()(hierarchy, cloud)
    after = [t for level in hierarchy.levels for t in level.tensors]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    still = refine(hierarchy, cloud, 0)
    torch.testing.assert_close(still.means, hierarchy.levels[-1].means)


def test_invalid_input_raises_an_error() -> None:
    mixture = random_mixture(2)
    with pytest.raises(LossValueError, match="iterations=-1"):
        refine(mixture, torch.rand(2, 5, 3), -1)
    with pytest.raises(LossValueError, match="no points"):
        refine(mixture, torch.rand(2, 0, 3))
    with pytest.raises(LossValueError, match="min_eigenvalue=0"):
        refine(mixture, torch.rand(2, 5, 3), min_eigenvalue=0)
