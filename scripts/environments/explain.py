"""Saying why a set-up failed, by what pip wrote, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scripts.environments.table import ROOT, Environment

LOG_TAIL_LINES = 8
OFFLINE_LINES = 20

OFFLINE_SIGNS = (
    "Failed to establish a new connection",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "ConnectTimeoutError",
    "ProxyError",
)
NO_MATCH_SIGNS = (
    "No matching distribution found for ",
    "Could not find a version that satisfies the requirement ",
)
CONFLICT_SIGNS = ("The conflict is caused by:", "no matching distributions available")


class SetupError(Exception):
    """The set-up cannot go on; the message says why and what to do."""


def failing_requirements(lines: Sequence[str]) -> list[str]:
    """Return what pip says it cannot satisfy, each requirement once, in order of appearance."""
    found = [
        line.split(sign, 1)[1].split(" (from ")[0].strip()
        for line in lines
        for sign in NO_MATCH_SIGNS
        if sign in line
    ]
    found += conflicting_requirements(lines)
    return list(dict.fromkeys(found))


def conflicting_requirements(lines: Sequence[str]) -> list[str]:
    """Return the requirements in pip's account of a conflict ("A depends on B" or a name)."""
    found: list[str] = []
    in_account = False
    for line in lines:
        if any(sign in line for sign in CONFLICT_SIGNS):
            in_account = True
        elif in_account and line.startswith("    "):
            found.append(line.split(" depends on ")[-1].strip())
        else:
            in_account = False
    return found


def is_torch_missing(lines: Sequence[str]) -> bool:
    """Tell whether torch itself is among the requirements that pip cannot satisfy."""
    return any(re.match(r"torch\b(?!-)", name) for name in failing_requirements(lines))


def is_offline(lines: Sequence[str]) -> bool:
    """Tell whether pip ended because it could not reach an index, not counting earlier retries."""
    return any(sign in line for line in lines[-OFFLINE_LINES:] for sign in OFFLINE_SIGNS)


def advice(environment: Environment, lines: Sequence[str], torch_index_url: str) -> str:
    """Say what to do about the failure."""
    if any("No space left on device" in line for line in lines):
        size = "4 GB (8 GB with CUDA)" if environment.engine else "0.6 GB"
        return f"The disk is full: {environment.name} needs about {size}."
    if is_offline(lines):
        return "pip could not reach a package index: check the network and pip's settings."
    if environment.engine and is_torch_missing(lines) and not torch_index_url:
        return (
            "The indexes that pip uses lack the CPU build of torch. PyTorch's install page\n"
            "(choose Linux, Pip, CPU) names one that has it; pass it on:\n"
            "    make setup TORCH_INDEX_URL=<address of that index>"
        )
    return "When the cause is removed, run `make setup` again."


def describe_failure(
    environment: Environment, lines: Sequence[str], torch_index_url: str = ""
) -> str:
    """Compose the message for a failed command: the end of its output, what failed, and advice."""
    shown = [line for line in lines if line.strip()][-LOG_TAIL_LINES:]
    message = [f"{environment.name}: the installation failed. The last lines of its output:", ""]
    message += [f"    {line[:200]}" for line in shown]
    message.append("")
    requirements = failing_requirements(lines)
    if requirements:
        message.append(f"Could not satisfy: {', '.join(requirements)}")
    message.append(advice(environment, lines, torch_index_url))
    message.append(f"The whole log is in {environment.log.relative_to(ROOT)}.")
    return "\n".join(message)


def log_lines_of_last_command(environment: Environment) -> list[str]:
    """Return what the newest command wrote to the log."""
    text = environment.log.read_text(errors="replace")
    return text[text.rfind("\n$ ") + 1 :].splitlines()[1:]
