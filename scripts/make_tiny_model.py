"""Make the tiny Llama model that ships with Parrot, in `parrot_backend/models/tiny`.

The tokenizer is trained on `tiny_corpus.txt`; the weights are random, from a fixed seed. Running
this twice gives the same bytes. The model knows nothing, but it behaves like one that does:

* Its answers depend on the whole prompt, so that a fault in attention, in the cache or in the order
  of prompt parts changes them.
* It seldom repeats itself, and it ends an answer by itself after some hundred tokens.
* Its best token is usually well ahead of the second, so that greedy answers rarely depend on what
  else is in the batch.
* It writes words, so that a demonstration is pleasant to look at.

Plain random weights have none of these: with tied embeddings they repeat the last token for ever.
Here the last feed-forward layer is a vote. Each of its neurons writes the embedding of one word,
and listens in a random direction to what attention has gathered from the prompt.

Run it with `make model`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "scripts" / "tiny_corpus.txt"
MODEL = ROOT / "parrot_backend" / "models" / "tiny"

SEED = 20240711
VOCABULARY_SIZE = 4096
HIDDEN_SIZE = 256
INTERMEDIATE_SIZE = 512
NUM_LAYERS = 2
NUM_HEADS = 4
NUM_KV_HEADS = 2
HEAD_SIZE = 64
MAX_POSITIONS = 8192

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = ("system", "user", "assistant", "tool")
SPECIAL_TOKENS = (BEGIN, END, PAD, *(f"<|{role}|>" for role in ROLES))

# Gains: each is the ratio of a map's typical output to its input, both per element. They were
# chosen by looking at greedy answers (variety, length, margin), not derived.
ATTENTION_SHARPNESS = 1.6  # the scores' standard deviation is its square
ATTENTION_GAIN = 0.6
FEED_FORWARD_GAIN = 2.0
VOTE_GAIN = 1.0
LOGIT_GAIN = 2.5

# How many neurons of the last layer vote for these tokens; every other neuron has its own word.
VOTES = {END: 2, ",": 12, ".": 12}

# Tools and calls of them are written as vLLM's parser `hermes` reads them.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if tools %}{{ '<|system|>Tools:' }}"
    "{% for tool in tools %}{{ '\n' + tool | tojson }}{% endfor %}"
    '{{ \'\nCall one so: <tool_call>{"name": name, "arguments": object}</tool_call>\' }}'
    "{{ eos_token }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant', 'tool'] %}"
    "{{ raise_exception('Unknown role: ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + (message['content'] or '') }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ '<tool_call>{\"name\": ' + call.function.name | tojson + ', \"arguments\": ' }}"
    "{{ call.function.arguments | tojson + '}</tool_call>' }}"
    "{% endfor %}"
    "{{ eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def main() -> None:
    """Write every file of the model."""
    MODEL.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(CORPUS)
    tokenizer.save(str(MODEL / "tokenizer.json"))
    write_json("tokenizer_config.json", tokenizer_config())
    write_json("config.json", model_config())
    write_json("generation_config.json", token_ids())
    weights = {name: bfloat16(value) for name, value in make_weights(tokenizer).items()}
    save_file(weights, MODEL / "model.safetensors", metadata={"format": "pt"})
    (MODEL / "model.safetensors").chmod(0o644)
    num_parameters = sum(weight.numel() for weight in weights.values())
    num_bytes = sum(path.stat().st_size for path in MODEL.iterdir())
    print(f"{MODEL.relative_to(ROOT)}: {num_parameters:,} parameters, {num_bytes:,} bytes")


def write_json(name: str, content: dict[str, Any]) -> None:
    """Write one of the model's JSON files."""
    (MODEL / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# --- Tokenizer and configuration -----------------------------------------------------------------


def train_tokenizer(corpus: Path) -> Tokenizer:
    """Train a byte-level BPE tokenizer that can encode any text and starts it with `BEGIN`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([corpus.read_text(encoding="utf-8")], trainer)
    if tokenizer.get_vocab_size() != VOCABULARY_SIZE:
        raise ValueError(f"the corpus gives only {tokenizer.get_vocab_size()} tokens")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A $B",
        special_tokens=[(BEGIN, SPECIAL_TOKENS.index(BEGIN))],
    )
    return tokenizer


def token_ids() -> dict[str, Any]:
    """Return the ids of the tokens that a generator needs."""
    return {
        "bos_token_id": SPECIAL_TOKENS.index(BEGIN),
        "eos_token_id": SPECIAL_TOKENS.index(END),
        "pad_token_id": SPECIAL_TOKENS.index(PAD),
    }


def tokenizer_config() -> dict[str, Any]:
    """Return what transformers reads beside `tokenizer.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": MAX_POSITIONS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def model_config() -> dict[str, Any]:
    """Return the architecture."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY_SIZE,
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": INTERMEDIATE_SIZE,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": NUM_HEADS,
        "num_key_value_heads": NUM_KV_HEADS,
        "head_dim": HEAD_SIZE,
        "max_position_embeddings": MAX_POSITIONS,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        **token_ids(),
    }


# --- Weights -------------------------------------------------------------------------------------

Matrix = NDArray[np.float64]


def make_weights(tokenizer: Tokenizer) -> dict[str, Matrix]:
    """Return all weights by their name in a Llama checkpoint; matrices are [outputs, inputs]."""
    # RandomState's stream is frozen, and uniform numbers come straight from its bits, so that every
    # machine and every version of numpy makes the same weights.
    random = np.random.RandomState(SEED)
    embeddings = random_matrix(random, VOCABULARY_SIZE, HIDDEN_SIZE)
    weights = {
        "model.embed_tokens.weight": embeddings,
        "model.norm.weight": np.full(HIDDEN_SIZE, LOGIT_GAIN),
    }
    for layer in range(NUM_LAYERS):
        for name, value in make_layer(random).items():
            weights[f"model.layers.{layer}.{name}.weight"] = value
    words = embeddings[voted_tokens(tokenizer)]
    weights[f"model.layers.{NUM_LAYERS - 1}.mlp.down_proj.weight"] = VOTE_GAIN * words.T
    return weights


def make_layer(random: np.random.RandomState) -> dict[str, Matrix]:
    """Return the weights of one layer."""
    query_size, key_size = NUM_HEADS * HEAD_SIZE, NUM_KV_HEADS * HEAD_SIZE
    # A query times a key, over the square root of the head size, then has a standard deviation of
    # ATTENTION_SHARPNESS squared.
    sharp = ATTENTION_SHARPNESS
    return {
        "input_layernorm": np.ones(HIDDEN_SIZE),
        "self_attn.q_proj": random_matrix(random, query_size, HIDDEN_SIZE, gain=sharp),
        "self_attn.k_proj": random_matrix(random, key_size, HIDDEN_SIZE, gain=sharp),
        "self_attn.v_proj": random_matrix(random, key_size, HIDDEN_SIZE),
        "self_attn.o_proj": random_matrix(random, HIDDEN_SIZE, query_size, gain=ATTENTION_GAIN),
        "post_attention_layernorm": np.ones(HIDDEN_SIZE),
        "mlp.gate_proj": random_matrix(random, INTERMEDIATE_SIZE, HIDDEN_SIZE, FEED_FORWARD_GAIN),
        "mlp.up_proj": random_matrix(random, INTERMEDIATE_SIZE, HIDDEN_SIZE),
        "mlp.down_proj": random_matrix(random, HIDDEN_SIZE, INTERMEDIATE_SIZE, gain=0.1),
    }


def random_matrix(
    random: np.random.RandomState, num_outputs: int, num_inputs: int, gain: float = 1.0
) -> Matrix:
    """Return a matrix that multiplies the typical size of an element by `gain`."""
    limit = gain * np.sqrt(3.0 / num_inputs)
    return random.uniform(-limit, limit, size=(num_outputs, num_inputs))


def voted_tokens(tokenizer: Tokenizer) -> list[int]:
    """Return the token for which each neuron of the last feed-forward layer votes."""
    vocabulary = tokenizer.get_vocab()
    tokens = [vocabulary[token] for token, num_votes in VOTES.items() for _ in range(num_votes)]
    whole_words = set(re.findall(r"\b[a-z]+\b", CORPUS.read_text(encoding="utf-8")))
    # "Ġ" is how a byte-level tokenizer writes the space before a word.
    words = sorted(vocabulary[f"Ġ{word}"] for word in whole_words if f"Ġ{word}" in vocabulary)
    num_words = INTERMEDIATE_SIZE - len(tokens)
    return tokens + [words[i * len(words) // num_words] for i in range(num_words)]


def bfloat16(value: Matrix) -> torch.Tensor:
    """Round to the type in which the weights are stored."""
    return torch.from_numpy(value).to(torch.bfloat16).contiguous()


if __name__ == "__main__":
    main()
