"""``python -m ccfast.bench``: the measuring process behind ``ccfast bench``."""

import sys

from .command import main

sys.exit(main())
