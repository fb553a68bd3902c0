"""``python -m apml_plugin.studies.bench``: the acceptance table where only torch, NumPy and SciPy are installed."""

import sys

from apml_plugin.studies.bench.acceptance import main

sys.exit(main())
