"""PointGMM: PointNet encodes a cloud, and a decoder turns the code into a hierarchy of mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from apml_plugin.arguments import flag, positive_whole
from apml_plugin.errors import LossValueError
from apml_plugin.losses.mixture import Hierarchy, MixtureOutput
from apml_plugin.models.pointgmm.decoder import LEVELS, MixtureDecoder
from apml_plugin.models.pointgmm.sampling import interpolate, mixture_to_points, sample


class PointNet(nn.Module):
    """PointNet (Qi et al. 2017) without its input transform: (B, N, C) points, in any order, to a code (B, dim_out).

    Args:
        dim_out: length of the code.
        widths: channels of the layers for every point, before the maximum over all points.
        hidden: width of the layer after it.
        dim_in: C.
    """

    def __init__(
        self, dim_out: int = 256, widths: Sequence[int] = (64, 128, 1024), hidden: int = 512, dim_in: int = 3
    ) -> None:
        super().__init__()
        channels = [positive_whole("dim_in", dim_in), *(positive_whole("widths", width) for width in widths)]
        if len(channels) < 2:
            raise LossValueError("widths is empty; PointNet's are (64, 128, 1024)")
        self.dim_in = dim_in
        layers: list[nn.Module] = []
        for i, (one, other) in enumerate(pairwise(channels)):
            layers += [nn.Conv1d(one, other, 1), nn.BatchNorm1d(other)]
            if i + 2 < len(channels):
                layers.append(nn.ReLU(inplace=True))
        self.local = nn.Sequential(*layers)
        self.merge = nn.Sequential(
            nn.Linear(channels[-1], positive_whole("hidden", hidden)),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, positive_whole("dim_out", dim_out)),
        )

    def forward(self, points: Tensor) -> Tensor:
        """LossValueError for other shapes, no points, or one cloud alone in training."""
        if points.dim() != 3 or points.shape[2] != self.dim_in or points.shape[1] == 0:
            raise LossValueError(
                f"points has shape {tuple(points.shape)}, expected (B, N, {self.dim_in}) with at least one point; a "
                "single cloud goes in as points[None]"
            )
        if self.training and len(points) < 2:
            raise LossValueError(
                "a batch of one cloud cannot train PointNet's batch norm: use a batch size of 2 or more and drop_last"
            )
        feature: Tensor = self.merge(self.local(points.transpose(1, 2)).amax(2))
        return feature


class PointGMM(nn.Module):
    """A hierarchical Gaussian mixture for a cloud (Hertz et al., CVPR 2020), in any size.

    ``mixture(cloud)`` gives the :class:`Hierarchy`; ``forward(cloud)`` gives two clouds, as every network here: the
    means of the last level, and ``num_pred`` points drawn from it (at random in training, evenly in evaluation, where
    the same mixture gives the same cloud). A variational model's code is its mean in evaluation.

    Args:
        num_pred: points of the second cloud.
        dim_z: length of the code. dim_h: width of a node's feature, a multiple of 8.
        levels: components of each level, the first a power of 2; (8, 32, 128, 512) as published.
        encoder: PointNet's channels for every point.
        attention: whether siblings attend to each other before they split.
        variational: the code is drawn from N(mean, exp(log_variance)) in training; pair it with ``LatentKL``.
        dropout: in the decoder.
        min_eigenvalue: lower bound of the variances, in squared units.
        flatten: points are drawn from discs (see ``sample``).

    Raises:
        LossArgumentError, LossValueError: a size that is no whole number, or does not fit the others.
    """

    def __init__(
        self,
        num_pred: int = 2048,
        dim_z: int = 256,
        dim_h: int = 512,
        levels: Sequence[int] = LEVELS,
        encoder: Sequence[int] = (64, 128, 1024),
        attention: bool = True,
        variational: bool = False,
        dropout: float = 0.1,
        min_eigenvalue: float = 1e-6,
        flatten: bool = False,
    ) -> None:
        super().__init__()
        self.num_pred = positive_whole("num_pred", num_pred)
        self.variational, self.flatten = flag("variational", variational), flag("flatten", flatten)
        self.encoder = PointNet(dim_z, tuple(encoder), 2 * dim_z)
        self.moments = nn.Linear(dim_z, 2 * dim_z) if self.variational else None
        self.decoder = MixtureDecoder(
            dim_z, dim_h, levels, flag("attention", attention), dropout, min_eigenvalue=min_eigenvalue
        )

    def encode(self, cloud: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """``cloud`` (B, N, 3) to a code (B, dim_z) and, if variational, the mean and log-variance it was drawn from."""
        code = self.encoder(cloud)
        if self.moments is None:
            return code, None
        mean, log_variance = self.moments(code).chunk(2, dim=-1)
        if not self.training:
            return mean, (mean, log_variance)
        return mean + (0.5 * log_variance).exp() * torch.randn_like(mean), (mean, log_variance)

    def decode(self, code: Tensor) -> Hierarchy:
        """(B, dim_z) codes to mixtures."""
        hierarchy: Hierarchy = self.decoder(code)
        return hierarchy

    def mixture(self, cloud: Tensor) -> Hierarchy:
        """``cloud`` (B, N, 3) to its mixtures."""
        return self.decode(self.encode(cloud)[0])

    def output(self, cloud: Tensor, draw: bool = True) -> MixtureOutput:
        """What losses take: the mixtures, the code's moments, and, if ``draw``, points from the last level."""
        code, latent = self.encode(cloud)
        hierarchy = self.decode(code)
        return MixtureOutput(hierarchy, self.draw(hierarchy) if draw else None, latent)

    def draw(self, hierarchy: Hierarchy, points: int | None = None) -> Tensor:
        """(B, points or num_pred, 3): at random in training, evenly in evaluation."""
        number = self.num_pred if points is None else points
        if not self.training:
            return mixture_to_points(hierarchy, number, flatten=self.flatten)
        drawn = sample(hierarchy, number, flatten=self.flatten)
        assert isinstance(drawn, Tensor)
        return drawn

    def between(self, start: Tensor, end: Tensor, steps: int) -> Hierarchy:
        """Mixtures of shapes between two: a batch of ``steps``, decoded from codes on a line, both ends included.

        Args:
            start, end: clouds (N, 3) and (M, 3), or each as a batch of one.
            steps: at least 2.

        Call it in evaluation mode (``net.eval()``): batch norm cannot train on one cloud. Raises LossValueError for
        clouds of other shapes and in training mode.
        """
        start, end = (cloud[0] if cloud.dim() == 3 and len(cloud) == 1 else cloud for cloud in (start, end))
        for name, cloud in (("start", start), ("end", end)):
            if cloud.dim() != 2:
                raise LossValueError(f"{name} must be one cloud (N, 3), got {tuple(cloud.shape)}")
        if self.training:
            raise LossValueError(
                "between encodes one cloud at a time, which training mode cannot: call net.eval() first"
            )
        codes = [self.encode(cloud[None])[0][0] for cloud in (start, end)]
        return self.decode(interpolate(codes[0], codes[1], steps))

    def forward(self, partial: Tensor) -> tuple[Tensor, Tensor]:
        """``partial`` (B, N, 3) to the means (B, K, 3) and the drawn points (B, num_pred, 3)."""
        hierarchy = self.mixture(partial)
        return hierarchy.levels[-1].means.contiguous(), self.draw(hierarchy)
