"""The models that ship with Parrot.

There is one, `tiny`: a Llama with two layers and random weights, which any engine loads in a moment
and which a CPU runs at about a millisecond a token. It stands for a real model wherever speed and
meaning do not matter: in demonstrations, tests and first steps. `scripts/make_tiny_model.py` makes
it and says what it does.
"""

from importlib.resources import files
from pathlib import Path

#: What clients call the tiny model.
TINY_MODEL_NAME = "parrot-tiny"

#: vLLM's parser of the calls of tools that its chat template tells the model to write.
TINY_MODEL_TOOL_PARSER = "hermes"


def tiny_model_path() -> Path:
    """Return the folder of the tiny model, in the layout that vLLM and transformers load."""
    return Path(str(files(__name__) / "tiny"))
