"""Chamfer distances: by the compiled module `chamfer` if it is there, else in plain PyTorch."""

import torch

try:
    import chamfer
except ImportError:
    chamfer = None


class ChamferFunction(torch.autograd.Function):
    """The compiled module's squared distances to the nearest points, both ways."""

    @staticmethod
    def forward(ctx, first, second):
        to_second, to_first, index1, index2 = chamfer.forward(first, second)
        ctx.save_for_backward(first, second, index1, index2)
        return to_second, to_first

    @staticmethod
    def backward(ctx, grad1, grad2):
        return chamfer.backward(*ctx.saved_tensors, grad1.contiguous(), grad2.contiguous())


def nearest(first, second):
    """Squared distances (B, N) and (B, M) to the nearest point of the other cloud. One pair at a time: each cost
    matrix is used while it is in the cache."""
    with torch.no_grad():
        costs = (torch.cdist(x, y) for x, y in zip(first, second, strict=True))
        pairs = [(cost.argmin(1), cost.argmin(0)) for cost in costs]
        index1, index2 = (torch.stack(side).unsqueeze(-1).expand(-1, -1, 3) for side in zip(*pairs, strict=True))
    return (first - second.gather(1, index1)).square().sum(2), (second - first.gather(1, index2)).square().sum(2)


def both_ways(first, second):
    if chamfer is not None and first.is_cuda:
        return ChamferFunction.apply(first.contiguous(), second.contiguous())
    return nearest(first, second)


class ChamferDistanceL2(torch.nn.Module):
    def forward(self, xyz1, xyz2):
        dist1, dist2 = both_ways(xyz1, xyz2)
        return dist1.mean() + dist2.mean()


class ChamferDistanceL1(torch.nn.Module):
    def forward(self, xyz1, xyz2):
        dist1, dist2 = both_ways(xyz1, xyz2)
        return (dist1.sqrt().mean() + dist2.sqrt().mean()) / 2
