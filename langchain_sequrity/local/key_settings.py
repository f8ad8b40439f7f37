"""What a key's own policy, features and configuration do to the headers of its requests.

The hosted service stores these for each key. Here an operator does, and a client can only add to
them: both policies are combined, so that the key's denials stand; a header that would weaken the
settings is refused with 403, which names the field.

`FIELDS` says for each field of the three headers what a client may do. A field that it does not
list is fixed.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NoReturn

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import (
    ConfigHeader,
    FeaturesHeader,
    Header,
    HeaderModel,
    PolicyHeader,
    coerce,
    from_wire,
    write_header,
)
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.screening import threshold_of
from langchain_sequrity.owned_cache import owned_cache
from langchain_sequrity.sqrt import Engine, combine, named

Leaf = tuple[str, Any]
Use = Literal["fixed", "addable", "free", "combined"]
_CLIENT = "X-Policy"


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What a client may do with a field.

    Attributes:
        use: `fixed`: leave it out, or send the key's value. `addable`: add elements to the key's.
            `free`: set it, because no value weakens the key's settings. `combined`: set it, because
            the combination of both policies honours both.
        like_unset: For a fixed field that the key leaves unset: values with which this server does
            the same, or shows the planner less.
    """

    use: Use
    like_unset: tuple[Any, ...] = ()


_FIXED, _FREE, _COMBINED = FieldRule("fixed"), FieldRule("free"), FieldRule("combined")
_ADDABLE = FieldRule("addable")
_OFF = FieldRule("fixed", (False,))

FIELDS: Mapping[str, Mapping[str, FieldRule]] = {
    "X-Policy": {
        "codes.code": _COMBINED,
        "codes.language": FieldRule("fixed", ("sqrt",)),
        # `strict` adds labels to values, and a rule may allow a call because of a label.
        "mode": FieldRule("fixed", ("standard",)),
        "auto_gen": _OFF,
        "fail_fast": _COMBINED,
        "presets.default_allow": _COMBINED,
        "presets.default_allow_enforcement_level": _COMBINED,
        "presets.enable_non_executable_memory": _COMBINED,
        "presets.enable_llm_blocked_tag": _COMBINED,
        "presets.llm_blocked_tag_enforcement_level": _COMBINED,
        "presets.branching_meta_policy.mode": _FIXED,
        "presets.branching_meta_policy.producers": _FIXED,
        "presets.branching_meta_policy.tags": _FIXED,
        "presets.branching_meta_policy.consumers": _FIXED,
    },
    "X-Features": {
        # In single-LLM sessions values have no labels, so rules on labels deny nothing.
        "agent_arch": _FIXED,
        "content_classifiers": _ADDABLE,
        "content_blockers": _ADDABLE,
    },
    "X-Config": {
        "fsm.min_num_tools_for_filtering": _FREE,
        "fsm.clear_session_meta": FieldRule("fixed", ("never",)),
        "fsm.max_n_turns": _FREE,
        "fsm.history_mismatch_policy": _FREE,
        "fsm.clear_history_every_n_attempts": _FREE,
        "fsm.disable_rllm": _FREE,
        # More programs in a turn see more of the outcome of earlier ones.
        "fsm.enable_multistep_planning": _OFF,
        # `set_policy` adds an engine that changes what later calls are checked with.
        "fsm.enabled_internal_tools": _FIXED,
        "fsm.prune_failed_steps": FieldRule("fixed", (True,)),
        "fsm.force_to_cache": FieldRule("fixed", ((),)),
        "fsm.max_pllm_steps": _FREE,
        "fsm.max_pllm_failed_steps": _FREE,
        "fsm.max_tool_calls_per_step": _FREE,
        "fsm.reduced_grammar_for_rllm_review": _FIXED,
        "fsm.retry_on_policy_violation": _OFF,
        # Whoever uses the key could approve what the rules of its operator deny.
        "fsm.offer_soft_denials": _OFF,
        "fsm.wrap_tool_result": _OFF,
        # With `none` the program reads an error as a value, with the same labels.
        "fsm.detect_tool_errors": FieldRule("fixed", ("none",)),
        "fsm.detect_tool_error_regex_pattern": _FIXED,
        "fsm.detect_tool_error_max_result_length": _FIXED,
        "fsm.strict_tool_result_parsing": _OFF,
        "fsm.tool_result_transform": FieldRule("fixed", ("none",)),
        "fsm.n_pllm_plans": _FREE,
        "fsm.pllm_candidate_models": _FREE,  # each name is checked as that of the request is
        "fsm.pllm_context_pruning": FieldRule("fixed", (True,)),
        "prompt.pllm.debug_info_level": FieldRule("fixed", ("normal", "minimal")),
        "prompt.pllm.clarify_ambiguous_queries": _FREE,
        "prompt.pllm.context_var_visibility": FieldRule("fixed", ("none",)),
        "prompt.pllm.query_inline_roles": FieldRule("fixed", ((),)),
        "prompt.pllm.query_role_name_overrides": _FIXED,
        "prompt.pllm.query_include_tool_calls": _OFF,
        "prompt.pllm.query_include_tool_args": _OFF,
        "prompt.pllm.query_include_tool_results": _OFF,
        **{
            f"prompt.{model}.{name}": _FIXED
            for model in (
                "pllm", "rllm", "grllm", "qllm", "tllm", "tagllm", "policy_llm",
                "error_detector_llm",
            )
            for name in ("flavor", "version")
        },
        "prompt.rllm.debug_info_level": _FIXED,
        "prompt.tllm.add_tool_description": _FREE,
        "prompt.tllm.add_tool_input_schema": _FREE,
        "response_format.strip_response_content": _FREE,
        "response_format.stream_thoughts": _FREE,
        "response_format.include_program": _FREE,
        "response_format.include_policy_check_history": _FREE,
        "response_format.include_namespace_snapshot": _FREE,
        **{
            f"llm.{model}.{name}": use
            for models, use in (
                (("pllm", "qllm", "tllm"), _FREE),
                # These judge, or set labels; a bias of their tokens would decide for them.
                (
                    ("rllm", "grllm", "tagllm", "policy_llm", "tool_result_error_detector_llm"),
                    _FIXED,
                ),
            )
            for model in models
            for name in (
                "frequency_penalty", "presence_penalty", "logit_bias", "logprobs",
                "max_completion_tokens", "seed", "temperature", "top_p", "reasoning.enabled",
                "reasoning.effort", "reasoning.budget", "reasoning.adaptive",
            )
        },
    },
}  # fmt: skip


class KeySettings:
    """The policy, features and configuration of a key.

    It has slots and is no dataclass, so that the size of a session does not include it: all
    sessions of a key share it.

    Args:
        name: The key's name, which is that of its policy in denials.
        policy: The policy, if it has one.
        features: The features, if it has any.
        config: The configuration, if it has one.

    Attributes:
        text: JSON text from which `from_text` makes equal settings.

    Raises:
        UsageError: If there is something to enforce, but not the architecture; or if the policy
            cannot be compiled.
    """

    __slots__ = ("_digest", "config", "features", "policy", "text")

    def __init__(
        self,
        name: str,
        policy: PolicyHeader | None,
        features: FeaturesHeader | None,
        config: ConfigHeader | None,
    ) -> None:
        if policy is not None and policy.combination is None:
            policy = coerce(PolicyHeader, named(name, policy))
        self.policy = policy
        self.features = features or FeaturesHeader()
        self.config = config or ConfigHeader()
        texts = [write_header(h) if h else "" for h in (policy, self.features, self.config)]
        self._digest = hashlib.sha256("\n".join([name, *texts]).encode()).digest()
        if self.guards and self.features.agent_arch is None:
            msg = (
                f"The key `{name}` has a policy, classifiers or blockers, but does not say for "
                "which architecture. Set `agent_arch` of its features to `single-llm` or "
                "`dual-llm`: in single-LLM sessions rules on labels of values deny nothing."
            )
            raise UsageError(msg)
        if policy is not None:
            policy.compile(dual_llm=self.features.agent_arch == "dual-llm")
        self.text = self._written(name)

    @classmethod
    def from_text(cls, text: str) -> "KeySettings":
        """The settings that `text` describes, which are made once.

        Raises:
            ValueError: If the text does not describe settings.
        """
        return _settings_from(text)

    def _written(self, name: str) -> str:
        """JSON text of the settings, with the policies as their authors wrote them."""
        combination = self.policy and self.policy.combination
        policies = [
            {"name": source.name, "settings": source.settings, "code": source.policy.text}
            for source in (combination.sources if combination else ())
        ]
        headers = {"features": self.features.to_wire(), "config": self.config.to_wire()}
        return json.dumps({"name": name, "policies": policies, **headers})

    @property
    def guards(self) -> bool:
        """Whether a policy, a classifier or a blocker could be weakened."""
        features = self.features
        screens = features.content_classifiers or features.content_blockers
        return self.policy is not None or bool(screens)

    def __eq__(self, other: object) -> bool:
        """Equal if all headers and the name are equal."""
        return isinstance(other, KeySettings) and self._digest == other._digest

    def __hash__(self) -> int:
        """Hash of the headers and the name."""
        return hash(self._digest)

    def with_client_features(self, sent: FeaturesHeader) -> FeaturesHeader:
        """The features of a session, with what the client added.

        Raises:
            StatusError: 403 for a field that would weaken them.
        """
        self._check(self.features, sent)
        fields = self.features.to_wire()
        fields |= {name: value for name, value in sent.to_wire().items() if value is not None}
        for name in ("content_classifiers", "content_blockers"):
            required = [item.to_wire() for item in getattr(self.features, name) or ()]
            added = [item.to_wire() for item in getattr(sent, name) or ()]
            if required:
                fields[name] = [*required, *(item for item in added if item not in required)]
        return from_wire(FeaturesHeader, fields)

    def with_client_config(self, sent: ConfigHeader) -> ConfigHeader:
        """The configuration of a session: the key's, with the fields that the client set.

        Raises:
            StatusError: 403 for a field that would weaken it.
        """
        self._check(self.config, sent)
        return from_wire(ConfigHeader, _merged(self.config.to_wire(), sent.to_wire()))

    def with_client_policy(
        self, sent: PolicyHeader
    ) -> tuple[PolicyHeader, Callable[..., Engine] | None]:
        """The policy of a session: the key's, combined with the client's.

        Returns:
            The policy, and a function that compiles it so that its verdicts name the key's policy;
            `None` if the key has no policy.

        Raises:
            StatusError: 403 for a field that would weaken it, and for policies that cannot be
                combined.
        """
        if self.policy is None:
            return sent, None
        key_policy = self.policy
        self._check(key_policy, sent)
        if not sent.to_wire():
            return key_policy, key_policy.compile
        try:
            both = combine(key_policy.combination or key_policy, named(_CLIENT, sent))
        except UsageError as error:
            refuse(403, f"`X-Policy` cannot be added to the policy of this key. {error}")
        policy = from_wire(PolicyHeader, both.to_wire())
        return policy, partial(_compiled, both.compile)

    def _check(self, of_key: Header, sent: Header) -> None:
        values = dict(leaves(of_key))
        for path, value in leaves(sent):
            rule = FIELDS[of_key.header_name].get(path, _FIXED)
            if rule.use == "fixed":
                self._check_fixed(of_key.header_name, path, rule, values.get(path), value)
            elif rule.use == "addable":
                _check_addable(path, values.get(path), value)

    def _check_fixed(
        self, header: str, path: str, rule: FieldRule, key_value: Any, value: Any
    ) -> None:
        if key_value is None and (value is None or not self.guards or value in rule.like_unset):
            return
        if value != key_value:
            stated = "leaves it unset" if key_value is None else "has another value"
            _forbid(
                header, path, f"The key {stated}. Leave it out, or ask whoever runs the server."
            )


@owned_cache(maxsize=64)
def _settings_from(text: str) -> KeySettings:
    data = json.loads(text)
    policies = [
        named(
            policy["name"],
            from_wire(
                PolicyHeader,
                {**policy["settings"], "codes": {"code": policy["code"], "language": "sqrt"}},
            ),
        )
        for policy in data["policies"]
    ]
    return KeySettings(
        data["name"],
        coerce(PolicyHeader, policies) if policies else None,
        from_wire(FeaturesHeader, data["features"]),
        from_wire(ConfigHeader, data["config"]),
    )


def _check_addable(path: str, key_value: Any, value: Any) -> None:
    """Refuse a list that switches the key's elements off, or raises a threshold."""
    if not key_value or value is None:  # null keeps what the key has
        return
    if not value:
        _forbid("X-Features", path, "It would switch off what the key requires. Leave it out.")
    if path != "content_classifiers":
        return
    thresholds = {item.name: threshold_of(item) for item in key_value}
    for item in value:
        is_set = item.threshold is not None or item.mode is not None
        if is_set and threshold_of(item) > thresholds.get(item.name, 1.0):
            _forbid(
                "X-Features",
                path,
                f"The threshold of `{item.name}` is above that of the key, "
                f"{thresholds[item.name]:g}. Lower it, or leave it out.",
            )


def _forbid(header: str, path: str, advice: str) -> NoReturn:
    refuse(403, f"`{path}` of `{header}` is fixed by the settings of this key. {advice}")


def leaves(model: HeaderModel, prefix: str = "") -> Iterator[Leaf]:
    """The fields of a header that are set, each by its path; sections are entered."""
    for name in model.wire_names():
        if name not in model.model_fields_set:
            continue
        value = getattr(model, name)
        if isinstance(value, HeaderModel):
            yield from leaves(value, f"{prefix}{name}.")
        elif value is not None or f"{prefix}{name}" in _ALL_PATHS:  # not a section that is null
            yield f"{prefix}{name}", value
    for name in model.extra:
        yield f"{prefix}{name}", model.extra[name]


_ALL_PATHS = frozenset(path for rules in FIELDS.values() for path in rules)


def _merged(fields: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of both; the sent ones win. A section that was sent as null changes nothing."""
    merged = dict(fields)
    for name, value in sent.items():
        before = merged.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[name] = _merged(before, value)
        elif value is not None or not isinstance(before, Mapping):
            merged[name] = value
    return merged


def _compiled(compile_both: Callable[..., Engine], *, dual_llm: bool) -> Engine:
    """Compile a combination; the client's part has no name, as if it were alone.

    So its denials have places in the text that the client sent, and the key's have a name.
    """
    engine = compile_both(dual_llm=dual_llm)
    parts = tuple(replace(p, name=None) if p.name == _CLIENT else p for p in engine.parts)
    return replace(engine, parts=parts)
