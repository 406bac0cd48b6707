"""CUDA graphs of whole runs: ``policy`` decides which to capture, ``store`` keeps them and ``capture`` records them."""
