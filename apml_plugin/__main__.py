"""``python -m apml_plugin`` is ``apml``."""

import sys

from apml_plugin.cli import main

sys.exit(main())
