"""These tests run the GPU kernel in Triton's interpreter, which must be chosen before it is loaded.

So they run in a process of their own: ``tests/kernels/test_interpreted.py`` starts it.
"""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["*"]
