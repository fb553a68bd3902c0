"""A small point cloud codec trained with DPCC and CompressAI's EntropyBottleneck: `python configs/dpcc/codec.py`.

It is no D-PCC: just enough encoder and decoder to show where each field of DPCCOutputs comes from, how the entropy
model's likelihoods reach the rate term, and how its auxiliary loss is trained beside it. Needs `pip install compressai`
(which brings many packages; use an environment of its own).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn

from apml_plugin import build_loss
from apml_plugin.losses import DPCC, DPCCOutputs, density_stats

KEEP = 3  # each encoder stage keeps every third point
LATENT_SCALE = 20.0  # latents are rounded to whole numbers: this is how fine


class Codec(nn.Module):
    """Two stages; clouds (B, N, 3), N a multiple of 9. `bottleneck(channels)`: an entropy model for (B, C, n)."""

    def __init__(self, bottleneck: Callable[[int], nn.Module], channels: int = 8, stages: int = 2) -> None:
        super().__init__()
        self.describe = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, channels))
        self.features_bottleneck = bottleneck(channels)
        self.points_bottleneck = bottleneck(3)
        self.count = nn.ModuleList(nn.Linear(channels, 1) for _ in range(stages))
        self.grow = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, KEEP * (3 + channels)))
            for _ in range(stages)
        )

    def latents(self, cloud: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, Tensor]:
        """What the encoder keeps: its clouds, their densities, and points and features (B, C, n) to be coded."""
        gt_xyzs, gt_dnums, gt_mdis = [], [], []
        for _ in self.grow:
            kept = cloud[:, ::KEEP]
            counts, distances = density_stats(cloud, kept)
            gt_xyzs.append(cloud)
            gt_dnums.append(counts)
            gt_mdis.append(distances)
            cloud = kept
        features = self.describe(torch.cat((cloud, gt_mdis[-1][..., None]), dim=-1))
        return gt_xyzs, gt_dnums, gt_mdis, LATENT_SCALE * cloud.transpose(1, 2), features.transpose(1, 2)

    def forward(self, cloud: Tensor) -> DPCCOutputs:
        gt_xyzs, gt_dnums, gt_mdis, latent_points, latent_features = self.latents(cloud)
        coded_features, features_likelihoods = self.features_bottleneck(latent_features)
        coded_points, points_likelihoods = self.points_bottleneck(latent_points)
        latent_xyzs = gt_xyzs[-1][:, ::KEEP]
        points, features = coded_points.transpose(1, 2) / LATENT_SCALE, coded_features.transpose(1, 2)
        decoded = points
        pred_xyzs, pred_unums, pred_mdis = [], [], []
        for count, grow in zip(self.count, self.grow, strict=True):
            numbers = 1 + 7 * torch.sigmoid(count(features)[..., 0])
            children = grow(features).unflatten(-1, (KEEP, -1))
            after = (points[:, :, None] + 0.1 * children[..., :3]).flatten(1, 2)
            pred_unums.append(numbers)
            pred_mdis.append(density_stats(after, points, counts=numbers).mean_distances)
            pred_xyzs.append(after)
            points, features = after, features.repeat_interleave(KEEP, dim=1) + children[..., 3:].flatten(1, 2)
        return DPCCOutputs(
            gt_xyzs=gt_xyzs,
            pred_xyzs=pred_xyzs,
            gt_dnums=gt_dnums,
            gt_mdis=gt_mdis,
            pred_unums=pred_unums,
            pred_mdis=pred_mdis,
            latent_xyzs=latent_xyzs,
            pred_latent_xyzs=decoded,
            likelihoods={"features": features_likelihoods, "points": points_likelihoods},
        )

    def auxiliary(self) -> Tensor | None:
        """The entropy models' own loss, which trains their quantiles alone; None for models without one."""
        losses = [part.loss() for part in (self.features_bottleneck, self.points_bottleneck) if hasattr(part, "loss")]
        return sum(losses[1:], losses[0]) if losses else None


def optimisers(codec: Codec, lr: float) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer | None]:
    """One for the codec, one for the quantiles, which the rate gives no gradient."""
    own = [p for name, p in codec.named_parameters() if not name.endswith(".quantiles")]
    quantiles = [p for name, p in codec.named_parameters() if name.endswith(".quantiles")]
    return torch.optim.Adam(own, lr=lr), torch.optim.Adam(quantiles, lr=10 * lr) if quantiles else None


def train(codec: Codec, cloud: Tensor, loss: DPCC, steps: int, lr: float = 1e-3) -> list[dict[str, float]]:
    """Trains on one batch; the terms of every step, their sum and the auxiliary loss."""
    optimiser, second = optimisers(codec, lr)
    log = []
    for _ in range(steps):
        terms = loss.terms(codec(cloud))
        total = sum(terms.values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        logged = {**{name: value.item() for name, value in terms.items()}, "total": total.item()}
        auxiliary = codec.auxiliary()
        if second is not None and auxiliary is not None:
            second.zero_grad()
            auxiliary.backward()
            second.step()
            logged["auxiliary"] = auxiliary.item()
        log.append(logged)
    return log


def coded_bits(codec: Codec, cloud: Tensor) -> tuple[float, int]:
    """Bits that the likelihoods promise, and bits of the strings that CompressAI's coder writes."""
    from apml_plugin.losses.dpcc import bits

    codec.eval()
    with torch.no_grad():
        *_, points, features = codec.latents(cloud)
        promised, written = 0.0, 0
        for bottleneck, latent in ((codec.points_bottleneck, points), (codec.features_bottleneck, features)):
            bottleneck.update(force=True)
            promised += float(bits(bottleneck(latent)[1]))
            written += 8 * sum(len(string) for string in bottleneck.compress(latent))
    return promised, written


def clouds(batch: int = 4, points: int = 288, seed: int = 0) -> Tensor:
    """Points on spheres of several radii, in random order."""
    generator = torch.Generator().manual_seed(seed)
    directions = nn.functional.normalize(torch.randn(batch, points, 3, generator=generator), dim=-1)
    return directions * torch.linspace(0.5, 1.0, batch)[:, None, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--distortion", default=None, help="a registered loss in place of Chamfer, such as APML")
    arguments = parser.parse_args()
    try:
        from compressai.entropy_models import EntropyBottleneck
    except ImportError as error:
        raise SystemExit(f"needs CompressAI ({error}): pip install compressai") from None
    torch.manual_seed(0)
    codec, cloud = Codec(EntropyBottleneck), clouds()
    loss = build_loss({"NAME": "DPCC", "distortion": arguments.distortion})
    log = train(codec, cloud, loss, arguments.steps)
    for step in range(0, len(log), max(1, len(log) // 10)):
        print(step, " ".join(f"{name}={value:.3g}" for name, value in log[step].items()))
    promised, written = coded_bits(codec, cloud)
    per_point = written / cloud[..., 0].numel()
    print(f"bits: {promised:.0f} by the likelihoods, {written} in the strings, {per_point:.2f} per point")


if __name__ == "__main__":
    main()
