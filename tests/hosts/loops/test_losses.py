# ruff: noqa: E501 (the hosts' own lines)
"""Which losses are found in small hosts, and the lines that each of them needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hosts.loops.hosts_with_loops import CHAMFER, LOCAL, SHARED

from apml_plugin.errors import HostError
from apml_plugin.hosts.loops.kind import Loops, search, sites_for
from apml_plugin.hosts.loops.kind import recognise as recognise_project
from apml_plugin.hosts.project import Project
from apml_plugin.patching import plan_apply, plan_revert, write

EXTENSION = """
import torch
import chamfer


class ChamferFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, xyz1, xyz2):
        dist1, dist2, idx1, idx2 = chamfer.forward(xyz1, xyz2)
        return dist1, dist2


class ChamferDistanceL2(torch.nn.Module):
    def forward(self, xyz1, xyz2):
        if xyz1.size(0) == 1:
            kept = torch.sum(xyz1, dim=2).ne(0)
            xyz1 = xyz1[kept].unsqueeze(dim=0)
        dist1, dist2 = ChamferFunction.apply(xyz1, xyz2)
        return torch.mean(dist1) + torch.mean(dist2)


class ChamferDistanceL1(ChamferDistanceL2):
    pass


class ChamferDistanceL2_split(torch.nn.Module):
    def forward(self, xyz1, xyz2):
        dist1, dist2 = ChamferFunction.apply(xyz1, xyz2)
        return torch.mean(dist1), torch.mean(dist2)


class OneWay(torch.nn.Module):
    def forward(self, xyz1, xyz2):
        dist1, dist2 = ChamferFunction.apply(xyz1, xyz2)
        return torch.mean(dist1)
"""
RAW = "class chamfer_3DDist:\n    def forward(self, a, b):\n        return chamfer_3DFunction.apply(a, b)\n"
STEP = "\n\ndef train(net, x, gt):\n    pred = net(x)\n    loss = {call}\n    loss.backward()\n"
PAIRS = """
def square(a, b):
    return -2 * torch.matmul(a, b.permute(0, 2, 1)) + (a ** 2).sum(-1)[:, :, None] + (b ** 2).sum(-1)[:, None]
"""


def script(head: str, call: str = "chamfer(pred, gt)") -> dict[str, str]:
    return {"main.py": f"import torch\n{head}{STEP.format(call=call)}"}


def defined(body: str, head: str = "") -> dict[str, str]:
    return script(f"{head}\n\ndef chamfer(pred, gt):\n" + "".join(f"    {line}\n" for line in body.split("\n")))


def imported(text: str, call: str = "cd(pred, gt)[0]") -> dict[str, str]:
    return script(text, call)


CD = "cd = training_loss(cd)"
ON_CHAMFER = "'@trains_with_loss' above 'chamfer'"
BY_VALUE = "loss = training_value(loss, pred, gt, label='train')"
SOLE: dict[str, tuple[dict[str, str], list[str]]] = {
    # functions of the script itself
    "cdist": (defined("d = torch.cdist(pred, gt)\nreturn d.min(1)[0].mean() + d.min(2)[0].mean()"), [ON_CHAMFER]),
    "values of min, by name": (
        defined("d = torch.cdist(pred, gt)\nreturn d.min(dim=-1).values.mean() + torch.mean(d.min(dim=-2).values)"),
        [ON_CHAMFER],
    ),
    "amin and a root": (
        defined("d = torch.cdist(pred, gt, p=2)\nreturn (d.amin(1).sqrt().mean() + d.amin(2).sqrt().mean()) / 2"),
        [ON_CHAMFER],
    ),
    "broadcast": (
        defined(
            "d = ((pred.unsqueeze(2) - gt.unsqueeze(1)) ** 2).sum(-1)\none, _ = torch.min(d, 1)\ntwo, _ = torch.min(d, 2)\n"
            "return one.mean(1) + two.mean(1)"
        ),
        ["'@trains_with_loss(per_sample=True)' above 'chamfer'"],
    ),
    "a helper for the square distances": (
        defined("d = square(pred, gt)\nreturn d.min(-1)[0].mean() + d.min(-2)[0].mean()", PAIRS), [ON_CHAMFER],
    ),
    "a function that gives raw distances": (
        script(
            PAIRS + "\n\ndef raw(a, b):\n    d = square(a, b)\n    return torch.min(d, 1)[0], torch.min(d, 2)[0]\n"
            "\n\ndef both(p, q):\n    one, two = raw(p, q)\n    return one.mean() + two.mean()\n", "both(pred, gt)",
        ),
        ["'@trains_with_loss' above 'both'"],
    ),
    "defined inside the training function": (
        {"main.py": "import torch\n\n\ndef train(net, x, gt):\n    def cd(a, b):\n        d = torch.cdist(a, b)\n"
                    "        return d.min(1)[0].mean() + d.min(2)[0].mean()\n    cd(net(x), gt).backward()\n"},
        ["'@trains_with_loss' above 'train.cd'"],
    ),
    "a class that computes, made at the top level": (
        script(
            "class Both(torch.nn.Module):\n    def forward(self, a, b):\n        d = torch.cdist(a, b)\n"
            "        return d.min(1)[0].mean() + d.min(2)[0].mean()\n\n\ncriterion = Both().cuda()\n", "criterion(pred, gt)",
        ),
        ["'criterion = training_loss(criterion)' after 'criterion' in 'the top level'"],
    ),
    "a class that computes, made where it is called": (
        script(
            "class Both(torch.nn.Module):\n    def forward(self, a, b):\n        d = torch.cdist(a, b)\n"
            "        return d.min(1)[0].mean() + d.min(2)[0].mean()\n", "Both()(pred, gt)",
        ),
        ["'@trains_with_loss' above 'Both.forward'"],
    ),
    "in a dict": (
        {"ext.py": EXTENSION, **script("from ext import ChamferDistanceL2\nlosses = {'cd': ChamferDistanceL2()}\n",
                                       "losses['cd'](pred, gt)")},
        ["'@trains_with_loss' above 'ChamferDistanceL2.forward'"],
    ),
    # from elsewhere
    "pytorch3d": (imported("from pytorch3d.loss import chamfer_distance as cd\n"), [f"'{CD}' after 'cd' in 'the top level'"]),
    "pytorch3d, its module": (
        imported("from pytorch3d import loss as p3d\n", "p3d.chamfer_distance(pred, gt)[0]"),
        ["'p3d.chamfer_distance = training_loss(p3d.chamfer_distance)' after 'p3d' in 'the top level'"],
    ),
    "pytorch3d, dotted": (
        imported("import pytorch3d.loss\nimport pytorch3d.ops\n", "pytorch3d.loss.chamfer_distance(pred, gt)[0]"),
        ["'pytorch3d.loss.chamfer_distance = training_loss(pytorch3d.loss.chamfer_distance)' after 'pytorch3d.loss' "
         "in 'the top level'"],
    ),
    "imported in the function": (
        {"main.py": "def train(net, x, gt):\n    from pytorch3d.loss import chamfer_distance as cd\n"
                    "    loss, _ = cd(net(x), gt)\n    loss.backward()\n"},
        [f"'{CD}' after 'cd' in 'train'"],
    ),
    "try and except": (
        imported("try:\n    from pytorch3d.loss import chamfer_distance as cd\nexcept ImportError:\n    cd = None\n"),
        [f"'{CD}' after 'cd' in 'the top level'"],
    ),
    "kept under another name": (
        {"main.py": "from kaolin.metrics.pointcloud import chamfer_distance\n\n\nclass T:\n    def __init__(self):\n"
                    "        self.loss = chamfer_distance\n\n    def train(self, p, gt):\n        self.loss(p, gt).mean().backward()\n"},
        ["'chamfer_distance = training_loss(chamfer_distance)' after 'chamfer_distance' in 'the top level'"],
    ),
    "handed on by a module of the host": (
        {"lib/losses.py": "from pytorch3d.loss import chamfer_distance\n",
         **imported("from lib.losses import chamfer_distance as cd\n")},
        [f"'{CD}' after 'cd' in 'the top level'"],
    ),
    "chamferdist": (
        imported("from chamferdist import ChamferDistance\ncd = ChamferDistance()\n", "cd(pred, gt, bidirectional=True)"),
        [f"'{CD}' after 'cd' in 'the top level'"],
    ),
    "an alias, re-exported, on a path of its own": (
        {"utils/metrics/CD/dist.py": RAW, "utils/metrics/CD/__init__.py": "from .dist import chamfer_3DDist as cd\n",
         "utils/metrics/__init__.py": "from .CD import cd\n",
         "completion/main.py": "import sys\nsys.path.append('../utils')\nfrom metrics import cd\n\n\ndef calc(output, gt):\n"
                               "    made = cd()\n    d1, d2, _, _ = made(gt, output)\n    return d1.mean(1) + d2.mean(1), d1\n"
                               + STEP.format(call="calc(pred, gt)[0].mean()")},
        ["'@trains_with_loss(per_sample=True)' above 'calc'"],
    ),
    "what training takes from a file of metrics": (
        {"utils/metrics.py": defined("d = torch.cdist(pred, gt)\nreturn d.min(1)[0].mean() + d.min(2)[0].mean()")["main.py"]
         .partition("def train")[0], **script("from utils.metrics import chamfer as cd\n", "cd(pred, gt)")},
        [f"'{CD}' after 'cd' in 'the top level'"],
    ),
    # objects
    "one of two classes": (
        {"ext.py": EXTENSION,
         "main.py": "from ext import *\n\n\nclass M:\n    def build(self, l1):\n        if l1:\n            self.f = ChamferDistanceL1()\n"
                    "        else:\n            self.f = ChamferDistanceL2()\n\n    def train(self, p, gt):\n"
                    "        self.f(p, gt).backward()\n"},
        ["'self.f = training_loss(self.f)' after 'self.f' in 'M.build'"] * 2,
    ),
    "two at once": (
        {"ext.py": EXTENSION,
         "main.py": "from ext import ChamferDistanceL2, OneWay\n\n\ndef train(p, gt):\n    a, b = ChamferDistanceL2(), OneWay()\n"
                    "    (a(p, gt) + b(p, gt)).backward()\n"},
        ["'a = training_loss(a)' after '(a, b)' in 'train'"],
    ),
    "by a factory": (
        {"ext.py": EXTENSION, "main.py": "import ext\n\n\ndef make():\n    return ext.ChamferDistanceL2()\n\n\ncd = make()\n"
                                         + STEP.format(call="cd(pred, gt)")},
        [f"'{CD}' after 'cd' in 'the top level'"],
    ),
    "of an unknown object": (
        {"ext.py": EXTENSION, "net.py": "import ext\n\n\nclass Net:\n    def __init__(self):\n        self.rec = ext.ChamferDistanceL2()\n",
         "main.py": "import net\n" + STEP.format(call="net.module.rec(pred, gt)")},
        ["'self.rec = training_loss(self.rec)' after 'self.rec' in 'Net.__init__'"],
    ),
    "handed to a function": (
        {"ext.py": EXTENSION, "main.py": "import ext\n\n\ndef go(f, p, gt):\n    f(p, gt).backward()\n\n\ndef main(p, gt):\n"
                                         "    cd = ext.ChamferDistanceL2()\n    go(cd, p, gt)\n\n\nif __name__ == '__main__':\n"
                                         "    main(0, 0).backward()\n"},
        [f"'{CD}' after 'cd' in 'main'"],
    ),
    "of a class from elsewhere, bound to no name": (
        script("from chamferdist import ChamferDistance\n\n\ndef validate(p, gt):\n    cd = ChamferDistance()\n    return cd(p, gt)\n",
               "ChamferDistance()(pred, gt)"),
        ["'ChamferDistance = training_loss(ChamferDistance)' after 'ChamferDistance' in 'the top level'"],
    ),
    # a tuple of stages
    "stages that are looped over": (
        {"ext.py": EXTENSION,
         "main.py": "from ext import ChamferDistanceL2\ncd = ChamferDistanceL2()\n\n\ndef chamfer(preds, gt):\n"
                    "    return sum(cd(p, gt) for p in preds)\n\n\ndef loop(preds, gt):\n    total = 0\n    for p in preds:\n"
                    "        total = total + cd(p, gt)\n    return total\n" + STEP.format(call="chamfer(pred, gt) + loop(pred, gt)")},
        [f"'{CD}' after 'cd' in 'the top level'"],
    ),
    "stages that are unpacked, of raw distances": (
        {"dist.py": RAW, **script(
            "from dist import chamfer_3DDist\n\n\ndef both(a, b):\n    d1, d2, _, _ = chamfer_3DDist()(a, b)\n    return d1.mean() + d2.mean()\n"
            "\n\ndef chamfer(preds, gt):\n    coarse, fine = preds\n    return both(coarse, gt) + both(preds[1], gt)\n")},
        ["'@trains_with_loss' above 'both'"],
    ),
    # distances that the training function takes apart itself
    "a value in the training function": (
        {"dist.py": RAW, **script("from dist import chamfer_3DDist\n", "0\n    d1, d2, _, _ = chamfer_3DDist()(gt, pred)\n"
                                  "    d2 = torch.sqrt(d2)\n    loss = d1.mean() + d2.mean()")},
        [f"'{BY_VALUE}' after 'loss' in 'train'"],
    ),
    "a value that a further argument weighs": (
        {"dist.py": RAW, **script("from dist import chamfer_3DDist\n\n\ndef both(a, b, radius=1.0):\n    d1, d2, _, _ = chamfer_3DDist()(a, b)\n"
                                  "    cd = d1.mean() + d2.mean()\n    return cd / radius\n", "both(pred, gt, 2.0)")},
        ["'cd = training_value(cd, a, b, label='both')' after 'cd' in 'both'"],
    ),
    # loops of a library
    "Lightning": (
        {"main.py": "from pytorch3d.loss import chamfer_distance as cd\n\n\nclass Net(LightningModule):\n"
                    "    def training_step(self, batch, i):\n        loss, _ = cd(self(batch[0]), batch[1])\n        return loss\n\n"
                    "    def validation_step(self, batch, i):\n        return cd(self(batch[0]), batch[1])[0]\n"},
        [f"'{CD}' after 'cd' in 'the top level'"],
    ),
    "MMEngine": (
        {"main.py": "from chamferdist import ChamferDistance\n\n\n@MODELS.register_module()\nclass Net(BaseModel):\n"
                    "    def __init__(self):\n        self.cd = ChamferDistance()\n\n    def loss(self, p, gt):\n"
                    "        return {'loss': self.cd(p, gt)}\n"},
        ["'self.cd = training_loss(self.cd)' after 'self.cd' in 'Net.__init__'"],
    ),
    "Accelerate": (
        {"ext.py": EXTENSION, "main.py": "from ext import ChamferDistanceL2\n\n\ndef main(accelerator, net, x, gt):\n"
                                         "    cd = ChamferDistanceL2()\n    accelerator.backward(cd(net(x), gt))\n"},
        [f"'{CD}' after 'cd' in 'main'"],
    ),
    "nothing that says how it trains": (
        {"main.py": "from pytorch3d.loss import chamfer_distance as cd\n\n\ndef objective(p, gt):\n    return cd(p, gt)[0]\n\n\n"
                    "def validate(p, gt):\n    return cd(p, gt)[0]\n"},
        [f"'{CD}' after 'cd' in 'the top level'"],
    ),
}  # fmt: skip


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def recognise(root: Path) -> Loops:
    return recognise_project(Project(root.resolve()))


def edits(fork: Loops) -> list[str]:
    return sorted(str(edit) for edit in fork.recipe.edits)


@pytest.mark.parametrize("name", SOLE)
def test_what_is_found(name: str, tmp_path: Path) -> None:
    files, expected = SOLE[name]
    fork = recognise(make(tmp_path, files))
    assert edits(fork) == sorted(expected)
    assert not fork.refused
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.py")}
    known = [fork.recipe]
    write(plan_apply(tmp_path, known, known))
    for path in before:
        compile(path.read_bytes(), path.name, "exec")
    again = recognise(tmp_path)
    assert edits(again) == sorted(expected)  # a patched host looks as it did before
    write(plan_revert(tmp_path, [again.recipe], [again.recipe]))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.py")} == before


@pytest.mark.parametrize(
    ("selected", "part"),
    [
        ("pred[:, :512]", "pred[:, :512]"),
        ("pred[pred.sum(-1).ne(0)].unsqueeze(0)", "pred[pred.sum(-1).ne(0)]"),
        ("pred[:, :, None].squeeze(2)", ""),
    ],
)
def test_a_function_that_measures_a_part_of_a_cloud_is_reported(selected: str, part: str, tmp_path: Path) -> None:
    body = f"pred = {selected}\nd = torch.cdist(pred, gt)\nreturn d.min(1)[0].mean() + d.min(2)[0].mean()"
    fork = recognise(make(tmp_path, defined(body)))
    assert edits(fork) == [ON_CHAMFER]
    assert list(fork.warnings) == (
        [f"main.py:7 chamfer: {part} is only a part of a cloud; another loss gets the whole cloud"] if part else []
    )


def test_a_function_that_measures_something_else_is_not_a_loss(tmp_path: Path) -> None:
    """What it measures is the network's output, not its own argument: a decorator would measure another cloud."""
    body = "out = net(pred)\nd = torch.cdist(out, gt)\nreturn d.min(1)[0].mean() + d.min(2)[0].mean()"
    with pytest.raises(HostError, match=r"main\.py:\d+ chamfer: is called like a Chamfer.*cannot be told"):
        recognise(make(tmp_path, defined(body)))


@pytest.mark.parametrize(
    "body",
    [
        "d = torch.cdist(pred, gt)\nreturn d.min(1)[0].max() + d.min(2)[0].max()",  # Hausdorff
        "return KDTree(pred).query(gt)[0].mean() + KDTree(gt).query(pred)[0].mean()",
        "return (pred - gt).square().mean()",
    ],
)
def test_a_chamfer_by_name_that_cannot_be_read_is_reported(body: str, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"(?s)main\.py:\d+ chamfer: .*training_value.*\n.*training_value\(loss, pred"):
        recognise(make(tmp_path, defined(body)))


def test_a_value_weighed_by_a_further_argument_is_not_replaced(tmp_path: Path) -> None:
    """SnowflakeNet's upsampling: every sample's distances are divided by its radius before they are averaged."""
    body = "d1, d2, _, _ = chamfer_3DDist()(a, b)\n    cd = (d1 + d2).mean(dim=1) / radius\n    cd = cd.mean()\n    return cd\n"
    both = f"from dist import chamfer_3DDist\n\n\ndef both(a, b, radius=1.0):\n    {body}"
    with pytest.raises(HostError, match=r"main\.py:6 both: a further argument takes part in its value"):
        recognise(make(tmp_path, {"dist.py": RAW, **script(both, "both(pred, gt, 2.0)")}))


@pytest.mark.parametrize("place", ["utils/metrics.py", "evaluate.py", "tools/inference.py", "vis/show.py", "test.py"])
def test_files_that_evaluate_get_no_edits(place: str, tmp_path: Path) -> None:
    text = (
        "import torch\nfrom lib.chamfer import ChamferDistance\n\ncd = ChamferDistance()\n\n\ndef measure(p, gt):\n"
        "    return cd(p, gt)\n\n\ndef chamfer(pred, gt, method='cd'):\n    if method == 'cd':\n        d = torch.cdist(pred, gt)\n"
        "        return d.min(1)[0].mean() + d.min(2)[0].mean()\n    elif method == 'kdtree':\n        return 0\n"
    )
    module = place.removesuffix(".py").replace("/", ".")
    files = {**LOCAL, place: text, "core/train.py": f"import {module}\n" + LOCAL["core/train.py"]}
    assert {edit.file for edit in recognise(make(tmp_path, files)).recipe.edits} == {"core/train.py"}


def test_a_string_that_chooses_a_metric_is_ignored(tmp_path: Path) -> None:
    files = {
        "main.py": SHARED["main.py"], "lib/net.py": SHARED["lib/net.py"], "lib/chamfer.py": CHAMFER,
        "lib/losses.py": SHARED["lib/losses.py"] + "\n\ndef distance(p, gt, metric='cd', method='cd'):\n"
        "    if metric == 'cd':\n        return both(p, gt)\n    elif metric == 'emd':\n        return 0\n"
        "    if method == 'tree':\n        return both(p, gt)\n    elif method == 'grid':\n        return 0\n",
    }  # fmt: skip
    files["main.py"] += "\n\ndef other(p, gt):\n    from lib.losses import distance\n    distance(p, gt).backward()\n"
    assert not recognise(make(tmp_path, files)).chains


def test_a_validation_that_records_gradients_keeps_the_hosts_object(tmp_path: Path) -> None:
    text = (
        "\n\ndef check(net, x, gt):\n    net.eval()\n    return chamfer(net(x), gt)\n\n\ndef silent(net, x, gt):\n    net.eval()\n"
        "    with torch.no_grad():\n        return chamfer(net(x), gt)\n"
    )
    files = script("from pytorch3d.loss import chamfer_distance as chamfer\n", "chamfer(pred, gt)[0]")
    files["main.py"] += text
    (only,) = recognise(make(tmp_path, files)).validators
    assert str(only.edit) == "'@keeps_host_loss' above 'check'"


def test_a_phase_that_freezes_a_teacher_still_trains(tmp_path: Path) -> None:
    """It calls `.eval()`, and its `.backward()` is in a helper."""
    text = (
        "\n\ndef step(loss, opt):\n    opt.zero_grad()\n    loss.backward()\n    opt.step()\n\n\n"
        "def distil(net, teacher, x, gt, opt):\n    teacher.eval()\n    step(chamfer(net(x), gt)[0], opt)\n"
    )
    files = script("from pytorch3d.loss import chamfer_distance as chamfer\n", "chamfer(pred, gt)[0]")
    files["main.py"] += text
    assert not recognise(make(tmp_path, files)).validators


def test_distances_inside_a_network_stay(tmp_path: Path) -> None:
    text = (
        "import torch\nfrom ext import chamfer_3DDist, ChamferDistanceL2\n\n\nclass Net(torch.nn.Module):\n    def __init__(self):\n"
        "        self.near, self.cd = chamfer_3DDist(), ChamferDistanceL2()\n\n    def forward(self, x, y):\n"
        "        d1, d2, i1, i2 = self.near(x, y)\n        scale = d1.mean() + d2.mean()\n        return x * scale\n"
        "\n\nnet = Net()\n" + STEP.replace("net, ", "").format(call="net.cd(pred, gt)")
    )  # fmt: skip
    fork = recognise(make(tmp_path, {"ext.py": EXTENSION + RAW, "main.py": text}))
    assert edits(fork) == ["'self.cd = training_loss(self.cd)' after '(self.near, self.cd)' in 'Net.__init__'"]
    assert [str(kept) for kept in fork.kept] == ["main.py:10 Net.forward: self.near is used inside the network"]


def test_one_direction_and_renamed_classes(tmp_path: Path) -> None:
    text = "from ext import *\n\n\ndef train(p, gt):\n    a = ChamferDistanceL1()\n    b = OneWay()\n    (a(p, gt) + b(p, gt)).backward()\n"
    fork = recognise(make(tmp_path, {"ext.py": EXTENSION, "main.py": text}))
    assert [str(site) for site in fork.sites] == ["main.py:5 train, a: ChamferDistanceL1 object, one number"]
    assert [str(kept) for kept in fork.kept] == [
        "main.py:6 train, b: OneWay measures one direction only (partial matching)"
    ]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("torch.arccosh(1 + chamfer(pred, gt))", True),
        ("0\n    cd = chamfer(pred, gt)\n    loss = torch.log(cd * 10)", True),
        ("1 / chamfer(pred, gt)", True),
        ("chamfer(pred, gt) ** 2", True),
        ("10 * chamfer(pred, gt) / 3 + 1", False),
        ("chamfer(pred, gt)\n    print(torch.sqrt(loss.detach()))", False),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_nonlinear_arithmetic_is_reported(call: str, told: bool, own: bool, tmp_path: Path) -> None:
    head = (
        "def chamfer(a, b):\n    d = torch.cdist(a, b)\n    return d.min(1)[0].mean() + d.min(2)[0].mean()\n"
        if own
        else "from chamferdist import ChamferDistance\nchamfer = ChamferDistance()\n"
    )
    fork = recognise(make(tmp_path, script(head, call)))
    assert bool(fork.warnings) == told
    assert all(text.startswith("main.py:") and "is not linear" in text for text in fork.warnings)


REGISTRY = {
    "models/build.py": "MODELS = Registry('models')\n\n\ndef build(cfg):\n    return MODELS.build(cfg)\n",
    "models/net.py": "import torch\nfrom ext import ChamferDistanceL2\nfrom .build import MODELS\nfrom .losses import both, shared\n\n\n"
                     "@MODELS.register_module()\nclass Net(torch.nn.Module):\n    def __init__(self):\n"
                     "        self.loss_func = ChamferDistanceL2()\n\n    def get_loss(self, ret, gt):\n"
                     "        return self.loss_func(ret, gt) + both(ret, gt) + shared(ret, gt)\n",
    "models/losses.py": "import torch\nfrom ext import ChamferDistanceL2\n\nshared = ChamferDistanceL2()\n\n\ndef both(a, b):\n"
                        "    d = torch.cdist(a, b)\n    return d.min(1)[0].mean() + d.min(2)[0].mean()\n",
    "ext.py": EXTENSION,
    "tools/runner.py": "from models.build import build\n\n\ndef run(cfg, x, gt):\n    net = build(cfg)\n    net.get_loss(net(x), gt).backward()\n",
    "other/main.py": "import importlib\n" + script("from pytorch3d.loss import chamfer_distance as cd\n", "cd(pred, gt)[0]")["main.py"],
}  # fmt: skip


def test_two_kinds_of_hosts_in_one_clone(tmp_path: Path) -> None:
    project = Project(make(tmp_path, REGISTRY))
    theirs = {("models/build.py", "build"), ("models/net.py", "Net")}
    loop = search(project, without=theirs)
    assert edits(loop) == [f"'{CD}' after 'cd' in 'the top level'"]
    assert loop.loops == ("other/main.py:6 train",)
    assert edits(sites_for(project, [("models/net.py", "Net")])) == [
        "'@trains_with_loss' above 'both'", "'shared = training_loss(shared)' after 'shared' in 'the top level'",
    ]  # fmt: skip
    (tmp_path / "other" / "main.py").unlink()
    assert not search(Project(tmp_path), without=theirs).recipe.edits


def test_a_file_that_cannot_be_read_is_reported_and_counted(tmp_path: Path) -> None:
    make(tmp_path, LOCAL)
    (tmp_path / "deep.py").write_text("x = " + "+".join(["1"] * 3000) + "\n")
    (tmp_path / "deeper.py").write_text("x = " + "(" * 50_000 + ")" * 50_000 + "\n")
    (tmp_path / "large.py").write_text("x = 1\n" * 200_000)
    (tmp_path / "wrong.py").write_text("def f(:\n")
    (tmp_path / "null.py").write_bytes(b"\0")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "out.py").symlink_to(__file__)
    fork = recognise(tmp_path)
    assert fork.count == len(LOCAL) + 7
    for name, why in {
        "deep": "nested too deeply", "deeper": "", "large": "", "wrong": "line 1 is not valid Python", "null": "",
        "pipe": "", "out": "link out of",
    }.items():  # fmt: skip
        assert any(text.startswith(f"{name}.py") and why in text for text in fork.broken), (name, fork.broken)
    (tmp_path / "core" / "train.py").write_text("def train(net, x, gt):\n    (net(x) - gt).mean().backward()\n")
    for file in LOCAL:
        if file != "core/train.py":
            (tmp_path / file).write_text("x = 1\n")
    with pytest.raises(HostError, match=f"Looked through {len(LOCAL) + 7} Python files"):
        recognise(tmp_path)


def test_inserted_lines_import_from_one_cheap_module() -> None:
    code = "import sys, apml_plugin.hooks as h; print('torch' in sys.modules, all(hasattr(h, n) for n in h.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False True\n", done.stderr
