"""Benchmarks: ``python -m bench`` writes bench/results/*.json, and ``speed_table`` a table of docs/results.md."""
