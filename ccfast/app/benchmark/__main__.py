"""``python -m ccfast.app.benchmark``: the measuring process behind ``ccfast bench``."""

import sys

from .command import main

sys.exit(main())
