"""Finds ``ccfast.kernels`` in a checkout, where the folder lies beside the package; an installation has it inside.

The module puts the folder's own package in its place, as if it had been found inside, so that submodules and relative
imports work as they do when installed.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_spec = spec_from_file_location(__name__, Path(__file__).resolve().parents[1] / "kernels" / "__init__.py")
if _spec is None or _spec.loader is None:
    raise ImportError("ccfast.kernels: kernels/ must lie beside ccfast/ in a checkout")
sys.modules[__name__] = _package = module_from_spec(_spec)
_spec.loader.exec_module(_package)
