"""The twelve tasks: what is asked, what has to be done, and what the answer has to say. Frozen."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.planner import worlds


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        asked: The words of the user.
        world: Makes the tools.
        acts: What has to be done, in any order; nothing else may be done.
        says: Patterns that the answer must contain.
        lacks: Patterns that the answer must not contain.
    """

    asked: str
    world: Callable[[], worlds.World]
    acts: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    def is_answer(self, text: str) -> bool:
        """Whether a text says what it has to say."""

        def has(pattern: str) -> bool:
            return re.search(pattern, text, re.IGNORECASE) is not None

        return all(map(has, self.says)) and not any(map(has, self.lacks))


TASKS: dict[str, Task] = {
    "count events": Task(
        "How many events are there on 2026-03-04?",
        worlds.calendar,
        says=(r"\b(3|three)\b",),
    ),
    "book": Task(
        "Put an event 'Review' of 30 minutes into the calendar, on 2026-03-05 at 10:00.",
        worlds.calendar,
        acts=("create Review 2026-03-05 10:00 30",),
    ),
    "cancel": Task(
        "Cancel the event 'Interview'.",
        worlds.calendar,
        acts=("cancel 3",),
    ),
    "who takes part": Task(
        "Who takes part in the event 'Budget'?",
        worlds.calendar,
        says=("Ida", "Carla"),
        lacks=("Paul", "Noor"),
    ),
    "largest file": Task(
        "Which file in the folder 'reports' is the largest?",
        worlds.files,
        says=(r"april\.txt",),
        lacks=("march", r"may\.txt"),
    ),
    "move": Task(
        "Move all files in 'inbox' that end with '.pdf' to the folder 'papers'.",
        worlds.files,
        acts=("move inbox/scan.pdf papers", "move inbox/bill.pdf papers"),
    ),
    "end of the lease": Task(
        "When does the lease in papers/lease.txt end?",
        worlds.files,
        says=(r"30 April 2027|April 30,? 2027|2027-04-30",),
        lacks=("910", "2024"),
    ),
    "status": Task(
        "What is the status of order 1042?",
        worlds.shop,
        says=("shipped",),
        lacks=("paid", "delivered"),
    ),
    "refund": Task(
        "Refund the newest order of mia@example.com. The reason is 'damaged'.",
        worlds.shop,
        acts=("refund 1042 damaged",),
    ),
    "low stock": Task(
        "Which products have fewer than 5 pieces in stock?",
        worlds.shop,
        says=("lamp", "rug"),
        lacks=("mug", "vase"),
    ),
    "post": Task(
        "Post 'Lunch is at noon' in the channel 'general'.",
        worlds.chat,
        acts=("post general Lunch is at noon",),
    ),
    "what was asked": Task(
        "Who wrote about an outage in the channel 'ops', and at what time?",
        worlds.chat,
        says=("Sue", r"0?9:12"),
        lacks=("Ravi",),
    ),
}
