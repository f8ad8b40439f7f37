"""Program text: indented lines, and the parts that both generators write alike."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from langchain_sequrity.graph.compiling.layout import Layout, Router, Task
from langchain_sequrity.graph.compiling.names import Names, shown
from langchain_sequrity.graph.program import (
    ABSENT,
    ACTIVE,
    CAME,
    ERROR,
    OVERWRITE,
    STEPS,
    TOLD,
    ToolSpec,
)


class Text:
    """Lines that grow, with a current depth."""

    def __init__(self) -> None:
        """Start empty, at depth 0."""
        self._lines: list[str] = []
        self._depth = 0

    def add(self, *lines: str) -> None:
        """Write lines at the current depth."""
        self._lines += [f"{'  ' * self._depth}{line}" if line else "" for line in lines]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Write what is within under a head such as `if x:`; nothing within is `pass`."""
        self.add(head)
        self._depth += 1
        before = len(self._lines)
        yield
        if len(self._lines) == before:
            self.add("pass")
        self._depth -= 1

    def __str__(self) -> str:
        """The whole text."""
        return "\n".join([*self._lines, ""])


@dataclass(frozen=True, slots=True)
class Locals:
    """Variables of a program that stand for no field and no node.

    Made from the program's namespace, so that a node may be called `error` or `u`.
    """

    result: str
    answer: str
    value: str
    error: str
    steps: str
    active: str
    gotos: str
    packets: str
    sent: str
    packet: str
    busy: str
    came: str
    told: str
    tells: str
    took_edges: str
    rounds: tuple[str, str, str]

    @classmethod
    def take(cls, names: Names) -> "Locals":
        """Take them all."""
        one = names.take
        return cls(
            result=one("u"),
            answer=one("r"),
            value=one("value"),
            error=one("error"),
            steps=one("steps"),
            active=one("active"),
            gotos=one("gotos"),
            packets=one("packets"),
            sent=one("sent"),
            packet=one("packet"),
            busy=one("busy"),
            came=one("came"),
            told=one("told"),
            tells=one("tells"),
            took_edges=one("took_edges"),
            rounds=(one("i"), one("j"), one("k")),
        )


def call(name: str, arguments: Iterable[tuple[str, str]]) -> str:
    """A call with keywords."""
    return f"{name}({', '.join(f'{key}={value}' for key, value in arguments)})"


def any_of(parts: Iterable[str]) -> str:
    """Whether one of them holds."""
    return " or ".join(parts) or "False"


def pulled_arguments(layout: Layout, tool: ToolSpec) -> list[tuple[str, str]]:
    """The arguments of a node that an edge started: the state before this step."""
    return [
        (one.name, layout.fields.read(str(one.field)))
        for one in tool.parameters
        if one.kind != "send"
    ]


def sent_arguments(layout: Layout, tool: ToolSpec, packet: str) -> list[tuple[str, str]]:
    """The arguments of a node that a packet started."""
    carried = [(one.name, f'{packet}["input"]') for one in tool.parameters if one.kind == "send"]
    if tool.sees_state:
        return pulled_arguments(layout, tool) + carried
    fields = [
        (one.name, f'{packet}["fields"].get("{one.name}", "{ABSENT}")')
        for one in tool.parameters
        if one.kind != "send"
    ]
    return fields + carried


def router_arguments(layout: Layout, task: Task, router: Router) -> list[tuple[str, str]]:
    """The arguments of a router: the state before this step with its node's own writes."""
    parameters = () if router.tool is None else router.tool.parameters
    return [(one.name, layout.fields.fresh(str(one.field), task.tool)) for one in parameters]


def write_start(text: Text, layout: Layout, local: Locals) -> None:
    """The head of a program: the state, and that nothing happened yet."""
    text.add(f"# Graph {shown(layout.spec.name)}: each node is a tool.")
    for field in layout.spec.channels:
        text.add(f"{layout.fields.state[field]} = {layout.fields.variables[field]}")
    text.add(f'{local.error} = ""', f"{local.steps} = 0")
    if layout.tells:
        text.add(f"{local.told} = []")


def write_call(
    text: Text, layout: Layout, task: Task, arguments: Iterable[tuple[str, str]]
) -> None:
    """The call of a node."""
    if task.tool is None:
        return
    result = layout.fields.result
    text.add(f"{result} = {call(task.internal or task.tool.name, arguments)}")
    if task.internal is not None:
        text.add(f'{result} = {{"{layout.fields.keys[task.tool.writes[0]]}": {result}}}')


def wrote_output(layout: Layout, tool: ToolSpec) -> str:
    """Whether a result writes a field of the output."""
    result, fields = layout.fields.result, layout.fields
    written = [field for field in layout.output if field in tool.writes]
    if tool.definite.intersection(written):
        return "True"
    return any_of(
        f'{result}["{fields.keys[field]}"] != []'
        if fields.is_log(field)
        else f'"{prefix}{fields.keys[field]}" in {result}'
        for field in written
        for prefix in ("", *((OVERWRITE,) if field in fields.overwritable else ()))
    )


def write_end(
    text: Text, layout: Layout, local: Locals, active: str, came: Iterable[str] = ()
) -> None:
    """The final value: the state, how the run ended, and which joins are half full."""
    fields = layout.fields
    items = [f'"{fields.keys[field]}": {fields.state[field]}' for field in layout.spec.channels]
    items += [f'"{ERROR}": {local.error}', f'"{STEPS}": {local.steps}', f'"{ACTIVE}": {active}']
    if layout.tells:
        items.append(f'"{TOLD}": {local.told}')
    if flags := ", ".join(f'"{flag}": {flag}' for flag in came):
        items.append(f'"{CAME}": {{{flags}}}')
    text.add(f"final_return_value = {{{', '.join(items)}}}")
