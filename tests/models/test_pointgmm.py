"""PointGMM: its levels, frames that never fail, its code, and what enters a checkpoint."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses.mixture import HGMM
from apml_plugin.models import PointGMM
from apml_plugin.models.pointgmm import MixtureDecoder, PointNet, orthonormal_frames

SMALL = dict(num_pred=64, dim_z=16, dim_h=16, levels=(4, 8, 32), encoder=(8, 16, 32))


def small(**options: object) -> PointGMM:
    return PointGMM(**{**SMALL, **options})


def off(frames: torch.Tensor) -> float:
    frames = frames.detach()
    return float((frames @ frames.mT - torch.eye(3, dtype=frames.dtype)).abs().max())


def test_the_published_sizes() -> None:
    decoder = MixtureDecoder()
    hierarchy = decoder.eval()(torch.randn(1, 256))
    assert hierarchy.sizes == (8, 32, 128, 512)
    assert sum(p.numel() for p in decoder.parameters()) == pytest.approx(10.73e6, rel=0.01)
    assert sum(p.numel() for p in PointNet().parameters()) == pytest.approx(0.93e6, rel=0.15)


def test_every_parameter_is_trained_by_the_likelihood() -> None:
    net = small(dropout=0.0)
    for gate in (module.gate for module in net.decoder.attention):
        nn.init.constant_(gate, 0.5)
    cloud = torch.rand(3, 40, 3)
    HGMM()(net.output(cloud), cloud).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_shapes_of_the_two_clouds_and_the_same_cloud_twice_in_evaluation() -> None:
    net, cloud = small(), torch.rand(2, 40, 3)
    coarse, fine = net(cloud)
    assert (coarse.shape, fine.shape) == ((2, 32, 3), (2, 64, 3))
    assert not torch.equal(net(cloud)[1], net(cloud)[1])
    net.eval()
    assert torch.equal(net(cloud)[1], net(cloud)[1])
    torch.testing.assert_close(net(cloud)[0], net(cloud[:, torch.randperm(40)])[0])


def test_siblings_attend_to_each_other_and_to_no_others() -> None:
    decoder = MixtureDecoder(16, 16, (4, 8), dropout=0.0).eval()
    nn.init.constant_(decoder.attention[0].gate, 1.0)
    groups = torch.randn(2, 4, 16)
    one = decoder.attention[0](groups)
    groups[1] += 1
    assert torch.equal(one[0], decoder.attention[0](groups)[0])
    groups[0, 3] += 1
    assert not torch.allclose(one[0, 0], decoder.attention[0](groups)[0, 0])


def test_a_variational_code_is_drawn_in_training_and_its_mean_in_evaluation() -> None:
    net, cloud = small(variational=True), torch.rand(2, 40, 3)
    code, latent = net.encode(cloud)
    assert not torch.equal(code, latent[0])
    code, latent = net.eval().encode(cloud)
    assert torch.equal(code, latent[0])
    assert latent[1].shape == (2, 16)
    assert small().encode(cloud)[1] is None


def test_learns_a_cloud() -> None:
    net, cloud = small(dropout=0.0), torch.rand(2, 100, 3) * torch.tensor([1.0, 0.5, 0.01])
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        value = HGMM()(net.output(cloud, draw=False), cloud)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] - 2


@given(st.lists(st.sampled_from([0.0, 1e-30, 1e-12, 1.0, -2.0, 1e15]), min_size=6, max_size=6))
def test_frames_are_orthonormal_whatever_the_vectors(numbers: list[float]) -> None:
    vectors = torch.tensor(numbers).view(2, 3).requires_grad_()
    frames = orthonormal_frames(vectors)
    frames.square().mul(torch.arange(9).view(3, 3)).sum().backward()
    assert off(frames) < 1e-5
    assert torch.isfinite(vectors.grad).all()


def test_frames_are_gram_schmidts() -> None:
    vectors = torch.randn(50, 2, 3, dtype=torch.float64, requires_grad=True)
    frames = orthonormal_frames(vectors)
    q, r = torch.linalg.qr(vectors.mT)
    expected = (q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]).mT
    torch.testing.assert_close(frames[:, :2], expected)
    torch.testing.assert_close(torch.linalg.det(frames), torch.ones(50, dtype=torch.float64))
    assert torch.autograd.gradcheck(orthonormal_frames, (vectors[:3].detach().requires_grad_(),))
    parallel = torch.randn(100, 1, 3) * torch.tensor([[1.0], [-3.0]]) + 1e-7 * torch.randn(100, 2, 3)
    assert off(orthonormal_frames(parallel)) < 1e-5


def test_a_decoder_that_collapsed_still_gives_mixtures() -> None:
    net = small().eval()
    with torch.no_grad():
        for p in net.decoder.parameters():
            p.zero_()
    hierarchy = net.mixture(torch.rand(2, 30, 3))
    assert float(hierarchy.levels[-1].eigenvalues.detach().max()) == pytest.approx(1e-6)
    value = HGMM()(hierarchy, torch.rand(2, 30, 3))
    assert torch.isfinite(value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"levels": (6, 12)}, LossValueError, "power of 2"),
        ({"levels": (4, 10)}, LossValueError, "whole factors"),
        ({"dim_h": 20}, LossValueError, "dim_h=20 must be a multiple of 8, such as 16"),
        ({"num_pred": 0}, LossValueError, "num_pred"),
        ({"variational": "yes"}, LossArgumentError, "variational='yes'"),
        ({"min_eigenvalue": 0}, LossValueError, "min_eigenvalue=0"),
        ({"dropout": 1}, LossValueError, "dropout=1"),
    ],
)
def test_sizes_that_do_not_fit(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small(**options)


def test_clouds_that_cannot_be_read() -> None:
    net = small()
    with pytest.raises(LossValueError, match=r"expected \(B, N, 3\)"):
        net(torch.rand(3, 40, 2))
    with pytest.raises(LossValueError, match="batch of one"):
        net(torch.rand(1, 40, 3))
    assert net.eval()(torch.rand(1, 40, 3))[1].shape == (1, 64, 3)
