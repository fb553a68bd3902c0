"""Mixtures of Gaussians as a model's output: containers, densities and losses."""

from apml_plugin.losses.mixture.container import Hierarchy, Mixture, MixtureOutput
from apml_plugin.losses.mixture.likelihood import (
    GMM,
    HGMM,
    flat_log_likelihood,
    log_densities,
    routed_log_likelihoods,
)
from apml_plugin.losses.mixture.penalties import EigenPenalty, LatentKL, PoseLoss
from apml_plugin.losses.mixture.terms import judge

__all__ = [
    "GMM",
    "HGMM",
    "EigenPenalty",
    "Hierarchy",
    "LatentKL",
    "Mixture",
    "MixtureOutput",
    "PoseLoss",
    "flat_log_likelihood",
    "judge",
    "log_densities",
    "routed_log_likelihoods",
]
