"""Accumulators over batches and over processes agree with the functions on all clouds at once."""

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.metrics import METRICS, Accumulator

OPTIONS = {"F-Score": {"threshold": 0.2}, "JSD": {"resolution": 4, "bounds": (0, 1)}, "Coverage": {"distance": "CDL1"}}


def clouds(batch, seed=0, points=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, points, 3, generator=generator), torch.rand(batch, points, 3, generator=generator)


@pytest.mark.parametrize("name", list(METRICS))
def test_batches_add_up_to_the_whole(name):
    pred, gt = clouds(5)
    options = {**METRICS[name].options, **OPTIONS.get(name, {})}
    whole = METRICS[name].function(pred, gt, **options).double().mean().item()
    metric = Accumulator(name, scale=1000, **options)
    metric.update(pred[:2], gt[:2])
    metric.update(pred[2], gt[2])
    metric(pred[3:], gt[3:])
    assert metric.compute().item() == pytest.approx(1000 * whole, rel=1e-6)
    metric.reset()
    with pytest.raises(LossValueError, match=f"{name}: nothing to compute"):
        metric.compute()
    assert metric(pred, gt).item() == pytest.approx(1000 * whole, rel=1e-6)


def test_errors_name_bad_names_and_options():
    with pytest.raises(LossArgumentError, match=r"no metric is called 'CD'.*there are CDL1"):
        Accumulator("CD")
    with pytest.raises(LossArgumentError, match=r"F-Score takes no argument 'tau' \(it takes threshold"):
        Accumulator("F-Score", tau=1)
    assert Accumulator("F-Score").higher_is_better
    assert not Accumulator("EMD").higher_is_better


def _rank(rank: int, file: str, results: list) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    pred, gt = clouds(5)
    part = slice(0, 3) if rank == 0 else slice(3, 5)
    result = []
    for name in ("CDL2", "MMD"):
        metric = Accumulator(name)
        metric.update(pred[part], gt[part])
        result.append(metric.compute().item())
    results[rank] = result
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_agree_on_the_whole(tmp_path):
    results = mp.get_context("spawn").Manager().list([None, None])
    mp.spawn(_rank, (str(tmp_path / "meet"), results), nprocs=2)
    pred, gt = clouds(5)
    whole = [METRICS[name].function(pred, gt).double().mean().item() for name in ("CDL2", "MMD")]
    for result in results:
        assert result == pytest.approx(whole, rel=1e-6)
