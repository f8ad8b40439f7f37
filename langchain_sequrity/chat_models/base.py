"""The base of the chat models: one turn for sync and async, and LangChain's other methods."""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import cached_property, wraps
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import urlsplit

import orjson
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import (
    BaseChatModel,
    LangSmithParams,
    LanguageModelInput,
    ModelProfile,
)
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import SecretStr, model_validator
from typing_extensions import override

from langchain_sequrity.chat_models.fallbacks import PassesDenials
from langchain_sequrity.chat_models.model_profiles import profile_of
from langchain_sequrity.chat_models.parameters import (
    KEYS,
    KeySource,
    Parameters,
    PreparedParameters,
    capabilities_of,
    env_key,
)
from langchain_sequrity.chat_models.run_config import (
    GUARD_SETTINGS,
    HEADERS,
    refuse_setting_names,
    refuse_settings,
    session_and_headers,
    with_run_config,
)
from langchain_sequrity.chat_models.threads import ThreadMemory
from langchain_sequrity.chat_models.tools import (
    unlabelled_tools,
    write_response_format,
    write_tool_choice,
    write_tools,
)
from langchain_sequrity.chat_models.turn import Turn, TurnSettings
from langchain_sequrity.connection import ASKED_KEY, LOOPBACK_KEY, Connection, check_key
from langchain_sequrity.errors import PolicyDenied, StatusError, UsageError
from langchain_sequrity.headers import Header
from langchain_sequrity.headers.policy_fit import (
    describe,
    is_repeated,
    missing_rules,
    problems,
    warn_of_policy,
)
from langchain_sequrity.tracing import atrace_turn, trace_turn
from langchain_sequrity.wire.exchange import ClientFormat
from langchain_sequrity.wire.routes import Format, is_loopback
from langchain_sequrity.wire.stream_reader import as_chunk

if TYPE_CHECKING:
    from langchain_sequrity.chat_models.structured_output import Method, Schema
    from langchain_sequrity.transport import Transport

_CALL_ARGUMENTS = frozenset(
    {
        "session_id",
        "configured_session_id",
        "thread_id",
        "extra_headers",
        "extra_body",
        "stream",
        "ls_structured_output_format",
        "structured_output_format",
        "is_parsed",  # of `with_structured_output`: its parser judges what is not an object
        "only_answers",  # of `with_structured_output`: its only tool is the schema of the answer
    }
)
"""Arguments of a call that are not fields of the body."""

TOKEN_LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
"""Two names of one limit. A call's limit replaces the model's, whatever their names."""

_CLEARED = (
    "The policy has rules on the session, and `fsm.clear_session_meta` of the configuration clears "
    "its labels in each turn: the rules do not see earlier turns. Leave the setting out."
)


class SequrityChatModel(PassesDenials[LanguageModelInput, AIMessage], Parameters):
    """Base of `ChatSequrity` and `SequrityMessages`; see these for their use."""

    def __init__(self, model: str | None = None, **kwargs: Any) -> None:
        """Take the model's name first and everything else by keyword."""
        if model is not None:
            kwargs["model"] = model
        super().__init__(**kwargs)

    @override
    def copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # type: ignore[override] # pydantic's copies without checks
        """Copy as `model_copy` does."""
        return self.model_copy(update=update, deep=deep)

    # Properties for LangChain

    @property
    def model(self) -> str:
        """The model's name, as `model_name`."""
        return self.model_name

    @property
    @override
    def lc_secrets(self) -> dict[str, str]:
        return {"api_key": "SEQURITY_API_KEY", "llm_api_key": "SEQURITY_LLM_API_KEY"}

    @classmethod
    @override
    def is_lc_serializable(cls) -> bool:
        return True

    @classmethod
    @override
    def get_lc_namespace(cls) -> list[str]:
        return ["langchain_sequrity", "chat_models"]

    @property
    @override
    def lc_attributes(self) -> dict[str, Any]:
        """The headers as JSON that can be read back; each policy has its own cache key."""
        return {
            name: value.model_dump(mode="json", exclude_unset=True)
            for name, value in self._json_headers().items()
        }

    @property
    @override
    def _identifying_params(self) -> dict[str, Any]:
        return dict(self._ready.identifying)

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = self._ready.params
        ls_params = LangSmithParams(ls_provider="sequrity", ls_model_type="chat")
        ls_params["ls_model_name"] = kwargs.get("model", params["model"])
        if (temperature := kwargs.get("temperature", params.get("temperature"))) is not None:
            ls_params["ls_temperature"] = temperature
        limits = [fields.get(name) for fields in (kwargs, params) for name in TOKEN_LIMIT_FIELDS]
        if (max_tokens := next((limit for limit in limits if limit is not None), None)) is not None:
            ls_params["ls_max_tokens"] = max_tokens
        if stops := stop or params.get("stop"):
            ls_params["ls_stop"] = stops
        return ls_params

    def _model_params(self, config: object) -> NoReturn:
        """Refuse `ProviderToolSearchMiddleware`, which alone asks a model for this.

        It asks when it is about to defer a tool; its own error says only that the provider is not
        a known one.
        """
        del config
        name = type(self).__name__
        msg = (
            f"`ProviderToolSearchMiddleware` does not work with `{name}`: the search for tools is "
            "a feature of a provider's own API, which Sequrity does not offer. Use "
            f"`LLMToolSelectorMiddleware`, which selects the tools for each call with any model, "
            "or give the agent all tools without `defer_loading`."
        )
        raise UsageError(msg)

    @override
    def _resolve_model_profile(self) -> ModelProfile | None:
        return profile_of(self.model_name)

    @override
    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return {"model_name": self.model_name}

    @override
    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        # Two keys, policies or default headers never share a cached answer.
        fingerprint = self._ready.settings.connection.with_keys(self._call_keys()).fingerprint
        return f"{super()._get_llm_string(stop=stop, **kwargs)}---{fingerprint}"

    @override
    def get_num_tokens(self, text: str) -> int:
        """Count tokens approximately: the model behind the service is not known here."""
        return count_tokens_approximately([HumanMessage(text)])

    @override
    def get_num_tokens_from_messages(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Count tokens approximately: the model behind the service is not known here."""
        definitions: Any = write_tools(tools, strict=None) if tools else None
        return count_tokens_approximately(messages, tools=definitions)

    # What is made of the parameters

    @model_validator(mode="after")
    def _check_connection(self) -> Self:
        """Check now, and not at the first call, that the fields give a connection.

        A policy that does less than it says, judged by its text and the mode, is a warning.

        Raises:
            UsageError: Instead of the warning, with `strict_policy`.
        """
        connection = self._ready.settings.connection
        if (policy := connection.policy) is not None:
            capabilities = capabilities_of(connection)
            texts = (
                missing_rules(policy),
                describe(problems(policy, capabilities, labels=self.labels), capabilities),
                _CLEARED if connection.clears_session and policy.uses_session else "",
            )
            warn_of_policy("\n".join(filter(None, texts)), is_strict=self.strict_policy)
        return self

    @property
    def prepared(self) -> PreparedParameters:
        """Connection, format and fields of the body for all turns of the model.

        Raises:
            UsageError: If a function gives the keys: users of this property keep the connection.
        """
        for name in filter(self._is_key_function, KEYS):
            msg = (
                f"`{name}` is a function, which only the model itself calls. Give the key as text "
                "for a graph or for `PolicyGenTool`."
            )
            raise UsageError(msg)
        return self._ready

    def _format(self) -> tuple[Format, ClientFormat]:
        """The wire format: the last part of the path, and the module that reads and writes it."""
        raise NotImplementedError

    # Not private attributes of pydantic, which are slow: each call needs these several times.

    @cached_property
    def _ready(self) -> PreparedParameters:
        if self._lost:
            names = ", ".join(f"`{name}`" for name in self._lost)
            msg = (
                f"The model was unpickled without {names}, which a pickle does not hold. Give "
                "them again with `model.model_copy(update={...})`."
            )
            raise UsageError(msg)
        suffix, wire = self._format()
        settings = TurnSettings(
            connection=self._connection(suffix),
            wire=wire,
            on_denied=self.on_denied,
            on_session_expired=self.on_session_expired,
            include_response_headers=self.include_response_headers,
            # Only `ChatSequrity` has this parameter.
            only_new_messages=getattr(self, "use_previous_response_id", False),
        )
        fields = {name: getattr(self, name) for name in self._body_parameters}
        body = {"model": self.model_name, **fields, **self.model_kwargs}
        params = {name: value for name, value in body.items() if value is not None}
        identifying = {
            **params,
            "base_url": self.base_url,
            "provider": self.provider,
            "endpoint_type": self.endpoint_type,
            **{name: value.to_header() for name, value in self._json_headers().items()},
        }
        return PreparedParameters(settings, params, identifying, set())

    def sender(self) -> "Transport":
        """The transport of the model's calls."""
        return self._sender

    @cached_property
    def _sender(self) -> "Transport":
        # Imported at the first call: the package imports faster.
        from langchain_sequrity.transport import (  # noqa: PLC0415
            RetryPolicy,
            Timeouts,
            Transport,
        )

        is_set = "stream_chunk_timeout" in self.model_fields_set
        return Transport(
            self.base_url,
            timeouts=Timeouts.of(self.timeout, self.stream_chunk_timeout if is_set else "default"),
            retry=RetryPolicy(max_retries=self.max_retries),
            secrets=self._ready.settings.connection.secrets,
            http_client=self.http_client,
            http_async_client=self.http_async_client,
            proxy=None if self.proxy is None else self.proxy.get_secret_value(),
        )

    def _connection(self, suffix: Format) -> Connection:
        headers = {
            name: value.get_secret_value() for name, value in (self.default_headers or {}).items()
        }
        default_names = {name.lower() for name in headers}
        named = self._named_headers().items()
        headers |= {name: value for name, value in named if name.lower() not in default_names}
        connection = Connection(
            base_url=self.base_url,
            api_key=self._key(),
            llm_api_key=None if self.llm_api_key is None else _key_text(self.llm_api_key),
            endpoint_type=self.endpoint_type,
            provider=self.provider,
            suffix=suffix,
            features=self.features,
            policy=self.policy,
            config=self.session_config,
            default_headers=headers,
            default_query=self.default_query or {},
            max_header_bytes=self.max_header_bytes,
            allow_http=self.allow_http,
        )
        connection = connection.with_whole_envelopes()
        return connection.with_offers() if self.on_denied == "interrupt" else connection

    def _key(self) -> str:
        key = self.api_key
        if key is None:  # unpickled, perhaps, before the variable was set
            key = env_key("api_key")
        if key is not None:
            return _key_text(key)
        if is_loopback(urlsplit(self.base_url).hostname or ""):
            return LOOPBACK_KEY
        msg = (
            "There is no Sequrity key. Set the environment variable `SEQURITY_API_KEY`, or pass "
            f"`api_key=`. (Only loopback addresses need no key; the address is `{self.base_url}`.)"
        )
        raise UsageError(msg)

    def _named_headers(self) -> dict[str, str]:
        """Headers that have their own parameter."""
        return {}

    def _is_key_function(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not None and not isinstance(value, SecretStr)

    def _call_keys(self) -> dict[str, str]:
        """The keys that functions give for this call. They are not stored."""
        keys = {}
        for name in filter(self._is_key_function, KEYS):
            key = getattr(self, name)()
            if isawaitable(key):
                if iscoroutine(key):
                    key.close()
                msg = (
                    f"`{name}` is an async function, which only `ainvoke`, `astream` and "
                    "`abatch` can call. Use one of these, or give a plain function."
                )
                raise UsageError(msg)
            keys[name] = _checked_key(name, key)
        return keys

    async def _acall_keys(self) -> dict[str, str]:
        """See `_call_keys`."""
        keys = {}
        for name in filter(self._is_key_function, KEYS):
            key = getattr(self, name)()
            keys[name] = _checked_key(name, await key if isawaitable(key) else key)
        return keys

    def _json_headers(self) -> dict[str, Header]:
        """X-Features, X-Policy and X-Config, as far as they are given, by the field's name."""
        headers = {name: getattr(self, name) for name in HEADERS}
        return {name: value for name, value in headers.items() if value is not None}

    # Turns

    def _turn(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: Mapping[str, Any],
        keys: Mapping[str, str],
        *,
        stream: bool,
    ) -> Turn:
        prepared = self._ready
        connection = prepared.settings.connection.with_keys(keys)
        params = self._params(prepared.params, stop, kwargs, stream=stream)
        self._check_policy_for(params.get("tools"))  # of `bind` or of this call
        session_id, headers = session_and_headers(kwargs)
        if headers:
            connection, headers = connection.with_headers(headers)
        memory = None
        # Without tools there are no calls, and a schema for the answer is no tool.
        has_tools = params.get("tools") and not kwargs.get("only_answers")
        if has_tools and connection.uses_session:
            memory = ThreadMemory(
                connection.owner, self.on_session_lost, thread_id=kwargs.get("thread_id")
            )
        return Turn(
            prepared.settings,
            messages,
            params,
            connection,
            session_id=session_id,
            configured_session_id=kwargs.get("configured_session_id"),
            extra_headers=headers,
            memory=memory,
            is_parsed=kwargs.get("is_parsed", False),
        )

    def _params(
        self,
        defaults: Mapping[str, Any],
        stop: list[str] | None,
        kwargs: Mapping[str, Any],
        *,
        stream: bool,
    ) -> dict[str, Any]:
        """All fields of the body except the messages."""
        params = {**defaults, **self._body_fields(kwargs)}
        if "stop_sequences" in params:  # the parameter's other name
            params["stop"] = params.pop("stop_sequences")
        if stop is not None:
            params["stop"] = stop
        if stream:
            params["stream"] = True
        for extra in (self.extra_body, kwargs.get("extra_body")):
            if extra:
                params.update(extra)
        if self.endpoint_type == "lang-graph" and "user_provided_program" not in params:
            msg = (
                "The endpoint type `lang-graph` runs your own program: pass "
                "`user_provided_program=` and `context_vars=`, or use `LangGraphExecutor`."
            )
            raise UsageError(msg)
        return params

    def _body_fields(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call that are fields of the body; `None` values are left out.

        Raises:
            UsageError: For a parameter of the model: a `policy` in the body would have no effect.
        """
        fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            if value is None or name in _CALL_ARGUMENTS:
                continue
            if name in type(self).model_fields and name not in self._body_parameters:
                msg = (
                    f"`{name}` belongs to the model, not to one call: use "
                    f"`model.model_copy(update={{{name!r}: …}})`."
                )
                if name not in GUARD_SETTINGS:
                    msg += " A field of the body with this name goes into `extra_body`."
                raise UsageError(msg)
            if name not in self._body_parameters:
                refuse_setting_names((name,))
            fields[name] = value
        refuse_setting_names(kwargs.get("extra_body") or ())
        return fields

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._turn(messages, stop, kwargs, self._call_keys(), stream=False) as turn:
            transport = self._sender
            while True:
                try:
                    result = transport.send(turn.call, turn.read)
                except StatusError as error:
                    turn.after_refusal(error)
                except PolicyDenied as denied:
                    trace_turn(run_manager, denied)
                    if (approved := turn.after_denial(denied)) is not None:
                        return ChatResult(generations=[ChatGeneration(message=approved)])
                else:
                    trace_turn(run_manager, result.generations[0].message)
                    return result

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        keys = await self._acall_keys()
        async with self._turn(messages, stop, kwargs, keys, stream=False) as turn:
            transport = self._sender
            while True:
                try:
                    result = await transport.asend(turn.call, turn.read)
                except StatusError as error:
                    turn.after_refusal(error)
                except PolicyDenied as denied:
                    await atrace_turn(run_manager, denied)
                    if (approved := turn.after_denial(denied)) is not None:
                        return ChatResult(generations=[ChatGeneration(message=approved)])
                else:
                    await atrace_turn(run_manager, result.generations[0].message)
                    return result

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with self._turn(messages, stop, kwargs, self._call_keys(), stream=True) as turn:
            transport = self._sender
            while True:
                try:
                    for message in transport.stream(turn.call, turn.new_reader):
                        chunk = ChatGenerationChunk(message=message)
                        if run_manager is not None:
                            run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                        trace_turn(run_manager, message)
                        yield chunk
                except StatusError as error:
                    turn.after_refusal(error)
                except PolicyDenied as denied:
                    trace_turn(run_manager, denied)
                    if (approved := turn.after_denial(denied)) is not None:
                        yield ChatGenerationChunk(message=as_chunk(approved))
                        return
                else:
                    return

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        keys = await self._acall_keys()
        async with self._turn(messages, stop, kwargs, keys, stream=True) as turn:
            transport = self._sender
            while True:
                try:
                    # `aclosing`: an abandoned stream gives its connection back at once, not when
                    # collected.
                    async with aclosing(transport.astream(turn.call, turn.new_reader)) as replies:
                        async for message in replies:
                            chunk = ChatGenerationChunk(message=message)
                            if run_manager is not None:
                                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                            await atrace_turn(run_manager, message)
                            yield chunk
                except StatusError as error:
                    turn.after_refusal(error)
                except PolicyDenied as denied:
                    await atrace_turn(run_manager, denied)
                    if (approved := turn.after_denial(denied)) is not None:
                        yield ChatGenerationChunk(message=as_chunk(approved))
                        return
                else:
                    return

    # The run's config, which LangChain does not pass on; see `_take_run_config` below

    def _with_run_config(
        self, config: RunnableConfig | None, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        refuse_settings(config, self)
        needs_thread = "extra_headers" in kwargs or self._ready.settings.connection.uses_session
        return with_run_config(config, kwargs, needs_thread=needs_thread)

    @override
    def bind(self, **kwargs: Any) -> Any:
        """Bind fields of the body, or arguments of each call such as `session_id`.

        They stay when tools or a schema are bound afterwards.

        Raises:
            UsageError: For a parameter of the model, such as `policy`.
        """
        self._body_fields(kwargs)
        return super().bind(**kwargs)

    @override
    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Bind a config.

        Raises:
            UsageError: For a parameter of the model, such as `policy`.
        """
        refuse_settings({**(config or {}), **kwargs}, self)
        return super().with_config(config, **kwargs)

    @override
    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        # `async`: LangChain calls a plain function in a thread, and awaits nothing.
        return await super().ainvoke(
            input, config, stop=stop, **self._with_run_config(config, kwargs)
        )

    # Tools and structured output

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Give the model tools.

        Args:
            tools: LangChain tools, functions, pydantic classes, TypedDicts or tool objects of
                the provider's API, also those of tools that the service runs itself.
            tool_choice: `"auto"`, `"none"`, `"any"` or `"required"`, a tool's name, `True` for
                any tool, or an object of the API.
            strict: Whether arguments must fit the schema exactly.
            parallel_tool_calls: Whether one reply may hold several calls.
            response_format: A schema of the answer; see `with_structured_output`.
            **kwargs: Further fields of the body.

        Returns:
            The model with the tools bound.

        Raises:
            UsageError: If a tool cannot be described, or `tool_choice` names an unknown tool; with
                `strict_policy` also if the policy has rules for unknown tools or arguments.

        Warns:
            PolicyMismatch: If the policy has rules without effect in this mode or with these tools;
                once for each set of tools. Warnings of the constructor are not repeated.
        """
        connection = self._ready.settings.connection
        extras, results = connection.suffix == "messages", connection.dual_llm is True
        definitions = write_tools(tools, strict=strict, extras=extras, results=results)
        self._check_policy_for(definitions, unlabelled_tools(tools, definitions))
        bound = {
            "tool_choice": write_tool_choice(tool_choice, definitions),
            "parallel_tool_calls": parallel_tool_calls,
        }
        if response_format is not None:
            bound["response_format"] = write_response_format(response_format, strict=strict)
        kwargs.update({name: value for name, value in bound.items() if value is not None})
        # An empty list is not a legal value of the field.
        bound_model: Runnable[LanguageModelInput, AIMessage] = self.bind(
            **({"tools": definitions} if definitions else {}), **kwargs
        )
        return bound_model

    def _check_policy_for(self, tools: object, unlabelled: Collection[str] = ()) -> None:
        """Compare the policy with a set of tools once: an agent binds them before each answer.

        A policy that does less than it says with these tools is a warning. What was told of the
        policy without them is not told again.

        Raises:
            UsageError: Instead of the warning, with `strict_policy`.
        """
        prepared = self._ready
        connection = prepared.settings.connection
        policy = connection.policy
        if policy is None or not tools or not isinstance(tools, list):
            return
        if not all(isinstance(tool, dict) for tool in tools):  # the service refuses them
            return
        try:
            key = orjson.dumps(tools)
        except TypeError:  # not JSON: the error comes when it is sent
            return
        if key in prepared.compared:
            return
        capabilities, labels = capabilities_of(connection), self.labels
        without_tools = problems(policy, capabilities, labels=labels)
        findings = problems(policy, capabilities, tools, unlabelled=unlabelled, labels=labels)
        text = describe(
            [finding for finding in findings if not is_repeated(finding, without_tools)],
            capabilities,
            "The policy has rules that do not fit the tools that are bound, so they do less than "
            "they say",
            "Correct them, or bind the tools that they are for.",
        )
        warn_of_policy(text, is_strict=self.strict_policy)
        prepared.compared.add(key)

    @override
    def with_structured_output(
        self,
        schema: "Schema | None" = None,
        *,
        method: "Method" = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answer in a given schema.

        It works on the value of a dual-LLM turn as on a plain answer.

        `SequrityMessages` differs in two points, because of its format: `json_mode` with a schema
        is `json_schema`, and a thinking model cannot be forced to call a tool. It is then asked to,
        and a missing call raises `ForcedToolMissing`.

        Args:
            schema: A pydantic class (the result is an instance of it), or a TypedDict, a JSON
                Schema or an OpenAI function (the result is a dict).
            method: `json_schema` uses the format's own structured output (`output_config` in
                Anthropic's format), `function_calling` a forced tool call, `json_mode` asks for any
                JSON (describe its content in the prompt).
            include_raw: Return `{"raw": message, "parsed": …, "parsing_error": …}` and never
                raise for a reply that does not parse.
            strict: Whether the reply must fit the schema exactly; not with `json_mode`.
            **kwargs: Further fields of the body, and `tools` as for `bind_tools`.

        Returns:
            A runnable with the input of the model.

        Raises:
            UsageError: If the arguments exclude each other.

        Example:
            ```python
            from pydantic import BaseModel
            from langchain_sequrity import ChatSequrity
            from langchain_sequrity.local import LocalServer


            class City(BaseModel):
                name: str


            with LocalServer() as server:
                model = ChatSequrity("any/model", base_url=server.base_url)
                city = model.with_structured_output(City).invoke("The city is 'Oslo'.")
                assert isinstance(city, City)
            ```
        """
        from langchain_sequrity.chat_models.structured_output import (  # noqa: PLC0415 - parsers are slow to import
            structured_output,
        )

        if method == "json_mode" and schema is not None and self._format()[0] == "messages":
            method = "json_schema"
        return structured_output(
            self, schema, method=method, include_raw=include_raw, strict=strict, **kwargs
        )

    # Connections

    def close(self) -> None:
        """Close idle connections to the service.

        The model stays usable, and clients that you passed stay open.
        """
        self._sender.close()

    async def aclose(self) -> None:
        """Close idle connections of the running event loop, as `close` does."""
        await self._sender.aclose()


def _take_run_config(name: str) -> None:
    """Let a method take session and thread of the run's config."""

    @wraps(getattr(BaseChatModel, name))
    def method(
        self: SequrityChatModel,
        input: Any,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        inherited = getattr(super(SequrityChatModel, self), name)
        return inherited(input, config, **self._with_run_config(config, kwargs))

    setattr(SequrityChatModel, name, method)


# Set here, so that they keep the types of LangChain.
for _name in ("invoke", "stream", "astream", "stream_events", "astream_events"):
    _take_run_config(_name)


def _key_text(key: SecretStr | KeySource) -> str:
    return key.get_secret_value() if isinstance(key, SecretStr) else ASKED_KEY


def _checked_key(name: str, key: object) -> str:
    text = key.get_secret_value() if isinstance(key, SecretStr) else key
    if not isinstance(text, str):
        type_name = type(key).__name__
        msg = f"The function `{name}` must return the key as text; it returned a `{type_name}`."
        raise UsageError(msg)
    check_key(name, text)
    return text
