"""Scores of texts by word lists: the classifiers of the deterministic model.

The lists are short and English. They make a policy testable without a model, and are not a
moderation filter.
"""

from itertools import pairwise

from langchain_sequrity.local.screening.screen import fold
from langchain_sequrity.local.tool_words import words

# A score is the sum of the weights of the topic's words and phrases in a text, at most 1. Strong
# words, before the slash, weigh 0.6 and weak words 0.3: at the default threshold of 0.5 one strong
# word or two weak words are enough.
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


def _stems(text: str) -> list[str]:
    return [_singular(word) for word in words(text, None)]


def _singular(word: str) -> str:
    """Cut a plural's `s`, but not that of `diagnosis`, `illness` or `virus`."""
    is_plural = len(word) > 3 and word.endswith("s") and word[-2] not in "isu"  # noqa: PLR2004
    return word[:-1] if is_plural else word


_WEIGHTS = {
    topic: {
        " ".join(_stems(phrase)): weight
        for phrases, weight in zip(listed.split("/"), (0.6, 0.3), strict=True)
        for phrase in phrases.split(",")
    }
    for topic, listed in _TOPICS.items()
}


def score(name: str, text: str) -> float:
    """Score a text by its words.

    Args:
        name: The classifier: `toxicity_filter`, `healthcare_topic_guardrail` or
            `finance_topic_guardrail`.
        text: The text.

    Returns:
        A score from 0, for a text without words of the topic, to 1.

    Example:
        ```python
        from langchain_sequrity.local.screening.topics import score

        assert score("finance_topic_guardrail", "Which stocks are in my portfolio?") > 0.8
        assert score("finance_topic_guardrail", "Which socks are in my drawer?") == 0
        ```
    """
    stems = _stems(fold(text)[0])
    phrases = {*stems, *map(" ".join, pairwise(stems))}
    return min(1.0, sum(weight for phrase, weight in _WEIGHTS[name].items() if phrase in phrases))
