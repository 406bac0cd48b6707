"""Benchmarks of this checkout: ``python -m bench`` writes results/*.json, ``readme_speed.py`` the README's table."""
