"""Program text: indented lines, and the parts that both generators write alike."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from langchain_sequrity.graph.compiling.layout import Layout, Router, Task
from langchain_sequrity.graph.compiling.names import Names, shown
from langchain_sequrity.graph.program import ABSENT, ACTIVE, Entry, ToolSpec


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

    Made from the program's namespace, so that a node may be called `steps` or `u`.
    """

    result: str
    answer: str
    value: str
    steps: str
    active: str
    gotos: str
    packets: str
    sent: str
    packet: str
    busy: str
    took_edges: str
    wide: str
    some: str
    handles: str
    number: str
    result_of: str
    entry: Entry
    rounds: tuple[str, str, str]

    @classmethod
    def take(cls, names: Names) -> "Locals":
        """Take them all."""
        one = names.take
        return cls(
            result=one("u"),
            answer=one("r"),
            value=one("value"),
            steps=one("steps"),
            active=one("active"),
            gotos=one("gotos"),
            packets=one("packets"),
            sent=one("sent"),
            packet=one("packet"),
            busy=one("busy"),
            took_edges=one("took_edges"),
            wide=one("wide"),
            some=one("some"),
            handles=one("handles"),
            number=one("number"),
            result_of=one("result_of"),
            entry=Entry(
                begins=one("begins"),
                start_at=one("start_at"),
                packets=one("start_packets"),
                came=one("came"),
                stop_after=one("stop_after"),
            ),
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


def write_start(text: Text, layout: Layout) -> None:
    """The head of a program: the state."""
    text.add(f"# Graph {shown(layout.spec.name)}: each node is a tool.")
    for field in layout.spec.channels:
        text.add(f"{layout.fields.state[field]} = {layout.fields.variables[field]}")


def write_call(
    text: Text, layout: Layout, local: Locals, task: Task, arguments: Iterable[tuple[str, str]]
) -> None:
    """The call of a node."""
    if task.tool is None:
        return
    result = layout.fields.result
    text.add(f"{result} = {call(task.internal or task.tool.name, arguments)}")
    if task.internal is not None:  # its answer is handed over, so that LangGraph has it as well
        key = layout.fields.keys[task.tool.writes[0]]
        text.add(f'{result} = {{"{key}": {result}}}')
        value = f'{result}["{key}"]'
        text.add(f"{local.answer} = {call(task.tool.name, [(key, value)])}")


def write_end(text: Text, layout: Layout, active: str) -> None:
    """The final value: the state, and whether work was left."""
    fields = layout.fields
    items = [f'"{fields.keys[field]}": {fields.state[field]}' for field in layout.spec.channels]
    items.append(f'"{ACTIVE}": {active}')
    text.add(f"final_return_value = {{{', '.join(items)}}}")
