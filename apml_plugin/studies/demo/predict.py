"""Runs inside a PoinTr-style host: predictions of a checkpoint for the shapes of the test subset.

python predict.py --config YAML --ckpts PTH --out NPZ writes arrays partial, gt, pred (float32) and names.
"""

import argparse
import os
import random
import sys

import numpy as np
import torch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--ckpts", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    sys.path.insert(0, os.getcwd())
    from datasets import build_dataset_from_cfg
    from models import build_model_from_cfg
    from utils.config import cfg_from_yaml_file

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = cfg_from_yaml_file(args.config)
    model = build_model_from_cfg(config.model).to(device).eval()
    state = torch.load(args.ckpts, map_location="cpu", weights_only=True)
    weights = state.get("base_model") or state["model"]
    model.load_state_dict({name.removeprefix("module."): value for name, value in weights.items()})
    dataset = build_dataset_from_cfg(config.dataset.val._base_, config.dataset.val.others)
    partials, truths, results, names = [], [], [], []
    with torch.no_grad():
        for k in range(len(dataset)):
            taxonomy, name, (partial, gt) = dataset[k]
            results.append(model(partial[None].to(device))[-1][0].float().cpu().numpy())
            partials.append(partial.numpy())
            truths.append(gt.numpy())
            names.append(f"{taxonomy}/{name}")
    np.savez(args.out, partial=np.stack(partials), gt=np.stack(truths), pred=np.stack(results), names=np.array(names))


if __name__ == "__main__":
    main()
