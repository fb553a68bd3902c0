"""The command line."""

import argparse
import os
from pathlib import Path


def get_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True, help="YAML file, paths in it relative to this folder")
    parser.add_argument("--exp_name", default="default", help="name of the run's folder under experiments/")
    parser.add_argument("--start_ckpts", default=None, help="checkpoint to start from")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run of this name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--launcher", choices=["none", "pytorch"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=int(os.environ.get("LOCAL_RANK", 0)))
    parser.add_argument("--num_workers", type=int, default=4)
    parser.add_argument("--val_freq", type=int, default=1, help="validate every so many epochs")
    args = parser.parse_args()
    if args.resume and args.start_ckpts is not None:
        parser.error("--resume and --start_ckpts exclude each other")
    config = Path(args.config)
    args.experiment_path = os.path.join("experiments", config.stem, config.parent.stem, args.exp_name)
    args.log_name = config.stem
    os.makedirs(args.experiment_path, exist_ok=True)
    return args
