"""The package: ``ccfast/``, in which ``kernels`` is a link to the folder beside it. Metadata is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

version = re.search(r'__version__ = "(.+?)"', Path(__file__).with_name("ccfast").joinpath("__init__.py").read_text())
assert version is not None

setup(version=version[1], packages=find_packages(include=["ccfast", "ccfast.*"]))
