"""PointGMM: a cloud to a code, the code to a hierarchy of mixtures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from apml_plugin.errors import LossValueError
from apml_plugin.losses.mixture import Hierarchy, MixtureOutput
from apml_plugin.matching.settings import flag
from apml_plugin.models.layers import positive
from apml_plugin.models.pointgmm.decoder import LEVELS, MixtureDecoder
from apml_plugin.models.pointgmm.pointnet import PointNet
from apml_plugin.models.pointgmm.sampling import interpolate, mixture_to_points, sample


class PointGMM(nn.Module):
    """A hierarchical Gaussian mixture for a cloud (Hertz et al., CVPR 2020), in a size of one's choice.

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
        min_eigenvalue: bound of the variances from below, in squared units.
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
        self.num_pred = positive("num_pred", num_pred)
        self.variational, self.flatten = flag("variational", variational), flag("flatten", flatten)
        self.encoder = PointNet(dim_z, tuple(encoder), 2 * dim_z)
        self.moments = nn.Linear(dim_z, 2 * dim_z) if self.variational else None
        self.decoder = MixtureDecoder(
            dim_z, dim_h, levels, flag("attention", attention), dropout, min_eigenvalue=min_eigenvalue
        )

    def encode(self, cloud: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """``cloud`` (B, N, 3) to a code (B, dim_z), and the mean and log-variance it was drawn by if variational."""
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
        """All that losses read: the mixtures, the code's moments, and, if ``draw``, points from the last level."""
        code, latent = self.encode(cloud)
        hierarchy = self.decode(code)
        return MixtureOutput(hierarchy, self.draw(hierarchy) if draw else None, latent)

    def draw(self, hierarchy: Hierarchy, points: int | None = None) -> Tensor:
        """(B, points or num_pred, 3): at random in training, evenly in evaluation."""
        count = self.num_pred if points is None else points
        if not self.training:
            return mixture_to_points(hierarchy, count, flatten=self.flatten)
        drawn = sample(hierarchy, count, flatten=self.flatten)
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
