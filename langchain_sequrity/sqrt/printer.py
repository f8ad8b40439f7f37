"""Nodes to SQRT text, in the layout of `format_policy`."""

from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.formatter import formatted_text
from langchain_sequrity.sqrt.node_text import declarations_text
from langchain_sequrity.sqrt.nodes import Policy
from langchain_sequrity.sqrt.parser import parse


def printed(policy: Policy) -> str:
    """Write a policy.

    Args:
        policy: The policy; its positions and text are ignored.

    Returns:
        A text that parses to the same nodes, except for positions and texts.

    Raises:
        UsageError: If `policy` is not a parsed policy, or cannot be written: it is nested too
            deeply, or has a name or text that SQRT cannot write.

    Example:
        ```python
        from langchain_sequrity.sqrt import parse, printed

        policy = parse('tool "ship" { soft deny when ((raw)); }')
        assert printed(policy).splitlines()[1] == "    should deny when raw;"
        ```
    """
    if not isinstance(policy, Policy):
        msg = (
            f"`printed` takes a parsed policy; got {type(policy).__name__}. Use `parse` to parse a "
            "text, or `format` to lay it out."
        )
        raise UsageError(msg)
    text = declarations_text(policy.declarations)
    return formatted_text(parse(text, max_characters=len(text)))
