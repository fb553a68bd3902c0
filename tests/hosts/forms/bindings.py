"""Forms by how the author holds the Chamfer: on a model, in a container, behind another name, made by a function."""

from __future__ import annotations

import torch

from .building import STOPS, Form
from .places import CHAMFER_L1, NET, POINTR_MAIN, POINTR_PARTS

LOOP = """
import torch
from net import Net
{imports}

torch.manual_seed(0)
net = Net()
{setup}
optimizer = torch.optim.SGD(net.parameters(), lr={lr})


def train_one_epoch():
    net.train()
    for i in range(3):
        x = torch.rand(2, 16, 3)
        gt = torch.rand(2, 24, 3)
        out = net(x)
{loss}
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


train_one_epoch()
torch.save(net.state_dict(), 'weights.pth')
"""


def loop(imports: str = "", setup: str = "", loss: str = "", lr: float = 0.1, files: dict[str, str] | None = None,
         **rest: object) -> Form:  # fmt: skip
    """The plainest loop of all, with the lines that matter in it."""
    indented = "\n".join("        " + line for line in loss.splitlines())
    script = LOOP.format(imports=imports, setup=setup, loss=indented, lr=lr)
    return Form(files={"net.py": NET, "main.py": script, **(files or {})}, lr=lr, **rest)  # type: ignore[arg-type]


def pointr(name: str, model: str, **rest: object) -> Form:
    """A PoinTr-style clone with one model; the main script is that of PoinTr, cut short."""
    files = {
        **POINTR_PARTS,
        "main.py": POINTR_MAIN,
        "models/__init__.py": f"from .build import build_model_from_cfg\nfrom . import {name}\n",
        f"models/{name}.py": model,
        f"cfgs/{name}.yaml": f"lr: 0.1\nsteps: 3\nmodel: {{NAME: {name}, weight: 1.0}}\n",
        **rest.pop("files", {}),  # type: ignore[dict-item]
    }
    return Form(files=files, words=("main.py", "--config", f"cfgs/{name}.yaml"), **rest)  # type: ignore[arg-type]


_BY_HAND = ("import torch\n", "import torch\nfrom apml_plugin.hooks import training_value\n")
CHAMFER = {"losses/__init__.py": "", "losses/chamfer.py": CHAMFER_L1}
FUNCTIONS = {
    "losses.py": """
import torch

__all__ = ['chamfer_l1', 'chamfer_l2', 'chamfer_p']


def chamfer_l1(a, b):
    d = torch.cdist(a, b)
    return (d.min(2)[0].mean() + d.min(1)[0].mean()) / 2


def chamfer_l2(a, b):
    d = torch.cdist(a, b).square()
    return d.min(2)[0].mean() + d.min(1)[0].mean()


def chamfer_p(a, b, norm=1):
    d = torch.cdist(a, b).pow(norm)
    return d.min(2)[0].mean() + d.min(1)[0].mean()
"""
}
RAW = {
    "chamfer_python.py": """
import torch


class chamfer_3DDist(torch.nn.Module):
    def forward(self, input1, input2):
        d = torch.cdist(input1, input2).square()
        dist1, idx1 = d.min(2)
        dist2, idx2 = d.min(1)
        return dist1, dist2, idx1.int(), idx2.int()
"""
}

# SymmCompletion's form: made in __init__, one call in a loop over the stages
MADE_IN_INIT = pointr(
    "Symm",
    """
import torch
import torch.nn as nn
from extensions.chamfer_dist import ChamferDistanceL1
from .build import MODELS


@MODELS.register_module()
class Symm(nn.Module):
    def __init__(self, config, **kwargs):
        super().__init__()
        self.head = nn.Linear(3, 3)
        self.loss_func = ChamferDistanceL1()

    def get_loss(self, rets, gt):
        loss_total = 0
        for pcd in rets:
            loss_total += self.loss_func(pcd, gt)
        return [loss_total]

    def forward(self, xyz):
        fine = self.head(xyz)
        return [fine[:, ::4].contiguous(), fine[:, ::2].contiguous(), fine]
""",
    stages=(4, 2, 1),
)

# Partial2Complete's form: two criteria and weights from a method of its own name, the truth first
LOSSFNC_AND_WEIGHTS = pointr(
    "Recon",
    """
import torch
from torch import nn
from extensions.chamfer_dist import ChamferDistanceL2
from .build import MODELS


@MODELS.register_module()
class Recon(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.generator = nn.Linear(3, 3)
        self._get_lossfnc_and_weights(config)

    def _get_lossfnc_and_weights(self, config):
        # define loss functions
        self.shape_criterion = ChamferDistanceL2()
        self.latent_criterion = nn.SmoothL1Loss(reduction='mean')
        self.shape_weight = config.weight * 2

    def get_loss(self, pts, gt):
        rebuilt = self.generator(pts)
        shape_loss = self.shape_weight * self.shape_criterion(gt.reshape(2, -1, 3), rebuilt).mean()
        latent_loss = 0.0 * self.latent_criterion(rebuilt, pts)
        return shape_loss, latent_loss

    def forward(self, pts):
        return pts
""",
    total=lambda values: 2 * values[0],
)

# Point-M2AE's form: `rec_loss` made in __init__, forward gives the loss; no build_loss_func, no get_loss
REC_LOSS = pointr(
    "MAE",
    """
import torch.nn as nn
from extensions.chamfer_dist import ChamferDistanceL2
from .build import MODELS


@MODELS.register_module()
class MAE(nn.Module):

    def __init__(self, config):
        super().__init__()
        self.decoder = nn.Linear(3, 3)
        # loss
        self.rec_loss = ChamferDistanceL2()

    def forward(self, pts, gt, eval=False):
        rebuild = self.decoder(pts)
        if eval:
            return rebuild
        return self.rec_loss(rebuild, gt)
""",
    files={
        "main.py": """
import torch
from models import build_model_from_cfg
from utils.config import cfg_from_yaml_file

config = cfg_from_yaml_file('cfgs/MAE.yaml')
torch.manual_seed(0)
base_model = build_model_from_cfg(config.model)
optimizer = torch.optim.SGD(base_model.parameters(), lr=config.lr)
base_model.zero_grad()
for idx in range(config.steps):
    loss = base_model(torch.rand(2, 16, 3), torch.rand(2, 24, 3))
    loss.backward()
    optimizer.step()
    base_model.zero_grad()
torch.save({'base_model': base_model.state_dict()}, 'weights.pth')
"""
    },
)

# MVP_Benchmark's form: `from metrics import cd` is an alias of a raw class; vectors per sample, in two norms
ALIAS_PER_SAMPLE = Form(
    files={
        "utils/metrics.py": "from ChamferDistancePytorch.dist_chamfer import chamfer_3DDist as cd\n",
        "utils/ChamferDistancePytorch/__init__.py": "",
        "utils/ChamferDistancePytorch/dist_chamfer.py": RAW["chamfer_python.py"],
        "completion/model_utils.py": """
import sys
import torch

sys.path.append("../utils")
from metrics import cd


def calc_cd(output, gt, calc_f1=False):
    cham_loss = cd()
    dist1, dist2, _, _ = cham_loss(gt, output)
    cd_p = (torch.sqrt(dist1).mean(1) + torch.sqrt(dist2).mean(1)) / 2
    cd_t = (dist1.mean(1) + dist2.mean(1))
    return cd_p, cd_t
""",
        "completion/models/pcn.py": """
import torch.nn as nn
from model_utils import calc_cd


class Model(nn.Module):
    def __init__(self, args):
        super(Model, self).__init__()
        self.decoder = nn.Linear(3, 3)
        self.train_loss = args['loss']

    def forward(self, x, gt, is_training=True):
        out1 = self.decoder(x)
        out2 = out1[:, ::2, :].contiguous()
        if is_training:
            if self.train_loss == 'cd':
                loss1, _ = calc_cd(out1, gt)
                loss2, _ = calc_cd(out2, gt)
            else:
                raise NotImplementedError('Train loss is either CD or EMD!')
            total_train_loss = loss1.mean() + loss2.mean() * 0.5
            return out2, loss2, total_train_loss
        cd_p, cd_t = calc_cd(out1, gt)
        return {'out1': out1, 'cd_p': cd_p, 'cd_t': cd_t}
""",
        "completion/train.py": """
import importlib
import torch

torch.manual_seed(0)
args = {'model_name': 'models.pcn', 'loss': 'cd', 'lr': 0.1}
net = importlib.import_module(args['model_name']).Model(args)
optimizer = torch.optim.SGD(net.parameters(), lr=args['lr'])


def train():
    for i in range(3):
        optimizer.zero_grad()
        inputs, gt = torch.rand(2, 16, 3), torch.rand(2, 24, 3)
        out2, loss2, net_loss = net(inputs, gt)
        net_loss.backward(torch.squeeze(torch.ones(1)))
        optimizer.step()
    torch.save({'net_state_dict': net.state_dict()}, 'weights.pth')


def val():
    net.eval()
    with torch.no_grad():
        result = net(torch.linspace(0, 1, 96).view(2, 16, 3), torch.linspace(1, 0, 144).view(2, 24, 3), False)
    print('val', result['cd_p'].mean().item(), result['cd_t'].mean().item())


train()
val()
""",
        "completion/test.py": """
import importlib
import torch

net = importlib.import_module('models.pcn').Model({'loss': 'cd'})
net.load_state_dict(torch.load('weights.pth')['net_state_dict'])
net.eval()
with torch.no_grad():
    result = net(torch.linspace(0, 1, 96).view(2, 16, 3), torch.linspace(1, 0, 144).view(2, 24, 3), False)
print('val', result['cd_p'].mean().item(), result['cd_t'].mean().item())
""",
    },
    words=("train.py",),
    cwd="completion",
    weights="completion/weights.pth",
    stages=(1, 2),
    total=lambda values: values[0] + 0.5 * values[1],
    evaluation="test.py",
)

# ODGNet's form: a class chosen by if/else
CHOSEN_CLASS = loop(
    "import json\nfrom losses.chamfer import ChamferDistanceL1, ChamferDistanceL2",
    """
cfg = json.load(open('config.json'))
if cfg['loss'] == 'cdl1':
    loss_func = ChamferDistanceL1()
elif cfg['loss'] == 'cdl2':
    loss_func = ChamferDistanceL2()
else:
    raise Exception('unknown loss ' + cfg['loss'])
""",
    "loss = loss_func(out, gt)",
    files={**CHAMFER, "config.json": '{"loss": "cdl2", "orth_weight": 0.1}\n'},
    kept=("config.json",),
)

STAGES_IN_A_LOOP = loop(
    "from losses.chamfer import ChamferDistanceL1",
    "chamfer_dist = ChamferDistanceL1()",
    """preds = [out[:, ::4].contiguous(), out[:, ::2].contiguous(), out]
loss = 0.
for p in preds:
    loss = loss + chamfer_dist(p, gt)""",
    files=CHAMFER,
    stages=(4, 2, 1),
)

# What the training calls takes all stages at once
TUPLE_OF_STAGES = loop(
    "from losses.multi import multistage_chamfer",
    loss="loss = multistage_chamfer((out[:, ::2], out), gt)",
    files={
        **CHAMFER,
        "losses/multi.py": """
from .chamfer import ChamferDistanceL2

cd = ChamferDistanceL2()


def multistage_chamfer(pred, gt):
    coarse, fine = pred
    return cd(coarse, gt) + cd(fine, gt)
""",
    },
    stages=(2, 1),
)

# The same with nothing that could be called below it: the whole Chamfer is in the function
TUPLE_ALL_IN_ONE = loop(
    "from losses import chamfer_stages",
    loss="loss = chamfer_stages((out[:, ::2], out), gt)",
    files={
        "losses.py": """
import torch


def chamfer_stages(preds, target):
    total = 0
    for pred in preds:
        d = torch.cdist(pred, target)
        total = total + d.min(2)[0].mean() + d.min(1)[0].mean()
    return total
"""
    },
    run=STOPS,
    patch=STOPS,
    stages=(2, 1),
    by_hand={
        "losses.py": (
            _BY_HAND,
            (
                "total = total + d.min(2)[0].mean() + d.min(1)[0].mean()",
                "loss = d.min(2)[0].mean() + d.min(1)[0].mean()\n"
                "        loss = training_value(loss, pred, target)\n"
                "        total = total + loss",
            ),
        )
    },
)

TRUTH_FIRST = loop(
    "from losses.chamfer import ChamferDistanceL1",
    "criterion = ChamferDistanceL1()",
    "loss = criterion(gt, out)",
    files=CHAMFER,
)

DICT_ON_A_MODEL = Form(
    files={
        **CHAMFER,
        "model.py": """
import torch
from losses.chamfer import ChamferDistanceL1


class Completer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 3)
        self.losses = {'cd': ChamferDistanceL1(), 'mse': torch.nn.MSELoss()}
        self.weights = {'cd': 1.0, 'mse': 0.0}

    def forward(self, x):
        return self.fc(x)

    def compute_loss(self, out, batch):
        losses = {}
        losses['cd'] = self.losses['cd'](out, batch['gt'])
        losses['mse'] = self.losses['mse'](out, batch['x'])
        return sum(self.weights[k] * v for k, v in losses.items()), losses
""",
        "main.py": """
import torch
from model import Completer

torch.manual_seed(0)
model = Completer()
opt = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    batch = dict(x=torch.rand(2, 16, 3), gt=torch.rand(2, 24, 3))
    loss, parts = model.compute_loss(model(batch['x']), batch)
    opt.zero_grad()
    loss.backward()
    opt.step()
torch.save(model.state_dict(), 'weights.pth')
""",
    }
)

_CONTAINER = """
import torch
from torch import nn
from losses.chamfer import ChamferDistanceL1, ChamferDistanceL2


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        {held}

    def forward(self, x, gt=None):
        y = self.layer(x)
        if gt is None:
            return y
        return sum(f(y, gt) for f in {used})


def run():
    torch.manual_seed(0)
    m = Model()
    o = torch.optim.SGD(m.parameters(), lr=0.1)
    for _ in range(3):
        o.zero_grad()
        m(torch.rand(2, 16, 3), torch.rand(2, 24, 3)).backward()
        o.step()
    torch.save(m.state_dict(), 'weights.pth')


run()
"""
LIST_ON_A_MODEL = Form(
    files={**CHAMFER, "main.py": _CONTAINER.format(held="self.crits = [ChamferDistanceL2()]", used="self.crits")}
)
MODULE_DICT = Form(
    files={
        **CHAMFER,
        "main.py": _CONTAINER.format(
            held='self.loss_dict = nn.ModuleDict({"l1": ChamferDistanceL1(), "l2": ChamferDistanceL2()})',
            used="self.loss_dict.values()",
        ),
    },
    stages=(1, 1),
    lr=0.1,
)

PARTIAL = loop(
    "import functools\nfrom losses import chamfer_p",
    "criterion = functools.partial(chamfer_p, norm=2)",
    "loss = criterion(out, gt)",
    files=FUNCTIONS,
)

LAMBDA = loop(
    "from chamfer_python import chamfer_3DDist",
    "dist_fn = chamfer_3DDist()\nchamfer_loss = lambda a, b: sum(d.mean() for d in dist_fn(a, b)[:2])",
    "loss = chamfer_loss(out, gt)",
    files=RAW,
)

DATACLASS = Form(
    files={
        **CHAMFER,
        "main.py": """
from dataclasses import dataclass, field
import torch
from losses.chamfer import ChamferDistanceL1


@dataclass
class Experiment:
    lr: float = 0.1
    steps: int = 3
    criterion: torch.nn.Module = field(default_factory=ChamferDistanceL1)

    def fit(self):
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 3)
        opt = torch.optim.SGD(net.parameters(), lr=self.lr)
        for _ in range(self.steps):
            opt.zero_grad(set_to_none=True)
            pred = net(torch.rand(2, 16, 3))
            self.criterion(pred, torch.rand(2, 24, 3)).backward()
            opt.step()
        return net


if __name__ == '__main__':
    torch.save(Experiment().fit().state_dict(), 'weights.pth')
""",
    }
)

FACTORY = loop(
    "from losses.factory import build_criterion",
    "cfg = {'loss': {'name': 'cd_l2', 'kwargs': {}}}\ncriterion = build_criterion(cfg['loss'])",
    "loss = criterion(out, gt)",
    files={
        **CHAMFER,
        "losses/factory.py": """
from . import chamfer

_LOSSES = {'cd_l1': chamfer.ChamferDistanceL1, 'cd_l2': chamfer.ChamferDistanceL2}


def build_criterion(cfg):
    name = cfg['name']
    if name not in _LOSSES:
        raise KeyError(name)
    return _LOSSES[name](**cfg.get('kwargs', {}))
""",
    },
)

# A Hydra-like _target_: the class is named in a config alone
BY_NAME = loop(
    "import importlib, yaml",
    """
def instantiate(node):
    module, _, name = node['_target_'].rpartition('.')
    return getattr(importlib.import_module(module), name)()

criterion = instantiate(yaml.safe_load(open('conf.yaml'))['criterion'])
""",
    "loss = criterion(out, gt)",
    files={**CHAMFER, "conf.yaml": "criterion:\n  _target_: losses.chamfer.ChamferDistanceL1\n"},
    kept=("conf.yaml",),
)

IMPORT_IN_A_FUNCTION = Form(
    files={
        **FUNCTIONS,
        "net.py": NET,
        "main.py": """
def main():
    import torch
    from net import Net
    from losses import chamfer_l1
    torch.manual_seed(0)
    net = Net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        out = net(torch.rand(2, 16, 3))
        loss = chamfer_l1(out, torch.rand(2, 24, 3))
        opt.zero_grad()
        loss.backward()
        opt.step()
    torch.save(net.state_dict(), 'weights.pth')


main()
""",
    }
)

STAR_IMPORT = loop("from losses import *", loss="loss = chamfer_l1(out, gt)", files=FUNCTIONS)

DATA_PARALLEL = loop(
    "from losses.chamfer import ChamferDistanceL1",
    "criterion = torch.nn.DataParallel(ChamferDistanceL1())\nnet = torch.nn.DataParallel(net)",
    "loss = criterion(out, gt).mean()",
    files=CHAMFER,
)

# Clouds (B, 3, N) until the loss
COORDINATES_FIRST = loop(
    "from utils.cd import ChamferLoss",
    "criterion = ChamferLoss()",
    "out = out.permute(0, 2, 1).contiguous()\ngt = gt.permute(0, 2, 1).contiguous()\nloss = criterion(out, gt)",
    files={
        "utils/__init__.py": "",
        "utils/cd.py": """
import torch


class ChamferLoss(torch.nn.Module):
    def forward(self, preds, gts):  # B x 3 x N
        P = self.batch_pairwise_dist(gts.transpose(1, 2), preds.transpose(1, 2))
        return torch.mean(torch.min(P, 1)[0]) + torch.mean(torch.min(P, 2)[0])

    def batch_pairwise_dist(self, x, y):
        xx, yy, zz = x.pow(2).sum(2), y.pow(2).sum(2), torch.bmm(x, y.transpose(2, 1))
        return xx.unsqueeze(2) + yy.unsqueeze(1) - 2 * zz
""",
    },
)

# AnchorFormer's form: `loss:` at the top of the YAML is a mapping of the host's own weights
OWN_LOSS_MAPPING = loop(
    "import yaml\nfrom losses.chamfer import ChamferDistanceL1",
    "cfg = yaml.safe_load(open('cfgs/anchor.yaml'))\ncd = ChamferDistanceL1()",
    """sparse_loss = cd(out[:, ::4], gt)
dense_loss = cd(out, gt)
loss = cfg['loss']['sparse'] * sparse_loss + cfg['loss']['dense'] * dense_loss""",
    files={**CHAMFER, "cfgs/anchor.yaml": "loss:\n  sparse: 0.25\n  dense: 1.0\n"},
    kept=("cfgs/anchor.yaml",),
    stages=(4, 1),
    total=lambda values: 0.25 * values[0] + values[1],
)

# PCDreamer's form
ARCCOSH = loop(
    "from losses import chamfer_l1",
    loss="loss = torch.arccosh(1 + chamfer_l1(out, gt))",
    files=FUNCTIONS,
    total=lambda values: torch.arccosh(1 + values[0]),
)

TIMES_THOUSAND = loop(
    "from losses.chamfer import ChamferDistanceL1",
    "chamfer = ChamferDistanceL1()",
    "loss = 1000 * chamfer(out, gt)\n# loss = chamfer(out, gt) * 1e3",
    lr=0.0001,
    files=CHAMFER,
    total=lambda values: 1000 * values[0],
)

# Written out in the script: nothing has a name that could be replaced
WRITTEN_OUT = loop(
    loss="d = torch.cdist(out, gt)\nloss = d.min(2)[0].mean() + d.min(1)[0].mean()",
    run=STOPS,
    patch=STOPS,
    by_hand={
        "main.py": (
            _BY_HAND,
            (
                "loss = d.min(2)[0].mean() + d.min(1)[0].mean()\n",
                "loss = d.min(2)[0].mean() + d.min(1)[0].mean()\n        loss = training_value(loss, out, gt)\n",
            ),
        )
    },
)

# Raw distances averaged where they are used
RAW_IN_THE_SCRIPT = loop(
    "from chamfer_python import chamfer_3DDist",
    "chamLoss = chamfer_3DDist()",
    "dist1, dist2, idx1, idx2 = chamLoss(out, gt)\nloss = (torch.mean(dist1)) + (torch.mean(dist2))",
    files=RAW,
)

CHAMFER_LOSS_MODULE = Form(
    files={
        "main.py": """
import torch
import torch.nn as nn
import torch.nn.functional as F


class ChamferLoss(nn.Module):
    def __init__(self, use_sqrt=False):
        super(ChamferLoss, self).__init__()
        self.use_sqrt = use_sqrt

    def forward(self, pred, target):
        dist = torch.cdist(pred, target, p=2)
        if not self.use_sqrt:
            dist = dist ** 2
        return dist.min(dim=-1)[0].mean(dim=-1).mean() + dist.min(dim=-2)[0].mean(dim=-1).mean()


def evaluate(model, metric):
    # no torch.no_grad() here
    model.eval()
    metric = metric(model(torch.linspace(0, 1, 96).view(2, 16, 3)), torch.linspace(1, 0, 144).view(2, 24, 3))
    print('val', metric.item())


def main():
    torch.manual_seed(0)
    model, criterion = nn.Linear(3, 3), ChamferLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        x, y = torch.rand(2, 16, 3), torch.rand(2, 24, 3)
        loss = criterion(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), 'weights.pth')
    evaluate(model, ChamferLoss())


if __name__ == "__main__":
    main()
""",
        "eval.py": """
import torch
from main import ChamferLoss, evaluate
net = torch.nn.Linear(3, 3)
net.load_state_dict(torch.load('weights.pth'))
evaluate(net, ChamferLoss())
""",
    },
    evaluation="eval.py",
)

# Validation that records gradients, with the function that trains
VALIDATION_WITH_GRADIENTS = Form(
    files={
        "net.py": NET,
        **FUNCTIONS,
        "main.py": """
import torch
from losses import chamfer_l1
from net import Net


def train(net, opt):
    net.train()
    for _ in range(3):
        loss = chamfer_l1(net(torch.rand(2, 16, 3)), torch.rand(2, 24, 3))
        opt.zero_grad()
        loss.backward()
        opt.step()


def validate(net):
    net.eval()
    pred = net(torch.linspace(0, 1, 96).view(2, 16, 3))
    cd = chamfer_l1(pred, torch.linspace(1, 0, 144).view(2, 24, 3))
    print('val', cd.item())


if __name__ == '__main__':
    torch.manual_seed(0)
    net = Net()
    train(net, torch.optim.SGD(net.parameters(), lr=0.1))
    validate(net)
    torch.save(net.state_dict(), 'weights.pth')
""",
        "eval.py": """
import torch
from main import validate
from net import Net
net = Net()
net.load_state_dict(torch.load('weights.pth'))
validate(net)
""",
    },
    evaluation="eval.py",
)

STATIC_METHOD = loop(
    "from utils import PointUtils",
    loss="loss = PointUtils.chamfer(pc_a=out, pc_b=gt)",
    files={
        "utils.py": """
import torch


class PointUtils:
    @staticmethod
    def chamfer(pc_a, pc_b):
        d = torch.cdist(pc_a, pc_b)
        return torch.amin(d, 1).mean() + torch.amin(d, 2).mean()
"""
    },
)

SUBCLASS = loop(
    "from losses.weighted import CompletionLoss",
    "criterion = CompletionLoss(weight=2.0)",
    "loss = criterion(out, gt)",
    lr=0.05,
    files={
        **CHAMFER,
        "losses/weighted.py": """
from losses.chamfer import ChamferDistanceL1


class CompletionLoss(ChamferDistanceL1):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, pred, gt):
        return self.weight * super().forward(pred, gt)
""",
    },
    total=lambda values: 2 * values[0],
)

PASSED_AS_ARGUMENT = Form(
    files={
        **FUNCTIONS,
        "engine.py": """
def fit(net, loader, optimizer, loss_fn):
    for x, gt in loader:
        optimizer.zero_grad()
        loss = loss_fn(net(x), gt)
        loss.backward()
        optimizer.step()
""",
        "main.py": """
import torch
import losses
from engine import fit


def loader():
    for _ in range(3):
        yield torch.rand(2, 16, 3), torch.rand(2, 24, 3)


torch.manual_seed(0)
net = torch.nn.Linear(3, 3)
fit(net, loader(), torch.optim.SGD(net.parameters(), lr=0.1), losses.chamfer_l2)
torch.save(net.state_dict(), 'weights.pth')
""",
    }
)

FORMS = {
    "made_in_init_loop_over_stages": MADE_IN_INIT,
    "get_lossfnc_and_weights": LOSSFNC_AND_WEIGHTS,
    "rec_loss_in_init": REC_LOSS,
    "alias_of_a_raw_class_per_sample": ALIAS_PER_SAMPLE,
    "class_chosen_by_if": CHOSEN_CLASS,
    "stages_in_a_loop": STAGES_IN_A_LOOP,
    "tuple_of_stages": TUPLE_OF_STAGES,
    "tuple_of_stages_all_in_one": TUPLE_ALL_IN_ONE,
    "truth_first": TRUTH_FIRST,
    "dict_on_a_model": DICT_ON_A_MODEL,
    "list_on_a_model": LIST_ON_A_MODEL,
    "module_dict": MODULE_DICT,
    "functools_partial": PARTIAL,
    "lambda_over_raw_distances": LAMBDA,
    "field_of_a_dataclass": DATACLASS,
    "factory_function": FACTORY,
    "class_named_in_a_config": BY_NAME,
    "import_in_a_function": IMPORT_IN_A_FUNCTION,
    "star_import": STAR_IMPORT,
    "data_parallel": DATA_PARALLEL,
    "coordinates_first": COORDINATES_FIRST,
    "own_loss_mapping_in_the_yaml": OWN_LOSS_MAPPING,
    "arccosh_around_the_call": ARCCOSH,
    "times_a_thousand": TIMES_THOUSAND,
    "cdist_written_out_in_the_script": WRITTEN_OUT,
    "raw_distances_in_the_script": RAW_IN_THE_SCRIPT,
    "chamfer_loss_module_in_the_script": CHAMFER_LOSS_MODULE,
    "validation_that_records_gradients": VALIDATION_WITH_GRADIENTS,
    "static_method": STATIC_METHOD,
    "subclass_of_a_chamfer": SUBCLASS,
    "passed_as_an_argument": PASSED_AS_ARGUMENT,
}
