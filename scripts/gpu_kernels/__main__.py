"""Compile every row of the table for its chip, check the code, and write the table.

    python -m scripts.gpu_kernels [--check]

``--check`` writes nothing. Needs no GPU; takes about three minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import triton

from scripts.gpu_kernels.compiling import INSTRUCTIONS, Compiled, compile_attention
from scripts.gpu_kernels.rows import ALL_ROWS, Row, problems

PAGE = Path(__file__).parents[2] / "docs" / "gpu_kernel.md"
BEGIN, END = "<!-- compiled: begin -->\n", "<!-- compiled: end -->\n"


def table(made: list[tuple[Row, Compiled]]) -> str:
    """Return the rows as Markdown."""
    head = ("variant", "tile", "warps", "loads", "registers", "spills", "shared KB", *INSTRUCTIONS)
    lines = [f"Triton {triton.__version__}.\n", " | ".join(["", *head, ""]).strip()]
    lines.append("|" + "--|" * len(head))
    for row, code in made:
        variant = row.variant
        cells = (
            *(row.name, f"{variant.wide_rows}/{variant.narrow_rows} x {variant.tile_tokens}"),
            *(variant.num_warps, "TMA" if variant.has_descriptors else "pointers"),
            *(code.registers, code.num_spills, f"{code.shared_bytes / 1024:.0f}"),
            *(code.instructions[name] for name in INSTRUCTIONS),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Compile, check and write; return 1 if a row is not as it should be."""
    made: list[tuple[Row, Compiled]] = []
    failed = False
    for row in ALL_ROWS:
        code = compile_attention(
            row.variant, row.capability, dtype=row.dtype, kv_dtype=row.kv_dtype
        )
        wrong = problems(row, code)
        failed |= bool(wrong)
        print(f"{row.name}: {code.registers} registers; {'; '.join(wrong) or 'fine'}", flush=True)
        made.append((row, code))
    if not failed and "--check" not in sys.argv[1:]:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(before + BEGIN + table(made) + END + after, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
