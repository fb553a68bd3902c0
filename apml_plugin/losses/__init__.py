"""One nn.Module per named loss, a file per family; each holds plain numbers and calls ``functional``.

Every file here is imported, and every loss it declares is a name of this package.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from apml_plugin.losses.base import DECLARED
from apml_plugin.losses.base import PointLoss as PointLoss
from apml_plugin.losses.base import declare as declare
from apml_plugin.losses.combine import PerStage as PerStage
from apml_plugin.losses.combine import WeightedSum as WeightedSum
from apml_plugin.losses.dpcc import DPCCOutputs as DPCCOutputs
from apml_plugin.losses.dpcc import density_stats as density_stats

if TYPE_CHECKING:  # what type checkers and editors see
    from apml_plugin.losses.apml import *  # noqa: F403
    from apml_plugin.losses.chamfer import *  # noqa: F403
    from apml_plugin.losses.chamfer_variants import *  # noqa: F403
    from apml_plugin.losses.combine import *  # noqa: F403
    from apml_plugin.losses.dpcc import *  # noqa: F403
    from apml_plugin.losses.emd import *  # noqa: F403
    from apml_plugin.losses.fast_emd import *  # noqa: F403
    from apml_plugin.losses.geom import *  # noqa: F403
    from apml_plugin.losses.mixture import *  # noqa: F403
else:
    for _module in pkgutil.walk_packages([str(Path(__file__).parent)], f"{__name__}."):
        importlib.import_module(_module.name)
    globals().update(DECLARED)
    __all__ = ["DPCCOutputs", "PerStage", "PointLoss", "WeightedSum", "declare", "density_stats", *DECLARED]
