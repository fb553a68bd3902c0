"""The timm stand-in against its definitions."""

from __future__ import annotations

import math

import pytest
import torch
from standins.serving import served

timm = served("timm")


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, x = timm.layers.DropPath(0.25), torch.ones(4000, 2, 3)
    kept = layer(x)
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (kept == kept[:, :1, :1]).all()
    assert kept.mean().item() == pytest.approx(1, abs=0.05)
    assert layer.eval()(x) is x
    assert timm.layers.DropPath(0.0)(x) is x
    assert not timm.layers.DropPath(1.0)(x).any()


def test_truncated_normal():
    torch.manual_seed(0)
    x = torch.empty(20000)
    assert timm.layers.trunc_normal_(x, std=0.02, a=-0.03, b=0.03) is x
    assert x.abs().max() <= 0.03
    assert x.mean().abs() < 1e-3
    assert 0.012 < x.std() < 0.02


def scheduler(lr=0.5, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    return optimizer.param_groups[0], timm.scheduler.CosineLRScheduler(optimizer, **options)


def test_cosine_with_warm_up():
    group, cosine = scheduler(t_initial=10, lr_min=0.1, warmup_t=4, warmup_lr_init=0.02)
    assert group["lr"] == 0.02
    for epoch in range(14):
        cosine.step(epoch)
        if epoch < 4:
            want = 0.02 + epoch * (0.5 - 0.02) / 4
        elif epoch < 10:
            want = 0.1 + 0.2 * (1 + math.cos(math.pi * epoch / 10))
        else:
            want = 0.1
        assert group["lr"] == pytest.approx(want)
    cosine.step_update(3)
    assert group["lr"] == pytest.approx(0.1)


def test_cycles_grow_and_fall():
    group, cosine = scheduler(t_initial=4, cycle_mul=2.0, cycle_decay=0.5, cycle_limit=3)
    tops = {0: 0.5, 4: 0.25, 12: 0.125}  # cycles of 4, 8 and 16 epochs
    for epoch, top in tops.items():
        cosine.step(epoch)
        assert group["lr"] == pytest.approx(top)
    cosine.step(8)
    assert group["lr"] == pytest.approx(0.125)  # half-way through the second
    cosine.step(28)
    assert group["lr"] == 0


def test_state_and_prefix_and_updates():
    group, cosine = scheduler(t_initial=10, warmup_t=5, warmup_prefix=True, t_in_epochs=False)
    cosine.step_update(10)
    assert group["lr"] == pytest.approx(0.25)
    other_group, other = scheduler(t_initial=99)
    other.load_state_dict(cosine.state_dict())
    other.step_update(10)
    assert other_group["lr"] == pytest.approx(0.25)


def test_what_is_not_there_says_so():
    with pytest.raises(ValueError, match="t_initial"):
        scheduler(t_initial=0)
    with pytest.raises(ValueError, match="noise"):
        scheduler(t_initial=3, noise_range_t=2)
    with pytest.raises(AttributeError, match="pip install timm"):
        _ = timm.models.create_model


def test_mlp_is_its_formula():
    torch.manual_seed(1)
    layer, x = timm.layers.Mlp(4, 9, 5, torch.nn.ReLU, drop=0.5).double().eval(), torch.rand(2, 3, 4).double()
    want = (x @ layer.fc1.weight.T + layer.fc1.bias).clamp(min=0) @ layer.fc2.weight.T + layer.fc2.bias
    torch.testing.assert_close(layer(x), want)
    assert (layer.train()(x) == layer(x)).logical_not().any()
    assert timm.layers.Mlp(4, norm_layer=torch.nn.LayerNorm, bias=(True, False)).fc2.bias is None
    assert torch.autograd.gradcheck(layer.eval(), (x.requires_grad_(),))


@pytest.mark.parametrize("options", [{}, {"qkv_bias": True, "qk_norm": True}, {"qk_scale": 0.3, "attn_drop": 0.5}])
def test_attention_is_its_formula(options):
    torch.manual_seed(2)
    layer, x = timm.layers.Attention(8, num_heads=2, **options).double().eval(), torch.rand(2, 5, 8).double()
    qkv = layer.qkv(x).reshape(2, 5, 3, 2, 4)
    heads = []
    for h in range(2):
        q, k, v = layer.q_norm(qkv[:, :, 0, h]), layer.k_norm(qkv[:, :, 1, h]), qkv[:, :, 2, h]
        heads.append((q @ k.transpose(1, 2) * options.get("qk_scale", 4**-0.5)).softmax(dim=2) @ v)
    torch.testing.assert_close(layer(x), layer.proj(torch.cat(heads, dim=2)))
    assert set(layer.state_dict()) >= {"qkv.weight", "proj.weight", "proj.bias"}
    assert torch.autograd.gradcheck(layer, (x.requires_grad_(),))
    with pytest.raises(ValueError, match="dim 9 is no multiple of num_heads 2"):
        timm.layers.Attention(9, 2)
