"""Registration: features that do not turn, poses that compose, a network that learns where shapes stand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apml_plugin.errors import LossValueError
from apml_plugin.models.pointgmm import PointGMMRegistration
from apml_plugin.models.pointgmm.registration import (
    angle_between,
    compose,
    invariant_features,
    inverse,
    move,
    pose,
    random_pose,
    rotation,
)

SMALL = dict(dim_z=16, dim_t=8, dim_h=16, levels=(4, 8), encoder=(16, 32), neighbours=8)


def test_features_do_not_change_with_any_rigid_motion_and_follow_the_points() -> None:
    cloud = torch.randn(2, 30, 3, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    features = invariant_features(cloud, 8)
    assert features.shape == (2, 30, 25)
    torch.testing.assert_close(invariant_features(cloud @ turn.mT + 5.0, 8), features, atol=1e-6, rtol=1e-6)
    order = torch.randperm(30)
    torch.testing.assert_close(invariant_features(cloud[:, order], 8), features[:, order])
    assert not torch.allclose(invariant_features(cloud * 1.1, 8), features)


def test_features_by_hand() -> None:
    cross = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [-3.0, 0, 0]]])
    features = invariant_features(cross, 2)[0, 0]
    centre = cross.mean(1)[0]
    expected = [centre.norm(), 1.0, 2.0, *(torch.acos(d @ centre / centre.norm()) for d in torch.eye(3)[:2])]
    torch.testing.assert_close(features[:5], torch.tensor([float(v) for v in expected]))
    torch.testing.assert_close(torch.rad2deg(features[5:]), torch.tensor([90.0, 90.0]))
    doubled = torch.zeros(1, 5, 3, requires_grad=True)
    invariant_features(doubled, 3).sum().backward()
    assert torch.isfinite(doubled.grad).all()
    with pytest.raises(LossValueError, match="more than neighbours=4"):
        invariant_features(torch.rand(1, 4, 3), 4)


@given(st.floats(-170, 170), st.floats(-170, 170), st.sampled_from("xyz"))
def test_poses_compose_and_invert(one: float, other: float, axis: str) -> None:
    first, second = (
        pose(torch.tensor([d], dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)) for d in (one, other)
    )
    cloud = torch.randn(1, 10, 3, dtype=torch.float64)
    both = move(move(cloud, first, axis), second, axis)
    torch.testing.assert_close(move(cloud, compose(second, first, axis), axis), both)
    torch.testing.assert_close(move(move(cloud, first, axis), inverse(first, axis), axis), cloud)
    gap = abs(one - other)
    assert float(angle_between(first, second)) == pytest.approx(min(gap, 360 - gap), abs=1e-6)
    assert float(first.degrees) == pytest.approx(one)


def test_a_quarter_turn_about_each_axis() -> None:
    quarter = pose(torch.tensor([90.0])).turn
    for axis, moved in (("x", [[1, 0, 0], [0, 0, 1], [0, -1, 0]]), ("z", [[0, 1, 0], [-1, 0, 0], [0, 0, 1]])):
        expected = torch.tensor(moved, dtype=torch.float32)
        torch.testing.assert_close(torch.eye(3) @ rotation(quarter, axis)[0].mT, expected, atol=1e-6, rtol=0)
    with pytest.raises(LossValueError, match="axis='w'"):
        rotation(quarter, "w")


def test_the_shape_does_not_know_the_pose_and_translations_are_carried_over() -> None:
    net = PointGMMRegistration(**SMALL).eval()
    cloud = torch.rand(2, 40, 3)
    by = random_pose(2)
    one, other = net(cloud), net(move(cloud, by, "y"))
    torch.testing.assert_close(one.canonical.levels[-1].means, other.canonical.levels[-1].means, atol=1e-4, rtol=1e-4)
    far = net(cloud + 100.0)
    torch.testing.assert_close(far.placed.levels[-1].means, one.placed.levels[-1].means + 100, atol=1e-2, rtol=1e-3)
    shifted = net.register(cloud, cloud + 100.0)
    torch.testing.assert_close(shifted.shift, torch.full((2, 3), 100.0), atol=1e-2, rtol=1e-3)
    same = net.register(cloud, cloud)
    assert float(same.degrees.abs().max()) < 0.1
    assert float(same.shift.abs().max()) < 1e-4
    with pytest.raises(LossValueError, match="eval"):
        net.train().register(cloud, cloud)


def test_training_finds_where_a_shape_stands() -> None:
    shape = torch.rand(1, 60, 3) * torch.tensor([1.0, 0.4, 0.2]) * torch.rand(1, 60, 1)
    shapes = (shape - shape.mean(1, keepdim=True)).expand(8, -1, -1)
    net = PointGMMRegistration(**SMALL, dropout=0.0)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value = net.loss(shapes, random_pose(8))
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10)
        optimizer.step()
        values.append(value.item())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    assert sum(values[-10:]) < sum(values[:10]) - 50
    by = random_pose(64)
    with torch.no_grad():
        predicted = net(move(shapes.repeat(8, 1, 1), by, "y")).pose
    assert float((predicted.turn * by.turn).sum(-1).mean()) > 0.5
