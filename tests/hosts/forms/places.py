"""Forms by where the script and its Chamfer lie: subfolders, the script itself, what else lies in the clone."""

from __future__ import annotations

import torch

from .building import EITHER, Form

CHAMFER_L1 = """
import torch
import torch.nn as nn


class ChamferDistanceL1(nn.Module):
    def forward(self, xyz1, xyz2):
        dist = torch.cdist(xyz1, xyz2)
        return (dist.min(2)[0].mean() + dist.min(1)[0].mean()) / 2


class ChamferDistanceL2(nn.Module):
    def forward(self, xyz1, xyz2):
        dist = torch.cdist(xyz1, xyz2) ** 2
        return dist.min(2)[0].mean() + dist.min(1)[0].mean()
"""

NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.move = torch.nn.Linear(3, 3)

    def forward(self, x):
        return self.move(x)
"""

# A ZIP download: no .git, the script in tools/, packages at the root
SUBFOLDER_ZIP = Form(
    files={
        "README.md": "# Completion\n\n    python tools/main.py\n",
        "models/__init__.py": "from .completion import CompletionNet\n",
        "models/chamfer.py": CHAMFER_L1,
        "models/completion.py": """
import torch.nn as nn
from .chamfer import ChamferDistanceL2


class CompletionNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.criterion = ChamferDistanceL2()

    def forward(self, partial):
        return self.fc(partial)

    def loss(self, out, gt):
        return self.criterion(out, gt)
""",
        "tools/main.py": """
import os
import sys

BASE_DIR = os.path.dirname(os.path.abspath(__file__))
ROOT_DIR = os.path.dirname(BASE_DIR)
sys.path.insert(0, ROOT_DIR)

import torch
from models import CompletionNet


def main():
    torch.manual_seed(0)
    net = CompletionNet()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for it in range(3):
        partial = torch.rand(2, 16, 3)
        gt = torch.rand(2, 24, 3)
        optimizer.zero_grad()
        loss = net.loss(net(partial), gt)
        loss.backward()
        optimizer.step()
    torch.save({'epoch': 1, 'model': net.state_dict()}, os.path.join(ROOT_DIR, 'weights.pth'))


if __name__ == '__main__':
    main()
""",
        "tools/test.py": """
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import torch
from models import CompletionNet
net = CompletionNet()
net.load_state_dict(torch.load('weights.pth')['model'])
net.eval()
x = torch.linspace(0, 1, 96).view(2, 16, 3)
gt = torch.linspace(1, 0, 144).view(2, 24, 3)
with torch.no_grad():
    print('val', net.loss(net(x), gt).item())
""",
    },
    words=("tools/main.py",),
    evaluation="tools/test.py",
)

# Everything started from within the subfolder, the rest reached by sys.path.append("..")
SUBFOLDER_PARENT = Form(
    files={
        "utils/__init__.py": "",
        "utils/loss_utils.py": CHAMFER_L1,
        "completion/model.py": NET,
        "completion/train.py": """
import sys
sys.path.append("..")
import argparse
import torch
import torch.optim as optim
from model import Net
from utils.loss_utils import ChamferDistanceL1

parser = argparse.ArgumentParser()
parser.add_argument('--lr', type=float, default=0.1)
args = parser.parse_args()


def train():
    torch.manual_seed(0)
    net = Net()
    chamfer = ChamferDistanceL1()
    opt = optim.SGD(net.parameters(), lr=args.lr)
    for i in range(3):
        inputs, gt = torch.rand(2, 16, 3), torch.rand(2, 24, 3)
        opt.zero_grad()
        out = net(inputs)
        cd = chamfer(out, gt)
        cd.backward()
        opt.step()
    torch.save(net.state_dict(), 'weights.pth')
    val(net, chamfer)


def val(net, chamfer):
    net.eval()
    with torch.no_grad():
        cd = chamfer(net(torch.linspace(0, 1, 96).view(2, 16, 3)), torch.linspace(1, 0, 144).view(2, 24, 3))
    print('val', cd.item())


if __name__ == "__main__":
    train()
""",
        "completion/infer.py": """
import sys
sys.path.append("..")
import torch
from model import Net
from utils.loss_utils import ChamferDistanceL1

net = Net()
net.load_state_dict(torch.load('weights.pth'))
x = torch.linspace(0, 1, 96).view(2, 16, 3)
gt = torch.linspace(1, 0, 144).view(2, 24, 3)
pred = net(x)
print('val', ChamferDistanceL1()(pred, gt).item())
""",
    },
    words=("train.py", "--lr", "0.1"),
    cwd="completion",
    weights="completion/weights.pth",
    evaluation="infer.py",
    kept=("utils/__init__.py",),
)

# A script with a Chamfer of its own, and nothing else
OWN_DEF = Form(
    files={
        "main.py": """
import torch
import torch.nn as nn

device = 'cpu'


def chamfer(p1, p2):
    # p1: B x N x 3, p2: B x M x 3
    diff = p1[:, :, None, :] - p2[:, None, :, :]
    dist = (diff ** 2).sum(-1)
    return dist.min(dim=2)[0].mean() + dist.min(dim=1)[0].mean()


torch.manual_seed(0)
net = nn.Sequential(nn.Linear(3, 3)).to(device)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(3):
    x = torch.rand(2, 16, 3).to(device)
    y = torch.rand(2, 24, 3).to(device)
    loss = chamfer(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

net.eval()
with torch.no_grad():
    x = torch.linspace(0, 1, 96).view(2, 16, 3)
    gt = torch.linspace(1, 0, 144).view(2, 24, 3)
    print('val', chamfer(net(x), gt).item())
torch.save(net.state_dict(), 'weights.pth')
""",
        "evaluate.py": """
import torch
import torch.nn as nn


def chamfer(p1, p2, method='brute'):
    if method == 'brute':
        dist = ((p1[:, :, None, :] - p2[:, None, :, :]) ** 2).sum(-1)
        return dist.min(dim=2)[0].mean() + dist.min(dim=1)[0].mean()
    elif method == 'kdtree':
        raise NotImplementedError('kdtree')
    raise ValueError(method)


net = nn.Sequential(nn.Linear(3, 3))
net.load_state_dict(torch.load('weights.pth'))
x = torch.linspace(0, 1, 96).view(2, 16, 3)
gt = torch.linspace(1, 0, 144).view(2, 24, 3)
print('val', chamfer(net(x), gt).item())
""",
    },
    evaluation="evaluate.py",
)

# The same with tabs, carriage returns and double precision
OWN_DEF_TABS = Form(
    files={
        "main.py": """
import torch
torch.set_default_dtype(torch.float64)

def cd_loss(a, b):
	d = torch.cdist(a, b)
	return d.min(1).values.mean() + d.min(2).values.mean()

class Trainer(object):
	def __init__(self):
		self.net = torch.nn.Linear(3, 3)
		self.opt = torch.optim.SGD(self.net.parameters(), 0.1)

	def train_step(self, x, gt):
		self.opt.zero_grad()
		loss = cd_loss(self.net(x), gt)
		loss.backward()
		self.opt.step()
		return loss.item()

	def run(self, n=3):
		for _ in range(n):
			self.train_step(torch.rand(2, 16, 3), torch.rand(2, 24, 3))

if __name__ == '__main__':
	torch.manual_seed(0)
	t = Trainer()
	t.run()
	torch.save(t.net.state_dict(), 'weights.pth')
"""
    },
    dtype=torch.float64,
    ends="\r\n",
)

# A launcher script that sets PYTHONPATH anew. Trains where the plugin's start-up file is installed, else must stop.
TRAIN_SH = Form(
    files={
        "losses/cd.py": CHAMFER_L1,
        "net.py": NET,
        "train.sh": "#!/usr/bin/env bash\nset -e\nexport PYTHONPATH=.\npython scripts/fit.py --epochs 3\n",
        "scripts/fit.py": """
import sys
import torch
from losses.cd import ChamferDistanceL1
from net import Net


def fit(epochs):
    torch.manual_seed(0)
    model, criterion = Net(), ChamferDistanceL1()
    optim = torch.optim.SGD(model.parameters(), lr=.1)
    for epoch in range(epochs):
        batch = {'partial': torch.rand(2, 16, 3), 'complete': torch.rand(2, 24, 3)}
        optim.zero_grad()
        loss = criterion(model(batch['partial']), batch['complete'])
        loss.backward()
        optim.step()
    torch.save(model.state_dict(), 'weights.pth')


if __name__ == '__main__':
    fit(int(sys.argv[sys.argv.index('--epochs') + 1]))
""",
    },
    run=EITHER,
    words=("bash", "train.sh"),
    patched_words=("-m", "scripts.fit", "--epochs", "3"),
)

# python -m package.module, with relative imports
AS_MODULE = Form(
    files={
        "pcn/__init__.py": "",
        "pcn/nets.py": NET,
        "pcn/losses/__init__.py": "from .chamfer import ChamferDistanceL2 as ChamferLoss\n",
        "pcn/losses/chamfer.py": CHAMFER_L1,
        "pcn/train.py": """
import torch

from . import losses
from .nets import Net


def main():
    torch.manual_seed(0)
    net = Net()
    loss_fn = losses.ChamferLoss()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        src, tgt = torch.rand(2, 16, 3), torch.rand(2, 24, 3)
        loss = loss_fn(net(src), tgt)
        opt.zero_grad(); loss.backward(); opt.step()
    torch.save(net.state_dict(), "weights.pth")


if __name__ == "__main__":
    main()
""",
    },
    words=("-m", "pcn.train"),
)

# A settings object that raises at whatever is asked of it before it is set up
LAZY_SETTINGS = Form(
    files={
        "config/__init__.py": """
class _Lazy:
    def __getattribute__(self, name):
        if name in ('configure', '__dict__'):
            return object.__getattribute__(self, name)
        values = object.__getattribute__(self, '__dict__')
        if not values:
            raise RuntimeError('settings are not configured: call settings.configure() first')
        return values[name]

    def configure(self, **values):
        object.__getattribute__(self, '__dict__').update(values)


settings = _Lazy()
""",
        "cd.py": """
from config import settings
import torch


def chamfer_l1(pred, gt):
    d = torch.cdist(pred, gt)
    return 0.5 * (d.min(-1)[0].mean() + d.min(-2)[0].mean())
""",
        "main.py": """
import torch
from config import settings
from cd import chamfer_l1

settings.configure(lr=0.1, steps=3)


def train():
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 3)
    opt = torch.optim.SGD(net.parameters(), lr=settings.lr)
    for _ in range(settings.steps):
        pred = net(torch.rand(2, 16, 3))
        loss = chamfer_l1(pred, torch.rand(2, 24, 3))
        opt.zero_grad()
        loss.backward()
        opt.step()
    torch.save({'state_dict': net.state_dict()}, 'weights.pth')


train()
""",
    },
)

# A file that nobody imports and that Python's own parser gives up on
UNPARSABLE = Form(
    files={
        **OWN_DEF.files,
        "experiments/old/generated.py": "energy = " + " + ".join(f"w{i}" for i in range(3000)) + "\n",
        "legacy/python2.py": "print 'hello'\n",
    },
    evaluation="evaluate.py",
    kept=("experiments/old/generated.py", "legacy/python2.py"),
)

POINTR_PARTS = {
    "utils/__init__.py": "",
    "utils/registry.py": """
class Registry:
    def __init__(self, name):
        self._name, self._module_dict = name, dict()

    def register_module(self, name=None):
        def _register(cls):
            self._module_dict[name or cls.__name__] = cls
            return cls
        return _register

    def build(self, cfg):
        return self._module_dict[cfg.NAME](cfg)
""",
    "utils/config.py": """
import yaml
from easydict import EasyDict


def cfg_from_yaml_file(cfg_file):
    with open(cfg_file, 'r') as f:
        config = yaml.load(f, Loader=yaml.FullLoader)
    return EasyDict(config)
""",
    "models/build.py": """
from utils.registry import Registry

MODELS = Registry('models')


def build_model_from_cfg(cfg):
    return MODELS.build(cfg)
""",
    "extensions/__init__.py": "",
    "extensions/chamfer_dist.py": CHAMFER_L1,
}

POINTR_MAIN = """
import argparse
import torch
from models import build_model_from_cfg
from utils.config import cfg_from_yaml_file


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--config', required=True)
    args = parser.parse_args()
    config = cfg_from_yaml_file(args.config)
    torch.manual_seed(0)
    base_model = build_model_from_cfg(config.model)
    optimizer = torch.optim.SGD(base_model.parameters(), lr=config.lr)
    for idx in range(config.steps):
        partial, gt = torch.rand(2, 16, 3), torch.rand(2, 24, 3)
        ret = base_model(partial)
        losses = base_model.get_loss(ret, gt)
        _loss = sum(losses)
        optimizer.zero_grad()
        _loss.backward()
        optimizer.step()
    torch.save({'base_model': base_model.state_dict()}, 'weights.pth')


if __name__ == '__main__':
    main()
"""

# A root of PoinTr's kind; what runs is a loop of another kind in a subfolder
LOOP_BESIDE_POINTR = Form(
    files={
        **POINTR_PARTS,
        "main.py": POINTR_MAIN,
        "models/__init__.py": "from .build import build_model_from_cfg\nfrom . import Simple\n",
        "models/Simple.py": """
from torch import nn
from extensions.chamfer_dist import ChamferDistanceL1
from .build import MODELS


@MODELS.register_module()
class Simple(nn.Module):
    def __init__(self, config, **kwargs):
        super().__init__()
        self.mlp = nn.Linear(3, 3)
        self.build_loss_func()

    def build_loss_func(self):
        self.loss_func = ChamferDistanceL1()

    def get_loss(self, ret, gt):
        return [self.loss_func(ret[-1], gt)]

    def forward(self, xyz):
        return (self.mlp(xyz),)
""",
        "cfgs/Simple.yaml": "lr: 0.1\nsteps: 3\nmodel: {NAME: Simple}\n",
        "refine/cd.py": """
import torch


def calc_cd(pred, gt):
    d = torch.cdist(pred, gt)
    return d.min(1)[0].mean() + d.min(2)[0].mean()
""",
        "refine/train.py": """
import torch
from cd import calc_cd

if __name__ == '__main__':
    torch.manual_seed(0)
    refiner = torch.nn.Linear(3, 3)
    sgd = torch.optim.SGD(refiner.parameters(), 0.1)
    for it in range(3):
        noisy, clean = torch.rand(2, 16, 3), torch.rand(2, 24, 3)
        sgd.zero_grad()
        loss = calc_cd(refiner(noisy), clean)
        loss.backward()
        sgd.step()
    torch.save(refiner.state_dict(), 'weights.pth')
""",
    },
    words=("refine/train.py",),
)

# The other way round: the root's own script, with the loop beside it
POINTR_BESIDE_LOOP = Form(
    files=LOOP_BESIDE_POINTR.files, words=("main.py", "--config", "cfgs/Simple.yaml"), kept=("cfgs/Simple.yaml",)
)

# A file of the host's own under the name of an extension that there is a stand-in for
NAMED_LIKE_AN_EXTENSION = Form(
    files={
        "net.py": NET,
        "chamfer.py": CHAMFER_L1,
        "emd.py": "def emd_loss(a, b):\n    raise NotImplementedError\n",
        "main.py": """
import torch
from chamfer import ChamferDistanceL1
from emd import emd_loss
from net import Net

torch.manual_seed(0)
net, criterion = Net(), ChamferDistanceL1()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(3):
    opt.zero_grad()
    loss = criterion(net(torch.rand(2, 16, 3)), torch.rand(2, 24, 3))
    loss.backward()
    opt.step()
torch.save(net.state_dict(), 'weights.pth')
""",
    },
    kept=("emd.py",),
)

FORMS = {
    "script_in_tools_of_a_zip": SUBFOLDER_ZIP,
    "script_beside_the_packages": SUBFOLDER_PARENT,
    "own_def_in_the_script": OWN_DEF,
    "own_def_with_tabs_and_crlf": OWN_DEF_TABS,
    "train_sh_sets_pythonpath": TRAIN_SH,
    "python_m_with_relative_imports": AS_MODULE,
    "own_files_called_chamfer_and_emd": NAMED_LIKE_AN_EXTENSION,
    "settings_that_raise": LAZY_SETTINGS,
    "files_that_do_not_parse": UNPARSABLE,
    "loop_in_a_subfolder_of_a_pointr_root": LOOP_BESIDE_POINTR,
    "pointr_root_with_a_loop_beside_it": POINTR_BESIDE_LOOP,
}
