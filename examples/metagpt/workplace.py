"""A place for MetaGPT to work in: it reads its configuration and writes files where it is imported.

Import this before ``metagpt``.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from examples.metagpt import sdk_stubs

__all__ = ["FOLDER", "sdk_stubs"]

_CONFIG = """\
llm: {api_type: openai, base_url: "http://127.0.0.1:8642/v1", api_key: none, model: default}
"""

FOLDER = Path(os.environ.get("METAGPT_PROJECT_ROOT") or tempfile.mkdtemp(prefix="metagpt-"))

if "METAGPT_PROJECT_ROOT" not in os.environ:
    os.environ["METAGPT_PROJECT_ROOT"] = str(FOLDER)
    (FOLDER / "config").mkdir()
    (FOLDER / "config" / "config2.yaml").write_text(_CONFIG)
    atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
