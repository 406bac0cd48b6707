"""``make gpu-check``: build, prove and time everything on the CUDA device of this machine."""
