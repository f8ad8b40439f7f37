"""From which score on a classifier strikes."""

from collections.abc import Iterable
from types import MappingProxyType

from langchain_sequrity.display import plain
from langchain_sequrity.headers.features import Classifier

DEFAULT_THRESHOLD = 0.5
MODES = MappingProxyType(
    {"strict": 0.2, "high sensitivity": 0.35, "normal": 0.5, "low sensitivity": 0.8}
)


def thresholds(classifiers: Iterable[Classifier]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Read the thresholds of classifiers.

    A mode that is not in `MODES` leaves the threshold in force, and a note says so: the field is
    free text. Of a name that comes twice, the lower threshold counts.

    Args:
        classifiers: The classifiers.

    Returns:
        The thresholds by name, in the order of the names, and the notes.
    """
    found: dict[str, float] = {}
    notes = []
    for classifier in classifiers:
        threshold = DEFAULT_THRESHOLD if classifier.threshold is None else classifier.threshold
        if classifier.mode is not None:
            named = MODES.get(_spaced(classifier.mode))
            if named is None:
                notes.append(_note(classifier.name, classifier.mode, threshold))
            else:
                threshold = named
        found[classifier.name] = min(threshold, found.get(classifier.name, 1.0))
    return found, tuple(notes)


def _spaced(mode: str) -> str:
    """One spelling for `High Sensitivity`, `high-sensitivity` and `high_sensitivity`."""
    return " ".join(mode.lower().replace("-", " ").replace("_", " ").split())


def _note(name: str, mode: str, threshold: float) -> str:
    known = ", ".join(f"`{one}`" for one in MODES)
    return (
        f"The mode `{plain(mode, limit=60)}` of `{name}` is not known, so the threshold "
        f"{threshold:g} applies. Known modes: {known}."
    )
