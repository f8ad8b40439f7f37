"""A perfect reader for the texts of the suite "travel", instead of written answers.

The same few texts are read in all its tasks: lists of names, ratings with reviews, ranges of
prices, flights. The question before the data selects the function.
"""

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any


def read(query: str) -> Mapping[str, Any]:
    """Answer a query: a question that ends in a colon, then the data."""
    question, _, data = query.partition(": ")
    return _READERS[question](data)


def _names(data: str) -> dict[str, Any]:
    _, _, names = data.partition(": ")
    return {"names": [name for name in names.split("\n") if name]}


def _ratings(data: str) -> dict[str, Any]:
    texts: dict[str, str] = ast.literal_eval(data)
    return {"ratings": {name: float(_numbers(text)[0]) for name, text in texts.items()}}


def _prices(data: str) -> dict[str, Any]:
    texts: dict[str, str] = ast.literal_eval(data)
    ranges = {name: [float(price) for price in _numbers(text)] for name, text in texts.items()}
    return {"prices": ranges}


def _flights(data: str) -> dict[str, Any]:
    pattern = r"Airline: ([^,]+), Flight Number: (\w+),.*?Price: ([\d.]+)"
    return {
        "flights": [
            {"airline": airline, "number": number, "price": float(price)}
            for airline, number, price in re.findall(pattern, data)
        ]
    }


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?", text)


_READERS: Mapping[str, Callable[[str], Mapping[str, Any]]] = {
    "Names in this list": _names,
    "Rating of each": _ratings,
    "Lowest and highest price of each": _prices,
    "Flights": _flights,
}
