"""Makes TopNet of a PoinTr-style clone understand `loss:` in its YAML, and nothing else of the clone.

    python patches/topnet.py PATH             patch the clone at PATH, showing the diff
    python patches/topnet.py PATH --revert    take it out again, every byte restored
    python patches/topnet.py PATH --check     exit code 0 if it is in place
    python patches/topnet.py PATH --diff      show the diff, write nothing

Two places get one import and one decorator each, both marked `# apml-plugin`:

- the class TopNet: every instance gets the loss that `loss:` names, in its stages coarse and fine;
- the function that reads the YAML: a `loss:` at the top of the file is handed to the model.

TopNet returns one cloud as both stages: the loss is computed once and counted twice, as the host does.
To patch all models of a clone at once use `apml patch PATH`; the two
go together. `apml_plugin` must be installed where the clone runs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from apml_plugin.cli.patch import script

if __name__ == "__main__":
    sys.exit(script("TopNet", __doc__))
