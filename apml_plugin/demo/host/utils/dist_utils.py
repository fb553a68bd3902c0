"""Several processes: NCCL on GPUs, gloo without."""

import os

import torch
from torch import distributed as dist


def init_dist():
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def end_dist():
    if dist.is_initialized():
        dist.destroy_process_group()


def get_dist_info():
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def device_for(local_rank):
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def reduce_tensor(tensor):
    """The mean of a tensor over the processes."""
    if not dist.is_initialized():
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
