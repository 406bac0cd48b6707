"""The package layout: ``ccfast/`` and, beside it, ``kernels/``, which is installed as ``ccfast.kernels``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

version = re.search(r'__version__ = "(.+?)"', Path(__file__).with_name("ccfast").joinpath("__init__.py").read_text())
assert version is not None

setup(
    version=version[1],
    packages=[*find_packages(include=["ccfast", "ccfast.*"]), "ccfast.kernels"],
    package_dir={"ccfast.kernels": "kernels"},
)
