"""vLLM's own OpenAI server on an engine that runs already: the baseline of comparisons."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

# What the baseline's replies must tell, so that its tokens and times can be shown, too.
_REPORTING = ("--enable-prompt-tokens-details", "--enable-per-request-metrics")
# vLLM refuses tools without a parser, even where the tool is forced and nothing is to be parsed.
_TOOLS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")


async def create_vllm_app(client: Any, model: str) -> FastAPI:
    """Return vLLM's OpenAI application.

    Args:
        client: The engine's ``AsyncLLM``.
        model: Name under which it serves its model.
    """
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    path = client.vllm_config.model_config.model
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(
        ["--model", path, "--served-model-name", model, *_REPORTING, *_TOOLS]
    )
    tasks = await client.get_supported_tasks()
    app: FastAPI = build_app(arguments, tasks, client.vllm_config.model_config)
    await init_app_state(client, app.state, arguments, tasks)
    return app
