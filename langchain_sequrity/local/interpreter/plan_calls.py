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
    takes_exactly,
)
from langchain_sequrity.local.interpreter.syntax import MAIN

_PLACEHOLDER = re.compile(
    r"j(?:ohn|ane) doe|your[_ ](?:name|e?mail|id|key|token|address)"
    r"|(?:example|user|username|email|name|your[._]?\w*)@(?:example|domain|e?mail)\.\w+",
    re.IGNORECASE,
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d(T.*)?", re.ASCII | re.DOTALL)
_ENOUGH = "have_enough_info"
_BUILTIN_RESULT_TYPES = {
    "len": WHOLE, "int": WHOLE, "float": REAL, "str": TEXT, "repr": TEXT, "bool": TRUTH,
    "any": TRUTH, "all": TRUTH, "isinstance": TRUTH, "ord": WHOLE, "chr": TEXT,
    "range": Type("list", WHOLE),
}  # fmt: skip
_SAME_ITEMS = frozenset({"sorted", "list", "reversed", "tuple", "iter"})
_TEXT_METHOD_TYPES = {
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
        for keyword in node.keywords:
            if not isinstance(keyword.value, ast.Lambda):
                self.visit(keyword.value)
        types = [
            None if isinstance(argument, ast.Lambda) else self.visit(argument)
            for argument in node.args
        ]
        if isinstance(node.func, ast.Name) and node.func.id not in self._names:
            return self._named_call(node, node.func.id, types)
        self._visit_lambdas(node, None)
        if isinstance(node.func, ast.Attribute):
            return self._method_call(node, node.func)
        if isinstance(node.func, ast.Name) and node.func.id in self._functions:
            self._visit_called_function(self._functions.pop(node.func.id), node, types)
        callee = self.visit(node.func)
        if callee is not None and callee.name == "class":
            return Type("object", keys=callee.keys, origin=callee.origin)
        if callee is not None and callee.name not in {"tool", "class"}:
            text = f"`{ast.unparse(node.func)}` is {callee}, and cannot be called."
            self._report(node, text, node.func)
        return None

    def _visit_called_function(
        self, function: ast.FunctionDef, call: ast.Call, types: Sequence[Type | None]
    ) -> None:
        """Check the body of a function, with the types of its only call."""
        listed = [*function.args.posonlyargs, *function.args.args]
        names = [parameter.arg for parameter in listed]
        parameters = dict(zip(names, types, strict=False))
        parameters |= {k.arg: self._types.get(k.value) for k in call.keywords if k.arg}
        starred = any(isinstance(argument, ast.Starred) for argument in call.args)
        self._visit_function_body(function, {} if starred else parameters)

    def _named_call(  # noqa: PLR0911 - one per kind
        self, node: ast.Call, name: str, types: Sequence[Type | None]
    ) -> Type | None:
        if name in self._tools:
            return self._tool_call(node, name)
        first = types[0] if types else None
        items = first.items if first is not None and first.name == "list" else None
        self._visit_lambdas(node, items)
        if name not in BUILTINS:
            self._report_unknown_call(node, name)
            return None
        is_empty = first is not None and (first.is_number or first == NOTHING)
        if is_empty and name in {"len", "sorted", "max", "min"} and len(node.args) == 1:
            code = ast.unparse(node.args[0])
            text = f"`{code}` is {first}, and `{name}` needs a list or a text."
            self._report(node, text, code)
        if name in _SAME_ITEMS:
            return Type("list", items)
        if (name in {"max", "min"} and len(types) == 1) or name == "next":
            return items
        if name == "filter" and len(types) > 1 and types[1] is not None:
            return types[1]
        if name == "enumerate":
            return Type("list", tuple_of([WHOLE, items]))
        if name == "zip":
            item_types = [
                source.items if source is not None and source.name == "list" else None
                for source in types
            ]
            return Type("list", tuple_of(item_types))
        return _BUILTIN_RESULT_TYPES.get(name)

    def _report_unknown_call(self, node: ast.Call, name: str) -> None:
        """Report the call of a function that does not exist."""
        is_module = any(name in members or name == module for module, members in MODULES.items())
        is_bound_later = any(name in later for later in self._bound_later)
        if name in self._first_lines or is_module or is_bound_later:
            self.visit(node.func)
            return
        if not self._checks_names:
            return
        text, likely = f"`{name}` is not defined.", likely_tools(name, self._tools)
        near = nearest(name, [*self._names, *BUILTINS])
        if likely:
            fitted = {tool: fitted_call(node, tool, self._tools[tool]) for tool in likely}
            exact = [fitted[tool] for tool in likely if takes_exactly(node, self._tools[tool])]
            possible = [call for call in exact or fitted.values() if call is not None]
            tools = " or ".join(f"`{signature(tool, self._tools[tool])}`" for tool in likely[:3])
            replacement = possible[0] if len(possible) == 1 else None
            self._report(node, f"{text} Did you mean {tools}?", replacement)
        elif near is not None:
            self._report(node.func, text, near)
        else:
            tools = ", ".join(f"`{tool}`" for tool in [*self._tools][:MOST_NAMES])
            self._report(node.func, f"{text} The tools are {tools}.")

    def _visit_lambdas(self, node: ast.Call, first: Type | None) -> None:
        for value in [*node.args, *(keyword.value for keyword in node.keywords)]:
            if isinstance(value, ast.Lambda):
                self.visit_Lambda(value, first)

    def _method_call(  # noqa: C901, PLR0911 - one per method
        self, node: ast.Call, function: ast.Attribute
    ) -> Type | None:
        self.visit_Attribute(function)
        if isinstance(function.value, ast.Name) and function.value.id not in self._names:
            return None
        receiver = self._types.get(function.value)
        if receiver is None:
            return None
        key = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        match receiver.name, function.attr:
            case "dict", "get" if receiver.keys and isinstance(key, str):
                if key not in receiver.keys:
                    self._report_no_key(node, function.value, receiver, key)
                return receiver.keys.get(key) if len(node.args) == 1 else None
            case "dict", "get":
                return receiver.items
            case "dict", "items":
                return Type("list", tuple_of([TEXT if receiver.keys else None, receiver.items]))
            case "dict", "values":
                return Type("list", receiver.items)
            case "dict", "keys":
                return Type("list", TEXT if receiver.keys else None)
            case "list", "pop":
                return receiver.items
            case "str", name:
                return _TEXT_METHOD_TYPES.get(name)
            case "class", "model_json_schema":
                return Type("schema", keys=receiver.keys, origin=receiver.origin)
            case "class", "model_validate" | "model_validate_json" | "model_construct":
                return Type("object", keys=receiver.keys, origin=receiver.origin)
        return None

    def _tool_call(self, node: ast.Call, name: str) -> Type | None:
        schema = self._tools[name]
        properties: Mapping[str, Any] = schema.get("properties") or {}
        arguments = {keyword.arg: keyword.value for keyword in node.keywords}
        unknown = [key for key in arguments if key is not None and key not in properties]
        if takes_unlisted_arguments(schema):
            unknown = []
        missing = [key for key in schema.get("required") or () if key not in arguments]
        if node.args:
            fault = "Tools take keyword arguments only."
        elif unknown:
            fault = f"`{name}` has no argument `{unknown[0]}`."
        elif missing and None not in arguments:  # `**found` may contain it
            fault = f"`{name}` needs the argument `{missing[0]}`."
        else:
            self._report_arguments(name, arguments)
            return self._result_type(node, name, arguments)
        fitted = fitted_call(node, name, schema) if node.keywords or node.args else None
        if fitted is None:
            advice = " What it does not do is done with its results, by code." if unknown else ""
            self._report(node, f"{fault} Write `{signature(name, schema)}`.{advice}")
        else:
            self._report(node, f"{fault} It is `{signature(name, schema)}`.", fitted)
        return self._result_type(node, name, arguments)

    def _report_arguments(self, name: str, arguments: Mapping[str | None, ast.expr]) -> None:
        schema = self._tools[name]
        shared = definitions(schema)
        self._report_placeholders(name, arguments.values())
        for argument, value in arguments.items():
            property_schema = (schema.get("properties") or {}).get(argument)
            expected = type_of_schema(property_schema, shared)
            actual = self._types.get(value)
            if expected is None or actual is None:
                continue
            fault = argument_fault(argument or "", expected, actual, value)
            if fault is not None:
                reason, replacement = fault
                text = f"`{name}` takes {expected} as `{argument}`; {reason}"
                self._report(value, text, replacement)

    def _report_placeholders(self, name: str, values: Iterable[ast.expr]) -> None:
        """Report texts that stand for a value that the planner does not know."""
        for node in (inner for value in values for inner in ast.walk(value)):
            text = node.value if isinstance(node, ast.Constant) else None
            if not isinstance(text, str) or not self._is_made_up(text):
                continue
            if text.casefold() not in self._quotable_text and text not in str(self._tools[name]):
                self._report(
                    node,
                    f"Nobody has said `{text}`. Take it from the result of a tool, or leave out "
                    f"`{name}` if the request does not need it.",
                )

    def _is_made_up(self, text: str) -> bool:
        """Whether a text looks like an example, or is a date that the planner cannot know."""
        if _DATE.fullmatch(text):
            # The text of the request has no number. Values of variables may have been shown.
            return self._variables == {MAIN} and not any(map(str.isdigit, self._quotable_text))
        return _PLACEHOLDER.fullmatch(text) is not None

    def _result_type(
        self, node: ast.Call, name: str, arguments: Mapping[str | None, ast.expr]
    ) -> Type | None:
        if name == READER:
            return self._reader_type(node, arguments.get("output_schema"))
        if name == "verify_hypothesis":
            return TRUTH
        schema = self._results.get(name)
        return None if schema is None else type_of_schema(schema, definitions(schema))

    def _reader_type(self, node: ast.Call, schema: ast.expr | None) -> Type | None:
        """The type of the answer of a model that reads, by the schema that the program gives."""
        if schema is None:
            return None
        answer_type = self._types.get(schema)
        if answer_type is None or answer_type.name not in {"schema", "class"}:
            literal = None
            with suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                literal = ast.literal_eval(schema)
            if literal is None:
                return None
            if has_unknown_type(literal):
                text = (
                    "`output_schema` has a `type` that JSON does not have. Write `string` for it."
                )
                self._report(schema, text)
            answer_type = (
                type_of_schema(literal, definitions(literal)) if isinstance(literal, dict) else None
            )
        keys = answer_type.keys if answer_type is not None else None
        if not keys or keys.get(_ENOUGH, TRUTH) != TRUTH or _ENOUGH not in keys:
            self._report_no_flag(node, answer_type)
        return Type("dict", keys=keys) if keys else None

    def _report_no_flag(self, node: ast.Call, schema: Type | None) -> None:
        """Report a schema for a reader without the flag."""
        name = schema.origin if schema is not None else ""
        classes = [node for node in self._tree.body if isinstance(node, ast.ClassDef)]
        body = next((cls.body for cls in classes if cls.name == name), [])
        text = f"`output_schema` needs the boolean `{_ENOUGH}`, which is looked at before the rest."
        if body:
            text = f"{text} Write the line `{_ENOUGH}: bool` into the class `{name}`."
            self._add_problem(node, Problem(text, body[0], f"{_ENOUGH}: bool", is_inserted=True))
        else:
            flag = f'"{_ENOUGH}": {{"type": "boolean"}}'
            self._report(node, f"{text} Write `{flag}` into its `properties`.")
