"""The training loop."""

import time

import torch
from torch import nn
from utils import dist_utils
from utils.logger import print_log
from utils.metrics import Metrics
from utils.misc import AverageMeter

from tools import builder


def run_net(args, config):
    name = args.log_name
    train_sampler, train_loader = builder.dataset_builder(args, config.dataset.train)
    _, test_loader = builder.dataset_builder(args, config.dataset.val)
    model = builder.model_builder(config.model).to(args.device)
    optimizer = builder.build_optimizer(model, config)
    start, best = 0, None
    if args.resume:
        start, values = builder.resume(model, optimizer, args)
        best = Metrics(config.consider_metric, values) if values else None
    elif args.start_ckpts is not None:
        builder.load_model(model, args.start_ckpts, args)
    net = model
    if args.launcher != "none":
        ids = [args.device.index] if args.device.type == "cuda" else None
        net = nn.parallel.DistributedDataParallel(model, device_ids=ids)
    scheduler = builder.build_scheduler(optimizer, config, last_epoch=start - 1)
    metrics = None
    for epoch in range(start, config.max_epoch):
        if train_sampler is not None:
            train_sampler.set_epoch(epoch)
        train_epoch(net, model, train_loader, optimizer, epoch, args, config)
        scheduler.step()
        if epoch % args.val_freq == 0 or epoch == config.max_epoch - 1:
            metrics = validate(model, test_loader, epoch, args, config)
            if metrics.better_than(best):
                best = metrics
                builder.save_checkpoint(net, optimizer, epoch, metrics, best, "ckpt-best", args)
        builder.save_checkpoint(net, optimizer, epoch, metrics, best, "ckpt-last", args)
    print_log("Training is done", name)


def train_epoch(net, model, loader, optimizer, epoch, args, config):
    net.train()
    losses = AverageMeter(["CoarseLoss", "FineLoss"])
    begin = time.time()
    net.zero_grad()
    for step, (_, _, data) in enumerate(loader):
        partial, gt = data[0].to(args.device), data[1].to(args.device)
        ret = net(partial)
        coarse, fine = model.get_loss(ret, gt, epoch)
        (coarse + fine).backward()
        if (step + 1) % config.step_per_update == 0:
            torch.nn.utils.clip_grad_norm_(net.parameters(), config.get("grad_norm_clip", 10))
            optimizer.step()
            net.zero_grad()
        losses.update([1000 * dist_utils.reduce_tensor(loss).item() for loss in (coarse, fine)])
        if step % config.get("log_freq", 100) == 0 or step + 1 == len(loader):
            print_log(
                f"[Epoch {epoch}/{config.max_epoch}][Batch {step + 1}/{len(loader)}] "
                f"Losses = {[f'{value:.4f}' for value in losses.val()]} lr = {optimizer.param_groups[0]['lr']:.6f}",
                args.log_name,
            )
    print_log(
        f"[Training] EPOCH: {epoch} EpochTime = {time.time() - begin:.3f} (s) "
        f"Losses = {[f'{value:.4f}' for value in losses.avg()]}",
        args.log_name,
    )


def validate(model, loader, epoch, args, config):
    """Means of the metrics over the test shapes, the Chamfer distances among them always the host's own."""
    model.eval()
    meter = AverageMeter(Metrics.names())
    with torch.no_grad():
        for _, _, data in loader:
            partial, gt = data[0].to(args.device), data[1].to(args.device)
            values = Metrics.get(model(partial)[-1], gt)
            meter.update([dist_utils.reduce_tensor(value).item() for value in values])
    means = dict(zip(meter.items, meter.avg(), strict=True))
    print_log(f"[Validation] EPOCH: {epoch} Metrics = {means}", args.log_name)
    return Metrics(config.consider_metric, means)
