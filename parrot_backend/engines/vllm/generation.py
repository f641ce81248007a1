"""One attempt on vLLM: prompt to tokens, tokens to vLLM, its steps to outputs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from parrot_backend.core.criteria import Objective
from parrot_backend.core.events import RequestFailed, RequestFinished, TokensGenerated
from parrot_backend.core.ids import AttemptId
from parrot_backend.engines.attempts import fit_output, prompt_too_long
from parrot_backend.engines.base import AttemptOutput, EngineRequest
from parrot_backend.engines.chat_history import is_chat, open_messages, tool_choice_of, tools_of
from parrot_backend.engines.output_stream import OutputStream
from parrot_backend.engines.vllm.plugin_side import PluginSide, hints_of
from parrot_backend.engines.vllm.prompt import EncodedPrompt, PromptEncoder, PromptError
from parrot_backend.engines.vllm.reply import Reply
from parrot_backend.engines.vllm.splices import Splices, StagedRequest
from parrot_backend.vllm_compat import client as compat
from parrot_backend.vllm_compat.output_parser import OutputParser, ParsedChat
from parrot_backend.vllm_compat.output_parsers import OutputParsers
from parrot_backend.vllm_compat.records import Constraint, Rejected, Step
from parrot_backend.vllm_compat.sampling import structured_outputs

#: Longer prompts are tokenised in a thread, because the event loop would stand still meanwhile:
#: about 3 ms for so many characters, and as much for so many parts.
_LONG_PROMPT_CHARS, _MANY_PARTS = 10_000, 200


class Generation:
    """Runs attempts.

    Args:
        client: The ``AsyncLLM``.
        encoder: Turns prompts into tokens.
        parsers: Make what takes outputs apart.
        max_model_len: Longest prompt plus output, in tokens.
        stream: Takes the outputs.
        plugin: The client's side of the plug-in, if the engine has it.

    Attributes:
        can_splice: Whether the plug-in puts outputs into prompts that wait for them.
    """

    def __init__(
        self,
        client: Any,
        encoder: PromptEncoder,
        parsers: OutputParsers,
        max_model_len: int,
        stream: OutputStream,
        plugin: PluginSide | None,
    ) -> None:
        self._client = client
        self._encoder = encoder
        self._parsers = parsers
        self._max_model_len = max_model_len
        self._stream = stream
        self._plugin = plugin
        self._splices = Splices()
        self.can_splice = False
        self._updates: dict[AttemptId, tuple[Objective, int]] = {}

    def update(self, attempt: AttemptId, objective: Objective, remaining: int) -> None:
        """Change the hints of an attempt that runs."""
        if self._plugin is not None:
            self._updates[attempt] = (objective, remaining)
            self._plugin.update(attempt, objective, remaining)

    async def run(self, request: EngineRequest) -> None:
        """Run an attempt to its end; to cancel this aborts it.

        Raises:
            CoreDead: The engine is gone.
        """
        try:
            await self._run(request)
        except PromptError as exc:
            self._stream.put(RequestFailed(request.attempt, "engine_rejected", str(exc)))
        except Rejected as exc:
            self._stream.put(RequestFailed(request.attempt, exc.code, str(exc), exc.is_retryable))
        finally:
            self._updates.pop(request.attempt, None)

    async def _run(self, request: EngineRequest) -> None:
        refusal = self._refusal(request)
        if refusal is not None:
            self._stream.put(refusal)
            return
        prompt_ids, ends, settled = await self._encode(request)
        if request.fill_parts is not None:
            prompt_ids = prompt_ids[: ends[request.fill_parts - 1]]
        max_tokens = fit_output(request, len(prompt_ids), self._max_model_len)
        if request.after is not None:
            # How much it may generate must not depend on what comes before.
            limit_tokens = request.sampling.max_tokens or self._max_model_len
            whole = len(prompt_ids) + request.max_gap_tokens + limit_tokens
            if whole > self._max_model_len or not self._may_splice(request):
                return
        if isinstance(max_tokens, RequestFailed):
            self._stream.put(max_tokens)
            return
        parser = self._parser_of(request, prompt_ids)
        constraint = self._constraint_of(request) if parser is None else parser.constraint
        steps = compat.generate(
            self._client,
            request.attempt,
            prompt_ids,
            request.sampling,
            max_tokens,
            request.objective.objective_class,
            request.cache_salt,
            None if self._plugin is None else hints_of(request, ends, settled),
            constraint,
            quiet=request.quiet,
        )
        reply = Reply(request, len(prompt_ids), self._encoder.decode, parser)
        if request.after is not None:
            staged = self._splices.add(request.attempt, request.after)
            steps = self._once_released(staged, steps, reply)
        # Should the parser fail, vLLM must not go on generating for nobody.
        async with aclosing(steps):
            async for step in steps:
                self._resend_update(request.attempt)
                for output in reply.add(step):
                    self._say(request, output)

    def _refusal(self, request: EngineRequest) -> RequestFailed | None:
        """Return why a request cannot be served here, as far as is known without its tokens."""
        least = self._encoder.least_tokens(request.parts[: request.fill_parts])
        if least >= self._max_model_len and request.after is None:
            return prompt_too_long(f"at least {least}", request, self._max_model_len)
        chat = request.chat
        if not chat.may_call or chat.must_call or self._parsers.finds_tool_calls:
            return None
        message = "the engine has no parser for this model's calls of tools (--tool-call-parser)"
        return RequestFailed(request.attempt, "tools_unsupported", message)

    def _may_splice(self, request: EngineRequest) -> bool:
        """Tell whether the output that a staged request waits for stands for its value."""
        return self.can_splice and not (self._parsers.finds_reasoning and is_chat(request.parts))

    def _parser_of(self, request: EngineRequest, prompt_ids: list[int]) -> OutputParser | None:
        """Return what takes the output apart, None if it is all text."""
        chat = request.chat
        if request.fill_parts is not None or not is_chat(request.parts):
            return None
        messages, continues_last = open_messages(request.parts)
        # Who goes on with a message has done with thinking.
        may_reason = self._parsers.finds_reasoning and not continues_last
        if not (chat.may_call or may_reason):
            return None
        parsed = ParsedChat(
            messages=messages,
            tools=tools_of(chat) if chat.may_call else [],
            tool_choice=tool_choice_of(chat.tool_choice),
            parallel_tool_calls=chat.parallel_tool_calls,
            template_kwargs=dict(chat.template_kwargs),
            may_reason=may_reason,
            prompt_ids=prompt_ids,
            comes_whole=request.quiet,
        )
        return self._parsers.make(parsed, structured_outputs(request.sampling.response_format))

    def _constraint_of(self, request: EngineRequest) -> Constraint:
        structured = structured_outputs(request.sampling.response_format)
        # There is no reasoning before this output: the constraint begins at once.
        reasoning = {"reasoning_ended": True} if self._parsers.finds_reasoning else {}
        return Constraint(structured, reasoning=reasoning)

    async def _encode(self, request: EngineRequest) -> EncodedPrompt:
        # Only the plug-in has a use for them.
        beginnings = () if self._plugin is None else request.beginnings
        cuts = [(beginning.part, beginning.offset) for beginning in beginnings]
        num_chars = sum(part.num_chars for part in request.parts) + len(request.chat.prompt_text)
        encode = partial(self._encoder.encode_with_cuts, request.parts, cuts, request.chat)
        if num_chars > _LONG_PROMPT_CHARS or len(request.parts) > _MANY_PARTS:
            return await asyncio.to_thread(encode)
        return encode()

    async def _once_released(
        self, staged: StagedRequest, steps: AsyncGenerator[Step], reply: Reply
    ) -> AsyncGenerator[Step]:
        """Yield the steps of a staged request after the end of the one before has been told."""
        try:
            async with aclosing(steps):
                async for step in steps:
                    if not reply.has_begun:
                        reply.lengthen_prompt(await staged.gap_tokens)
                    yield step
        finally:
            self._splices.remove(staged)

    def _say(self, request: EngineRequest, output: AttemptOutput) -> None:
        if isinstance(output, RequestFinished):
            spliced = self._splices.finished(request.attempt, len(output.token_ids or ()))
            output = replace(output, spliced=spliced)
            if request.fill_parts is not None:
                output = replace(output, text="", token_ids=None)
        is_unheard = request.quiet or request.fill_parts is not None
        if not (is_unheard and isinstance(output, TokensGenerated)):
            self._stream.put(output)

    def _resend_update(self, attempt: AttemptId) -> None:
        """Send an early update again: the first may have overtaken the request itself."""
        if self._updates and self._plugin is not None:
            update = self._updates.pop(attempt, None)
            if update is not None:
                self._plugin.update(attempt, *update)
