"""CUDA graphs of whole runs: which runs are captured (``policy``), kept (``store``) and recorded (``capture``)."""
