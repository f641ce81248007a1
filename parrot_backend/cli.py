"""The command line: flags in, one function call out. Heavy imports wait until they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from parrot_backend.server.key_commands import keys_app
from parrot_backend.simulate import commands as simulator

app = typer.Typer(
    name="parrot",
    help="Parrot serves programs built on LLMs: it sees the whole graph, not single calls.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_ENGINE = "Engine"
_SCHEDULING = "Scheduling"
_LIMITS = "Limits"


def _option(text: str, default: str | bool = False, panel: str | None = None, *names: str) -> Any:
    """Return an option's description. Unset options are left to the environment and defaults."""
    return typer.Option(*names, help=text, show_default=default, rich_help_panel=panel)


Host = Annotated[str | None, _option("Address to listen on.", "127.0.0.1")]
Port = Annotated[int | None, _option("Port to listen on; 0 takes any free one.", "8642")]
ApiKeys = Annotated[
    Path | None, _option("File of keys that clients need (parrot keys).", "off", None, "--api-keys")
]
NoAuth = Annotated[
    bool | None,
    _option("Other machines may use the server without keys.", "off", None, "--no-auth"),
]
LogLevel = Annotated[str | None, _option("debug, info, warning or error.", "info")]
Engine = Annotated[str | None, _option("vllm, scripted or openai.", "vllm", _ENGINE)]
Model = Annotated[
    str | None, _option("Model path or name.", "the tiny model that ships with Parrot", _ENGINE)
]
ServedModelName = Annotated[
    str | None, _option("Name that clients use for the model.", False, _ENGINE)
]
Replicas = Annotated[int | None, _option("Engines of this kind, side by side.", "1", _ENGINE)]
MaxModelLen = Annotated[
    int | None, _option("Longest prompt plus output, in tokens.", False, _ENGINE)
]
MaxNumSeqs = Annotated[int | None, _option("Requests one engine runs at once.", False, _ENGINE)]
KvCacheGib = Annotated[float | None, _option("KV cache of one engine, in GiB.", False, _ENGINE)]
LatencyCapacity = Annotated[
    int | None,
    _option("KV tokens that run together while latency-sensitive calls run.", False, _ENGINE),
]
ToolCallParser = Annotated[
    str | None,
    _option("vLLM's parser of tool calls; it belongs to the model.", False, _ENGINE),
]
ReasoningParser = Annotated[
    str | None,
    _option("vLLM's parser of reasoning; it belongs to the model.", False, _ENGINE),
]
BaseUrl = Annotated[
    str | None,
    _option("URL of the server that the openai engine drives.", False, _ENGINE, "--base-url"),
]
ApiKeyEnv = Annotated[
    str | None,
    _option("Variable that holds its key.", "OPENAI_API_KEY", _ENGINE, "--api-key-env"),
]
Prefill = Annotated[float | None, _option("Scripted engine: time per prompt token.", "0", _ENGINE)]
TokenMs = Annotated[
    float | None, _option("Scripted engine: time per generated token.", "0", _ENGINE)
]
Placement = Annotated[
    str | None,
    _option(
        "cost, paper, or a baseline: fcfs, least_loaded, round_robin, power_of_two, "
        "session_affinity, cache_aware or kv_exact (docs/scheduling.md).",
        "cost",
        _SCHEDULING,
    ),
]
Ordering = Annotated[
    str | None,
    _option(
        "application, urgency, critical_path, shortest_job, topological, fcfs or attained_service.",
        "the placement's own",
        _SCHEDULING,
    ),
]
Fair = Annotated[
    bool | None,
    _option("Tenants get equal shares of service.", "on", _SCHEDULING, "--fair/--no-fair"),
]
LearnLengths = Annotated[
    bool | None,
    _option("Learn how long outputs are.", "on", _SCHEDULING, "--learn-lengths/--no-learn-lengths"),
]
Prune = Annotated[
    bool | None,
    _option("Leave out calls that nobody can want.", "on", _SCHEDULING, "--prune/--no-prune"),
]
MergeCalls = Annotated[
    bool | None,
    _option(
        "Run equal deterministic calls once.", "on", _SCHEDULING, "--merge-calls/--no-merge-calls"
    ),
]
ResultCacheMib = Annotated[
    float | None,
    _option("Memory for results of deterministic calls, in MiB; 0 for none.", "0", _SCHEDULING),
]
EarlyFill = Annotated[
    bool | None,
    _option(
        "Compute prompts of calls to come ahead of need.",
        "off",
        _SCHEDULING,
        "--early-fill/--no-early-fill",
    ),
]
Discovery = Annotated[
    bool | None,
    _option(
        "Find in the texts of OpenAI calls what they read.",
        "on",
        _SCHEDULING,
        "--discovery/--no-discovery",
    ),
]
VllmScheduler = Annotated[
    str | None, _option("parrot (with its plug-in) or vllm.", "parrot", _SCHEDULING)
]
PaceSteps = Annotated[
    bool | None,
    _option(
        "Keep steps short while latency-sensitive calls run.",
        "on",
        _SCHEDULING,
        "--pace-steps/--no-pace-steps",
    ),
]
PinPrefixes = Annotated[
    bool | None,
    _option(
        "Keep the KV of prefixes that calls to come will read.",
        "on",
        _SCHEDULING,
        "--pin-prefixes/--no-pin-prefixes",
    ),
]
SharedAttention = Annotated[
    bool | None,
    _option(
        "Read the KV that calls share once per step.",
        "on, on CPUs",
        _SCHEDULING,
        "--shared-attention/--no-shared-attention",
    ),
]
LatencySlowdown = Annotated[
    float | None,
    _option("How much other work may slow latency-sensitive calls.", "2", _SCHEDULING),
]
MaxBodyBytes = Annotated[int | None, _option("Largest request body.", "8388608", _LIMITS)]
MaxGraphNodes = Annotated[int | None, _option("Nodes one session may hold.", "10000", _LIMITS)]
MaxConcurrentCalls = Annotated[
    int | None, _option("Unfinished calls before 429.", "50000", _LIMITS)
]
MaxSessions = Annotated[int | None, _option("Live sessions before 429.", "100000", _LIMITS)]
MaxWaitS = Annotated[float | None, _option("Longest wait of one HTTP request.", "3600", _LIMITS)]
SessionTtlS = Annotated[
    float | None, _option("Idle sessions are forgotten after this.", "600", _LIMITS)
]
OpenaiSessionTtlS = Annotated[
    float | None, _option("The same for sessions of OpenAI calls.", "300", _LIMITS)
]
EngineStallS = Annotated[
    float | None, _option("A silent engine is restarted after this.", "120", _LIMITS)
]
DrainTimeoutS = Annotated[
    float | None, _option("How long a shutdown lets calls go on.", "30", _LIMITS)
]
Record = Annotated[
    Path | None,
    _option("Write all that happens to a new file, prompts and outputs too.", "off"),
]
DemoModel = Annotated[
    str | None, _option("Model path or name.", "the tiny model that ships with Parrot")
]
Repeat = Annotated[int, typer.Option(min=1, help="Repetitions of each program in each mode.")]
Tokens = Annotated[int, typer.Option(min=1, help="Tokens that each call generates.")]
RoundTripMs = Annotated[
    float, typer.Option(min=0, help="Network delay of a request and its reply.")
]
Out = Annotated[Path, typer.Option(help="Folder for the files.", file_okay=False)]
Json = Annotated[bool, typer.Option("--json", help="Write the raw numbers, too.")]


@app.callback()
def main() -> None:
    """Parrot serves programs built on LLMs: it sees the whole graph, not single calls."""


@app.command()
def serve(
    ctx: typer.Context,
    host: Host = None,
    port: Port = None,
    api_keys: ApiKeys = None,
    no_auth: NoAuth = None,
    engine: Engine = None,
    model: Model = None,
    served_model_name: ServedModelName = None,
    replicas: Replicas = None,
    max_model_len: MaxModelLen = None,
    max_num_seqs: MaxNumSeqs = None,
    kv_cache_gib: KvCacheGib = None,
    latency_capacity_tokens: LatencyCapacity = None,
    tool_call_parser: ToolCallParser = None,
    reasoning_parser: ReasoningParser = None,
    openai_base_url: BaseUrl = None,
    openai_api_key_env: ApiKeyEnv = None,
    prefill_us_per_token: Prefill = None,
    token_ms: TokenMs = None,
    placement: Placement = None,
    ordering: Ordering = None,
    fair: Fair = None,
    learn_lengths: LearnLengths = None,
    prune: Prune = None,
    merge_calls: MergeCalls = None,
    result_cache_mib: ResultCacheMib = None,
    early_fill: EarlyFill = None,
    discovery: Discovery = None,
    vllm_scheduler: VllmScheduler = None,
    pace_steps: PaceSteps = None,
    pin_prefixes: PinPrefixes = None,
    shared_attention: SharedAttention = None,
    latency_slowdown: LatencySlowdown = None,
    max_body_bytes: MaxBodyBytes = None,
    max_graph_nodes: MaxGraphNodes = None,
    max_concurrent_calls: MaxConcurrentCalls = None,
    max_sessions: MaxSessions = None,
    max_wait_s: MaxWaitS = None,
    session_ttl_s: SessionTtlS = None,
    openai_session_ttl_s: OpenaiSessionTtlS = None,
    engine_stall_s: EngineStallS = None,
    drain_timeout_s: DrainTimeoutS = None,
    log_level: LogLevel = None,
    record: Record = None,
) -> None:
    """Start the server. Every option can also be set as an environment variable PARROT_*."""
    from parrot_backend.server.main import run_server

    raise typer.Exit(run_server(ctx.params))


@app.command()
def demo(
    model: DemoModel = None,
    repeat: Repeat = 3,
    tokens: Tokens = 64,
    round_trip_ms: RoundTripMs = 250,
    out: Out = Path("parrot-demo"),
    json: Json = False,
) -> None:
    """Run three programs on one real vLLM engine, call by call and in one submit, and compare."""
    from parrot_backend.demo.main import DemoOptions, run

    raise typer.Exit(run(DemoOptions(model, repeat, tokens, round_trip_ms / 1000, out, json)))


app.command()(simulator.simulate)
app.command()(simulator.calibrate)
app.add_typer(simulator.trace_app, name="trace")
app.add_typer(keys_app, name="keys")


def app_main() -> None:
    """Entry point of the ``parrot`` command."""
    app()
