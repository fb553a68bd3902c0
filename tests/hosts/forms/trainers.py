"""Forms whose training loop is somebody else's, and forms whose author put our lines in by hand."""

from __future__ import annotations

from .bindings import FUNCTIONS, loop
from .building import Form
from .libraries import PYTORCH3D
from .places import CHAMFER_L1

LIGHTNING = {
    "pytorch_lightning/__init__.py": """
import torch


class LightningModule(torch.nn.Module):
    def log(self, name, value, **kwargs):
        self.logged = {**getattr(self, 'logged', {}), name: float(value)}


class Trainer:
    def __init__(self, max_steps=-1, **kwargs):
        self.max_steps = max_steps

    def fit(self, model, train_dataloaders, val_dataloaders=None):
        optimizer = model.configure_optimizers()
        for index, batch in zip(range(self.max_steps), train_dataloaders):
            def closure():
                optimizer.zero_grad()
                out = model.training_step(batch, index)
                loss = out['loss'] if isinstance(out, dict) else out
                loss.backward()
                return loss
            optimizer.step(closure)
        if val_dataloaders is not None:
            model.eval()
            with torch.no_grad():
                for index, batch in enumerate(val_dataloaders):
                    model.validation_step(batch, index)
"""
}

_LIT_MAIN = """
import torch
import pytorch_lightning as pl
from lit import CompletionModule

torch.manual_seed(0)


def batches():
    for _ in range(3):
        yield {'partial': torch.rand(2, 16, 3), 'complete': torch.rand(2, 24, 3)}


held_out = {'partial': torch.linspace(0, 1, 96).view(2, 16, 3), 'complete': torch.linspace(1, 0, 144).view(2, 24, 3)}
model = CompletionModule(lr=0.1)
trainer = pl.Trainer(max_steps=3)
trainer.fit(model, batches(), [held_out])
torch.save(model.state_dict(), 'weights.pth')
print('val', model.logged['val/cd'])
"""

LIT_MODULE = Form(
    files={
        "main.py": _LIT_MAIN,
        "cd_loss.py": CHAMFER_L1,
        "lit.py": """
import pytorch_lightning as pl
import torch
from cd_loss import ChamferDistanceL1


class CompletionModule(pl.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.lr = lr
        self.net = torch.nn.Linear(3, 3)
        self.criterion = ChamferDistanceL1()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        pred = self(batch['partial'])
        loss = self.criterion(pred, batch['complete'])
        self.log('train/cd', loss)
        return {'loss': loss}

    def validation_step(self, batch, batch_idx):
        self.log('val/cd', self.criterion(self(batch['partial']), batch['complete']))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)
""",
    },
    packages=LIGHTNING,
)

# LiDiff's form: pytorch3d's pair in a training_step, the step and its validation in one class
LIT_PYTORCH3D = Form(
    files={
        "main.py": _LIT_MAIN.replace("from lit import", "from refine.lit import"),
        "refine/__init__.py": "",
        "refine/lit.py": """
import torch
from pytorch_lightning import LightningModule
from pytorch3d.loss import chamfer_distance


class CompletionModule(LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.hparams = {'lr': lr}
        self.model_refine = torch.nn.Linear(3, 3)

    def training_step(self, batch: dict, batch_idx):
        refined = self.model_refine(batch['partial'])
        loss, _ = chamfer_distance(refined, batch['complete'])
        self.log('train/cd_loss', loss)
        return loss

    def validation_step(self, batch: dict, batch_idx):
        with torch.no_grad():
            refined = self.model_refine(batch['partial'])
            loss, _ = chamfer_distance(refined, batch['complete'])
            self.log('val/cd', loss)
            return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams['lr'])
""",
    },
    packages={**LIGHTNING, **PYTORCH3D},
)

# MMEngine's own train_step: forward gives a dict of losses
MM_TRAIN_STEP = Form(
    files={
        "mm_losses.py": FUNCTIONS["losses.py"],
        "completor.py": """
import torch
from mmengine.model import BaseModel
from mm_losses import chamfer_l2


class Completor(BaseModel):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 3)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        pred = self.head(inputs)
        if mode == 'loss':
            return dict(loss_cd=chamfer_l2(pred, data_samples))
        return pred
""",
        "main.py": """
import torch
from mmengine.optim import OptimWrapper
from completor import Completor


def main():
    torch.manual_seed(0)
    model = Completor()
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    for _ in range(3):
        data = dict(inputs=torch.rand(2, 16, 3), data_samples=torch.rand(2, 24, 3))
        log_vars = model.train_step(data, optim)
        assert 'loss' in log_vars
    torch.save(model.state_dict(), 'weights.pth')


if __name__ == '__main__':
    main()
""",
    }
)

ACCELERATE = {
    "accelerate/__init__.py": """
class Accelerator:
    def __init__(self, gradient_accumulation_steps=1, **kwargs):
        self.device = 'cpu'

    def prepare(self, *objects):
        return objects

    def backward(self, loss, **kwargs):
        loss.backward(**kwargs)

    def unwrap_model(self, model):
        return model
"""
}
ACCELERATOR = Form(
    files={
        "cd_loss.py": CHAMFER_L1,
        "main.py": """
import torch
from accelerate import Accelerator
from cd_loss import ChamferDistanceL2


def main():
    accelerator = Accelerator(mixed_precision='no')
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer = accelerator.prepare(model, optimizer)
    criterion = ChamferDistanceL2().to(accelerator.device)
    for step in range(3):
        partial, complete = torch.rand(2, 16, 3), torch.rand(2, 24, 3)
        loss = criterion(model(partial), complete)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    torch.save(accelerator.unwrap_model(model).state_dict(), 'weights.pth')


if __name__ == '__main__':
    main()
""",
    },
    packages=ACCELERATE,
)

# Compiled with a loss and fitted, as in Keras; the loss is a name or a function
KERAS_LIKE = Form(
    files={
        **FUNCTIONS,
        "engine.py": """
import torch
import losses as loss_zoo


class Model(torch.nn.Module):
    def compile(self, optimizer, loss):
        self.optimizer = optimizer
        self.loss = getattr(loss_zoo, loss) if isinstance(loss, str) else loss

    def fit(self, data, epochs=1):
        for _ in range(epochs):
            for x, y in data():
                self.train_on_batch(x, y)

    def train_on_batch(self, x, y):
        self.optimizer.zero_grad()
        y_pred = self(x)
        value = self.loss(y, y_pred)
        value.backward()
        self.optimizer.step()
""",
        "main.py": """
import torch
from engine import Model


class Refiner(Model):
    def __init__(self):
        super().__init__()
        self.dense = torch.nn.Linear(3, 3)

    def forward(self, x):
        return self.dense(x)


def data():
    for _ in range(3):
        yield torch.rand(2, 16, 3), torch.rand(2, 24, 3)


torch.manual_seed(0)
model = Refiner()
model.compile(optimizer=torch.optim.SGD(model.parameters(), lr=0.1), loss='chamfer_l2')
model.fit(data)
torch.save(model.state_dict(), 'weights.pth')
""",
    }
)

# Lines put in by hand: a run of them is a run like any other, and a patch has nothing to add
HAND_VALUE = loop(
    "from apml_plugin.hooks import training_value",
    loss="""d = torch.cdist(out, gt)
loss = d.min(2)[0].mean() + d.min(1)[0].mean()
loss = training_value(loss, out, gt)""",
    patch="",
)
HAND_LOSS = loop(
    "from apml_plugin.hooks import training_loss\nfrom losses import chamfer_l1",
    "criterion = training_loss(chamfer_l1)",
    "loss = criterion(out, gt)",
    files=FUNCTIONS,
    patch="",
)
HAND_OLD_NAMES = loop(
    "from apml_plugin.hosts.training import training_loss, training_value\nfrom losses import chamfer_l1",
    "criterion = training_loss(chamfer_l1)",
    "loss = 0.5 * criterion(out, gt) + 0.5 * training_value(chamfer_l1(out, gt), out, gt)",
    files=FUNCTIONS,
    patch="",
    stages=(1, 1),
    total=lambda values: 0.5 * values[0] + 0.5 * values[1],
)

FORMS = {
    "lightning_training_step": LIT_MODULE,
    "lightning_with_pytorch3d": LIT_PYTORCH3D,
    "mmengine_train_step": MM_TRAIN_STEP,
    "accelerator_backward": ACCELERATOR,
    "compiled_and_fitted_like_keras": KERAS_LIKE,
    "training_value_by_hand": HAND_VALUE,
    "training_loss_by_hand": HAND_LOSS,
    "lines_of_older_versions_by_hand": HAND_OLD_NAMES,
}
