"""Lets pytest explain the assertions of the modules that tests share."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.kernels.batches")
