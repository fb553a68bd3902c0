"""Makes PoinTr of a PoinTr-style clone read `loss:` from its YAML; the rest of the clone stays as it is.

    python patches/pointr.py PATH [--revert | --check | --diff | --explain]

One import and one decorator, marked `# apml-plugin`, go to the class PoinTr, and one each to the function that
reads the YAML. `apml patch PATH` patches all models at once; both can be used together. `apml_plugin` must be installed
where the clone runs.
PoinTr copies its input points into its output, so predicted and true points often coincide exactly.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from apml_plugin.cli.patch import script

if __name__ == "__main__":
    sys.exit(script("PoinTr", __doc__))
