"""Rules that remove labels from results that may quote an argument.

A result has the labels of the arguments of its call. A rule that removes labels means those that
the tool adds, and it removes those of a search text too, which the tool may repeat.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_sequrity.display import plain
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import ToolArguments
from langchain_sequrity.sqrt.lint.checked_policy import CheckedPolicy, Clause, enum_values
from langchain_sequrity.sqrt.lint.possible_labels import PossibleLabels

_REMOVES = frozenset({"-=", "=", "&=", "^="})
_TYPED_FORMATS = frozenset({"date", "date-time", "time", "duration", "uuid", "ipv4", "ipv6"})
_DEPTH = 8


def find_quoted_removals(policy: CheckedPolicy, possible: PossibleLabels) -> None:
    """Warn of each removal of labels from a result that may quote a text among the arguments.

    A condition on the labels of the arguments is the remedy; a doc comment says that the result
    cannot quote them, or that its labels matter whatever it quotes.
    """
    if possible.capabilities.argument_labels == "none":
        return
    for clause in policy.clauses:
        updates = (u for u in clause.updates if _removes(u) and _has_effect(policy, u, possible))
        update = next(updates, None)
        if update is None or clause.phase != "result" or clause.node.doc:
            continue
        metas = policy.label_reads(clause).metas
        if any(meta.scope in {"arg", "args"} for meta in metas):
            continue
        if quoted := next(_quoted(clause), None):
            tool, argument = (plain(name, limit=80) for name in quoted)
            policy.report(
                "warning",
                f"This also removes labels that `{argument}` gave to the result of `{tool}`, which "
                "may quote it", update.at,
                "Add `when not @args.tags overlaps {…}`; or say in a doc comment (`///`) why the "
                "labels of what the tool was given do not matter",
            )  # fmt: skip


def _removes(update: nodes.Update) -> bool:
    target = update.target
    is_result = target.scope in {"result", "short"} and target.field != "consumers"
    return is_result and update.assignment in _REMOVES


def _has_effect(policy: CheckedPolicy, update: nodes.Update, possible: PossibleLabels) -> bool:
    """Whether something sets one of the labels; else `find_unset` reports it."""
    field, elements = update.target.field, [*policy.elements(update.set)]
    return update.assignment != "-=" or any(
        not isinstance(element, nodes.TextLiteral) or possible.is_set(field, "values", element.raw)
        for element in elements
    )


def _quoted(clause: Clause) -> Iterator[tuple[str, str]]:
    """Tools of a rule, each with a free text among its arguments, if its result may be one too."""
    _, _, path = clause.tool.node.tool.text.raw.partition("/")
    for name, tool in (clause.tool.matched_tools or {}).items():
        result = tool.returns
        if clause.tool.compiled.may_be_field and clause.tool.node.tool.text.kind == "plain":
            result = _field_schema(tool.returns, path.split("/"))
        if _has_text(result, result):
            yield from ((name, argument) for argument in _texts(tool))


def _texts(tool: ToolArguments) -> Iterator[str]:
    schemas = tool.schemas
    return (name for name in tool.names if _has_text(schemas.get(name, {}), schemas.get(name, {})))


def _has_text(schema: Any, root: Mapping[str, Any], depth: int = 0) -> bool:
    """Whether a value of a schema may have a text that the schema does not choose."""
    if not isinstance(schema, Mapping) or depth > _DEPTH:
        return True
    if "$ref" in schema:
        return _has_text(_resolved(schema, root), root, depth + 1)
    if enum_values(schema) is not None:
        return False
    parts = _parts_of(schema)
    return parts is None or any(_has_text(part, root, depth + 1) for part in parts)


def _parts_of(schema: Mapping[str, Any]) -> list[Any] | None:
    """The schemas of the parts of a value; `None` if the value may be a text itself."""
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            return [*schema[key]]
    kinds = schema.get("type")
    kinds = {kinds} if isinstance(kinds, str) else set(kinds or ())
    is_text = "string" in kinds and schema.get("format") not in _TYPED_FORMATS
    if is_text or not kinds:
        return None
    parts = [schema.get("items")] if "array" in kinds else []
    if "object" in kinds:
        properties = [*(schema.get("properties") or {}).values()]
        others = schema.get("additionalProperties", not properties)
        parts += properties if others is False else [*properties, others]
    return parts


def _field_schema(schema: Mapping[str, Any], path: list[str]) -> Mapping[str, Any]:
    """The schema at a path through objects and lists; an empty one, of any value, if unknown."""
    root, part = schema, schema
    for name in [*path, None]:
        for _ in range(_DEPTH):
            if "$ref" in part:
                part = _resolved(part, root)
            elif part.get("type") == "array" and isinstance(part.get("items"), Mapping):
                part = part["items"]
        if name is not None:
            key = name.replace("~1", "/").replace("~0", "~")
            below = (part.get("properties") or {}).get(key)
            part = below if isinstance(below, Mapping) else {}
    return {"$defs": root.get("$defs", {}), **part}


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a reference to `$defs` names; an empty one for other references."""
    target = root.get("$defs", {}).get(str(schema["$ref"]).removeprefix("#/$defs/"))
    return target if isinstance(target, Mapping) else {}
