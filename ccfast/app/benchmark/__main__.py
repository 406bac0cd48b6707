"""``python -m ccfast.app.benchmark`` is the process that measures for ``ccfast bench``."""

import sys

from .command import main

sys.exit(main())
