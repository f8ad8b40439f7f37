"""Generated tools whose schemas derive arguments, and agents that call them under a policy.

A schema may convert, default and derive an argument in every way that pydantic has. What the tool's
function gets is compared with what the policy has checked, and with what it gets without a policy.

`python -m tests.middleware.derived_arguments --count 200` runs 200 schemas and prints a table.
"""

import argparse
import asyncio
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from random import Random
from typing import Annotated, Any, Literal

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.tools import InjectedState, InjectedToolArg, InjectedToolCallId
from langchain_core.tools import BaseTool, StructuredTool, Tool
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    RootModel,
    SecretStr,
    ValidationInfo,
    WrapValidator,
    computed_field,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.middleware import PolicyEvent, PolicyMiddleware
from tests.middleware.agents import NO_RULES, ask, calling, kinds, turns

WORDS = ("ada", "bob", " Eve ", "eve", "EVE")
FIELDS = ("to", "cc", "note")
JsonObject = dict[str, Any]


class Person(Enum):
    ADA = "ada"
    EVE = "eve"


class Address(BaseModel):
    """Derives all that the model does not say."""

    name: str
    host: str = Field("bank", validate_default=True)
    kind: str = Field(default_factory=lambda data: f"of {data['name']}")

    @field_validator("host")
    @classmethod
    def _of_name(cls, host: str, info: ValidationInfo) -> str:
        return "evil" if info.data.get("name") == "eve" else host

    @computed_field  # type: ignore[prop-decorator]
    @property
    def whole(self) -> str:
        return f"{self.name}@{self.host}"


@pydantic_dataclass
class Account:
    name: str
    bank: str = "bank"

    def __post_init__(self) -> None:
        object.__setattr__(self, "bank", f"{self.bank} of {self.name}")


class Texts(RootModel[list[str]]):
    """A list that is a model."""


KINDS: Mapping[str, tuple[Any, Callable[[str], Any]]] = {
    "text": (str, str),
    "texts": (list[str], lambda word: [word, "bob"]),
    "root": (Texts, lambda word: [word]),
    "secret": (SecretStr, str),
    "person": (Person | str, str),
    "choice": (Literal[WORDS], str),
    "iterable": (Iterable[str], lambda word: [word]),
    "address": (Address, lambda word: {"name": word}),
    "account": (Account, lambda word: {"name": word}),
    "any": (Any, lambda word: {"name": [word]}),
    "number": (int, lambda word: str(len(word))),
}


def _cleaned(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _derived(value: Any, info: ValidationInfo) -> Any:
    """A text that depends on the field before it."""
    earlier = next((one for one in info.data.values() if isinstance(one, str)), "")
    return f"{earlier}".strip() or value if isinstance(value, str) else value


def _changing(numbers: Iterator[int]) -> Callable[[Any], Any]:
    """A validator that gives another value each time."""

    def change(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return ("bob", "eve", value)[next(numbers) % 3]

    return change


def _wrapped(value: Any, handler: Callable[[Any], Any]) -> Any:
    return _cleaned(handler(_cleaned(value)))


@dataclass
class Generated:
    """A tool, a call of it, and what its function got.

    Attributes:
        args: The arguments that the model writes.
        names: The names by which the model knows the fields.
        traits: The ways in which the schema derives arguments.
        tool: The tool.
        received: What the function got in each call, as JSON.
        on_call: Called when the function runs.
    """

    args: JsonObject
    names: Mapping[str, str]
    traits: set[str]
    tool: Any = None
    received: list[JsonObject] = field(default_factory=list)
    on_call: Callable[[], None] = lambda: None

    @property
    def is_stable(self) -> bool:
        """Whether the schema makes the same of the same arguments each time."""
        return "changing" not in self.traits

    @property
    def comparable(self) -> list[str]:
        """The names of texts that each call has: a rule on another one would always be in doubt."""
        names = [name for name, value in self.args.items() if isinstance(value, str)]
        return ["", *(n for n in names if not n.endswith("_2")), *self._defaults]

    @property
    def _defaults(self) -> JsonObject:
        """The defaults that the model is shown."""
        schemas = self.tool.args.items()
        return {name: schema["default"] for name, schema in schemas if "default" in schema}

    def complete(self, checked: Mapping[str, Any]) -> JsonObject:
        """Checked arguments under their names, with the defaults that the model is shown."""
        values = {**self._defaults, **checked}
        for name, known in self.names.items():
            if known in values and values.setdefault(name, values[known]) != values[known]:
                values[name] = ["two values", values[name], values[known]]
            values.pop(known if known != name else "", None)
        return values


def shown(value: Any) -> Any:
    """A value as JSON, with all that it has."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, BaseModel) and not isinstance(value, Texts):
        names = [*type(value).model_fields, *type(value).model_computed_fields]
        return {name: shown(getattr(value, name)) for name in names}
    if isinstance(value, Account):
        return {"name": value.name, "bank": value.bank}
    if isinstance(value, Texts):
        value = value.root
    return list(value) if isinstance(value, Iterator) else value


def generated(seed: int) -> Generated:
    """A tool and a call of it."""
    random = Random(seed)  # noqa: S311 - no secret
    form = random.choice(["function", "function", "coroutine", "class", "single", "json"])
    if form in ("single", "json"):
        return _without_model(form, random)
    traits = {form}
    numbers = count(random.randrange(3))
    definitions: JsonObject = {}
    names: dict[str, str] = {}
    args: JsonObject = {}
    for name in FIELDS[: random.randint(1, 3)]:
        kind = random.choice(["text", "text", "text", *KINDS])
        annotation, write = KINDS[kind]
        traits.add(kind)
        validator = random.choice(
            ["", "", "before", "after", "wrap", "plain", "derived", "changing"]
        )
        makes: dict[str, Any] = {
            "before": lambda: BeforeValidator(_cleaned),
            "after": lambda: AfterValidator(_cleaned),
            "wrap": lambda: WrapValidator(_wrapped),
            "plain": lambda: PlainValidator(_cleaned),
            "derived": lambda: AfterValidator(_derived),
            "changing": lambda: AfterValidator(_changing(numbers)),
        }
        if validator and not (validator == "plain" and kind != "text"):
            traits.add(validator)
            annotation = Annotated[annotation, makes[validator]()]
        options, is_written, known = _options(name, kind, write, random, traits)
        definitions[name] = (annotation, Field(**options))
        names[name] = known
        if is_written:
            args[_written_name(options, known, random)] = write(random.choice(WORDS))
    if random.random() < 0.3:
        args["extra"] = random.choice(WORDS)
    _add_injected(definitions, names, random, traits)
    schema = _with_model_validators(definitions, random, traits)
    made = Generated(args, names, traits)
    made.tool = _tool(form, schema, made)
    return made


def _options(
    name: str, kind: str, write: Callable[[str], Any], random: Random, traits: set[str]
) -> tuple[JsonObject, bool, str]:
    """The options of a field, whether the model writes it, and the name that it knows."""
    options: JsonObject = {}
    known = name
    default = random.choice(["", "default", "validated", "factory", "of data"])
    is_written = not default or random.random() < 0.4
    word = random.choice(WORDS)
    if default in ("default", "validated") and kind in ("text", "texts", "choice", "any"):
        options |= {"default": write(word), "validate_default": default == "validated"}
    elif default == "of data" and kind == "text":
        options["default_factory"] = lambda data: str(next(iter(data.values()), word))
    elif default and kind == "text":
        options["default_factory"] = lambda: write(word)
    else:
        is_written = True
    traits.add(f"default: {default}" if not is_written else "written")
    alias = random.choice(["", "", "", "alias", "choices"])
    if alias:
        known = f"{name}_1"
        traits.add(alias)
        options["validation_alias"] = (
            known if alias == "alias" else AliasChoices(known, f"{name}_2")
        )
    return options, is_written, known


def _written_name(options: JsonObject, known: str, random: Random) -> str:
    alias = options.get("validation_alias")
    return str(random.choice(alias.choices)) if isinstance(alias, AliasChoices) else known


def _add_injected(
    definitions: JsonObject, names: dict[str, str], random: Random, traits: set[str]
) -> None:
    injected = random.choice(["", "", "state", "call id", "plain", "derived plain"])
    if injected:
        traits.add(f"injected {injected}")
    if injected == "state":
        definitions["state"] = (Annotated[JsonObject, InjectedState], ...)
    elif injected == "call id":
        definitions["call_id"] = (Annotated[str, InjectedToolCallId], ...)
    elif injected == "plain":
        definitions["key"] = (Annotated[str, InjectedToolArg], "k")
    elif injected:
        annotation = Annotated[str, InjectedToolArg, AfterValidator(_derived)]
        definitions["key"] = (annotation, Field("k", validate_default=True))
    if "key" in definitions:
        names["key"] = "key"


def _with_model_validators(
    definitions: JsonObject, random: Random, traits: set[str]
) -> type[BaseModel]:
    kind = random.choice(["", "", "before", "wrap", "after", "assigns", "init"])
    extra: Any = random.choice(["ignore", "allow"])
    first, word = next(iter(definitions)), random.choice(WORDS)
    if definitions[first][0] is not str:  # the others set the first field to another text
        kind = kind and "before"
    traits |= {f"model {kind}", f"extra {extra}"}

    def before(cls: Any, values: Any) -> Any:  # noqa: ARG001 - a class method
        return {name: _cleaned(value) for name, value in values.items()}

    def wrap(cls: Any, values: Any, handler: Any) -> Any:  # noqa: ARG001 - a class method
        model = handler(values)
        vars(model)[first] = _cleaned(vars(model)[first])
        return model

    def after(self: Any) -> Any:
        object.__setattr__(self, first, word)
        return self

    def assign(self: Any) -> Any:
        setattr(self, first, _cleaned(getattr(self, first)))
        return self

    def init(self: Any, _: Any) -> None:
        after(self)

    validators: Any = {
        "before": lambda: model_validator(mode="before")(classmethod(before)),  # type: ignore[arg-type]
        "wrap": lambda: model_validator(mode="wrap")(classmethod(wrap)),  # type: ignore[arg-type]
        "after": lambda: model_validator(mode="after")(after),
        "assigns": lambda: model_validator(mode="after")(assign),
    }
    used = {"model": validators[kind]()} if kind in validators else {}

    class Base(BaseModel):
        model_config = ConfigDict(extra=extra, validate_by_name=True, validate_by_alias=True)
        if kind == "init":
            model_post_init = init

    return create_model("Schema", __base__=Base, __validators__=used, **definitions)


def _tool(
    form: str, schema: Any, made: Generated, function: Callable[..., str] | None = None
) -> BaseTool:
    def send(**values: Any) -> str:
        made.received.append(
            {
                name: shown(value)
                for name, value in values.items()
                if name not in ("state", "call_id")
            }
        )
        made.on_call()
        return "sent"

    async def asend(**values: Any) -> str:
        return send(**values)

    class Send(BaseTool):
        name: str = "send"
        description: str = "Send."
        args_schema: Any = schema

        def _run(self, **values: Any) -> str:
            return send(**values)

    if form == "class":
        return Send()
    options: JsonObject = {"name": "send", "description": "Send.", "args_schema": schema}
    return StructuredTool.from_function(
        None if form == "coroutine" else function or send,
        asend if form == "coroutine" else None,
        **options,
    )


def _without_model(form: str, random: Random) -> Generated:
    """A tool whose arguments no model changes: one with a single text, or a JSON Schema."""
    word = random.choice(WORDS)
    name = random.choice(["__arg1", "text"]) if form == "single" else "to"
    args = {name: word} if form == "single" else {"to": word, "other": {"names": [word]}}
    made = Generated(args, {}, {form})
    if form == "json":  # LangChain does not pass the default of such a schema
        text: JsonObject = {"type": "string"}
        copies = text | random.choice([{}, {"default": random.choice(WORDS)}])
        schema = {"type": "object", "properties": {"to": text, "cc": copies}, "required": ["to"]}
        default = random.choice(WORDS)

        def send_copies(cc: str = default, **values: Any) -> str:
            made.received.append({"cc": cc, **values})
            made.on_call()
            return "sent"

        function = send_copies if "default" in copies else None
        made.tool = _tool("function", schema, made, function)
        return made

    def send(text: str) -> str:
        made.received.append({"__arg1": text})
        made.on_call()
        return "sent"

    made.tool = Tool("send", send, "Send.")
    return made


@dataclass(frozen=True)
class Outcome:
    """What happened to one call.

    Attributes:
        kind: "made", "invalid" if the schema refused it, or the kind of the denial.
        traits: The ways in which the schema derives arguments.
        mistakes: What is wrong, in words.
    """

    kind: str
    traits: set[str]
    mistakes: list[str]


def tried(seed: int) -> Outcome:
    """Call a generated tool under a policy, and without one."""
    random = Random(seed)  # noqa: S311 - no secret
    made, plain = generated(seed), generated(seed)
    denied = random.choice(made.comparable)
    wrapper, word = random.choice([None, None, "edits", "repeats"]), random.choice(WORDS)
    events: list[PolicyEvent] = []
    unchecked: list[JsonObject] = []

    def compare() -> None:
        allowed = [made.complete(e.arguments or {}) for e in events if e.outcome == "allowed"]
        if made.received[-1] not in allowed:
            unchecked.append(made.received[-1])

    made.on_call = compare
    policy = f'tool "send" {{ must deny when {denied}.value == "eve"; }}' if denied else NO_RULES
    guard = PolicyMiddleware(policy, tools=None, on_event=events.append, log_arguments=True)
    outer = [Around(wrapper, word)] if wrapper else []
    [kind] = kinds(_run(made, [*outer, guard]))
    _run(plain, outer)
    mistakes = []
    if unchecked:
        mistakes.append(f"got {unchecked} without a check")
    if any(values.get(denied.removesuffix("_1")) == "eve" for values in made.received):
        mistakes.append(f"`{denied}` is eve")
    if kind != "made" and made.received and wrapper != "repeats":
        mistakes.append("a denied call has run")
    if kind == "made" and made.is_stable and made.received != plain.received:
        mistakes.append(f"without a policy {plain.received}, got {made.received}")
    return Outcome(kind if made.received or kind != "made" else "invalid", made.traits, mistakes)


class Around(AgentMiddleware[Any, Any, Any]):
    """Wraps tool calls: sets the texts of a call to a word, or makes it twice."""

    def __init__(self, change: str, word: str) -> None:
        super().__init__()
        self._change = change
        self._word = word

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        if self._change == "repeats":
            handler(request)
        return handler(self._edited(request))

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        if self._change == "repeats":
            await handler(request)
        return await handler(self._edited(request))

    def _edited(self, request: Any) -> Any:
        if self._change != "edits":
            return request
        args = request.tool_call["args"]
        texts = {name: self._word for name, value in args.items() if isinstance(value, str)}
        return request.override(tool_call={**request.tool_call, "args": {**args, **texts}})


def _run(made: Generated, middleware: list[Any]) -> Any:
    agent: Any = create_agent(
        turns(calling(("send", made.args))), [made.tool], middleware=middleware
    )
    if "coroutine" in made.traits:
        return asyncio.run(agent.ainvoke(ask()))
    return agent.invoke(ask())


def main(arguments: list[str]) -> int:
    """Try generated tools, and return 1 if anything was wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    kinds_of_calls: Counter[str] = Counter()
    wrong = 0
    for seed in tracked(
        range(options.first, options.first + options.count), "Trying", unit="schemas"
    ):
        outcome = tried(seed)
        kinds_of_calls[outcome.kind] += 1
        wrong += bool(outcome.mistakes)
        for mistake in outcome.mistakes:
            hide()
            sys.stdout.write(f"{seed} ({', '.join(sorted(outcome.traits))}): {mistake}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{dict(kinds_of_calls)}\n{options.count} schemas, {wrong} wrong\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
