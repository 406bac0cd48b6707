"""Samplers of other packages beside ours, on the same network, operator and measurement.

pip install 'ccfast[bench-peers]' && python -m bench.peers photo
"""
