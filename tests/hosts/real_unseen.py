"""Real clones that no recipe was written for, run like those of `real_forks`: their own scripts, generated data.

`from hosts.real_unseen import ...` (`tests` is on the path). Three iterations each, or four where a host validates
after its second epoch only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hosts.real_forks import POINTS, Fork, _rate, _subsets, _write
from hosts.real_pointr import ADAM, AIRPLANE, STEP, _save, ellipsoid, half

FLAGS = ["--exp_name", "apml_test", "--num_workers", "0", "--seed", "7"]
LAMBDA = {"type": "LambdaLR", "kwargs": {"decay_step": 21, "lr_decay": 0.9, "lowest_decay": 0.02}}


def data_for_unseen(root: Path) -> Path:
    """To PCN's data, the layouts that these hosts read: EPN3D's, trees, SemanticKITTI's (MVP's: see `_mvp`)."""
    random = np.random.default_rng(4)
    _epn(root / "EPN3D", random)
    _trees(root / "trees", random)
    _kitti_scans(root / "kitti", random)
    return root


def _epn(root: Path, random: np.random.Generator) -> None:
    listed: dict[str, Any] = {"taxonomy_id": AIRPLANE, "taxonomy_name": "airplane"}
    for subset, count in (("train", 3), ("test", 2)):  # a training shape counts twice: its partial cloud and itself
        names = [f"{subset}{i}" for i in range(count)]
        listed[subset] = {"partial": names, "complete": names}
        for name in names:
            cloud = ellipsoid(random, POINTS)
            _save(root / "airplane" / "complete" / f"{name}.npy", cloud)
            _save(root / "airplane" / "partial" / f"{name}.npy", np.concatenate([half(random, cloud)] * 2))
    (root / "EPN3D.json").write_text(json.dumps([listed]))
    paths = {f"{kind.upper()}_POINTS_PATH": f"{root}/%s/{kind}/%s.npy" for kind in ("partial", "complete")}
    for name in ("EPN3D", "EPN3DComplete"):
        keys = {"NAME": name, "N_POINTS": POINTS, "CATEGORY_FILE_PATH": str(root / "EPN3D.json"), **paths}
        _write(root / f"{name}.yaml", keys)


def _trees(root: Path, random: np.random.Generator) -> None:
    for species in ("ash", "oak"):
        (root / species).mkdir(parents=True)
        for i in range(8):
            np.savetxt(root / species / f"{i}.xyz", ellipsoid(random, 512) * (1 if species == "ash" else (1, 1, 2)))
    _write(root.with_suffix(".yaml"), {"NAME": "TreeSpeciesPretrain", "DATA_PATH": str(root), "N_POINTS": 256})


def _kitti_scans(root: Path, random: np.random.Generator) -> None:
    """A scan a file, and per sequence the aggregated map, the poses and the calibration that the host reads."""
    for sequence, scans in (("00", 6), ("08", 1)):
        folder = root / "dataset" / "sequences" / sequence
        (folder / "velodyne").mkdir(parents=True)
        (folder / "labels").mkdir()
        for i in range(scans):
            points = np.c_[ellipsoid(random, 2000) * 10, np.zeros(2000)].astype(np.float32)
            points.tofile(folder / "velodyne" / f"{i:06d}.bin")
            np.full(2000, 40, np.uint32).tofile(folder / "labels" / f"{i:06d}.label")
        identity = "1 0 0 0 0 1 0 0 0 0 1 0\n"
        (folder / "poses.txt").write_text(identity * scans)
        (folder / "calib.txt").write_text(f"P0: {identity}Tr: {identity}")


def _pointr_like(name: str, data: Path, rate: float, model: dict[str, Any], **more: Any) -> list[str]:
    config = {
        "optimizer": _rate(ADAM, rate),
        "scheduler": STEP,
        "dataset": _subsets(data / "dataset.yaml"),
        "model": model,
        "total_bs": 2,
        "step_per_update": 1,
        "max_epoch": 0,
        "consider_metric": "CDL1",
        **more,
    }
    return ["main.py", "--config", str(_write(data / "configs" / f"{name}.yaml", config)), *FLAGS]


def _symmcompletion(clone: Path, data: Path, rate: float) -> list[str]:
    model = {"NAME": "SymmCompletion", "up_factors": "1, 2", "include_input": False, "coarse_up_factor": 2}
    return _pointr_like("SymmCompletion", data, rate, model)


def _partial2complete(clone: Path, data: Path, rate: float) -> list[str]:
    model = {
        "NAME": "P2C",
        "num_group": 64,
        "group_size": 32,
        "mask_ratio": [10, 50, 4],
        "feat_dim": 256,
        "n_points": 512,
        "shape_recon_weight": 1,
        "shape_matching_weight": 1000,
        "latent_weight": 100,
        "nbr_ratio": 2.0,
        "support": 24,
        "neighborhood_size": 32,
        "manifold_weight": 0.01,
    }
    subsets = {}
    for key, base in (("train", "EPN3DComplete"), ("val", "EPN3D"), ("test", "EPN3D")):
        others = {"subset": "train" if key == "train" else "test", "class_choice": ["airplane"]}
        subsets[key] = {"_base_": str(data / "EPN3D" / f"{base}.yaml"), "others": others}
    return _pointr_like("P2C", data, rate, model, dataset=subsets, scheduler=LAMBDA, consider_metric="CDL2")


def _odgnet(clone: Path, data: Path, rate: float) -> list[str]:
    model = {
        "NAME": "UpTrans",
        "num_pred": 2048,
        "num_seeds": 128,
        "seed_fea": 128,
        "dim_feat": 128,
        "num_dicts": 32,
        "upscales": [1, 2, 2],
        "l2_loss": 0,
    }
    # The host's own loss: stays, it is its weights. In one process it fails in its log line: one rank of torchrun's.
    weights = {"sparse_loss_weight": 1.0, "dense_loss_weight": 1.0, "dz_weight": 1.0, "orth_weight": 1.0}
    words = _pointr_like("UpTrans", data, rate, model, loss=weights, max_epoch=1)
    return [*words, "--val_freq", "1", "--launcher", "pytorch"]


def _lidarlearn(name: str, model: dict[str, Any], validates: bool) -> Any:
    def prepare(clone: Path, data: Path, rate: float) -> list[str]:
        (data / "trees" / "point_cloud_data_pretrain_256.h5").unlink(missing_ok=True)
        subsets = {}
        for key in ("train", "val", "extra_train") if validates else ("train", "val"):
            subsets[key] = {"_base_": str(data / "trees.yaml"), "others": {"subset": key, "npoints": 256, "bs": 4}}
        config = {
            "optimizer": {"type": "AdamW", "kwargs": {"lr": rate, "weight_decay": 0.05}},
            "scheduler": {"type": "CosLR", "kwargs": {"initial_epochs": 0}},
            "dataset": subsets,
            "model": model,
            "npoints": 256,
            "step_per_update": 1,
            "max_epoch": 1,  # it runs two, and validates after the second
        }
        path = _write(data / "configs" / f"{name}.yaml", config)
        return ["main.py", "--config", str(path), "--mode", "pretrain", *FLAGS]

    return prepare


_MAE = {
    "NAME": "PointMAE_Pretrain",
    "group_size": 32,
    "num_group": 16,
    "loss": "cdl2",
    "transformer_config": {
        "mask_ratio": 0.6,
        "mask_type": "rand",
        "trans_dim": 48,
        "encoder_dims": 48,
        "depth": 1,
        "drop_path_rate": 0.1,
        "num_heads": 6,
        "decoder_depth": 1,
        "decoder_num_heads": 6,
    },
}
_M2AE = {
    "NAME": "PointM2AE_Pretrain",
    "mask_ratio": 0.8,
    "group_sizes": [16, 8, 8],
    "num_groups": [64, 32, 16],
    "encoder_depths": [1, 1, 1],
    "encoder_dims": [24, 48, 96],
    "local_radius": [0.32, 0.64, 1.28],
    "decoder_depths": [1, 1],
    "decoder_dims": [96, 48],
    "decoder_up_blocks": [1, 1],
    "drop_path_rate": 0.1,
    "num_heads": 6,
}


def _mvp(model: str) -> Any:
    def prepare(clone: Path, data: Path, rate: float) -> list[str]:
        """It reads ./data/*.h5 of its own folder, 26 views of every shape."""
        import h5py

        random = np.random.default_rng(5)
        (clone / "completion" / "data").mkdir(exist_ok=True)
        for name, count in (("MVP_Train_CP", 6), ("MVP_Test_CP", 2)):
            clouds = [ellipsoid(random, POINTS) for _ in range(count)]
            views = [np.concatenate([half(random, clouds[i // 26])] * 2) for i in range(count)]
            with h5py.File(clone / "completion" / "data" / f"{name}.h5", "w") as file:
                file["incomplete_pcds"] = np.array(views, np.float32)
                file["complete_pcds"] = np.array(clouds, np.float32)
                file["labels"] = np.zeros(count, int)
        config = {
            "batch_size": 2,
            "workers": 0,
            "nepoch": 1,
            "model_name": model,
            "load_model": None,
            "start_epoch": 0,
            "num_points": POINTS,
            "work_dir": str(data / "log"),
            "flag": "debug",
            "loss": "cd",
            "manual_seed": 7,
            "use_mean_feature": False,
            "step_interval_to_print": 500,
            "epoch_interval_to_save": 1,
            "epoch_interval_to_val": 1,
            "varying_constant": "0.01, 0.1, 0.5, 1",
            "varying_constant_epochs": "5, 15, 30",
            "lr": rate,
            "lr_decay": False,
            "optimizer": "Adam",
            "weight_decay": 0,
            "betas": "0.9, 0.999",
            "eval_emd": False,
        }
        return ["train.py", "-c", str(_write(data / "configs" / f"{model}.yaml", config))]

    return prepare


def _lidiff(clone: Path, data: Path, rate: float) -> list[str]:
    config = {
        "experiment": {"id": "apml_test"},
        "data": {
            "data_dir": str(data / "kitti"),
            "resolution": 0.05,
            "dataloader": "KITTI",
            "split": "train",
            "train": ["00"],
            "validation": ["08"],
            "test": ["08"],
            "scan_window": 1,
            "num_points": 256,
        },
        "train": {"n_gpus": 1, "num_workers": 0, "max_epoch": 1, "lr": rate, "batch_size": 2, "up_factor": 2},
    }
    return ["lidiff/train_refine.py", "--config", str(_write(data / "configs" / "refine.yaml", config))]


_POINTR_LOSSES = r"Batch 1/3\].*Losses = (\[.*?\])"
_VALIDATION = r"\[Validation\] EPOCH: \d+  Metrics = (\[.*\])"
_MVP_LOSS, _MVP_VALIDATION = r"fine_loss: ([\d.]+)", r"(curr_cd_p.*)"
_ONE_RANK = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29611"}

UNSEEN: dict[str, Fork] = {
    "SymmCompletion": Fork(
        _symmcompletion,
        losses=_POINTR_LOSSES,
        calls=3,
        shown=lambda values: [values[i] * 1000 for i in (0, 2, 0, 2)],
        validation=_VALIDATION,
        needs=("transforms3d", "h5py", "cv2"),
    ),
    "Partial2Complete": Fork(
        _partial2complete,
        losses=r"Batch 1/3\].*Losses = \['[\d.]+', '([\d.]+)', '([\d.]+)'",
        calls=2,
        shown=lambda values: [values[0], values[1] * 1000],
        validation=_VALIDATION,
        needs=("transforms3d", "h5py", "termcolor"),
    ),
    "MVP_Benchmark:pcn": Fork(
        _mvp("pcn"),
        losses=_MVP_LOSS,
        calls=4,  # a call of the host gives a number per sample, of two
        shown=lambda values: [sum(values[2:]) / 2],
        validation=_MVP_VALIDATION,
        folder="completion",
        needs=("munch", "h5py"),
    ),
    "MVP_Benchmark:ecg": Fork(
        _mvp("ecg"),
        losses=_MVP_LOSS,
        calls=4,  # a call of the host gives a number per sample, of two
        shown=lambda values: [sum(values[2:]) / 2],
        validation=_MVP_VALIDATION,
        folder="completion",
        needs=("munch", "h5py"),
    ),
    "LiDiff": Fork(
        _lidiff,
        losses=r"LOGGED train/cd_loss ([\d.]+)",
        calls=1,
        shown=lambda values: values,
        validation=r"LOGGED train[\s\S]*LOGGED (val/cd_loss [\d.]+)",
        needs=("pytorch_lightning", "click", "natsort"),
        fakes=("minkowski", "lightning_of_then"),
    ),
    "LIDARLearn:PointMAE": Fork(
        _lidarlearn("PointMAE", _MAE, validates=False),
        losses=r"E  0  loss=([\d.]+)",
        calls=2,  # of an epoch, whose mean it prints
        iterations=2,
        shown=lambda values: [sum(values) / 2],
        validation=None,  # the model gives a number where its validation wants features
        needs=("sklearn", "h5py", "pandas", "einops", "tqdm", "seaborn"),
        fakes=("other_models",),
    ),
    "LIDARLearn:PointM2AE": Fork(
        _lidarlearn("PointM2AE", _M2AE, validates=True),
        losses=r"E  0  loss=([\d.]+)",
        calls=2,  # of an epoch, whose mean it prints
        iterations=2,
        shown=lambda values: [sum(values) / 2],
        validation=r"SVM validation: (acc=[\d.]+)",
        dies="'Acc_Metric' object has no attribute '_get_selection_value'",  # of its own, once it has validated
        needs=("sklearn", "h5py", "pandas", "einops", "tqdm", "seaborn"),
        fakes=("other_models",),
    ),
    "ODGNet": Fork(
        _odgnet,
        losses=r"Batch 1/3\].*Losses = \['([\d.]+)', '([\d.]+)'",
        calls=4,
        iterations=6,
        shown=lambda values: [values[0] * 1000, values[3] * 1000],
        validation=_VALIDATION,
        needs=("transforms3d", "h5py"),
        environment=_ONE_RANK,
    ),
}
"""Folder name of a clone, and the model after a colon where there are several -> how it is run."""
