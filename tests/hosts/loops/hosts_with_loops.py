"""Small hosts with a training loop of their own, one for each form that real hosts have, written for the tests."""

from __future__ import annotations

CHAMFER = """
import torch


class ChamferRaw(torch.nn.Module):
    def forward(self, a, b):
        d = torch.cdist(a, b).square()
        one, two = d.min(2), d.min(1)
        return one[0], two[0], one[1], two[1]


class ChamferDistance(torch.nn.Module):
    def forward(self, a, b):
        d = torch.cdist(a, b)
        return d.min(2)[0].mean() + d.min(1)[0].mean()
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

LOSSES = """
import torch
from lib.chamfer import ChamferRaw

chamfer = ChamferRaw()

# def both(a, b):
#     d1, d2, _, _ = chamfer(a, b)
#     return d1.mean() + d2.mean()


def both(a, b):
    d1, d2, _, _ = chamfer(a, b)
    return torch.mean(d1) + torch.mean(d2)


def both_roots(a, b):
    d1, d2, _, _ = chamfer(a, b)
    d1 = torch.clamp(d1, min=1e-9)
    d2 = torch.mean(torch.sqrt(torch.clamp(d2, min=1e-9)))
    return (torch.mean(torch.sqrt(d1)) + d2) / 2


def covered(a, b):
    d1, d2, _, _ = chamfer(a, b)
    d2 = torch.sqrt(d2)
    return torch.mean(d1)


def get_loss(preds, partial, gt, roots=True):
    dist = both_roots if roots else both
    coarse, fine = preds
    near, far, part = dist(coarse, gt), dist(fine, gt), covered(partial, fine)
    return near + far + part, [near, far, part]
"""

TRAIN = """
import torch
from lib.net import Net
from lib.losses import get_loss


class Manager:
    def __init__(self):
        self.net = Net()

    def train(self, x, gt):
        # total, parts = get_loss([p, p], x, gt)
        p = self.net(x)
        total, parts = get_loss([p, p], x, gt)
        total.backward()
        return p, parts

    def validate(self, x, gt):
        self.net.eval()
        with torch.no_grad():
            p = self.net(x)
            _, parts = get_loss([p, p], x, gt)
        return parts
"""

DECOY = LOSSES.replace("lib.chamfer", "third_party.chamfer")

# (c) a module-level singleton, free functions, one get_loss for training and validation; (i), (l) decoys
SHARED = {
    "lib/chamfer.py": CHAMFER, "lib/net.py": NET, "lib/losses.py": LOSSES, "main.py": TRAIN,
    "third_party/losses.py": DECOY, "third_party/chamfer.py": CHAMFER,
}  # fmt: skip

# (b) a class that chooses by a string, the same object for training and for a validation that records gradients
CHAIN = {
    "lib/chamfer.py": CHAMFER,
    "lib/net.py": NET,
    "lib/losses.py": """
import torch
from lib.chamfer import ChamferRaw


class Completion:
    def __init__(self, kind='cd_l1'):
        self.kind = kind
        self.raw = ChamferRaw()
        if kind == 'cd_l1':
            self.metric = self.one
            self.part = self.one_way
        elif kind == 'cd_l2':
            self.metric = self.two
            self.part = self.one_way
        elif kind == 'emd':
            self.metric = self.moved
        else:
            raise Exception('{} is not supported'.format(kind))

    def one(self, a, b):
        d1, d2, _, _ = self.raw(a, b)
        return (torch.mean(torch.sqrt(d1)) + torch.mean(torch.sqrt(d2))) / 2

    def two(self, a, b):
        d1, d2, _, _ = self.raw(a, b)
        return torch.mean(d1) + torch.mean(d2)

    def one_way(self, a, b):
        d1, d2, _, _ = self.raw(a, b)
        return torch.mean(d1)

    def moved(self, a, b):
        return (a.sort(1)[0] - b.sort(1)[0]).square().mean()

    def get_loss(self, p, partial, gt):
        parts = [self.part(partial, p), self.metric(p, gt)]
        return sum(parts), parts
""",
    "main.py": """
from lib import losses
from lib.net import Net
from check import check


def train(config, net, x, gt):
    completion = losses.Completion(kind=config['loss_func'])
    p = net(x)
    total, parts = completion.get_loss(p, x, gt)
    total.backward()
    return p, parts, check(net, x, gt, completion)
""",
    "check.py": """
def check(net, x, gt, completion):
    net.eval()
    p = net(x)
    return completion.get_loss(p, x, gt)[1]
""",
}

# (d) a local in the training function; the test function makes its own
LOCAL = {
    "lib/chamfer.py": CHAMFER,
    "lib/net.py": NET,
    "core/train.py": """
from lib.chamfer import ChamferDistance
from core.test import test_net

def train_net(net, x, gt):
    chamfer_dist = ChamferDistance()
    p = net(x)
    loss = chamfer_dist(p, gt)
    loss.backward()
    return p, [loss], test_net(net, x, gt)
""",
    "core/test.py": """
import torch
from lib.chamfer import ChamferDistance


def test_net(net, x, gt):
    chamfer_dist = ChamferDistance()
    net.eval()
    with torch.no_grad():
        return chamfer_dist(net(x), gt)
""",
}

# (e) vectors from a call in forward, models imported by name, truth first inside, loss chosen in forward by a string
FORWARD = {
    "lib/chamfer.py": CHAMFER,
    "tools/measure.py": """
import torch
from lib.chamfer import ChamferRaw


def calc_cd(output, gt, return_raw=False):
    made = ChamferRaw()
    d1, d2, i1, i2 = made(gt, output)
    cd_p = (torch.sqrt(d1).mean(1) + torch.sqrt(d2).mean(1)) / 2
    cd_t = d1.mean(1) + d2.mean(1)
    res = [cd_p, cd_t]
    if return_raw:
        res.extend([d1, d2, i1, i2])
    return res


def calc_emd(output, gt):
    return (output.sort(1)[0] - gt.sort(1)[0]).square().mean((1, 2))
""",
    "nets/simple.py": """
import torch
import torch.nn as nn
from tools.measure import calc_cd, calc_emd


class Model(nn.Module):
    def __init__(self, args):
        super(Model, self).__init__()
        self.train_loss = args.loss
        self.move = nn.Linear(3, 3)

    def forward(self, x, gt=None, is_training=True):
        out = self.move(x)
        if is_training:
            if self.train_loss == 'emd':
                loss = calc_emd(out, gt)
            elif self.train_loss == 'cd':
                loss, _ = calc_cd(out, gt)
            else:
                raise NotImplementedError
            return out, loss, loss.mean()
        cd_p, cd_t = calc_cd(out, gt)
        return out, cd_p, cd_t
""",
    "main.py": """
import importlib

import torch


def build(args):
    return importlib.import_module('nets.' + args.model).Model(args)


def train(net, x, gt):
    out, loss, total = net(x, gt)
    total.backward()
    return out, loss


def val(net, x, gt):
    net.eval()
    with torch.no_grad():
        return net(x, gt, is_training=False)[1]
""",
}

# what must be refused
INDICES = {
    "lib/chamfer.py": CHAMFER,
    "main.py": """
import torch
from lib.chamfer import ChamferRaw

chamfer = ChamferRaw()


def matched(gt, pred):
    d1, d2, _, nearest = chamfer(gt, pred)
    return torch.mean(d1) + torch.mean(d2), nearest.long()


def train(net, x, normals, gt):
    p = net(x)
    loss, nearest = matched(gt, p)
    (loss + (normals - normals.gather(1, nearest)).mean()).backward()
""",
}
NETWORK = {
    "lib/chamfer.py": CHAMFER,
    "main.py": """
import torch
from lib.chamfer import ChamferRaw

chamfer = ChamferRaw()


def both(a, b):
    d1, d2, _, _ = chamfer(a, b)
    return torch.mean(d1) + torch.mean(d2)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.move, self.scale = torch.nn.Linear(3, 3), torch.nn.Linear(1, 1)

    def forward(self, x):
        p = self.move(x)
        gap = both(p, x)
        return p * self.scale(gap.reshape(1, 1))


def train(x, gt):
    loss = both(Net()(x), gt)
    loss.backward()
""",
}
UNKNOWN = {"main.py": "def train(net, x, gt):\n    loss = (net(x) - gt).square().mean()\n    loss.backward()\n"}
WEIGHED = {
    "lib/chamfer.py": CHAMFER,
    "main.py": """
import torch
from lib.chamfer import ChamferRaw

chamfer = ChamferRaw()


def both(a, b, radius=1.0):
    d1, d2, _, _ = chamfer(a, b)
    return (torch.mean(d1) + torch.mean(d2)) / radius


def train(net, x, gt):
    both(net(x), gt, 2.0).backward()
""",
}
RAW_LOCAL = {
    "lib/chamfer.py": CHAMFER,
    "main.py": """
from lib.chamfer import ChamferRaw


def train(net, x, gt):
    chamfer = ChamferRaw()
    d1, d2, _, _ = chamfer(net(x), gt)
    (d1.mean() + d2.mean()).backward()
""",
}
TOP_LEVEL = {
    "lib/chamfer.py": CHAMFER,
    "main.py": """
from lib.chamfer import ChamferDistance

criterion = ChamferDistance()


def train(net, x, gt):
    loss = criterion(net(x), gt)
    loss.backward()
""",
}
