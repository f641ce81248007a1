"""The user's side of the simulator: the commands ``simulate``, ``trace`` and ``calibrate``."""
