"""The private API that the package calls: one small test each, so that a new release shows at once what it changed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import apml_plugin
from apml_plugin import _torch_private as private

VERSION = f"PyTorch {torch.__version__}"
PACKAGE = Path(apml_plugin.__file__).parent


def test_kernels_of_an_operator_are_found() -> None:
    changed = f"torch._C._dispatch_has_kernel_for_dispatch_key has changed in {VERSION}: backends are not found"
    assert private.has_kernel("aten::_cdist_forward", "cpu"), changed
    assert not private.has_kernel("aten::_cudnn_rnn", "cpu"), changed


def test_an_assertion_is_kept_in_the_graph() -> None:
    changed = f"torch._assert_async has changed in {VERSION}: compiled losses do not check for NaN"
    private.assert_in_graph(torch.tensor(True), "no")
    with pytest.raises(RuntimeError, match="a message"):
        private.assert_in_graph(torch.tensor(False), "a message")

    def checked(x: torch.Tensor) -> torch.Tensor:
        private.assert_in_graph(x > 0, "below 0")
        return x + 1

    compiled = torch.compile(checked, backend="eager", fullgraph=True)
    assert compiled(torch.tensor(1.0)) == 2, changed


def test_transforms_are_recognised_and_left() -> None:
    changed = f"torch._C._functorch has changed in {VERSION}: losses do not work under torch.func"
    x = torch.rand(3)
    assert not private.is_transformed(x), changed
    assert not private.is_vmapped(x), changed

    def square_sum(x: torch.Tensor) -> torch.Tensor:
        assert private.is_transformed(x), changed
        assert not private.is_vmapped(x), changed
        read = private.on_values(lambda values: (2 * values).numpy().sum(), 1 * x)
        return x.square().sum() + float(read)

    def element(x: torch.Tensor) -> torch.Tensor:
        assert private.is_vmapped(torch.func.vjp(lambda x: 1 * x, x)[0]), changed
        return x

    torch.testing.assert_close(torch.func.grad(square_sum)(x), 2 * x)
    torch.testing.assert_close(torch.func.hessian(square_sum)(x), 2 * torch.eye(3))
    torch.func.vmap(element)(x)


def test_nodes_show_what_they_saved() -> None:
    changed = f"autograd's _saved_* attributes have changed in {VERSION}: clouds that are copies are not recognised"
    x = torch.rand(2, 3, 4, requires_grad=True)
    assert private.saved_by(x.transpose(1, 2).grad_fn) == private.saved_by(x.transpose(1, 2).grad_fn) != {}, changed
    assert private.saved_by(x.transpose(1, 2).grad_fn) != private.saved_by(x.transpose(0, 1).grad_fn), changed


def test_writing_in_place_counts() -> None:
    x = torch.zeros(3)
    before = private.version_of(x)
    x.add_(1)
    assert private.version_of(x) == before + 1, f"Tensor._version has changed in {VERSION}"


def test_a_checkpoint_opens_as_an_archive(tmp_path: Path) -> None:
    changed = f"torch._C.PyTorchFileReader has changed in {VERSION}: checkpoints are not read"
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with (tmp_path / "a.pth").open("rb") as file:
        archive = private.archive(file)
        assert "data.pkl" in archive.get_all_records(), changed
        assert b"epoch" in archive.get_record("data.pkl"), changed


def test_wrapped_factories_keep_the_device_of_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = f"torch.utils._device has changed in {VERSION}: CPU mode breaks `with torch.device(...)`"
    assert issubclass(private.device_context(), torch.overrides.TorchFunctionMode), changed
    original = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *args, **kwargs: original(*args, **kwargs))
    with torch.device("meta"):
        assert torch.zeros(3).is_meta, changed


def test_a_wrapped_operator_compiles_to_the_operator() -> None:
    def ones(*args, **kwargs):
        return torch.ones(*args, **kwargs)

    private.script_as(ones, torch.ones)

    def calls(n: int) -> torch.Tensor:
        return ones([n])

    changed = f"torch.jit._builtins has changed in {VERSION}: CPU mode breaks torch.jit.script"
    assert torch.equal(torch.jit.script(calls)(2), torch.ones(2)), changed


@pytest.mark.parametrize(
    "folder", ["losses", "matching", "models", "compat", "metrics", "checkpoints", "launch", "standins"]
)
def test_private_names_of_torch_stay_in_one_module(folder: str) -> None:
    private_name = re.compile(
        r"\btorch\._(?!_|six)\w|\btorch\.(utils|jit)\._\w|from torch\.\w+ import _(?!_)|_saved_|\._version\b"
    )
    for path in [*(PACKAGE / folder).rglob("*.py"), *PACKAGE.glob("*.py")]:
        if path.name != "_torch_private.py":
            text = re.sub(r'"torch\._[\w.]+"', "", path.read_text())  # names in strings are not calls
            assert not private_name.search(text), path
