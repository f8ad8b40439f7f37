"""A script as the brain: the first rule that matches a request answers it.

```yaml
rules:
  - when: {tool_result: "sunny"}
    text: "Take a hat: {tool_result}"
  - when: {user: "weather in Rome"}
    tool_calls: [{name: get_weather, arguments: {city: Rome}}]
  - error: {status: 429, message: Slow down., retry_after: 1}
    times: 1
```

`Script` lists the keys; `script_rules` checks them.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import yaml
from langchain_core.messages import AIMessage, AIMessageChunk

from langchain_sequrity.errors import StatusError, UsageError, status_error
from langchain_sequrity.local.answers import Answer, stream_answer
from langchain_sequrity.local.brains import Brain, BrainContext
from langchain_sequrity.local.conversation import last_user, text_of, tool_results
from langchain_sequrity.local.script_rules import AnswerFields, Rule, read_answer, read_rule
from langchain_sequrity.patterns import Pattern
from langchain_sequrity.wire.exchange import ChatRequest

_MATCH_SECONDS = 0.2
_TOOL_RESULT = "{tool_result}"
_SERVER_ERROR = 500


class Script:
    """An ordered list of rules; the first whose `when` matches answers.

    A rule is a mapping. Its `when` may have `role` (`chat`, `planner`, `quarantined`,
    `classifier`, `policy`), `endpoint_type`, and the regular expressions `user` (searched in the
    user's last text), `model`, and `tool_result` (searched in the last result of a tool since
    then); all given ones must match, and without any the rule matches always. Beside `when` stands
    the answer:

    - `text`, `tool_calls` (a list of `{name, arguments}`), `reasoning`, `refusal`, `usage`,
      `finish_reason`, in any combination. `{tool_result}` in the text and in arguments is filled
      in. Without a `role`, these answer chats only.
    - or `program` (answers planners), `value` (any JSON; quarantined models and classifiers), or
      `policy` (policy writers).
    - or `error`: `{status, message, retry_after}`.
    - or, in Python, `answer`: a function of the `ChatRequest` that returns text, an `AIMessage`,
      or a dict of the keys above. It is called from several threads.

    `delay` waits that many seconds first (60 at most), and after `times` uses a rule no longer
    matches.

    Args:
        rules: The rules.
        name: What to call the script in error messages.

    Raises:
        UsageError: For a rule that cannot be used, naming its number and the key.

    Example:
        ```python
        from langchain_sequrity.local import Script

        script = Script([{"when": {"user": "(?i)hello"}, "text": "Good morning!"}])
        ```
    """

    def __init__(self, rules: Iterable[Mapping[str, Any]], *, name: str = "the script") -> None:
        if isinstance(rules, str | Mapping) or not isinstance(rules, Iterable):
            msg = f"A script is a list of rules; got `{type(rules).__name__}`."
            raise UsageError(msg)
        self._rules = [
            read_rule(rule, f"Rule {number} of {name}") for number, rule in enumerate(rules, 1)
        ]
        self._uses = [0] * len(self._rules)
        self._lock = threading.Lock()

    @classmethod
    def from_file(cls, path: str | Path) -> "Script":
        """Read a script from a file.

        Args:
            path: A JSON file (its name ends in `.json`) or a YAML file, which holds the list of
                rules, or a mapping with the list as `rules`.

        Returns:
            The script.

        Raises:
            UsageError: If the file cannot be read or a rule cannot be used.
        """
        path = Path(path)
        data = _load(path)
        if isinstance(data, Mapping) and set(data) == {"rules"}:
            data = data["rules"]
        if not isinstance(data, list):
            msg = f"`{path}` must hold a list of rules, or a mapping with only `rules`."
            raise UsageError(msg)
        return cls(data, name=f"`{path}`")

    def answer(self, request: ChatRequest, context: BrainContext) -> Answer | None:
        """Find the rule that answers, and its answer; waits for the rule's `delay`.

        Args:
            request: What is asked.
            context: Who is asked, and where.

        Returns:
            The answer, or `None` if no rule matches.

        Raises:
            StatusError: If the rule answers with an error, and with `status` 500 if it fails.
        """
        for index, rule in enumerate(self._rules):
            if _matches(rule, request, context) and self._use(index):
                time.sleep(rule.delay)
                return _answer(rule, request)
        return None

    def _use(self, index: int) -> bool:
        most = self._rules[index].times
        with self._lock:
            if most is not None and self._uses[index] >= most:
                return False
            self._uses[index] += 1
            return True

    def __repr__(self) -> str:
        """Say how many rules there are."""
        return f"<Script of {len(self._rules)} rules>"


class ScriptBrain:
    """A script as a brain.

    Args:
        script: The script.
        fallback: Answers what no rule matches.
    """

    def __init__(self, script: Script, fallback: Brain) -> None:
        self._script = script
        self._fallback = fallback

    def stream(self, request: ChatRequest, context: BrainContext) -> Iterator[AIMessageChunk]:
        """Answer in pieces.

        Args:
            request: What is asked.
            context: Who is asked, and where.

        Returns:
            The pieces of the rule's answer, or of the fallback's.

        Raises:
            StatusError: As `Script.answer`.
        """
        answer = self._script.answer(request, context)
        if answer is None:
            return self._fallback.stream(request, context)
        return stream_answer(answer, request)


def _load(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        msg = f"The script `{path}` cannot be read: {error.strerror}. Check the path."
        raise UsageError(msg) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        msg = f"The script `{path}` is not valid {kind}: {error}"
        raise UsageError(msg) from error


# Matching


def _matches(rule: Rule, request: ChatRequest, context: BrainContext) -> bool:
    when = rule.when
    if context.role not in rule.roles():
        return False
    if when.endpoint_type is not None and context.endpoint_type != when.endpoint_type:
        return False
    texts: dict[str, Callable[[], str | None]] = {
        "user": lambda: text_of(last_user(request.messages)),
        "model": lambda: request.model,
        "tool_result": lambda: _last_result(request),
    }
    patterns = {key: getattr(when, key) for key in texts if key in when.model_fields_set}
    return all(_found(rule, key, pattern, texts[key]()) for key, pattern in patterns.items())


def _found(rule: Rule, key: str, pattern: Pattern, text: str | None) -> bool:
    if text is None:
        return False
    try:
        return pattern.finds(text, seconds=_MATCH_SECONDS)
    except TimeoutError:
        _fail(
            rule,
            f"the regular expression of `{key}` took longer than {_MATCH_SECONDS} s, or would "
            "for so long a text. Write one without nested repetitions.",
        )


def _last_result(request: ChatRequest) -> str | None:
    results = tool_results(request.messages)
    return results[-1][1] if results else None


def _fail(rule: Rule, problem: str) -> NoReturn:
    detail = f"{rule.name}: {problem}"
    error = status_error(_SERVER_ERROR)
    raise error(detail, status=_SERVER_ERROR, body={"detail": detail})


# Answering


def _answer(rule: Rule, request: ChatRequest) -> Answer:
    if rule.answer is not None:
        return _called(rule, rule.answer, request)
    answer = _plain(rule)
    if rule.kind() is not None:
        return answer
    return replace(
        answer,
        text=_filled(rule, answer.text, request),
        calls=tuple((name, _filled(rule, args, request)) for name, args in answer.calls),
    )


def _plain(fields: AnswerFields) -> Answer:
    if (error := fields.error) is not None:
        message = error.message or f"The script answers with status {error.status}."
        raise status_error(error.status)(
            message,
            status=error.status,
            body={"detail": message},
            retry_after=error.retry_after,
        )
    return Answer(
        text=fields.whole_text(),
        reasoning=fields.reasoning,
        refusal=fields.refusal,
        calls=tuple((call.name, call.arguments) for call in fields.tool_calls),
        usage=fields.usage.metadata() if fields.usage else None,
        finish_reason=fields.finish_reason,
    )


def _filled(rule: Rule, value: Any, request: ChatRequest) -> Any:
    """Put the last tool result where texts have `{tool_result}`."""
    if isinstance(value, str) and _TOOL_RESULT in value:
        result = _last_result(request)
        if result is None:
            _fail(
                rule,
                f"`{_TOOL_RESULT}` has nothing to stand for, as no tool has answered since the "
                "user's last message. Add `tool_result` to its `when`.",
            )
        return value.replace(_TOOL_RESULT, result)
    if isinstance(value, Mapping):
        return {key: _filled(rule, one, request) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(rule, one, request) for one in value]
    return value


def _called(rule: Rule, function: Callable[[ChatRequest], Any], request: ChatRequest) -> Answer:
    try:
        returned = function(request)
        if isinstance(returned, AIMessage):
            return _from_message(returned)
        data = {"text": returned} if isinstance(returned, str) else returned
        return _plain(read_answer(data, "What it returned"))
    except StatusError:
        raise
    except Exception as error:
        # What a function's exception says may be private; what is said about its answer is not.
        reason = f"{error}" if isinstance(error, UsageError) else f"It raised `{_kind(error)}`."
        detail = f"{rule.name}: its `answer` function failed. {reason}"
        failed = status_error(_SERVER_ERROR)
        raise failed(detail, status=_SERVER_ERROR, body={"detail": detail}) from error


def _kind(error: Exception) -> str:
    return type(error).__name__


def _from_message(message: AIMessage) -> Answer:
    return Answer(
        text=str(message.text),
        reasoning=str(message.additional_kwargs.get("reasoning_content") or ""),
        refusal=str(message.additional_kwargs.get("refusal") or ""),
        calls=tuple((call["name"], call["args"]) for call in message.tool_calls),
        usage=message.usage_metadata,
        finish_reason=message.response_metadata.get("finish_reason"),
    )
