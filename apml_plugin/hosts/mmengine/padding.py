"""Clouds of different sizes as one padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def pad(clouds: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Clouds (M_i, D) as one (B, max M_i, D), and their lengths (B,), or None where all are of one size."""
    whole = nn.utils.rnn.pad_sequence(list(clouds), batch_first=True)
    sizes = [len(cloud) for cloud in clouds]
    return whole, None if len(set(sizes)) == 1 else torch.tensor(sizes, device=whole.device)
