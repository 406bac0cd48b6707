"""Benchmarks of this checkout: ``python -m bench`` writes results/*.json, and ``readme.py`` the table of the README."""
