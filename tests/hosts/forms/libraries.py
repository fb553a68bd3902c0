"""Forms by the library that the Chamfer distance comes from. The libraries are tiny ones with the real interfaces."""

from __future__ import annotations

from .building import Form

PYTORCH3D = {
    "pytorch3d/__init__.py": "__version__ = '0.7.8'\n",
    "pytorch3d/loss/__init__.py": "from .chamfer import chamfer_distance\n",
    "pytorch3d/loss/chamfer.py": """
import torch


def chamfer_distance(
    x, y, x_lengths=None, y_lengths=None, x_normals=None, y_normals=None, weights=None,
    batch_reduction="mean", point_reduction="mean", norm=2, single_directional=False, abs_cosine=True,
):
    d = torch.cdist(x, y).square() if norm == 2 else torch.cdist(x, y, p=1)
    one, two = d.min(2)[0], d.min(1)[0]
    if point_reduction is not None:
        one, two = getattr(one, point_reduction)(1), getattr(two, point_reduction)(1)
    if single_directional:
        return (getattr(one, batch_reduction)() if batch_reduction else one), None
    if point_reduction is None:
        return (one, two), (None, None)
    total = one + two
    return (getattr(total, batch_reduction)() if batch_reduction else total), None
""",
    "pytorch3d/ops/__init__.py": """
def _absent(*args, **kwargs):
    raise NotImplementedError


knn_points = knn_gather = sample_farthest_points = ball_query = estimate_pointcloud_normals = _absent
""",
}

KAOLIN = {
    "kaolin/__init__.py": "from . import metrics\n",
    "kaolin/metrics/__init__.py": "from . import pointcloud\n",
    "kaolin/metrics/pointcloud.py": """
import torch


def sided_distance(p1, p2):
    return torch.cdist(p1, p2).square().min(2)


def chamfer_distance(p1, p2, w1=1., w2=1., squared=True):
    sdist1, sdist2 = sided_distance(p1, p2)[0], sided_distance(p2, p1)[0]
    if not squared:
        sdist1, sdist2 = sdist1.sqrt(), sdist2.sqrt()
    return w1 * sdist1.mean(dim=-1) + w2 * sdist2.mean(dim=-1)
""",
}

CHAMFERDIST = {
    "chamferdist/__init__.py": "from .chamfer import ChamferDistance\n",
    "chamferdist/chamfer.py": """
import torch


class ChamferDistance(torch.nn.Module):
    def forward(self, source_cloud, target_cloud, bidirectional=False, reverse=False,
                batch_reduction="mean", point_reduction="sum"):
        d = torch.cdist(source_cloud, target_cloud).square()
        one, two = d.min(2)[0], d.min(1)[0]
        if point_reduction:
            one, two = getattr(one, point_reduction)(1), getattr(two, point_reduction)(1)
        if batch_reduction:
            one, two = getattr(one, batch_reduction)(0), getattr(two, batch_reduction)(0)
        if bidirectional:
            return one + two
        return two if reverse else one
""",
}

# The same training script with the ways in which people import one function
_SCRIPT = """
import torch
from torch import nn
{imports}

torch.manual_seed(0)
model = nn.Linear(3, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

for i in range(3):
    src = torch.rand(2, 16, 3)
    tgt = torch.rand(2, 24, 3)
    optimizer.zero_grad()
    pred = model(src)
    {loss}
    loss.backward()
    optimizer.step()
    print('Iter %d: %.4f' % (i, loss.item()))

torch.save(model.state_dict(), 'weights.pth')
with torch.no_grad():
    pred = model(torch.linspace(0, 1, 96).view(2, 16, 3))
    tgt = torch.linspace(1, 0, 144).view(2, 24, 3)
    {val}
print('val', loss.item())
"""
_EVALUATE = """
import torch
{imports}
model = torch.nn.Linear(3, 3)
model.load_state_dict(torch.load('weights.pth'))
pred = model(torch.linspace(0, 1, 96).view(2, 16, 3))
tgt = torch.linspace(1, 0, 144).view(2, 24, 3)
{val}
print('val', loss.item())
"""


def _uses(packages: dict[str, str], imports: str, loss: str, val: str = "") -> Form:
    """`imports` and `loss`, the statement that makes the loss of pred and tgt; `val` in evaluation."""
    words = {"imports": imports, "loss": loss, "val": val or loss}
    files = {"main.py": _SCRIPT.format(**words), "evaluate.py": _EVALUATE.format(**words)}
    return Form(files=files, packages=packages, evaluation="evaluate.py")


# LiDiff's form: a pair from pytorch3d in a module of the project, called by a method
PYTORCH3D_IN_MODULE = Form(
    files={
        "refiner/__init__.py": "",
        "refiner/models.py": """
import torch
import torch.nn as nn
from pytorch3d.loss import chamfer_distance


class RefineNet(nn.Module):
    def __init__(self, up_factor=1):
        super().__init__()
        self.offset = nn.Linear(3, 3)

    def forward(self, batch):
        return self.offset(batch['pcd_noise'])

    def training_loss(self, batch):
        refined = self.forward(batch)
        loss, _ = chamfer_distance(refined, batch['pcd_full'])
        return loss

    @torch.no_grad()
    def validation_loss(self, batch):
        loss, _ = chamfer_distance(self.forward(batch), batch['pcd_full'])
        return loss
""",
        "main.py": """
import torch
from refiner.models import RefineNet

torch.manual_seed(0)
net = RefineNet()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(3):
    batch = {'pcd_noise': torch.rand(2, 16, 3), 'pcd_full': torch.rand(2, 24, 3)}
    loss = net.training_loss(batch)
    opt.zero_grad()
    loss.backward()
    opt.step()
torch.save(net.state_dict(), 'weights.pth')
held_out = {
    'pcd_noise': torch.linspace(0, 1, 96).view(2, 16, 3), 'pcd_full': torch.linspace(1, 0, 144).view(2, 24, 3)
}
print('val', net.validation_loss(held_out).item())
""",
        "test.py": """
import torch
from refiner.models import RefineNet
net = RefineNet()
net.load_state_dict(torch.load('weights.pth'))
held_out = {
    'pcd_noise': torch.linspace(0, 1, 96).view(2, 16, 3), 'pcd_full': torch.linspace(1, 0, 144).view(2, 24, 3)
}
print('val', net.validation_loss(held_out).item())
""",
    },
    packages=PYTORCH3D,
    evaluation="test.py",
)

FORMS = {
    "pytorch3d_from_import": _uses(
        PYTORCH3D, "from pytorch3d.loss import chamfer_distance", "loss, _ = chamfer_distance(pred, tgt)"
    ),
    "pytorch3d_dotted": _uses(
        PYTORCH3D, "import pytorch3d.loss", "loss = pytorch3d.loss.chamfer_distance(pred, tgt)[0]"
    ),
    "pytorch3d_as": _uses(
        PYTORCH3D, "import pytorch3d.loss as L", "loss, loss_normals = L.chamfer_distance(pred, tgt, norm=1)"
    ),
    "pytorch3d_renamed": _uses(
        PYTORCH3D,
        "from pytorch3d.loss import chamfer_distance as cd\nfrom pytorch3d.ops import knn_points  # noqa",
        "loss = cd(x=tgt, y=pred)[0]",
    ),
    "pytorch3d_in_a_module": PYTORCH3D_IN_MODULE,
    "kaolin_from_import": _uses(
        KAOLIN,
        "from kaolin.metrics.pointcloud import chamfer_distance",
        "loss = chamfer_distance(pred, tgt).mean()",
    ),
    "kaolin_dotted": _uses(
        KAOLIN, "import kaolin", "loss = torch.mean(kaolin.metrics.pointcloud.chamfer_distance(pred, tgt))"
    ),
    "chamferdist": _uses(
        CHAMFERDIST,
        "from chamferdist import ChamferDistance\nchamferDist = ChamferDistance()",
        "loss = chamferDist(pred, tgt, bidirectional=True, point_reduction='mean')",
    ),
}

NO_PACKAGE = _uses({}, "from pytorch3d.loss import chamfer_distance", "loss, _ = chamfer_distance(pred, tgt)")
"""`apml run` stands in for the library, which is not installed."""
