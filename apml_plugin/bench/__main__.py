"""``python -m apml_plugin.bench``: the acceptance table where only torch, NumPy and SciPy are installed."""

import sys

from apml_plugin.bench.acceptance import main

sys.exit(main())
