"""What a Chamfer object or function of a host returns, found by calling it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

KINDS = tuple(place + what for place in ("", "first ", "both ") for what in ("number", "per sample"))
"""The results that a loss can replace: one number, or one value (B,) per sample; "first" and "both": as the first
entry, or each of the first two, of a tuple or list."""

FEATURES = 9
"""Most values per point of a cloud (B, N, 3 + ...): coordinates, a normal and a colour."""


def coordinates_first(*clouds: Any) -> bool:
    """Whether clouds are laid out as (B, 3, N). With few columns, (B, 3, 6) is three points with six values each."""
    return all(cloud.shape[1] == 3 and cloud.shape[2] > FEATURES for cloud in clouds)


def kind_of(own: Callable[..., Any], like: Any, more: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """One of `KINDS`, or why `own` is none of them: found by calling it with three tiny pairs of clouds.

    In the clouds a and b (2, 16, D) every point of a is one of b, but not the reverse. A two-sided distance is above
    zero for (a, b) and (b, a), and zero for (a, a).

    Args:
        own: called as ``own(a, b, *more, **kwargs)``.
        like: a tensor with the device, dtype and layout that the clouds get.

    Text that begins with "cannot be probed" means that the call failed.
    """
    import torch

    transposed = coordinates_first(like)
    line = torch.arange(16.0)
    columns = [0.1 + 0.05 * line, 0.2 + 0.03 * (line * 7 % 16), 0.3 + 0.02 * (line * 5 % 16)]
    grid = torch.stack([columns[i % 3] for i in range(like.shape[1 if transposed else 2])], dim=1)
    b = grid.expand(2, *grid.shape).to(like.device, like.dtype).contiguous()
    a = b.clone()
    a[:, 15] = a[:, 14]
    if transposed:
        a, b = a.transpose(1, 2).contiguous(), b.transpose(1, 2).contiguous()
    try:
        with torch.no_grad():
            results = [own(x, y, *more, **kwargs) for x, y in ((a, b), (b, a), (a, a))]
    except Exception as error:
        return f"cannot be probed ({type(error).__name__}: {error})"
    kinds, values = zip(*(kind_of_result(result, 2) for result in results), strict=True)
    if "" in kinds:
        return "returns raw distances or indices, which the host's code uses"
    if why := _not_two_sided(values):
        return why
    kind = str(kinds[0])
    if kind.startswith("first "):
        rest = [kind_of_result(result[1:2], 2) for result in results]
        if all(other == kind for other, _ in rest) and not _not_two_sided([value for _, value in rest]):
            return kind.replace("first", "both")
    return kind


def _not_two_sided(values: Sequence[Any]) -> str:
    """Why the results for (a, b), (b, a) and (a, a) are no two-sided distance; empty if they are."""
    forward, back, same = (float(value.abs().max()) for value in values)
    if same > 0.5 * max(forward, back):
        return "is no distance of its two clouds alone"
    return "measures one direction only" if min(forward, back) <= 1.01 * same + 1e-12 else ""


def kind_of_result(result: Any, batch: int) -> tuple[str, Any]:
    """(one of `KINDS`, the tensor that a loss would replace); ("", result) for any other result."""
    import torch

    first = isinstance(result, tuple | list) and len(result) > 0
    value = result[0] if first else result
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.shape not in ((), (batch,)):
        return "", result
    return ("first " if first else "") + ("number" if value.dim() == 0 else "per sample"), value
