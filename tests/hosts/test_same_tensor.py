"""When two tensors count as one."""

from __future__ import annotations

import pytest
import torch

from apml_plugin.hosts.same_tensor import same_tensor

X = torch.rand(2, 3, 5)


def leaf() -> torch.Tensor:
    return X.clone().requires_grad_()


def test_one_chain_made_twice() -> None:
    y = torch.tanh(leaf())
    assert same_tensor(y, y)
    assert same_tensor(y.transpose(1, 2).contiguous(), y.transpose(1, 2).contiguous())
    assert same_tensor(y.unsqueeze(0).squeeze(0), y.unsqueeze(0).squeeze(0))


def changed_behind_the_graph() -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.tanh(leaf())
    a, b = y.clone(), y.clone()
    with torch.no_grad():
        b.add_(1.0)
    return a, b


DIFFERENT = {
    "changed behind the graph": changed_behind_the_graph,
    "equal values, other leaves": lambda: (leaf(), leaf()),
    "equal values, computed twice": lambda: (lambda x: (torch.tanh(x), torch.tanh(x)))(leaf()),
    "other dimensions": lambda: (lambda y: (y.transpose(1, 2), y.transpose(0, 1)))(
        torch.tanh(torch.ones(3, 3, 3, requires_grad=True))
    ),
    "one of them detached": lambda: (lambda y: (y, y.detach()))(torch.tanh(leaf())),
    "changed in place": lambda: (lambda y: (y.clone(), y.clone().add_(0.0)))(torch.tanh(leaf())),
    "no gradient, other memory": lambda: (X.clone(), X.clone()),
    "other shape": lambda: (X, X[:1]),
    "two outputs of one split": lambda: torch.tanh(torch.cat([leaf(), leaf()])).split(2),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_different(what: str) -> None:
    a, b = DIFFERENT[what]()
    assert not same_tensor(a, b)


def test_same_memory_without_gradients() -> None:
    assert same_tensor(X, X.view_as(X))
    assert not same_tensor(X, X.transpose(1, 2).transpose(1, 2)[:, :, :4])
