"""How state fields stand in a program: expressions that read and write them."""

from collections.abc import Mapping
from dataclasses import dataclass

from langchain_sequrity.graph.program import OVERWRITE, Plan, ToolSpec


@dataclass(frozen=True, slots=True)
class Fields:
    """How the state fields stand in a program.

    Attributes:
        keys: Field → key in results.
        state: Field → variable with its value.
        variables: Field → context variable with its initial value.
        plans: Field → how it is carried.
        overwritable: Sums for which a result may say a new value.
        result: Variable with a node's result.
    """

    keys: Mapping[str, str]
    state: Mapping[str, str]
    variables: Mapping[str, str]
    plans: Mapping[str, Plan]
    overwritable: frozenset[str]
    result: str

    def is_log(self, field: str) -> bool:
        """Whether the field is a list of batches that the client folds."""
        return self.plans[field].kind == "log"

    def read(self, field: str) -> str:
        """The field before this step."""
        return self.state[field]

    def written(self, field: str, tool: ToolSpec, base: str) -> str:
        """The field after a node's result, for "last" and "sum".

        Args:
            field: A field that the tool may write.
            tool: The node's tool.
            base: The field's value so far.
        """
        key, plan, result = self.keys[field], self.plans[field], self.result
        is_sure = field in tool.definite
        if plan.kind == "last":
            return f'{result}["{key}"]' if is_sure else f'{result}.get("{key}", {base})'
        if field in self.overwritable:
            added = f'{base} + {result}.get("{key}", {plan.zero!r})'
            return f'{result}.get("{OVERWRITE}{key}", {added})'
        added = f'{result}["{key}"]' if is_sure else f'{result}.get("{key}", {plan.zero!r})'
        return f"{base} + {added}"

    def fresh(self, field: str, tool: ToolSpec | None) -> str:
        """The field before this step with this node's own writes: what its routers see."""
        if tool is None:
            return self.read(field)
        before = self.state[field]
        if not self.is_log(field):
            return self.written(field, tool, before) if field in tool.writes else before
        if field in tool.writes:
            return f'{before} + [{self.result}["{self.keys[field]}"]]'
        return f"{before} + [[]]" if self.plans[field].resets else before
