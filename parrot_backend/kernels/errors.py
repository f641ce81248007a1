"""What the attention kernels refuse, with stable codes.

| code | meaning |
|--|--|
| `attention_bad_argument` | an array of the wrong shape, type or range; the message names it |
| `attention_table_too_narrow` | the block table has fewer columns than a sequence has pages |
| `attention_tree_mismatch` | a tree that does not belong to the batch it is used with |
| `attention_plan_too_large` | a plan that buffers on a GPU do not hold; use plain attention |
| `attention_unsupported` | a feature that no shared path has; use plain attention |
| `attention_no_compiler` | the C++ parts cannot be built on this machine |

The package stands alone, so these are not errors of `parrot_backend.errors`.
"""

from __future__ import annotations

from typing import ClassVar


class AttentionError(ValueError):
    """Base of all errors that the package raises on purpose.

    Attributes:
        code: Stable machine-readable name; the message is for a person.
    """

    code: ClassVar[str] = "attention_bad_argument"


class TableTooNarrow(AttentionError):  # noqa: N818 - reads as what is wrong
    """The block table has fewer columns than a sequence has pages."""

    code = "attention_table_too_narrow"


class TreeMismatch(AttentionError):  # noqa: N818 - reads as what is wrong
    """A tree of prefixes does not belong to the batch it is used with."""

    code = "attention_tree_mismatch"


class UnsupportedAttention(AttentionError):  # noqa: N818 - reads as what is wrong
    """No shared path computes what was asked; plain attention must.

    The message is the reason that :func:`parrot_backend.kernels.why_plain` gave.
    """

    code = "attention_unsupported"


class CompilerUnavailable(RuntimeError):  # noqa: N818 - reads as what is wrong
    """The C++ parts of the package cannot be built here; the message says why."""

    code: ClassVar[str] = "attention_no_compiler"
