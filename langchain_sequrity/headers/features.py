"""`X-Features`: the architecture, classifiers and blockers."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from langchain_sequrity.headers.base import (
    NOT_NULL,
    Array,
    Header,
    HeaderModel,
    Number,
    Text,
    listed,
)

AgentArch = Literal["single-llm", "dual-llm"]
ClassifierName = Literal[
    "toxicity_filter", "pii_redaction", "healthcare_topic_guardrail", "finance_topic_guardrail"
]
BlockerName = Literal["url_blocker", "file_blocker"]
Share = Annotated[Number, Field(ge=0, le=1)]


class Classifier(HeaderModel):
    """A model that checks the arguments of a call before it, and the result after it.

    Example:
        ```python
        from langchain_sequrity.headers import Classifier

        Classifier(name="pii_redaction", threshold=0.35)
        ```
    """

    _where: ClassVar[str] = "a classifier of `content_classifiers`"

    name: ClassifierName
    """Which classifier."""
    threshold: Annotated[Share | None, NOT_NULL] = None
    """Lowest score at which it acts, 0.0 to 1.0. Server default: 0.5."""
    mode: Text | None = None
    """A named sensitivity such as `strict`; overrides `threshold`. Server default: none."""


class Blocker(HeaderModel):
    """Looks for one kind of content in arguments and results.

    Example:
        ```python
        from langchain_sequrity.headers import Blocker

        Blocker(name="url_blocker")
        ```
    """

    _where: ClassVar[str] = "a blocker of `content_blockers`"

    name: BlockerName
    """Which blocker."""


class FeaturesHeader(Header):
    """The header `X-Features`.

    Example:
        ```python
        from langchain_sequrity.headers import Classifier, FeaturesHeader

        features = FeaturesHeader.dual_llm(
            classifiers=["toxicity_filter", Classifier(name="pii_redaction", threshold=0.35)],
            blockers=["file_blocker"],
        )
        assert features.agent_arch == "dual-llm"
        assert features == FeaturesHeader.from_header(features.to_header())
        ```
    """

    header_name: ClassVar[str] = "X-Features"
    _where: ClassVar[str] = "`X-Features`"
    _example: ClassVar[str] = '{"agent_arch": "dual-llm"}'

    agent_arch: AgentArch | None = None
    """One model, or a planner and a data model. Server default: as stored for the key."""
    content_classifiers: Array[Classifier] | None = None
    """Classifiers to run. Server default: none."""
    content_blockers: Array[Blocker] | None = None
    """Blockers to run. Server default: none."""

    @classmethod
    def single_llm(
        cls,
        *,
        classifiers: Iterable[ClassifierName | Classifier] | None = None,
        blockers: Iterable[BlockerName | Blocker] | None = None,
    ) -> Self:
        """Features of a session with one model that sees all messages and results.

        Args:
            classifiers: Names, or `Classifier` objects with a threshold. `None` keeps the stored
                setting; an empty list switches all off.
            blockers: Names or `Blocker` objects; `None` and an empty list as above.

        Returns:
            The header.

        Raises:
            pydantic.ValidationError: For an unknown name.
        """
        return cls._build("single-llm", classifiers, blockers)

    @classmethod
    def dual_llm(
        cls,
        *,
        classifiers: Iterable[ClassifierName | Classifier] | None = None,
        blockers: Iterable[BlockerName | Blocker] | None = None,
    ) -> Self:
        """Features of a session with a planner that sees only trusted input, and a data model.

        Args:
            classifiers: Names, or `Classifier` objects with a threshold. `None` keeps the stored
                setting; an empty list switches all off.
            blockers: Names or `Blocker` objects; `None` and an empty list as above.

        Returns:
            The header.

        Raises:
            pydantic.ValidationError: For an unknown name.
        """
        return cls._build("dual-llm", classifiers, blockers)

    @classmethod
    def _build(
        cls,
        arch: AgentArch,
        classifiers: Iterable[ClassifierName | Classifier] | None,
        blockers: Iterable[BlockerName | Blocker] | None,
    ) -> Self:
        lists = {"content_classifiers": classifiers, "content_blockers": blockers}
        set_lists = {name: _by_name(items) for name, items in lists.items() if items is not None}
        return cls(agent_arch=arch, **set_lists)


def _by_name(items: Iterable[Any]) -> Any:
    if isinstance(items, str):
        return items  # the validator refuses it; iteration would give letters
    ordered = listed(items) if isinstance(items, AbstractSet) else items
    return [{"name": item} if isinstance(item, str) else item for item in ordered]
