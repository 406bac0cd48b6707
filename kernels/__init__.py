"""Kernels: ``reference`` is the plain PyTorch truth that every other implementation is tested against, ``native`` the CPU."""
