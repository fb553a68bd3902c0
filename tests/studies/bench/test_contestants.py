"""Our losses and their peers: found by name, and called correctly."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import torch

from apml_plugin.studies.bench import run as runner
from apml_plugin.studies.bench.contestants import PEERS, contestant, our
from apml_plugin.studies.bench.timing import clouds


def fresh(name: str):
    """A peer that imports its library again, which a test has replaced."""
    return replace(next(peer for peer in PEERS if peer.name == name))


def test_ours_compute_the_losses_of_their_names() -> None:
    pred, gt = clouds("cube", 2, 30, torch.float64, "cpu")
    apml = our("APML").call(pred, gt)
    torch.testing.assert_close(our("APML dense").call(pred, gt), apml)
    torch.testing.assert_close(our("{NAME: APML, reduction: mean}").call(pred, gt) * 30, apml)
    assert our("ChamferL1").call(pred, gt) != our("ChamferL2").call(pred, gt)


def test_chamfer_peers_agree_with_ours() -> None:
    pred, gt = clouds("cube", 2, 40, torch.float64, "cpu")
    torch.testing.assert_close(contestant("cdist Chamfer").call(pred, gt), our("ChamferL1").call(pred, gt))


def test_a_hosts_chamfer_is_called_with_its_own_two_functions(monkeypatch) -> None:
    from apml_plugin.standins import chamfer as standin

    monkeypatch.setitem(sys.modules, "chamfer", standin)  # the extension's interface, on the CPU
    pred, gt = clouds("cube", 2, 40, torch.float64, "cpu")
    x, y = pred.clone().requires_grad_(), pred.clone().requires_grad_()
    theirs, ours = fresh("host chamfer").call(x, gt), our("ChamferL2").call(y, gt)
    torch.testing.assert_close(theirs, ours)
    theirs.backward()
    ours.backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_optional_libraries_are_called_as_documented(monkeypatch) -> None:
    def samples_loss(kind: str, backend: str):
        assert (kind, backend) == ("sinkhorn", "tensorized")
        return lambda x, y: (x - y).square().sum(dim=(1, 2))  # (B,), as theirs

    modules = {
        "geomloss": SimpleNamespace(SamplesLoss=samples_loss),
        "pykeops": None,
        "pytorch3d.loss": SimpleNamespace(chamfer_distance=lambda x, y: ((x - y).square().sum(), None)),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    pred, gt = clouds("cube", 2, 5, torch.float32, "cpu")
    for peer, scale in (("geomloss", 0.5), ("pytorch3d", 1.0)):
        torch.testing.assert_close(fresh(peer).call(pred, gt), scale * (pred - gt).square().sum())


def test_ckdtree_uses_as_many_workers_as_torch_has_threads(monkeypatch) -> None:
    asked = []

    class Tree:
        def __init__(self, points: object) -> None: ...

        def query(self, points: object, workers: int) -> None:
            asked.append(workers)

    monkeypatch.setattr("scipy.spatial.cKDTree", Tree)
    with runner.threads(1):
        fresh("cKDTree").call(*clouds("cube", 2, 5, torch.float32, "cpu"))
    assert asked == [1] * 4
