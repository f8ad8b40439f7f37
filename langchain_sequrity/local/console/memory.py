"""The memory of what the console keeps. Its parts share long texts, which count once."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Any

from langchain_sequrity.sizes import SizeCount

_HOLDING, _HOLDING_OF_TEXTS = 400, 150
_LONG = 1_000  # characters; a shorter text has no count of its own


@dataclass(frozen=True, slots=True)
class Holding:
    """What one part of a record keeps.

    Attributes:
        size: Its bytes, without those of long texts.
        texts: Its long texts by their ids.
    """

    size: int
    texts: dict[int, Any] = field(repr=False)


class Holdings:
    """The parts that are kept, with their size.

    Attributes:
        size: Bytes of all of them.
    """

    def __init__(self) -> None:
        self.size = 0
        self._uses: dict[int, int] = {}
        self._prompts: dict[str, str] = {}

    def shared(self, prompt: str) -> str:
        """The kept prompt with this text, which each request makes anew."""
        return self._prompts.setdefault(prompt, prompt) if len(prompt) > _LONG else prompt

    def add(self, value: Any, fixed: int = 0) -> Holding:
        """Count an object with everything in it, until `remove`.

        Args:
            value: The object.
            fixed: Bytes of what belongs to it, and is not counted.
        """
        count = SizeCount()
        count.add(value)
        return self._added(Holding(count.size + fixed + _HOLDING, count.texts))

    def _added(self, holding: Holding) -> Holding:
        self.size += holding.size
        for text_id, text in holding.texts.items():
            uses = self._uses.get(text_id, 0)
            self._uses[text_id] = uses + 1
            self.size += 0 if uses else getsizeof(text)
        return holding

    def add_texts(self, texts: Iterable[str], fixed: int = 0) -> Holding:
        """Count texts, until `remove`; as `add`, in less time."""
        size, long_texts = fixed + _HOLDING_OF_TEXTS, {}
        for text in texts:
            if len(text) > _LONG:
                long_texts[id(text)] = text
            else:
                size += getsizeof(text)
        return self._added(Holding(size, long_texts))

    def remove(self, holding: Holding) -> None:
        """Do not count an object any more."""
        self.size -= holding.size
        for text_id, text in holding.texts.items():
            self._uses[text_id] -= 1
            if not self._uses[text_id]:
                del self._uses[text_id]
                self.size -= getsizeof(text)
                self._prompts.pop(text, None)
