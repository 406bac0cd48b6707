"""Kernels: ``reference`` is the plain PyTorch truth that all others are tested against, ``native`` runs on the CPU."""
