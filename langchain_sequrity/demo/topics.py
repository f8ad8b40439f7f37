"""What the offline model can find out: a query for each topic, and words for what it returned."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_sequrity.demo.packages import normalize

Row = Mapping[str, Any]

_WORD = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_MOST_NAMES = 20
_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Topic:
    """Something to find out.

    Attributes:
        title: What it is called in the report.
        sql: The query that finds it out.
        sentence: Words the rows of the query, of which there is at least one.
    """

    title: str
    sql: str
    sentence: Callable[[Sequence[Row]], str]


def topics_of(question: str) -> list[Topic]:
    """Choose the topics that a question is about.

    Args:
        question: What the user asks.

    Returns:
        The total; the topics whose words are in the question, or all of them if there are none;
        and the packages that it names.
    """
    asked = question.lower()
    found = [topic for words, topic in _BY_WORDS if words.search(asked)]
    return [_TOTAL, *(found or (topic for _, topic in _BY_WORDS)), _named_in(asked)]


# Wording


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _size(size: int | None) -> str:
    return "an unknown size" if size is None else f"{size / _MEGABYTE:,.1f} MB ({size:,} bytes)"


def _total(rows: Sequence[Row]) -> str:
    [row] = rows
    return f"Installed: {_count(row['packages'], 'package')}, {_size(row['size_bytes'])} in all."


def _largest(rows: Sequence[Row]) -> str:
    row = rows[0]
    return f"The largest is {row['name']} {row['version']} with {_size(row['size_bytes'])}."


def _licenses(rows: Sequence[Row]) -> str:
    row = rows[0]
    return f"The most frequent licence is {row['license']} ({_count(row['packages'], 'package')})."


def _required(rows: Sequence[Row]) -> str:
    row = rows[0]
    return f"The most required is {row['name']} (by {_count(row['required_by'], 'package')})."


def _named(rows: Sequence[Row]) -> str:
    return " ".join(
        f"{row['name']} {row['version']}: {_size(row['size_bytes'])}, licence "
        f"{row['license'] or 'not stated'}, dependencies: {row['dependencies']}."
        for row in rows
    )


# Queries

_TOTAL = Topic(
    "All packages",
    "SELECT count(*) AS packages, sum(size_bytes) AS size_bytes, "
    "count(*) - count(license) AS without_license FROM packages",
    _total,
)
_LARGEST = Topic(
    "Largest packages",
    "SELECT name, version, size_bytes, license FROM packages "
    "ORDER BY size_bytes DESC, name LIMIT 10",
    _largest,
)
_LICENSES = Topic(
    "Licences as stated",
    "SELECT coalesce(license, 'none stated') AS license, count(*) AS packages FROM packages "
    "GROUP BY 1 ORDER BY packages DESC, license LIMIT 10",
    _licenses,
)
_REQUIRED = Topic(
    "Most required packages",
    "SELECT requires AS name, count(*) AS required_by FROM dependencies WHERE optional = 0 "
    "GROUP BY requires ORDER BY required_by DESC, name LIMIT 10",
    _required,
)
_BY_WORDS = (
    (re.compile("larg|big|size|space|disk|heav"), _LARGEST),
    (re.compile("licen[cs]e"), _LICENSES),
    (re.compile("depend|requir|need"), _REQUIRED),
)


def _named_in(question: str) -> Topic:
    words = list(dict.fromkeys(normalize(word) for word in _WORD.findall(question)))
    names = ", ".join(f"'{word}'" for word in words[:_MOST_NAMES])
    return Topic(
        "Packages named in the question",
        "SELECT name, version, size_bytes, license, dependencies, summary FROM packages "  # noqa: S608 - no quote matches _WORD
        f"WHERE name IN ({names}) ORDER BY name",
        _named,
    )
