"""Makes the training script of a CSI2PointCloud clone read `loss:`, `dataset_root:` and `epochs:` from its YAML.

    python patches/csi2pointcloud.py PATH [--revert | --check | --diff | --explain]
    python patches/csi2pointcloud.py PATH --evaluate CHECKPOINT --config YAML

One import and up to five lines, all marked `# apml-plugin`, go where the script sets the YAML's path (APML_CONFIG can
name another YAML), the dataset's folder, the loss and the number of epochs, and where a training batch arrives (padding
must be seen before the batch is standardised). The loss replaces Chamfer in training; validation keeps Chamfer. What
the YAML does not name stays as in the script. `apml_plugin` must be installed where the clone runs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from apml_plugin.cli.patch import script

if __name__ == "__main__":
    sys.exit(script(None, __doc__))
