"""What a planner's program would fail at, as far as its text shows it, before any call is made.

The program is gone through in the order in which it runs. Each variable has the type of what was
assigned to it, where the text shows one. Names, calls of tools, keys, attributes and operations are
compared with these types. What is not certain is allowed: it may still fail when it runs.

All problems are reported together, each with its line, with what is there, and with what to write:
a small model has few attempts.
"""

import ast
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from typing import Any

from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.calls import takes_unlisted_arguments
from langchain_sequrity.local.interpreter.corrections import Problem, corrected
from langchain_sequrity.local.interpreter.faults import ProgramRefused
from langchain_sequrity.local.interpreter.modules import MODULES
from langchain_sequrity.local.interpreter.plan_values import (
    MOST_NAMES,
    EnoughProblems,
    Names,
    ValueCheck,
    module_type,
    names_in,
    narrowed_names,
    tuple_of,
)
from langchain_sequrity.local.interpreter.scopes import bound_names, walk_scope
from langchain_sequrity.local.interpreter.signatures import READER, definitions, signature
from langchain_sequrity.local.interpreter.static_types import (
    NOTHING,
    REAL,
    TEXT,
    TRUTH,
    WHOLE,
    Type,
    has_unknown_type,
    joined,
    list_items,
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

_DEEPEST_LOOPS = 3
_ANNOTATIONS = {"str": TEXT, "int": WHOLE, "float": REAL, "bool": TRUTH, "list": Type("list"),
                "dict": Type("dict"), "List": Type("list"), "Dict": Type("dict")}  # fmt: skip
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


class PlanCheck(ValueCheck):
    """Goes through a program, in the order in which it runs."""

    def check(self) -> None:
        """Check the whole program."""
        self._visit_body(self._tree.body)
        for function in [*self._functions.values()]:
            self._visit_function_body(function)

    def _branches(self, *bodies: Sequence[ast.stmt]) -> None:
        """Bodies of which any one may run: a name has a type only if it is the same in all."""
        before, after = self._names, []
        for body in bodies:
            self._names = dict(before)
            self._visit_body(body)
            after.append(self._names)
        self._names = dict(before)
        for name in {name for names in after for name in names}:
            types = [names[name] for names in after if name in names]
            self._names[name] = reduce(joined, types)

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        before = self._forget_types(narrowed_names(node.test))
        self._branches(node.body, node.orelse)
        rebound = {*bound_names(walk_scope([*node.body, *node.orelse]))}
        self._names.update({name: before[name] for name in before if name not in rebound})

    def visit_For(self, node: ast.For) -> None:
        items = self._item_type(node.iter, self.visit(node.iter))
        self._loop([*node.body], lambda: self._bind(node.target, items))
        self._visit_body(node.orelse)

    def visit_While(self, node: ast.While) -> None:
        self._loop(node.body, lambda: self.visit(node.test))
        self._visit_body(node.orelse)

    def _loop(self, body: Sequence[ast.stmt], begin: Callable[[], object]) -> None:
        """A loop: at its beginning a name has the type from before, or from the end of the body."""
        bound = frozenset(bound_names(walk_scope(body)))
        before = self._names
        if len(self._bound_later) <= _DEEPEST_LOOPS:  # each level doubles the work
            self._names, problems = dict(before), dict(self.problems)
            functions = dict(self._functions)
            self._bound_later.append(bound)
            begin()
            self._visit_body(body)
            self._bound_later.pop()
            after, self.problems, self._functions = self._names, problems, functions
        else:
            after = dict.fromkeys(bound)
        self._names = dict(before)
        self._names.update(
            {name: joined(before[name], after.get(name)) for name in bound if name in before}
        )
        self._bound_later.append(bound)
        begin()
        self._branches(body, ())
        self._bound_later.pop()

    def visit_Try(self, node: ast.Try) -> None:
        self._branches(node.body, ())
        for handler in node.handlers:
            if handler.type is not None:
                self.visit(handler.type)
            if handler.name:
                self._names[handler.name] = None
        self._branches(*(handler.body for handler in node.handlers), node.orelse)
        self._visit_body(node.finalbody)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.visit(node.value)
        for target in node.targets:
            self._bind(target, value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            read = ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target)
            whole = ast.copy_location(ast.BinOp(read, node.op, node.value), node)
            self._bind(node.target, self.visit(whole))
        else:
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._bind(node.target, self.visit(node.value))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._names[alias.asname or alias.name] = module_type(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._names.update({alias.asname or alias.name: None for alias in node.names})

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        self._names[node.name] = None
        if self._read_counts[node.name] == 1 and node in self._tree.body:
            self._functions[node.name] = node  # it is checked with the types of its call
        else:
            self._visit_function_body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        fields: Names = {}
        for base in node.bases:
            base_type = self.visit(base)
            if base_type is not None and base_type.name == "class" and base_type.keys:
                fields.update(base_type.keys)
        for statement in node.body:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                    fields[name] = self._annotation(annotation)
                case ast.Assign(targets=[ast.Name(id=name)]):
                    fields[name] = None
        is_model = any("BaseModel" in names_in(base) or self._is_class(base) for base in node.bases)
        self._names[node.name] = Type("class", keys=fields, origin=node.name) if is_model else None

    def _is_class(self, node: ast.expr) -> bool:
        value_type = self._names.get(node.id) if isinstance(node, ast.Name) else None
        return value_type is not None and value_type.name == "class"

    def _annotation(self, node: ast.expr) -> Type | None:
        match node:
            case ast.Name(id=name) if name in _ANNOTATIONS:
                return _ANNOTATIONS[name]
            case ast.Name(id=name) if self._is_class(node):
                model = self._names[name]
                return Type("dict", keys=model.keys) if model is not None else None
            case ast.Subscript(value=ast.Name(id="list" | "List"), slice=inner):
                return Type("list", self._annotation(inner))
            case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
                return self._annotation(left)
            case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
                return self._annotation(inner)
        return None

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        self._forget_types(names_in(node.subject))
        for case in node.cases:
            self._names.update(dict.fromkeys(bound_names(walk_scope([case.pattern]))))
        self._branches(*(case.body for case in node.cases), ())

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._names.pop(target.id, None)
            else:
                self.generic_visit(target)

    # -- calls

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
        items = list_items(first)
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
            return Type("list", tuple_of([*map(list_items, types)]))
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


def check_plan(  # noqa: PLR0917 - what the program, its tools and its user say
    source: str,
    tree: ast.Module,
    tools: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Mapping[str, Any]],
    variables: Collection[str] = (),
    quotable_text: str = "",
) -> None:
    """Refuse a program that would fail, as far as its text shows it.

    Args:
        source: The text of the program.
        tree: The program.
        tools: JSON Schemas of the arguments of the tools, by name.
        results: JSON Schemas of their results, where they are known.
        variables: Names that exist before the program.
        quotable_text: Everything that the program may quote: what the user and the application say.

    Raises:
        ProgramRefused: With all problems; its position is that of the first.
    """
    try:
        plan = PlanCheck(source, tree, tools, results, variables, quotable_text)
        with suppress(EnoughProblems):
            plan.check()
    except RecursionError:  # it is checked when it runs
        return
    if not plan.problems:
        return
    ((line, column), first), *rest = ordered = sorted(plan.problems.items())
    others = [f"Line {n}, column {c}: {problem.text}" for (n, c), problem in rest]
    changed = corrected(source, [problem for _, problem in ordered])
    reason = "\n".join([first.text, *others])
    raise ProgramRefused(reason, line=line, column=column, corrected=changed)
