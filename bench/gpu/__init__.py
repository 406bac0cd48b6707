"""``make gpu-check`` builds, tests and times everything on the CUDA device of this machine."""
