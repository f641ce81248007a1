"""Which environments a checkout has, and what each holds.

``.venv`` holds the server, an engine, and the frameworks that can be installed beside it. Those
that cannot get environments of their own under ``.venvs``, without an engine: a row of ``CLIENTS``
each. ``clients`` runs the tests of a row in its environment.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

GPU_ENGINE = "vllm"
CPU_ENGINE = "vllm-cpu"

MAIN = ".venv"
CLIENT_FOLDER = ".venvs"


@dataclass(frozen=True, slots=True)
class ClientEnvironment:
    """A row of the table: an environment for a framework that conflicts with vLLM.

    Attributes:
        name: Its folder under ``.venvs``.
        extras: Extras of this project.
        imports: Modules that must import; what the tests and examples need most.
        tests: The folder or file whose tests run in it.
        typed: Folders and files whose types are checked with its packages.
        requirements: What is installed besides: pins, and what a package needs but does not say.
        alone: What is installed without what it requires.
        is_on_demand: It is made only where it is named; once made, it is kept up to date.
    """

    name: str
    extras: tuple[str, ...]
    imports: tuple[str, ...]
    tests: str
    typed: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    is_on_demand: bool = False

    @property
    def folder_name(self) -> str:
        """Its folder in the checkout."""
        return f"{CLIENT_FOLDER}/{self.name}"


def _lines_of(file: str) -> tuple[str, ...]:
    """Return the requirements in a file of this checkout."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


_SEMANTIC_KERNEL = ClientEnvironment(
    name="semantic-kernel",
    extras=("semantic-kernel", "server", "test"),
    imports=(
        *("semantic_kernel.agents", "semantic_kernel.connectors.ai.open_ai", "google.protobuf"),
        *("fastapi", "uvicorn", "pytest"),
    ),
    tests="tests/integrations/semantic_kernel",
    typed=("parrot_integrations/semantic_kernel", "tests/integrations/semantic_kernel"),
)

CLIENTS = (
    _SEMANTIC_KERNEL,
    ClientEnvironment(
        name="semantic-kernel-oldest",
        extras=_SEMANTIC_KERNEL.extras,
        imports=_SEMANTIC_KERNEL.imports,
        tests=_SEMANTIC_KERNEL.tests,
        # The lower bound of the extra.
        requirements=("semantic-kernel==1.44.0",),
    ),
    ClientEnvironment(
        name="autogen",
        extras=("autogen", "server", "test"),
        imports=("autogen_agentchat.teams", "fastapi", "uvicorn", "pytest"),
        tests="tests/integrations/autogen",
        typed=("parrot_integrations/autogen", "tests/integrations/autogen"),
    ),
    ClientEnvironment(
        name="metagpt",
        extras=("server", "test"),
        # Itself it imports only after its stand-ins, and writes files where it is imported.
        imports=("openai", "tiktoken", "fastapi", "uvicorn", "pytest"),
        tests="tests/integrations/metagpt",
        typed=("parrot_integrations/metagpt", "tests/integrations/metagpt"),
        requirements=_lines_of("examples/metagpt/requirements.txt"),
        # Some of its hundred pins are not to be had any more, and others contradict ours.
        alone=("metagpt==0.8.2",),
    ),
    # Those below talk to Parrot through OpenAI's API, so nothing of ours is in their environments
    # but the server with the scripted engine, for the tests.
    ClientEnvironment(
        name="ag2",
        extras=("server", "test"),
        imports=("ag2.config", "openai", "fastapi", "uvicorn", "pytest"),
        tests="tests/integrations/agents/test_ag2.py",
        typed=("tests/integrations/agents/conftest.py", "tests/integrations/agents/test_ag2.py"),
        requirements=("ag2[openai]==1.2.1",),
    ),
    ClientEnvironment(
        name="llama-index",
        extras=("server", "test"),
        imports=("llama_index.llms.openai_like", "fastapi", "uvicorn", "pytest"),
        tests="tests/integrations/agents/test_llama_index.py",
        typed=("tests/integrations/agents/test_llama_index.py",),
        requirements=("llama-index-llms-openai-like>=0.8.1,<0.9",),
    ),
    ClientEnvironment(
        name="crewai",
        extras=("server", "test"),
        imports=("crewai", "fastapi", "uvicorn", "pytest"),
        tests="tests/integrations/agents/test_crewai.py",
        typed=("tests/integrations/agents/test_crewai.py",),
        requirements=("crewai==1.15.30",),
        # It takes 0.9 GB, and some seconds to import.
        is_on_demand=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Environment:
    """What is to be installed where, and by which Python. Equal ones give equal environments.

    Attributes:
        name: Its folder in the checkout.
        extras: Extras of this project.
        imports: Modules that must import.
        engine: The extra with the engine; empty if it has none.
        requirements: What is installed besides.
        python: Version of its Python ("3.11").
        root: The checkout.
        fingerprint: Of everything else that decides what is installed.
        alone: What is installed without what it requires.
        is_on_demand: It is made only where it is named; once made, it is kept up to date.
    """

    name: str
    extras: tuple[str, ...]
    imports: tuple[str, ...]
    engine: str
    requirements: tuple[str, ...]
    python: str
    root: str
    fingerprint: str
    alone: tuple[str, ...] = ()
    is_on_demand: bool = False

    @property
    def folder(self) -> Path:
        """Where it is."""
        return Path(self.root) / self.name

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    @property
    def record(self) -> Path:
        """The file that says what it holds."""
        return self.folder / "setup.json"

    @property
    def log(self) -> Path:
        """What the commands of its set-up wrote."""
        return self.folder / "setup.log"

    @property
    def project(self) -> str:
        """The project with its extras, as pip's ``--editable`` takes it."""
        return f".[{','.join(self.extras)}]"


def environments() -> tuple[Environment, ...]:
    """Return the environments that this checkout needs on this machine, the main one first."""
    engine = GPU_ENGINE if has_nvidia_gpu() else CPU_ENGINE
    main = _environment(
        MAIN,
        extras=("server", "dev", engine),
        imports=("vllm.v1.engine.async_llm", "fastapi", "uvicorn"),
        engine=engine,
    )
    return main, *(
        _environment(
            client.folder_name,
            extras=client.extras,
            imports=client.imports,
            requirements=client.requirements,
            alone=client.alone,
            is_on_demand=client.is_on_demand,
        )
        for client in CLIENTS
    )


def _environment(
    name: str,
    *,
    extras: tuple[str, ...],
    imports: tuple[str, ...],
    engine: str = "",
    requirements: tuple[str, ...] = (),
    alone: tuple[str, ...] = (),
    is_on_demand: bool = False,
) -> Environment:
    return Environment(
        name=name,
        extras=extras,
        imports=imports,
        engine=engine,
        requirements=requirements,
        alone=alone,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        root=str(ROOT),
        fingerprint=_fingerprint(extras),
        is_on_demand=is_on_demand,
    )


def has_nvidia_gpu() -> bool:
    """Tell whether the NVIDIA driver lists a GPU."""
    nvidia_smi = shutil.which("nvidia-smi")
    if nvidia_smi is None:
        return False
    listing = subprocess.run([nvidia_smi, "-L"], capture_output=True, text=True, check=False)
    return listing.returncode == 0 and "GPU" in listing.stdout


def _fingerprint(extras: Iterable[str]) -> str:
    """Return a digest of what pip reads in the project for some extras, and of how it is called."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    known = project["project"].pop("optional-dependencies")
    read = {
        "build": project["build-system"],
        "hatch": project["tool"]["hatch"],
        "project": project["project"],
        "extras": _requirements(extras, known, project["project"]["name"]),
    }
    digest = hashlib.sha256(json.dumps(read, sort_keys=True).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        # What this one says is in the environment's other fields.
        if path.name != Path(__file__).name:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _requirements(
    extras: Iterable[str], known: Mapping[str, Sequence[str]], project: str
) -> list[str]:
    """Return what extras require, with what extras they name themselves require."""
    found: list[str] = []
    for extra in extras:
        for requirement in known[extra]:
            own = re.fullmatch(rf"{re.escape(project)}\[([a-z, -]+)\]", requirement)
            inner = re.split(r"\s*,\s*", own[1]) if own else []
            found += _requirements(inner, known, project) if own else [requirement]
    return sorted(found)
