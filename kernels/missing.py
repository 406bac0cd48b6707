"""Why a part of the compiled code is missing, as setup.py recorded it in ``ccfast/_build.json``."""

from __future__ import annotations

import json
from importlib.resources import files

__all__ = ["why_missing"]

NAMES = {"native": "native", "cuda": "CUDA"}


def why_missing(part: str) -> str:
    """Why the "native" or the "cuda" code was not built, in words that follow "no, " in ``ccfast.show_config()``."""
    record = files("ccfast") / "_build.json"
    if not record.is_file():
        return f"its {NAMES[part]} code has not been built, which pip install does"
    return f"installed without {NAMES[part]} code, because {json.loads(record.read_text())[part]}"
