"""Benchmarks: ``python -m bench`` writes results/*.json, ``speed_table.py`` a table of docs/results.md."""
