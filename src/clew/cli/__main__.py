"""``python -m clew.cli`` is ``clew``."""

import sys

from clew.cli.main import main

sys.exit(main())
