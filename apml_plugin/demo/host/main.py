"""Trains a completion network: python main.py --config cfgs/PCN_models/PCN.yaml --exp_name NAME."""

import os
import time

from tools import run_net
from utils import dist_utils, misc, parser
from utils.config import get_config
from utils.logger import get_root_logger, print_log


def main():
    args = parser.get_args()
    if args.launcher == "pytorch":
        dist_utils.init_dist()
    args.device = dist_utils.device_for(args.local_rank)
    stamp = time.strftime("%Y%m%d_%H%M%S")
    get_root_logger(args.log_name, os.path.join(args.experiment_path, f"{stamp}.log"), args.local_rank)
    config = get_config(args)
    rank, world = dist_utils.get_dist_info()
    if config.total_bs % world:
        raise ValueError(f"total_bs={config.total_bs} must be a multiple of the {world} processes")
    config.dataset.train.others.bs = config.total_bs // world
    print_log(
        f"Distributed training: {args.launcher != 'none'}, {world} process(es), device {args.device}", args.log_name
    )
    if args.seed is not None:
        misc.set_random_seed(args.seed + rank)
    run_net(args, config)
    dist_utils.end_dist()


if __name__ == "__main__":
    main()
