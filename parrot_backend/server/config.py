"""Settings of the server: flags and environment in, checked records out.

This is the only module that reads the environment (variables ``PARROT_*``; flags win). Bad values
stop the start with the full list of problems. Components get their own part, never the whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from parrot_backend.core.config import (
    AdmissionName,
    CoreConfig,
    CostConfig,
    DiscoveryConfig,
    EarlyFillConfig,
    LengthConfig,
    OptimiserConfig,
    OrderingName,
    PlacementName,
    SchedulerConfig,
)
from parrot_backend.server.open_sessions import MAX_CALLS, OpenSessionsConfig
from parrot_backend.server.supervisor import SupervisorConfig

_PREFIX = "PARROT_"

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )


_SettingsT = TypeVar("_SettingsT", bound=_Settings)


class ServerSettings(_Settings):
    """HTTP, limits, scheduling and supervision.

    Attributes:
        api_keys: File of keys; requests need one of them, and are its tenant's. None: no keys.
        no_auth: Other machines may reach the server without keys, too.
        max_body_bytes: Largest body of a request.
        max_graph_nodes: Nodes one session may hold, those of instances included.
        max_concurrent_calls: Unfinished calls the server holds before it says ``saturated``.
        max_sessions: Live sessions the server holds before it says ``saturated``.
        max_wait_s: Longest wait of one HTTP request, whatever it asks for.
        session_ttl_s: An idle session is forgotten after this.
        prune: Calls that nobody can want are not run: what no wanted output is made of, in a
            session that is closed by the submit that opens it.
        merge_calls: Equal deterministic calls of a tenant run once while one of them is on its way.
        result_cache_mib: Memory for results of such calls, for later ones; 0 keeps none.
        early_fill: Prompts of calls to come are computed as far as they are known, in spare
            capacity of engines that can do that.
        retain_prefixes: Engines keep prompt prefixes that calls to come will read, where they can.
        splice: Engines that can go on by themselves with the next output of a call.
        admission: What counts as room on an engine; None for what belongs to the placement.
        latency_tpot_s: With the placement ``cost``: the time per token that work which somebody
            waits for keeps beside work that nobody waits for.
        split_groups: With the placement ``cost``: calls that run in parallel may be spread over
            several engines where that is sooner.
        discovery: What calls of OpenAI's API read is found in their texts, and a chat that goes on
            with another is put beside it.
        discovery_learns: Runs are compared with earlier ones of their application.
        learn_lengths: Lengths of outputs are learnt for each kind of call; memory is reserved, and
            calls are ordered, by what they tell.
        fair: Tenants that wait for service of the same class get equal shares of it.
        tenant_weights: Shares of tenants that are to get other ones; 1 is anybody's.
        openai_session_ttl_s: An idle session of such calls is forgotten after this.
        engine_stall_s: An engine with work that says nothing for so long is restarted.
        no_engine_s: How long a call waits when no engine can serve it at all.
        retry_delay_s: Wait before a failed call is tried again where it failed; doubled each time.
        drain_timeout_s: How long a shutdown lets unfinished calls go on.
        stream_ping_s: A silent stream carries a comment this often, so that proxies keep it open.
        stream_send_timeout_s: A client that takes nothing of its stream for so long is gone.
        engine_restarts_per_hour: An engine that dies more often stays down.
        record: New file for all that the core takes in, prompts and outputs too; None for none.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8642, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    api_keys: Path | None = None
    no_auth: bool = False
    max_body_bytes: Count = 8 * 2**20
    max_graph_nodes: Count = 10_000
    max_concurrent_calls: Count = 50_000
    max_sessions: Count = 100_000
    max_wait_s: Seconds = 3600.0
    placement: PlacementName = "cost"
    ordering: OrderingName | None = None
    prune: bool = True
    merge_calls: bool = True
    result_cache_mib: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    admission: AdmissionName | None = None
    latency_tpot_s: Seconds = 0.04
    split_groups: bool = True
    early_fill: bool = False
    retain_prefixes: bool = True
    splice: bool = True
    discovery: bool = True
    discovery_learns: bool = True
    learn_lengths: bool = True
    fair: bool = True
    tenant_weights: dict[str, Share] = Field(default_factory=dict)
    openai_session_ttl_s: Seconds = 300.0
    max_attempts: Count = 3
    session_ttl_s: Seconds = 600.0
    engine_stall_s: Seconds = 120.0
    no_engine_s: Seconds = 120.0
    retry_delay_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    drain_timeout_s: float = Field(default=30.0, ge=0, allow_inf_nan=False)
    stream_ping_s: Seconds = 15.0
    stream_send_timeout_s: Seconds = 30.0
    engine_open_timeout_s: Seconds = 900.0
    engine_close_timeout_s: Seconds = 15.0
    engine_restart_delay_s: Seconds = 1.0
    engine_restart_max_delay_s: Seconds = 30.0
    engine_restarts_per_hour: int = Field(default=10, ge=0)
    record: Path | None = None

    def core_config(self) -> CoreConfig:
        """Return the part that the core gets."""
        return CoreConfig(
            scheduler=SchedulerConfig(
                placement=self.placement,
                ordering=self.ordering,
                fair=self.fair,
                tenant_weights=self.tenant_weights,
                admission=self.admission,
                cost=CostConfig(
                    latency_tpot_s=self.latency_tpot_s, splits_groups=self.split_groups
                ),
            ),
            early_fill=EarlyFillConfig(is_on=self.early_fill),
            optimiser=OptimiserConfig(
                prunes=self.prune,
                merges=self.merge_calls,
                result_cache_bytes=int(self.result_cache_mib * 2**20),
            ),
            retain_prefixes=self.retain_prefixes,
            splice=self.splice,
            discovery=DiscoveryConfig(is_on=self.discovery, learns=self.discovery_learns),
            lengths=LengthConfig(is_on=self.learn_lengths),
            max_nodes_per_session=self.max_graph_nodes,
            max_unfinished_calls=self.max_concurrent_calls,
            max_attempts=self.max_attempts,
            session_ttl_s=self.session_ttl_s,
            engine_stall_s=self.engine_stall_s,
            no_engine_s=self.no_engine_s,
            retry_delay_s=self.retry_delay_s,
        )

    def open_sessions_config(self) -> OpenSessionsConfig:
        """Return the part for sessions of calls that come one by one."""
        return OpenSessionsConfig(
            ttl_s=min(self.openai_session_ttl_s, self.session_ttl_s),
            max_calls=min(MAX_CALLS, self.max_graph_nodes),
        )

    def supervisor_config(self) -> SupervisorConfig:
        """Return the part that the supervisor gets."""
        return SupervisorConfig(
            open_timeout_s=self.engine_open_timeout_s,
            close_timeout_s=self.engine_close_timeout_s,
            restart_delay_s=self.engine_restart_delay_s,
            restart_max_delay_s=self.engine_restart_max_delay_s,
            restarts_per_hour=self.engine_restarts_per_hour,
        )


class EngineSettings(_Settings):
    """Which engines run, and how.

    Attributes:
        model: Model path or name; None takes the model that ships with Parrot (vLLM), or the
            engine's own default.
        served_model_name: Name that clients use for the model.
        replicas: How many engines of this kind run side by side.
        latency_capacity_tokens: KV tokens that may run together while a latency-sensitive request
            runs (paper, section 5.4). With the placement ``cost`` it bounds throughput work only,
            and only until the engine has told how long its steps take.
        tool_call_parser: vLLM's parser of tool calls; it belongs to the model. The model that ships
            with Parrot brings its own.
        reasoning_parser: vLLM's parser of reasoning; it belongs to the model.
        compact_json: JSON outputs have no white space between tokens, so that weak models come to
            an end. None: only for the model that ships with Parrot.
        vllm_scheduler: ``parrot`` runs vLLM with Parrot's plug-in, ``vllm`` without. The settings
            up to ``pin_ttl_s`` are for the plug-in; docs/vllm_plugin.md explains them.
        shared_attention: None: where it was measured to win; docs/kernels.md.
        attention_graphs: On GPUs, whether CUDA graphs of decode steps contain shared attention.
        openai_api_key_env: Name of the environment variable that holds the remote server's key.
        prefill_us_per_token: Scripted engine: simulated time per prompt token.
        token_ms: Scripted engine: simulated time per generated token.
    """

    engine: Literal["vllm", "scripted", "openai"] = "vllm"
    model: str | None = None
    served_model_name: str | None = None
    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    max_model_len: Count | None = None
    max_num_seqs: Count | None = None
    kv_cache_gib: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    latency_capacity_tokens: Count | None = None
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    compact_json: bool | None = None
    vllm_scheduler: Literal["parrot", "vllm"] = "parrot"
    order_by_hints: bool | None = None
    gang_groups: bool | None = None
    pace_steps: bool | None = None
    preempt: bool | None = None
    pin_prefixes: bool | None = None
    shared_attention: bool | None = None
    attention_graphs: bool | None = None
    latency_slowdown: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    max_hold_s: Seconds | None = None
    max_queue_wait_s: Seconds | None = None
    max_pinned_share: Annotated[float, Field(ge=0, le=1)] | None = None
    pin_ttl_s: Seconds | None = None
    openai_base_url: str | None = None
    openai_api_key_env: str = "OPENAI_API_KEY"
    openai_api_key: SecretStr | None = None
    prefill_us_per_token: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    token_ms: float = Field(default=0.0, ge=0, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set."""

    server: ServerSettings
    engines: EngineSettings


class ConfigError(Exception):
    """The settings cannot be used.

    Attributes:
        problems: All that is wrong, one line each.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """Return the settings from flags (None: not given) and the environment.

    Args:
        flags: Values by the name of the field that they set.

    Raises:
        ConfigError: With every problem found.
    """
    fields = {**ServerSettings.model_fields, **EngineSettings.model_fields}
    problems = [f"{name}: there is no such setting" for name in flags if name not in fields]
    server = _load(ServerSettings, flags, problems)
    engines = _load(EngineSettings, flags, problems)
    if engines is not None:
        engines = _with_api_key(engines)
        if engines.engine == "openai" and engines.openai_base_url is None:
            problems.append(f"openai_base_url ({_PREFIX}OPENAI_BASE_URL): needed by this engine")
    if problems or server is None or engines is None:
        raise ConfigError(tuple(problems))
    return Settings(server, engines)


def _load(
    kind: type[_SettingsT], flags: Mapping[str, Any], problems: list[str]
) -> _SettingsT | None:
    own = {name: flags.get(name) for name in kind.model_fields}
    given = {name: value for name, value in own.items() if value is not None}
    try:
        return kind(**given)
    except ValidationError as exc:
        for error in exc.errors(include_url=False, include_input=False):
            field = ".".join(str(step) for step in error["loc"])
            problems.append(f"{field} ({_PREFIX}{field.upper()}): {error['msg']}")
        return None


def _with_api_key(engines: EngineSettings) -> EngineSettings:
    key = os.environ.get(engines.openai_api_key_env)
    if engines.openai_api_key is not None or not key:
        return engines
    return engines.model_copy(update={"openai_api_key": SecretStr(key)})
