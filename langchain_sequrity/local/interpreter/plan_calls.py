"""What the text of a planner's program shows of its calls: of tools, functions and methods."""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.calls import takes_unlisted_arguments
from langchain_sequrity.local.interpreter.corrections import Problem
from langchain_sequrity.local.interpreter.modules import MODULES
from langchain_sequrity.local.interpreter.plan_values import MOST_NAMES, ValueCheck, tuple_of
from langchain_sequrity.local.interpreter.signatures import READER, definitions, signature
from langchain_sequrity.local.interpreter.static_types import (
    NOTHING,
    REAL,
    TEXT,
    TRUTH,
    WHOLE,
    Type,
    has_unknown_type,
    type_of_schema,
)
from langchain_sequrity.local.interpreter.suggestions import (
    argument_fault,
    fitted_call,
    likely_tools,
    nearest,
    takes_these,
)
from langchain_sequrity.local.interpreter.syntax import MAIN

_PLACEHOLDER = re.compile(
    r"j(?:ohn|ane) doe|your[_ ](?:name|e?mail|id|key|token|address)"
    r"|(?:example|user|username|email|name|your[._]?\w*)@(?:example|domain|e?mail)\.\w+",
    re.IGNORECASE,
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d(T.*)?", re.ASCII | re.DOTALL)
_ENOUGH = "have_enough_info"
_OF_BUILTINS = {
    "len": WHOLE, "int": WHOLE, "float": REAL, "str": TEXT, "repr": TEXT, "bool": TRUTH,
    "any": TRUTH, "all": TRUTH, "isinstance": TRUTH, "ord": WHOLE, "chr": TEXT,
    "range": Type("list", WHOLE),
}  # fmt: skip
_SAME_ITEMS = frozenset({"sorted", "list", "reversed", "tuple", "iter"})
_OF_TEXTS = {
    **dict.fromkeys(
        ("lower", "upper", "strip", "lstrip", "rstrip", "title", "capitalize", "casefold",
         "replace", "join", "format", "removeprefix", "removesuffix", "zfill"),
        TEXT,
    ),
    **dict.fromkeys(("split", "splitlines", "rsplit"), Type("list", TEXT)),
    **dict.fromkeys(("startswith", "endswith", "isdigit", "isalpha"), TRUTH),
    **dict.fromkeys(("find", "count", "index"), WHOLE),
}  # fmt: skip


class CallCheck(ValueCheck):
    """Checks calls."""

    def visit_Call(self, node: ast.Call) -> Type | None:
        for word in node.keywords:
            if not isinstance(word.value, ast.Lambda):
                self.visit(word.value)
        types = [
            None if isinstance(argument, ast.Lambda) else self.visit(argument)
            for argument in node.args
        ]
        if isinstance(node.func, ast.Name) and node.func.id not in self._names:
            return self._named_call(node, node.func.id, types)
        self._lambdas(node, None)
        if isinstance(node.func, ast.Attribute):
            return self._method_call(node, node.func)
        if isinstance(node.func, ast.Name) and node.func.id in self._functions:
            self._enter_function(self._functions.pop(node.func.id), node, types)
        known = self.visit(node.func)
        if known is not None and known.name == "class":
            return Type("object", keys=known.keys, of=known.of)
        if known is not None and known.name not in {"tool", "class"}:
            text = f"`{ast.unparse(node.func)}` is {known}, and cannot be called."
            self._problem(node, text, node.func)
        return None

    def _enter_function(
        self, function: ast.FunctionDef, call: ast.Call, types: Sequence[Type | None]
    ) -> None:
        """Check the body of a function, with the types of its only call."""
        listed = [*function.args.posonlyargs, *function.args.args]
        names = [parameter.arg for parameter in listed]
        parameters = dict(zip(names, types, strict=False))
        parameters |= {word.arg: self._types.get(word.value) for word in call.keywords if word.arg}
        starred = any(isinstance(argument, ast.Starred) for argument in call.args)
        self._enter(function, {} if starred else parameters)

    def _named_call(  # noqa: PLR0911 - one per kind
        self, node: ast.Call, name: str, types: Sequence[Type | None]
    ) -> Type | None:
        if name in self._tools:
            return self._tool_call(node, name)
        first = types[0] if types else None
        items = first.items if first is not None and first.name == "list" else None
        self._lambdas(node, items)
        if name not in BUILTINS:
            self._unknown_call(node, name)
            return None
        is_empty = first is not None and (first.is_number or first == NOTHING)
        if is_empty and name in {"len", "sorted", "max", "min"} and len(node.args) == 1:
            shown = ast.unparse(node.args[0])
            text = f"`{shown}` is {first}, and `{name}` needs a list or a text."
            self._problem(node, text, shown)
        if name in _SAME_ITEMS:
            return Type("list", items)
        if (name in {"max", "min"} and len(types) == 1) or name == "next":
            return items
        if name == "filter" and len(types) > 1 and types[1] is not None:
            return types[1]
        if name == "enumerate":
            return Type("list", tuple_of([WHOLE, items]))
        if name == "zip":
            of_each = [
                source.items if source is not None and source.name == "list" else None
                for source in types
            ]
            return Type("list", tuple_of(of_each))
        return _OF_BUILTINS.get(name)

    def _unknown_call(self, node: ast.Call, name: str) -> None:
        """Report the call of a function that does not exist."""
        is_module = any(name in members or name == module for module, members in MODULES.items())
        if name in self._lines or is_module or any(name in later for later in self._later):
            self.visit(node.func)
            return
        if not self._checks_names:
            return
        text, likely = f"`{name}` is not defined.", likely_tools(name, self._tools)
        near = nearest(name, [*self._names, *BUILTINS])
        if likely:
            fitted = [(tool, fitted_call(node, tool, self._tools[tool])) for tool in likely]
            exact = [(tool, call) for tool, call in fitted if takes_these(node, self._tools[tool])]
            possible = [call for _, call in exact or fitted if call is not None]
            tools = " or ".join(f"`{signature(tool, self._tools[tool])}`" for tool in likely[:3])
            write = possible[0] if len(possible) == 1 else None
            self._problem(node, f"{text} Did you mean {tools}?", write)
        elif near is not None:
            self._problem(node.func, text, near)
        else:
            tools = ", ".join(f"`{tool}`" for tool in [*self._tools][:MOST_NAMES])
            self._problem(node.func, f"{text} The tools are {tools}.")

    def _lambdas(self, node: ast.Call, first: Type | None) -> None:
        for value in [*node.args, *(word.value for word in node.keywords)]:
            if isinstance(value, ast.Lambda):
                self.visit_Lambda(value, first)

    def _method_call(  # noqa: C901, PLR0911 - one per method
        self, node: ast.Call, function: ast.Attribute
    ) -> Type | None:
        self.visit_Attribute(function)
        if isinstance(function.value, ast.Name) and function.value.id not in self._names:
            return None
        of = self._types.get(function.value)
        if of is None:
            return None
        key = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        match of.name, function.attr:
            case "dict", "get" if of.keys and isinstance(key, str):
                if key not in of.keys:
                    self._no_key(node, function.value, of, key)
                return of.keys.get(key) if len(node.args) == 1 else None
            case "dict", "get":
                return of.items
            case "dict", "items":
                return Type("list", tuple_of([TEXT if of.keys else None, of.items]))
            case "dict", "values":
                return Type("list", of.items)
            case "dict", "keys":
                return Type("list", TEXT if of.keys else None)
            case "list", "pop":
                return of.items
            case "str", name:
                return _OF_TEXTS.get(name)
            case "class", "model_json_schema":
                return Type("schema", keys=of.keys, of=of.of)
            case "class", "model_validate" | "model_validate_json" | "model_construct":
                return Type("object", keys=of.keys, of=of.of)
        return None

    def _tool_call(self, node: ast.Call, name: str) -> Type | None:
        schema = self._tools[name]
        properties: Mapping[str, Any] = schema.get("properties") or {}
        words = {word.arg: word.value for word in node.keywords}
        unknown = [word for word in words if word is not None and word not in properties]
        if takes_unlisted_arguments(schema):
            unknown = []
        missing = [word for word in schema.get("required") or () if word not in words]
        if node.args:
            what = "Tools take keyword arguments only."
        elif unknown:
            what = f"`{name}` has no argument `{unknown[0]}`."
        elif missing and None not in words:  # `**found` may contain it
            what = f"`{name}` needs the argument `{missing[0]}`."
        else:
            self._report_arguments(name, words)
            return self._result_type(node, name, words)
        fitted = fitted_call(node, name, schema) if node.keywords or node.args else None
        if fitted is None:
            more = " What it does not do is done with its results, by code." if unknown else ""
            self._problem(node, f"{what} Write `{signature(name, schema)}`.{more}")
        else:
            self._problem(node, f"{what} It is `{signature(name, schema)}`.", fitted)
        return self._result_type(node, name, words)

    def _report_arguments(self, name: str, words: Mapping[str | None, ast.expr]) -> None:
        schema = self._tools[name]
        shared = definitions(schema)
        self._report_placeholders(name, words.values())
        for argument, value in words.items():
            inner = (schema.get("properties") or {}).get(argument)
            expected = type_of_schema(inner, shared)
            came = self._types.get(value)
            if expected is None or came is None:
                continue
            fault = argument_fault(argument or "", expected, came, value)
            if fault is not None:
                what, write = fault
                self._problem(value, f"`{name}` takes {expected} as `{argument}`; {what}", write)

    def _report_placeholders(self, name: str, values: Iterable[ast.expr]) -> None:
        """Report texts that stand for a value that the planner does not know."""
        for node in (inner for value in values for inner in ast.walk(value)):
            text = node.value if isinstance(node, ast.Constant) else None
            if not isinstance(text, str) or not self._is_made_up(text):
                continue
            if text.casefold() not in self._said and text not in str(self._tools[name]):
                self._problem(
                    node,
                    f"Nobody has said `{text}`. Take it from the result of a tool, or leave out "
                    f"`{name}` if the request does not need it.",
                )

    def _is_made_up(self, text: str) -> bool:
        """Whether a text looks like an example, or is a date that the planner cannot know."""
        if _DATE.fullmatch(text):
            # The text of the request has no number. Values of variables may have been shown.
            return self._variables == {MAIN} and not any(map(str.isdigit, self._said))
        return _PLACEHOLDER.fullmatch(text) is not None

    def _result_type(
        self, node: ast.Call, name: str, words: Mapping[str | None, ast.expr]
    ) -> Type | None:
        if name == READER:
            return self._reader_type(node, words.get("output_schema"))
        if name == "verify_hypothesis":
            return TRUTH
        schema = self._results.get(name)
        return None if schema is None else type_of_schema(schema, definitions(schema))

    def _reader_type(self, node: ast.Call, schema: ast.expr | None) -> Type | None:
        """The type of the answer of a model that reads, by the schema that the program gives."""
        if schema is None:
            return None
        known = self._types.get(schema)
        if known is None or known.name not in {"schema", "class"}:
            written = None
            with suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                written = ast.literal_eval(schema)
            if written is None:
                return None
            if has_unknown_type(written):
                text = (
                    "`output_schema` has a `type` that JSON does not have. Write `string` for it."
                )
                self._problem(schema, text)
            known = (
                type_of_schema(written, definitions(written)) if isinstance(written, dict) else None
            )
        if (
            known is None
            or not known.keys
            or known.keys.get(_ENOUGH, TRUTH) != TRUTH
            or (_ENOUGH not in known.keys)
        ):
            self._no_flag(node, known)
        return Type("dict", keys=known.keys) if known is not None and known.keys else None

    def _no_flag(self, node: ast.Call, schema: Type | None) -> None:
        """Report a schema for a reader without the flag."""
        name = schema.of if schema is not None else ""
        classes = [one for one in self._tree.body if isinstance(one, ast.ClassDef)]
        body = next((one.body for one in classes if one.name == name), [])
        text = f"`output_schema` needs the boolean `{_ENOUGH}`, which is looked at before the rest."
        if body:
            text = f"{text} Write the line `{_ENOUGH}: bool` into the class `{name}`."
            self._report(node, Problem(text, body[0], f"{_ENOUGH}: bool", is_inserted=True))
        else:
            flag = f'"{_ENOUGH}": {{"type": "boolean"}}'
            self._problem(node, f"{text} Write `{flag}` into its `properties`.")
