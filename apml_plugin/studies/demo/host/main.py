"""Trains a completion network: python main.py --config cfgs/PCN_models/PCN.yaml --exp_name NAME."""

import argparse
import logging
import os
import random
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from datasets import build_dataset_from_cfg
from extensions.chamfer_dist import ChamferDistanceL1, ChamferDistanceL2, both_ways
from models import build_model_from_cfg
from torch import distributed as dist
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from utils.config import cfg_from_yaml_file

LOWER_IS_BETTER = {"F-Score": False, "CDL1": True, "CDL2": True}
log = logging.getLogger("host").info


def get_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True, help="YAML file, paths in it relative to this folder")
    parser.add_argument("--exp_name", default="default", help="name of the run's folder under experiments/")
    parser.add_argument("--start_ckpts", default=None, help="checkpoint to start from")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run of this name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--launcher", choices=["none", "pytorch"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=int(os.environ.get("LOCAL_RANK", 0)))
    parser.add_argument("--num_workers", type=int, default=4)
    parser.add_argument("--val_freq", type=int, default=1, help="validate every so many epochs")
    args = parser.parse_args()
    config = Path(args.config)
    args.experiment_path = os.path.join("experiments", config.stem, config.parent.stem, args.exp_name)
    os.makedirs(args.experiment_path, exist_ok=True)
    return args


def main():
    args = get_args()
    if args.launcher == "pytorch":
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    args.device = torch.device("cuda", args.local_rank) if torch.cuda.is_available() else torch.device("cpu")
    level = logging.INFO if rank == 0 else logging.ERROR
    logging.basicConfig(stream=sys.stdout, level=level, format="%(asctime)s - %(levelname)s - %(message)s")
    kept = os.path.join(args.experiment_path, "config.yaml")  # --resume reads the config that the run began with
    config = cfg_from_yaml_file(kept if args.resume else args.config)
    if rank == 0 and not args.resume:
        shutil.copyfile(args.config, kept)
    if config.total_bs % world:
        raise ValueError(f"total_bs={config.total_bs} must be a multiple of the {world} processes")
    config.dataset.train.others.bs = config.total_bs // world
    log(f"Distributed training: {args.launcher != 'none'}, {world} process(es), device {args.device}")
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(args.seed + rank)
    run_net(args, config)
    if dist.is_initialized():
        dist.destroy_process_group()


def dataset_builder(args, config):
    """(sampler or None, loader). Validation goes one shape at a time."""
    dataset = build_dataset_from_cfg(config._base_, config.others)
    train = config.others.subset == "train"
    sampler: DistributedSampler | None = DistributedSampler(dataset, shuffle=train) if args.launcher != "none" else None
    size, shuffle = (config.others.bs, sampler is None) if train else (1, False)
    return sampler, DataLoader(dataset, size, shuffle, sampler, num_workers=args.num_workers, drop_last=train)


def run_net(args, config):
    train_sampler, train_loader = dataset_builder(args, config.dataset.train)
    _, test_loader = dataset_builder(args, config.dataset.val)
    model = build_model_from_cfg(config.model).to(args.device)
    optimizer = getattr(torch.optim, config.optimizer.type)(model.parameters(), **config.optimizer.kwargs)
    start, metrics, best = 0, {}, {}
    if args.resume:
        state = load_model(model, os.path.join(args.experiment_path, "ckpt-last.pth"))
        optimizer.load_state_dict(state["optimizer"])
        start, best = state["epoch"] + 1, state["best_metrics"]
    elif args.start_ckpts is not None:
        load_model(model, args.start_ckpts)
    net = torch.nn.parallel.DistributedDataParallel(model) if args.launcher != "none" else model
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, last_epoch=start - 1, **config.scheduler.kwargs)
    for epoch in range(start, config.max_epoch):
        if train_sampler is not None:
            train_sampler.set_epoch(epoch)
        train_epoch(net, model, train_loader, optimizer, epoch, args, config)
        scheduler.step()
        if epoch % args.val_freq == 0 or epoch == config.max_epoch - 1:
            metrics = validate(model, test_loader, epoch, args)
            name = config.consider_metric
            sign = 1 if LOWER_IS_BETTER[name] else -1
            if not best or sign * metrics[name] < sign * best[name]:
                best = metrics
                save_checkpoint(model, optimizer, epoch, metrics, best, "ckpt-best", args)
        save_checkpoint(model, optimizer, epoch, metrics, best, "ckpt-last", args)


def train_epoch(net, model, loader, optimizer, epoch, args, config):
    net.train()
    begin, means = time.time(), []
    for step, (_, _, data) in enumerate(loader):
        partial, gt = data[0].to(args.device), data[1].to(args.device)
        net.zero_grad()
        ret = net(partial)
        coarse, fine = model.get_loss(ret, gt, epoch)
        (coarse + fine).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.get("grad_norm_clip", 10))
        optimizer.step()
        means.append([1000 * reduce_tensor(loss).item() for loss in (coarse, fine)])
        if step % config.get("log_freq", 100) == 0 or step + 1 == len(loader):
            losses, lr = [f"{value:.4f}" for value in means[-1]], optimizer.param_groups[0]["lr"]
            log(f"[Epoch {epoch}/{config.max_epoch}][Batch {step + 1}/{len(loader)}] Losses = {losses} lr = {lr:.6f}")
    losses = [f"{value:.4f}" for value in np.mean(means, axis=0)]
    log(f"[Training] EPOCH: {epoch} EpochTime = {time.time() - begin:.3f} (s) Losses = {losses}")


def validate(model, loader, epoch, args):
    """Means of the metrics over the test shapes. Chamfer distances are always the host's own."""
    model.eval()
    values = []
    with torch.no_grad():
        for _, _, data in loader:
            pred, gt = model(data[0].to(args.device))[-1], data[1].to(args.device)
            near_pred, near_gt = both_ways(pred, gt)
            precision, recall = (near_pred < 1e-4).float().mean(), (near_gt < 1e-4).float().mean()  # within 1 %
            f_score = 2 * precision * recall / (precision + recall).clamp_min(1e-12)
            row = [f_score, ChamferDistanceL1()(pred, gt) * 1000, ChamferDistanceL2()(pred, gt) * 1000]
            values.append([reduce_tensor(value).item() for value in row])
    means = dict(zip(LOWER_IS_BETTER, np.mean(values, axis=0).tolist(), strict=True))
    log(f"[Validation] EPOCH: {epoch} Metrics = {means}")
    return means


def reduce_tensor(tensor):
    """The mean of a tensor over the processes."""
    if not dist.is_initialized():
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def save_checkpoint(model, optimizer, epoch, metrics, best_metrics, prefix, args):
    """Rank 0 writes <prefix>.pth: plain tensors, numbers and dicts, which weights-only loading accepts."""
    if args.local_rank == 0:
        state = {"base_model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        state.update(metrics=metrics, best_metrics=best_metrics)
        torch.save(state, os.path.join(args.experiment_path, prefix + ".pth"))


def load_model(model, path):
    """Loads weights strictly: every name must be there and no other. Returns the whole checkpoint."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict({name.removeprefix("module."): value for name, value in state["base_model"].items()})
    log(f"Loading weights from {path}: epoch {state['epoch']}, metrics {state['metrics']}")
    return state


if __name__ == "__main__":
    main()
