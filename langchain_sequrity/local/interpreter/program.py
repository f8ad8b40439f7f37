"""Programs: checked text, compiled for one run.

`parse` checks that a text uses only what the language supports. `compile_module` compiles its tree.
`Program` has further checks for programs of a planner, beside those of `plan_check`.

A run may have several programs, one after the other, in one namespace. A function of an earlier
program may be called by a later one, whose names are not known when the earlier one is compiled.
Names that are not bound yet are therefore treated as variables.
"""

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import langchain_sequrity.local.interpreter.methods  # noqa: F401 - fills the tables of `calls`
from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.faults import OutOfBudget, ProgramRefused
from langchain_sequrity.local.interpreter.machine import DEFAULT_LIMITS, Limits, Machine
from langchain_sequrity.local.interpreter.scopes import (
    COMPREHENSIONS,
    blocks,
    bound_names,
    walk_scope,
)
from langchain_sequrity.local.interpreter.signatures import READER, signature
from langchain_sequrity.local.interpreter.statements import StatementCompiler
from langchain_sequrity.local.interpreter.syntax import TOO_DEEP, read_program, refuse
from langchain_sequrity.local.interpreter.values import Value

ANSWER = "final_return_value"
EXITS = frozenset({"exit", "quit", "complete_turn"})
ENDING = EXITS | {ANSWER}


def bound_by(tree: ast.Module) -> frozenset[str]:
    """The module variables that a program binds."""
    outer = [name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names]
    return frozenset([*bound_names(walk_scope(tree.body)), *outer])


def deferred_names(tree: ast.Module) -> frozenset[str]:
    """Names in code that can run after its program ended: in functions and generators."""
    return frozenset(
        name
        for scope in ast.walk(tree)
        if isinstance(scope, (ast.FunctionDef, ast.Lambda, *COMPREHENSIONS))
        for name in _names_in(scope)
    )


def may_end_turn(tree: ast.Module) -> bool:
    """Whether a program may decide whether another program follows: by `exit` or an answer.

    The line `final_return_value = None`, with which planners begin, decides nothing.
    """
    others = ast.Module([node for node in tree.body if not _is_beginning(node)], [])
    return not ENDING.isdisjoint({*_names_in(others), *bound_by(others)})


def may_exit(tree: ast.Module) -> bool:
    """Whether a program may end before its last line without an exception."""
    return not EXITS.isdisjoint(_names_in(tree))


def _is_beginning(statement: ast.stmt) -> bool:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=None)):
            return name == ANSWER
    return False


def compile_module(
    machine: Machine, tree: ast.Module, *, variables: Collection[str] = ()
) -> Callable[[], Value]:
    """Compile a program.

    Args:
        machine: The run. Variables that exist before the program must be in `machine.names`.
        tree: A checked tree.
        variables: Names of further existing variables, if the program is only checked.

    Returns:
        A function that runs the program once and returns the value of the expression on its last
        line, or `None` if the last line is not an expression.
    """
    bound = bound_by(tree) | {*machine.names, *variables}
    compiler = StatementCompiler(machine, None, bound)
    body, last = tree.body, None
    if body and isinstance(body[-1], ast.Expr):
        body, last = body[:-1], body[-1]
    block = compiler.block(body)
    result = compiler.expression(last.value) if isinstance(last, ast.Expr) else None
    line = last.lineno if last is not None else 1

    def run() -> Value:
        if block(None) is not None or result is None:
            return None
        machine.line = line
        return result(None)

    return run


def check_placement(tree: ast.Module) -> None:
    """Refuse `return` outside of a function, and `break` or `continue` outside of a loop.

    Python checks this only when it compiles.

    Raises:
        ProgramRefused: With line, column and what to write instead.
    """
    # Without recursion: a long chain of `elif` is deep in the tree.
    pending: list[tuple[ast.AST, bool, bool]] = [(tree, False, False)]
    while pending:
        node, in_function, in_loop = pending.pop()
        if isinstance(node, ast.Return) and not in_function:
            refuse(
                node,
                "`return` outside of a function. Set `final_return_value`, and end with `exit()`.",
            )
        if isinstance(node, ast.Break | ast.Continue) and not in_loop:
            keyword = type(node).__name__.lower()
            refuse(node, f"`{keyword}` outside of a loop. Use `if`.")
        is_function = isinstance(node, ast.FunctionDef)
        is_loop = isinstance(node, ast.For | ast.While)
        for name, block in blocks(node):
            loops = (in_loop and not is_function) or (is_loop and name == "body")
            pending += [(child, in_function or is_function, loops) for child in block]


@dataclass(frozen=True, slots=True)
class Program:
    """A program that uses only what the language supports.

    Attributes:
        source: Its text.
        tree: Its syntax tree.
        digest: SHA-256 of the text, in hex.
        calls: All calls by a name, in the order of the text.
        bound: All names that it binds, in any scope.
    """

    source: str
    tree: ast.Module = field(repr=False, compare=False)
    digest: str = field(repr=False)
    calls: tuple[tuple[ast.Call, str], ...] = field(repr=False, compare=False)
    bound: frozenset[str] = field(repr=False, compare=False)

    def check_calls(
        self,
        tools: Mapping[str, Mapping[str, Any]],
        variables: Collection[str] = (),
    ) -> None:
        """Refuse positional arguments of tools (`docs/protocol.md`, Programs of the planner).

        A name that the program binds may not be the tool. Such calls are checked when they run,
        and a wrong call is a `TypeError`.

        Args:
            tools: JSON Schema of the parameters, by tool name.
            variables: Names that exist before the program.

        Raises:
            ProgramRefused: For the first such call.
        """
        bound = self.bound.union(variables)
        for call, name in self.calls:
            if call.args and name in tools and name not in bound:
                refuse(call, f"{KEYWORDS_ONLY} Write `{signature(name, tools[name])}`.")

    def check_readers(self, tools: Collection[str], user_request: str) -> None:
        """Refuse queries of `parse_with_ai` that contain no data: the model would invent an answer.

        Data are results of tools, variables, and words of the user that the program quotes. Own
        words of the program are texts in the query, and in variables that are bound once.

        Args:
            tools: Names of the tools.
            user_request: The request of the user.

        Raises:
            ProgramRefused: For the first such query.
        """
        queries = [
            (call, keyword.value)
            for call, name in self.calls
            for keyword in call.keywords
            if name == READER and keyword.arg == "query"
        ]
        if not queries or READER not in tools or READER in self.bound:
            return
        program_words = _ProgramWords(self.tree, user_request)
        for call, query in queries:
            if not program_words.has_data(query):
                refuse(call, _NOTHING_TO_READ)

    def check_answer(self) -> None:
        """Refuse a program that cannot give an answer.

        Raises:
            ProgramRefused: If it neither sets `final_return_value` nor may end early, and its last
                line is not an expression; or if it consists of literals only, which means that the
                planner answered itself.
        """
        body = self.tree.body
        if not ENDING.isdisjoint(_names_in(self.tree)):
            return
        if body and all(isinstance(node, ast.Expr) and _is_literal(node.value) for node in body):
            refuse(body[-1], f"This is an answer, not a program. {_SET_ANSWER}")
        if not body or not isinstance(body[-1], ast.Expr):
            refuse(body[-1] if body else self.tree, f"The program has no answer. {_SET_ANSWER}")


def _calls(nodes: Iterable[ast.AST]) -> tuple[tuple[ast.Call, str], ...]:
    calls = [
        (node, node.func.id)
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    return tuple(sorted(calls, key=lambda pair: (pair[0].lineno, pair[0].col_offset)))


def _bound_anywhere(nodes: Collection[ast.AST]) -> Iterator[str]:
    """Each name that these nodes bind, parameters too, as often as they bind it."""
    yield from bound_names(nodes)
    yield from (node.arg for node in nodes if isinstance(node, ast.arg))


class _ProgramWords:
    """Which expressions of a program contain nothing but the planner's own words.

    A variable that is bound more than once may depend on data, and a list or dict may be filled.

    Args:
        tree: The program.
        user_request: The request of the user.
    """

    def __init__(self, tree: ast.Module, user_request: str) -> None:
        lines = user_request.splitlines()[1 : _MOST_PASSAGES + 1]
        self._request = _plain(user_request)
        self._request_passages = {*_passages(user_request), *map(_plain, lines)} - {""}
        nodes = [*ast.walk(tree)]
        self._bound = Counter(_bound_anywhere(nodes))
        self._values = {
            name: value
            for node in nodes
            for name, value in _bindings(node)
            if self._bound[name] == 1
        }

    def has_data(self, query: ast.expr) -> bool:
        """Whether an expression contains data, or quotes words of the user."""
        values: dict[str, ast.expr] = {}
        pending = [query]
        while pending:
            for name in _names_in(pending.pop()):
                if name in self._values and name not in values:
                    values[name] = self._values[name]
                    pending.append(values[name])
                elif name not in self._values and (name in self._bound or name not in BUILTINS):
                    return True
        fields = [part.value for part in ast.walk(query) if isinstance(part, ast.FormattedValue)]
        inserted = [text for part in (*fields, *values.values()) for text in _texts_in(part)]
        texts = [*_texts_in(query), *inserted]
        quotes = {*map(_plain, inserted), *(q for text in texts for q in _passages(text))} - {""}
        return any(quote in self._request for quote in quotes) or any(
            passage in text for passage in self._request_passages for text in map(_plain, texts)
        )


def _names_in(node: ast.AST) -> Iterator[str]:
    return (part.id for part in ast.walk(node) if isinstance(part, ast.Name))


def _texts_in(node: ast.AST) -> list[str]:
    constants = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
    return [value for value in constants if isinstance(value, str)]


def _bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """A name that a node binds to a value in the text, or to its elements."""
    match node:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.NamedExpr(target=ast.Name(id=name), value=value)
        ) if not isinstance(value, _CONTAINERS):
            yield name, value
        case (
            ast.For(target=ast.Name(id=name), iter=value)
            | ast.comprehension(target=ast.Name(id=name), iter=value)
        ):
            yield name, value


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _passages(text: str) -> Iterator[str]:
    """The parts of a text in quotation marks and after a colon."""
    quoted = filter(_is_text, _QUOTE.split(text)[1:-1])
    passages = [*quoted, *(match[1] for match in _AFTER_COLON.finditer(text))]
    return (_plain(passage.strip(_MARKS)) for passage in passages[:_MOST_PASSAGES])


def _is_text(passage: str) -> bool:
    """Whether a passage in quotation marks is a text to read, and not the name of something."""
    is_long = len(passage.split()) >= _SHORTEST_TEXT or passage.rstrip().endswith((".", "!", "?"))
    return is_long or (passage.islower() and passage.replace(" ", "").isalpha())


_SHORTEST_TEXT = 3  # words
_MOST_PASSAGES = 100
_MARKS = " \t.!?\"'`“”„«»"
_QUOTE = re.compile(r"""(?<!\w)["'`“„«»]|["'`“”»«](?!\w)""")
_CONTAINERS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_AFTER_COLON = re.compile(r":\s(.+)")
_NOTHING_TO_READ = (
    f"The query of `{READER}` has no data in it: the model that reads it knows nothing but the "
    "query. Call a tool for the text first, and put its result into the query, as in "
    '`query=f"Who wrote this? {text}"`. Or quote what the user said: '
    "`query=\"Is this polite: 'Go away!'\"`."
)
_SET_ANSWER = f"Write a program that puts the answer for the user into `{ANSWER}`."
KEYWORDS_ONLY = "Tools take keyword arguments only."


_LITERALS = (
    *(ast.Constant, ast.JoinedStr, ast.Tuple, ast.List, ast.Dict, ast.Set),
    *(ast.UnaryOp, ast.unaryop, ast.expr_context),
)


def _is_literal(node: ast.expr) -> bool:
    return all(isinstance(part, _LITERALS) for part in ast.walk(node))


def parse(
    source: str, limits: Limits = DEFAULT_LIMITS, *, variables: Collection[str] = ()
) -> Program:
    """Parse a program and check that it uses only what the language supports.

    Args:
        source: Python text.
        limits: Limits of its size and nesting.
        variables: Names of variables that exist before it.

    Returns:
        The program.

    Raises:
        ProgramRefused: With line, column and what to write instead.

    Example:
        ```python
        from langchain_sequrity.local.interpreter import parse

        program = parse("mail = read_mail(number=1)")
        ```
    """
    tree = read_program(source, limits)
    try:
        check_placement(tree)
        # This also refuses what only the compiler finds, such as a field of an unknown type.
        compile_module(Machine(limits=limits), tree, variables=variables)
    except (RecursionError, OutOfBudget) as error:
        too_deep = isinstance(error, RecursionError)
        raise ProgramRefused(TOO_DEEP if too_deep else str(error)) from None
    nodes, digest = [*ast.walk(tree)], hashlib.sha256(source.encode()).hexdigest()
    return Program(source, tree, digest, _calls(nodes), frozenset(_bound_anywhere(nodes)))
