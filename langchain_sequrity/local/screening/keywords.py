"""Scores without a model: how the deterministic brain answers as a classifier.

A text's score is the sum of the weights of the different words and phrases of the topic in it, at
most 1. Words that tell the topic by themselves weigh 0.6, words that only hint at it 0.3: at the
default threshold of 0.5 one of the former or two of the latter strike. The lists are short and
English. They make a policy testable without a model, and are no moderation.
"""

import re
from itertools import pairwise

from langchain_sequrity.errors import UsageError
from langchain_sequrity.local.screening.redaction import fold

_WORD = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Telling words, a slash, hinting words.
_TOPICS = {
    "toxicity_filter": """
        asshole, bastard, bitch, cretin, fuck, fucking, hate you, hurt you, idiot, imbecile,
        kill you, kill yourself, moron, scumbag, shit, shut up, worthless human / crap, damn,
        disgusting, dumb, hate, kill, loser, pathetic, stupid, ugly, useless, worthless""",
    "healthcare_topic_guardrail": """
        antibiotic, biopsy, blood pressure, cancer, chemotherapy, diabetes, diagnosis, dosage,
        healthcare, insulin, medical advice, medication, oncology, prescription, side effect,
        vaccine / allergy, clinic, clinical, disease, doctor, dose, hospital, illness, infection,
        medical, medicine, nurse, pain, patient, pharmacy, pill, surgery, symptom, therapy,
        treatment, virus""",
    "finance_topic_guardrail": """
        cryptocurrency, dividend, financial advice, hedge fund, interest rate, investing,
        investment, mortgage, mutual fund, portfolio, shareholder, stock market, stock price,
        tax return / asset, bank, bitcoin, bond, broker, budget, credit, currency, debt, equity,
        finance, financial, fund, inflation, invest, investor, loan, pension, revenue, share,
        stock, tax, trading""",
}


def _words(text: str) -> list[str]:
    return [_singular(word.lower()) for word in _WORD.findall(_CAMEL.sub(" ", text))]


def _singular(word: str) -> str:
    """Cut a plural's `s`, but not that of `diagnosis`, `illness` or `virus`."""
    is_plural = len(word) > 3 and word.endswith("s") and word[-2] not in "isu"  # noqa: PLR2004
    return word[:-1] if is_plural else word


_WEIGHTS = {
    topic: {
        " ".join(_words(phrase)): weight
        for phrases, weight in zip(words.split("/"), (0.6, 0.3), strict=True)
        for phrase in phrases.split(",")
    }
    for topic, words in _TOPICS.items()
}


def score(name: str, text: str) -> float:
    """Score a text by the words in it.

    Args:
        name: The classifier: `toxicity_filter`, `healthcare_topic_guardrail` or
            `finance_topic_guardrail`.
        text: The text.

    Returns:
        0 for a text that has nothing of the topic, to 1.

    Raises:
        UsageError: If there is no list for that name.

    Example:
        ```python
        from langchain_sequrity.local.screening.keywords import score

        assert score("finance_topic_guardrail", "Which stocks are in my portfolio?") > 0.8
        assert score("finance_topic_guardrail", "Which socks are in my drawer?") == 0
        ```
    """
    if name not in _WEIGHTS:
        msg = f"There are no keywords for the classifier `{name}`, only for {', '.join(_WEIGHTS)}."
        raise UsageError(msg)
    words = _words(fold(text)[0])
    phrases = {*words, *map(" ".join, pairwise(words))}
    return min(1.0, sum(weight for phrase, weight in _WEIGHTS[name].items() if phrase in phrases))
