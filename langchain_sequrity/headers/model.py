"""The base of every header object, whole headers and their sections alike.

Three things differ from a plain pydantic model. A field that was not given is not sent, while one
given as `None` is sent as `null`, which for some fields means "no limit". An unknown name is
refused together with the nearest known one. And `extra` carries fields that this version does not
know yet; on the wire they stand among the others.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from langchain_sequrity.headers.json_text import json_problem
from langchain_sequrity.validation import refusal, shown, unknown_names

Unknown = Literal["refuse", "keep"]
# Marks a validation of data from the wire, where `extra` is a name like any other.
WIRE = "langchain_sequrity.wire"
_EXTRA = "extra"


class HeaderModel(BaseModel):
    """Base of `FeaturesHeader`, `PolicyHeader`, `ConfigHeader` and their sections.

    Instances do not change; `model_copy(update=…)` makes a changed copy without checking it.
    Construction raises `pydantic.ValidationError`, which does not show the values given.
    Two instances are equal if they send the same.

    Attributes:
        extra: Fields that this version does not know, as JSON values. Names of known fields are
            refused here.

    Example:
        ```python
        from langchain_sequrity.headers import FsmConfig

        unlimited = FsmConfig(max_n_turns=None, extra={"plan_cache": "off"})
        assert unlimited.to_wire() == {"max_n_turns": None, "plan_cache": "off"}
        assert FsmConfig().to_wire() == {}
        ```
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", defer_build=True, hide_input_in_errors=True
    )

    # How errors name the place, such as "`fsm`".
    _where: ClassVar[str]

    extra: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _know_names(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, Mapping):
            return data
        mode = info.context.get(WIRE) if isinstance(info.context, dict) else None
        known = cls.wire_names()
        strange = [name for name in data if name not in known and (mode or name != _EXTRA)]
        if not strange:
            return data
        if mode == "keep":
            rest = {name: value for name, value in data.items() if name in known}
            return rest | {_EXTRA: {name: data[name] for name in strange}}
        paths = dict(reversed(list(_paths(cls))))  # of equal names, the first is kept
        more = "" if mode else " A field that this version does not know goes into `extra`."
        raise unknown_names(strange, cls._where, known, paths, more)

    @field_validator(_EXTRA)
    @classmethod
    def _only_new_json(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name in extra:
            if name in cls.wire_names():
                msg = "{name} is a field of {where}: set the field itself, not through `extra`"
                facts = {"name": shown(name), "where": cls._where}
                raise refusal(msg, kind="known_in_extra", is_complete=True, **facts)
        if found := json_problem(extra):
            msg = "{text}"
            raise refusal(msg, kind="extra_not_json", is_complete=True, text=found)
        copy: dict[str, Any] = _wire_value(extra)  # later changes of the caller's stay outside
        return copy

    @classmethod
    def wire_names(cls) -> list[str]:
        """Names of the known fields as they stand on the wire."""
        return [name for name in cls.model_fields if name != _EXTRA]

    def to_wire(self) -> dict[str, Any]:
        """The JSON object that is sent: the fields that were given, and `extra`."""
        given = [name for name in self.wire_names() if name in self.model_fields_set]
        known = {name: _wire_value(getattr(self, name)) for name in given}
        extra: dict[str, Any] = _wire_value(self.extra)
        return known | extra

    def _key(self) -> str:
        # Compared as text, because Python takes 1, 1.0 and True for equal and JSON does not.
        return json.dumps(self.to_wire(), sort_keys=True)

    def __eq__(self, other: object) -> bool:
        """Equal if both are of one class and send the same: unset and `None` differ."""
        if not isinstance(other, HeaderModel):
            return NotImplemented
        return type(self) is type(other) and self._key() == other._key()

    def __hash__(self) -> int:
        """Hash what is sent."""
        return hash((type(self), self._key()))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show the fields that were given."""
        for name in type(self).model_fields:
            if name in self.model_fields_set and (name != _EXTRA or self.extra):
                yield name, getattr(self, name)


def _wire_value(value: Any) -> Any:
    if isinstance(value, HeaderModel):
        return value.to_wire()
    if isinstance(value, Mapping):
        return {key: _wire_value(item) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_wire_value(item) for item in value]
    return value


def _paths(cls: type[HeaderModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and dotted path of every field, those of this object before those of its sections."""
    for name in cls.wire_names():
        yield name, f"{prefix}{name}"
    for name in cls.wire_names():
        for section in _sections(cls.model_fields[name].annotation):
            yield from _paths(section, f"{prefix}{name}.")


def _sections(annotation: Any) -> Iterator[type[HeaderModel]]:
    if isinstance(annotation, type) and issubclass(annotation, HeaderModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)
