"""What a program may use up, all in one place (`docs/security.md`, rule 2)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one program and of one run of it.

    Attributes:
        source: Characters of the program's text.
        nodes: Nodes of its syntax tree.
        nesting: Depth of its syntax tree.
        steps: Statements, iterations and calls, and elements that built-ins walk over.
        depth: Calls of the program's functions within each other.
        bits: Bits of an integer.
        text: Characters of a string, bytes of a bytes value.
        items: Elements of a container, or of all that one operation walks over.
        memory: Bytes that the run may ask for in all, by estimate.
        pattern: Characters of a regular expression.
        regex_seconds: Time of one search with a regular expression.
        seconds: Time of the processor that the program takes from one call of a tool to the next,
            its regular expressions included. What else the machine does is not counted.
        total_seconds: The same for all stretches between its calls together.
        calls: Calls of tools.
        outgoing: Bytes of JSON that a program in a worker hands out at once, with a call or at its
            end, and 30 more for each element of it. Variables that do not fit are left behind.
    """

    source: int = 100_000
    nodes: int = 20_000
    nesting: int = 100
    steps: int = 5_000_000
    depth: int = 100
    bits: int = 16_384
    text: int = 2_000_000
    items: int = 200_000
    memory: int = 100_000_000
    pattern: int = 1_000
    regex_seconds: float = 0.5
    seconds: float = 1.0
    total_seconds: float = 1.25
    calls: int = 10_000
    outgoing: int = 5_000_000


DEFAULT_LIMITS = Limits()
