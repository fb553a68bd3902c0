"""Loaders, network, optimizer, schedule and checkpoints from the config."""

import os

import torch
from datasets import build_dataset_from_cfg
from models import build_model_from_cfg
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from utils.logger import print_log
from utils.misc import worker_init_fn

OPTIMIZERS = {"AdamW": torch.optim.AdamW, "Adam": torch.optim.Adam, "SGD": torch.optim.SGD}


def dataset_builder(args, config):
    """(sampler or None, loader). Validation goes one shape at a time."""
    dataset = build_dataset_from_cfg(config._base_, config.others)
    train = config.others.subset == "train"
    sampler: DistributedSampler | None = DistributedSampler(dataset, shuffle=train) if args.launcher != "none" else None
    loader = DataLoader(
        dataset,
        batch_size=config.others.bs if train else 1,
        shuffle=train and sampler is None,
        sampler=sampler,
        drop_last=train,
        num_workers=args.num_workers,
        worker_init_fn=worker_init_fn,
    )
    return sampler, loader


def model_builder(config):
    return build_model_from_cfg(config)


def build_optimizer(model, config):
    if config.optimizer.type not in OPTIMIZERS:
        raise NotImplementedError(f"optimizer.type {config.optimizer.type} is none of {list(OPTIMIZERS)}")
    return OPTIMIZERS[config.optimizer.type](model.parameters(), **config.optimizer.kwargs)


def build_scheduler(optimizer, config, last_epoch=-1):
    if config.scheduler.type != "StepLR":
        raise NotImplementedError(f"scheduler.type {config.scheduler.type} is not StepLR")
    return torch.optim.lr_scheduler.StepLR(optimizer, last_epoch=last_epoch, **config.scheduler.kwargs)


def save_checkpoint(model, optimizer, epoch, metrics, best_metrics, prefix, args):
    """Rank 0 writes <prefix>.pth: plain tensors, numbers and dicts, which weights-only loading accepts."""
    if args.local_rank != 0:
        return
    path = os.path.join(args.experiment_path, prefix + ".pth")
    torch.save(
        {
            "base_model": getattr(model, "module", model).state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch,
            "metrics": metrics.state_dict() if metrics else {},
            "best_metrics": best_metrics.state_dict() if best_metrics else {},
        },
        path,
    )
    print_log(f"Save checkpoint at {path}", args.log_name)


def _read(path):
    if not os.path.exists(path):
        raise FileNotFoundError(f"no checkpoint at {path}")
    return torch.load(path, map_location="cpu", weights_only=True)


def load_model(model, path, args):
    """Weights from a checkpoint, strictly: every name must be there and none more."""
    state = _read(path)
    model.load_state_dict({name.removeprefix("module."): value for name, value in state["base_model"].items()})
    print_log(f"Loading weights from {path}: epoch {state['epoch']}, metrics {state['metrics']}", args.log_name)


def resume(model, optimizer, args):
    """(first epoch to do, best metrics so far) from ckpt-last.pth."""
    path = os.path.join(args.experiment_path, "ckpt-last.pth")
    load_model(model, path, args)
    state = _read(path)
    optimizer.load_state_dict(state["optimizer"])
    print_log(f"[RESUME INFO] after epoch {state['epoch']}, best {state['best_metrics']}", args.log_name)
    return state["epoch"] + 1, state["best_metrics"]
