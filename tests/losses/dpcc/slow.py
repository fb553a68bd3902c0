"""D-PCC's outputs in its real shapes, and its loss a second time: loops over points, Python numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

SIZES = (270, 90, 30)
"""Points of the encoder's inputs; the latent cloud has 10."""
LATENT = 10
OUTPUTS = (29, 83, 260)
"""Points the decoder gives at each stage: close to the encoder's, not equal."""


def outputs(batch: int = 2, sizes: tuple[int, ...] = SIZES, latent: int = LATENT, given: tuple[int, ...] = OUTPUTS,
            seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Any]:  # fmt: skip
    """Every field, in the layout (B, N, 3)."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=dtype, generator=generator)

    kept, taken = (*sizes[1:], latent), (latent, *given[:-1])
    return {
        "gt_xyzs": [rand(batch, n, 3) for n in sizes],
        "pred_xyzs": [rand(batch, n, 3) for n in given],
        "gt_dnums": [torch.randint(0, 9, (batch, n), generator=generator) for n in kept],
        "gt_mdis": [rand(batch, n) for n in kept],
        "pred_unums": [1 + 7 * rand(batch, n) for n in taken],
        "pred_mdis": [rand(batch, n) for n in taken],
        "latent_xyzs": rand(batch, latent, 3),
        "pred_latent_xyzs": rand(batch, latent, 3),
        "gt_normals": rand(batch, sizes[0], 3) - 0.5,
        "features": 4 * rand(batch, given[-1], 3) - 2,
        "likelihoods": [0.05 + 0.9 * rand(batch, 8, latent), 0.05 + 0.9 * rand(batch, 8, latent)],
    }


def turned(given: dict[str, Any]) -> dict[str, Any]:
    """The same outputs with clouds (B, 3, N)."""
    result = dict(given)
    for name in ("gt_xyzs", "pred_xyzs"):
        result[name] = [cloud.transpose(1, 2).contiguous() for cloud in given[name]]
    for name in ("latent_xyzs", "pred_latent_xyzs", "gt_normals", "features"):
        if given.get(name) is not None:
            result[name] = given[name].transpose(1, 2).contiguous()
    return result


def nearest(a: list[list[float]], b: list[list[float]]) -> tuple[list[float], list[int]]:
    """Squared distance and index of the nearest of b for each of a."""
    distances, indices = [], []
    for p in a:
        to = [sum((u - v) ** 2 for u, v in zip(p, q, strict=True)) for q in b]
        distances.append(min(to))
        indices.append(to.index(min(to)))
    return distances, indices


def terms(given: dict[str, Any]) -> dict[str, float]:
    """Published formulas and coefficients."""
    plain = {
        name: [v.double().tolist() for v in value] if isinstance(value, list) else value.double().tolist()
        for name, value in given.items()
    }
    gts, preds = plain["gt_xyzs"], plain["pred_xyzs"]
    stages, batch = len(gts), len(gts[0])
    distortion, to_gt = 0.0, []
    for i in range(stages):
        gt, pred = gts[stages - 1 - i], preds[i]
        there, back, found = [], [], []
        for b in range(batch):
            d1, _ = nearest(gt[b], pred[b])
            d2, index = nearest(pred[b], gt[b])
            there, back, found = there + d1, back + d2, [*found, index]
        chamfer = sum(there) / len(there) + sum(back) / len(back)
        distortion += chamfer if i == stages - 1 else 0.1 * chamfer
        to_gt.append(found)
    density = number = 0.0
    for i in range(stages):
        s = stages - 1 - i
        counts, distances = [], []
        for b in range(batch):
            for p, count in enumerate(plain["pred_unums"][i][b]):
                at = p if i == 0 else to_gt[i - 1][b][p]
                counts.append(abs(count - plain["gt_dnums"][s][b][at]))
                distances.append(abs(plain["pred_mdis"][i][b][p] - plain["gt_mdis"][s][b][at]))
        density += sum(counts) / len(counts) + 50 * sum(distances) / len(distances)
        number += abs(sum(map(sum, plain["pred_unums"][i])) - batch * len(gts[s][0]))
    latent = [
        (u - v) ** 2
        for a, b in zip(plain["latent_xyzs"], plain["pred_latent_xyzs"], strict=True)
        for p, q in zip(a, b, strict=True)
        for u, v in zip(p, q, strict=True)
    ]
    normal = [
        (math.tanh(f) - n) ** 2
        for b in range(batch)
        for p, features in enumerate(plain["features"][b])
        for f, n in zip(features, plain["gt_normals"][b][to_gt[-1][b][p]], strict=True)
    ]
    bits = sum(-math.log2(v) for part in given["likelihoods"] for v in part.double().flatten().tolist())
    return {
        "distortion": distortion,
        "density": 1e-4 * density,
        "points_number": 5e-7 * number,
        "latent": 1e-2 * sum(latent) / len(latent),
        "normal": 1e-2 * sum(normal) / len(normal),
        "rate": 1e-3 * bits / (batch * len(gts[0][0])),
    }
