"""Samplers of other packages beside ours: one network, one operator, one measurement, one run.

pip install 'ccfast[bench-peers]' && python -m bench.peers photo
"""
