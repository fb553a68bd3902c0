"""PointGMM (Hertz et al., CVPR 2020): a cloud as a hierarchy of Gaussian mixtures; sampling, EM, registration."""

from apml_plugin.models.pointgmm.decoder import MixtureDecoder, orthonormal_frames
from apml_plugin.models.pointgmm.network import PointGMM, PointNet
from apml_plugin.models.pointgmm.registration import PointGMMRegistration
from apml_plugin.models.pointgmm.sampling import mixture_to_points, refine, sample

__all__ = [
    "MixtureDecoder",
    "PointGMM",
    "PointGMMRegistration",
    "PointNet",
    "mixture_to_points",
    "orthonormal_frames",
    "refine",
    "sample",
]
