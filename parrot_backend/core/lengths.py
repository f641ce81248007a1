"""How long outputs will be: learnt for each kind of call, whoever declared or found what it is.

A kind is what calls have in common that do the same: tenant, application, the name of the call or
of its stage, and the ends of its constant text, numbers left out. What is asked of the ends may be
new in each run, where a client puts its data into the prompt, so a coarser kind is kept beside.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

from parrot_backend.core.build import call_name
from parrot_backend.core.config import LengthConfig
from parrot_backend.core.discovery.memory import Memory
from parrot_backend.core.length_sketch import LengthSketch
from parrot_backend.core.nodes import Request
from parrot_backend.core.output_forecast import OutputForecast
from parrot_backend.core.prompt import Text

#: Instructions stand at the ends of a prompt: who the model is, and what it shall do.
_END_CHARS = 64

#: What an entry takes beside its bins, and a bin. Measured, rounded up.
_ENTRY_BYTES = 600
_BIN_BYTES = 4

_NUMBER = re.compile(r"[0-9]+")

#: The kinds of one call, the most telling first.
Kinds = tuple[bytes, ...]


class LengthBook:
    """Lengths of outputs by kind, of all applications together; the least useful kinds go first."""

    def __init__(self, config: LengthConfig) -> None:
        self._config = config
        self._sketches: Memory[bytes, LengthSketch] = Memory(config.max_kinds, config.max_bytes)

    def __len__(self) -> int:
        return len(self._sketches)

    @property
    def num_bytes(self) -> int:
        """How much memory it takes."""
        return self._sketches.num_bytes

    def learn(self, kinds: Kinds, tokens: int, *, is_cut: bool) -> None:
        """Take in how long the output of a call was.

        Args:
            kinds: Those of the call.
            tokens: Its length.
            is_cut: It would have been longer if it had been let.
        """
        for kind in kinds:
            known = self._sketches.use(kind)
            sketch = known or LengthSketch()
            num_bins = sketch.num_bins
            sketch.add(tokens, is_cut=is_cut)
            if known is None or sketch.num_bins != num_bins:
                self._sketches.put(kind, sketch, _ENTRY_BYTES + sketch.num_bins * _BIN_BYTES)

    def forecast(self, kinds: Kinds) -> OutputForecast | None:
        """Return what is known of the most telling kind of which enough is known.

        Calls of other kinds would say too little of this one: what is reserved must suffice.
        """
        for kind in kinds:
            sketch = self._sketches.use(kind)
            if sketch is not None and sketch.num_seen >= self._config.min_outputs:
                found = sketch.forecast()
                if found is not None:
                    return found
        return None


def kinds_of(request: Request, app: str) -> Kinds:
    """Return the kinds of a request.

    Args:
        request: What was found in its texts counts, if they were looked at.
        app: Its application; the tenant belongs into the name.
    """
    if request.found is not None:
        return (*template_kinds(app, request.found.template), *_stage_kind(request, app))
    texts = [s.text for s in request.segments if isinstance(s, Text)]
    head = texts[0][:_END_CHARS] if texts else ""
    last = request.segments[-1] if request.segments else None
    tail = last.text[-_END_CHARS:] if isinstance(last, Text) else ""
    owner, label = _step_of(request, app), request.stage or call_name(request.id)
    coarse = _stage_kind(request, app) or (_kind(owner, label, head),)
    return (_kind(owner, label, head, tail), *coarse)


def template_kinds(app: str, template: str) -> Kinds:
    """Return the kinds of calls whose texts were found to have a template."""
    return (_digest(app, "found", template),)


def _stage_kind(request: Request, app: str) -> Kinds:
    """Return the kind that a client names itself, if it does."""
    if request.stage is None:
        return ()
    return (_kind(_step_of(request, app), "stage", request.stage),)


def _step_of(request: Request, app: str) -> str:
    """Return an application with the number of the output: each of a call is of its own kind."""
    return f"{request.id.rpartition('#')[2]} {app}"


@lru_cache(maxsize=4096)  # calls of a stage differ in numbers and names at most
def _kind(owner: str, *parts: str) -> bytes:
    return _digest(owner, *[_NUMBER.sub("0", part) for part in parts])


def _digest(*parts: str) -> bytes:
    text = "".join([f"{len(part)}:{part}" for part in parts])
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
