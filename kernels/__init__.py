"""The backends of the sampling loop: ``reference`` in plain PyTorch, which defines the results, and compiled ones."""
