"""Makes the training script of a CSI2PointCloud clone understand `loss:`, `dataset_root:` and `epochs:` in its YAML.

    python patches/csi2pointcloud.py PATH             patch the clone at PATH, showing the diff
    python patches/csi2pointcloud.py PATH --revert    take it out again, every byte restored
    python patches/csi2pointcloud.py PATH --check     exit code 0 if it is in place
    python patches/csi2pointcloud.py PATH --explain   what is edited, and what is broken in the clone itself
    python patches/csi2pointcloud.py PATH --evaluate CHECKPOINT --config YAML

One file gets one import and up to five lines, all marked `# apml-plugin`: where the YAML's path is set (APML_CONFIG
may name another), where the YAML was read (dataset_root:), where the loss is made, where the number of epochs is set,
and where a training batch arrives (padding is seen before the batch is standardised; schedules learn the epoch).

In training `loss:` stands in the place of Chamfer, beside the host's regulariser; validation keeps Chamfer. What is
not in the YAML stays as the script has it. `apml_plugin` must be installed where the clone runs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from apml_plugin.cli.csi2pointcloud import script

if __name__ == "__main__":
    sys.exit(script(__doc__))
