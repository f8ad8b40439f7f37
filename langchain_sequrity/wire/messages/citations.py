"""Citations: LangChain's standard form back to the kinds of this format."""

from collections.abc import Mapping
from typing import Any

# What tells the kinds apart, in the order in which they are told.
_MARKS = (
    ("search_result_index", "search_result_location"),
    ("start_char_index", "char_location"),
    ("start_page_number", "page_location"),
    ("start_block_index", "content_block_location"),
)


def write_citation(annotation: Mapping[str, Any]) -> dict[str, Any] | None:
    """Write an annotation of a standard text block.

    Args:
        annotation: A `citation`, or a `non_standard_annotation`.

    Returns:
        The citation, or `None` if it came from another provider and has no place here.
    """
    if annotation.get("type") == "non_standard_annotation":
        value = annotation.get("value")
        known = isinstance(value, Mapping) and str(value.get("type")).endswith("_location")
        return dict(value) if known and isinstance(value, Mapping) else None
    extras = annotation.get("extras") or {}
    cited, title = annotation.get("cited_text"), annotation.get("title")
    if cited is None:
        return None
    if "url" in annotation:
        kind = "web_search_result_location"
        return {
            "type": kind,
            "cited_text": cited,
            "url": annotation["url"],
            "title": title,
            **extras,
        }
    for mark, kind in _MARKS:
        if mark in extras:
            named = "title" if kind == "search_result_location" else "document_title"
            return {"type": kind, "cited_text": cited, named: title, **extras}
    return None
