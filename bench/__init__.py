"""Benchmarks of this checkout: ``python -m bench`` writes results/*.json, and ``readme_speed.py`` the README's table."""
