"""Packages of extras that tests use, imported when they are first used and not when tests are collected."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

import pytest


class _Later(ModuleType):
    """A module that imports the one of its name at the first use of an attribute."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module(self.__name__))


def extra(name: str, of: str) -> Any:
    """The package ``name``, without which all tests of the file that asks for it are skipped; ``of`` is its extra.

    Every worker collects every file, and one of these packages takes seconds to import.
    """
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"the extra '{of}' is not installed", allow_module_level=True)
    return _Later(name)
