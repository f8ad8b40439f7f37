"""What a model's answer consists of: thoughts, fenced blocks, and the planner's program.

Planners are asked for a program in `<sequrity_plan>` tags. Many write it in another way, with text
around it, or write several. All expressions here take linear time.
"""

import html
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from keyword import kwlist

from langchain_sequrity.strict_json import loads

# Thoughts

_THOUGHT = re.compile(r"<(think(?:ing)?)>.*?(?:</\1>|\Z)", re.DOTALL)
_FIRST_THOUGHT = re.compile(r"\s*+<(think(?:ing)?)>.*?</\1>", re.DOTALL)
_END_OF_THOUGHT = re.compile(r"^[ \t]*+</think(?:ing)?>[ \t]*+$", re.MULTILINE)
_CLOSING_TAG = re.compile(r"</think(?:ing)?>")  # chat templates may omit the opening tag


def _without_first_thought(text: str) -> str:
    if thought := _FIRST_THOUGHT.match(text):
        return text[thought.end() :]
    end = _END_OF_THOUGHT.search(text)
    return text[end.end() :] if end and "<think" not in text[: end.start()] else text


def without_thoughts(text: str) -> str:
    """An answer without the thoughts that the model wrote before it."""
    return _CLOSING_TAG.split(_THOUGHT.sub("", text))[-1]


# Fenced blocks

_FENCE = re.compile(
    r"[ \t>]*+(?:(?:[-*+]|\d{1,3}[.)])[ \t>]++)?+(?P<fence>`{3,}+|~{3,}+)(?P<info>[^`\n]*)"
)
_ONE_LINE_BLOCK = re.compile(r"```(?:(?:python3?|py)\b)?[ \t]*+([^\n`]+)```")
_INLINE_CODE = re.compile(r"(?<!`)`([^\n`]+)`(?!`)")


def fenced_blocks(text: str) -> list[str]:
    """The fenced blocks of a text, without indentation and marks of quotes.

    The last one may have no end.
    """
    blocks: list[list[str]] = []
    opening = None
    for line in text.split("\n"):
        fence = _FENCE.fullmatch(line)
        if fence and opening is None:
            opening = fence["fence"]
            blocks.append([])
        elif fence and opening and fence["fence"].startswith(opening) and not fence["info"].strip():
            opening = None
        elif opening:
            blocks[-1].append(line)
    return [block for block in map(_dedented, blocks) if block.strip()]


def longest_fenced_block(text: str) -> str:
    """The longest fenced block of a text, or the text without fences if it has none."""
    blocks = fenced_blocks(text) or _ONE_LINE_BLOCK.findall(text)
    rest = [line for line in text.split("\n") if not _FENCE.fullmatch(line)]
    return max(blocks, key=len, default="\n".join(rest))


def _dedented(lines: Sequence[str]) -> str:
    """Lines without the indentation of a list, or the marks of a quote."""
    if all(line.lstrip().startswith(">") or not line.strip() for line in lines):
        lines = [line.lstrip().removeprefix(">").removeprefix(" ") for line in lines]
    return textwrap.dedent("\n".join(lines)).strip("\n")


# Programs

_MOST_CANDIDATES, _MOST_CHECKS, _MOST_PARTS = 200, 40, 10
_ANSWER = re.compile(
    r"\bfinal_return_value\b[ \t]*+(?::[^=\n]*+)?[-+*/|&%]?=(?!=|\s*+None\b)"
    r"|\b(?:exit|quit|complete_turn)\("
)
"""What gives a program an answer; its last line may do so too, but also in a draft."""
_JSON_KEYS = ("program", "code", "python", "plan", "sequrity_plan")


def program_in(text: str, can_run: Callable[[str], bool]) -> str:
    """Read the program out of a planner's answer.

    If the whole answer is not a program, what is within tags goes first. Of several programs the
    last one counts that can run and has an answer: models correct themselves. Parts that need the
    names of earlier parts are joined with them. No part of a program that cannot run is read as a
    program: it would do something else.

    Args:
        text: The answer.
        can_run: Whether a text is a program; called only if there are several candidates.

    Returns:
        The program. If no candidate can run, the most likely one, so that the planner is told what
        is wrong with it. It is empty if the answer is.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    ranks: dict[str, int] = {}
    for candidate, rank in islice(_out_of_json(_candidates(text)), _MOST_CANDIDATES):
        code = candidate.strip("\n")
        if code.strip():
            ranks[code] = min(rank, ranks.get(code, rank))
    candidates = sorted(ranks, key=lambda code: (ranks[code], not _ANSWER.search(code)))
    if len(candidates) < 2:  # noqa: PLR2004 - there is no choice
        return "".join(candidates)
    bare = [*filter(_is_bare, candidates)]
    for code in candidates[:_MOST_CHECKS]:
        around = (whole for whole in bare if ranks[whole] - ranks[code] < _IN_THOUGHTS)
        if not any(_is_part(code, whole) for whole in around) and can_run(code):
            return code
    wholes = (code for code in bare if not any(_is_part(code, whole) for whole in bare))
    return next(wholes, candidates[0])


def _is_part(code: str, whole: str) -> bool:
    """Whether a text is a part of a program, and must not run alone.

    What is between fences may be several programs, of which one with an answer may run alone.
    """
    if code not in whole or code == whole.strip(_MARKS_AROUND):
        return False
    return not (_ANSWER.search(code) and any(map(_FENCE.fullmatch, whole.split("\n"))))


def _is_bare(text: str) -> bool:
    """Whether nothing around a program shows in a text."""
    lines = text.split("\n")
    has_marks = _TAG.search(text) or _is_transcript(lines) or _plain_characters(text) != text
    return not has_marks and text == next(_without_prose(lines), None)


_Candidate = tuple[str, int]
"""A text that may be the program, and its rank; the lowest rank goes first."""
_WHOLE, _IN_TAGS, _PART, _IN_THOUGHTS = range(4)


def _candidates(text: str) -> Iterator[_Candidate]:
    first = _without_first_thought(text)
    yield from _within(first)
    yield from _within(_plain_characters(first.strip().strip(_QUOTES)))
    # A program may have such tags in its own texts.
    for other in (without_thoughts(text), text):
        yield from ((candidate, rank + _IN_THOUGHTS) for candidate, rank in _within(other))


def _out_of_json(candidates: Iterable[_Candidate]) -> Iterator[_Candidate]:
    """The candidates, with the programs in JSON objects in their stead."""
    for candidate, rank in candidates:
        code = _json_program(candidate)
        if code is None:
            yield candidate, rank
        else:
            yield from ((inner, rank) for inner, _ in _within(code))


def _within(text: str) -> Iterator[_Candidate]:
    if "&lt;" in text and not _TAG.search(text) and _TAG.search(unescaped := html.unescape(text)):
        text = unescaped
    blocks = fenced_blocks(text)
    outer, segments = _tagged(text)
    for whole in (*_whole(text), *filter(_TAG.search, blocks)):
        yield whole, _PART if segments and not _TAG.search(whole) else _WHOLE
    yield outer, _IN_TAGS
    for tagged in _choices(segments):
        parts = _parts(tagged, fenced_blocks(tagged))
        yield from ((code, _IN_TAGS) for code in (*_whole(tagged), *parts))
    yield from ((code, _PART) for code in _parts(text, blocks))


def _whole(text: str) -> Iterator[str]:
    """A text that is a program, or one with marks around it."""
    lines = text.strip("\n").split("\n")
    # Python reads the line `~~~python` as an expression, and no program begins with a tag.
    is_marked = _FENCE.fullmatch(lines[0]) or text.lstrip().startswith("<")
    if not is_marked:
        yield text
        yield _dedented(lines)
    fences = [number for number, line in enumerate(lines) if _FENCE.fullmatch(line)]
    if len(fences) > 1:  # those in between may be in the program's own texts
        yield _dedented(lines[fences[0] + 1 : fences[-1]])
    yield from _without_prose(lines)
    if _is_transcript(lines):
        prompts = map(_PROMPT.fullmatch, lines)
        yield "\n".join(match[1] or "" for match in prompts if match)
    if not is_marked:
        yield text.strip(_MARKS_AROUND)


def _is_transcript(lines: Sequence[str]) -> bool:
    """Whether the first line of code is after a prompt of Python."""
    code = _code_lines(lines)
    return bool(code) and lines[code[0]].startswith(">>> ")


_PROMPT = re.compile(r"[ \t]*+(?:>>>|\.\.\.)(?: (.*)|)")
_QUOTES = "“”„«»\u2018\u2019"
_MARKS_AROUND = f" \t\n`{_QUOTES}"


def _parts(text: str, blocks: Sequence[str]) -> Iterator[str]:
    """The parts of a text: fenced, or in backticks."""
    for block in _choices(blocks):
        yield from _whole(block)
    spans = _ONE_LINE_BLOCK.findall(text) + _INLINE_CODE.findall(text)
    if all(map(_INLINE_CODE.fullmatch, text.strip().split("\n"))):
        yield "\n".join(spans)
    yield from filter(_ANSWER.search, spans[-_MOST_PARTS:])


def _json_program(text: str) -> str | None:
    """The program in a JSON object such as `{"program": "…"}`."""
    text = text.strip()
    if text.startswith("{") and text.endswith("}"):
        with suppress(ValueError):
            fields = loads(text)
            codes = (fields.get(key) for key in _JSON_KEYS)
            return next((code for code in codes if isinstance(code, str)), None)
    return None


# Tags

_TAG = re.compile(r"<[ \t]{0,9}(/?)[ \t]{0,9}sequrity_plan\b[^<>\n]{0,100}>", re.IGNORECASE)


def _tagged(text: str) -> tuple[str, list[str]]:
    """What is within the first and the last tag, and what is within each pair.

    A tag without its other half reaches to the end or the beginning of the text.
    """
    tags = [*_TAG.finditer(text)]
    segments: list[str] = []
    start = None
    for tag in tags:
        if start is not None:
            segments.append(text[start : tag.start()])
        elif tag[1] and not segments:  # the opening tag is missing
            segments.append(text[: tag.start()])
        start = None if tag[1] else tag.end()
    if start is not None:
        segments.append(text[start:])
    if not segments:
        return "", []
    first, last = tags[0], tags[-1]
    outer = text[0 if first[1] else first.end() : last.start() if last[1] else len(text)]
    return outer, segments


# Several parts

_NAMES = r"\w+(?:[ \t]*+,[ \t]*+\w+)*+"
_BINDING = re.compile(
    rf"^[ \t]*+(?:(?:from[ \t]++[\w.]++[ \t]++)?import[ \t]++(.+)|(?:def|class)[ \t]++(\w+)"
    rf"|({_NAMES})[ \t]*+=(?!=))|\bfor[ \t]++({_NAMES})[ \t]++in\b|\bas[ \t]++(\w+)"
    r"|\b(\w+)[ \t]*+:=",
    re.MULTILINE,
)
_WORD = re.compile(r"\w+")
_LITERAL = re.compile(
    r"#[^\n]*+|(?P<prefix>\b[A-Za-z]{1,2})?(?:"
    r'"""(?:\\.|[^\\])*?(?:"""|\Z)'
    r"|'''(?:\\.|[^\\])*?(?:'''|\Z)"
    r'|"(?:\\.|[^"\\\n])*+"?'
    r"|'(?:\\.|[^'\\\n])*+'?)",
    re.DOTALL,
)


def _choices(segments: Sequence[str]) -> Iterator[str]:
    """The segments from the last to the first, each with the earlier ones that it needs."""
    segments = segments[-_MOST_PARTS:]
    for number in reversed(range(len(segments))):
        program = segments[number]
        for earlier in reversed(segments[:number]):
            needed = _words(program) - _bound(program)
            if not _ANSWER.search(earlier) and needed & _bound(earlier):
                program = f"{earlier}\n{program}"
        yield program


def _bound(program: str) -> set[str]:
    names = (name for match in _BINDING.finditer(program) for name in match.groups() if name)
    return {word for name in names for word in _WORD.findall(name)}


def _words(program: str) -> set[str]:
    return {*_WORD.findall(_LITERAL.sub(_formatted, program))}


def _formatted(literal: re.Match[str]) -> str:
    """A literal, if it may have names in it: an f-string."""
    return literal[0] if "f" in (literal["prefix"] or "").lower() else '""'


# Sentences

_CODE = re.compile(
    r"[ \t]+\S|[#@\"'()\[\]{}]"
    r"|(?:import|from|if|elif|else|for|while|def|class|try|except|finally|match|case|assert|raise"
    r"|return|del|pass|global)\b"
    r"|[A-Za-z_][\w.]*+(?:\[[^\]\n]*\])*+(?:[ \t]*+,[ \t]*+[A-Za-z_]\w*+)*+"
    r"[ \t]*+(?:[-+*/|&%]?=|\()"
)
"""The beginning of a line of code; lines of prose rarely begin like this."""
_SENTENCE = re.compile(r"[A-Z*>•<-]|\d{1,3}[.)] |\w+:\Z")
_NAME = rf"(?!(?:{'|'.join(kwlist)})\b)[^\W\d]\w*+"
_THREE_NAMES = re.compile(rf"(?<![\w.]){_NAME}[^\S\n]++{_NAME}[^\S\n]++{_NAME}")
"""Words in a row, of which no line of code has three outside of texts, not even a mistaken one."""
_APOSTROPHE = re.compile(r"(?<=[a-z])'(?=(?:s|t|ll|re|ve|d|m)\b)", re.IGNORECASE)


def _is_prose(line: str) -> bool:
    """Whether a line is a sentence, or a fence."""
    if not line.strip() or line.lstrip().startswith(("#", ">>> ")):
        return False
    if _FENCE.fullmatch(line) or (_SENTENCE.match(line) and not _CODE.match(line)):
        return True
    outside_of_texts = _LITERAL.sub('""', _APOSTROPHE.sub("", line))
    ends_like_code = _CODE.match(line) and not line.rstrip().endswith((".", "!", "?"))
    return not ends_like_code and _THREE_NAMES.search(outside_of_texts) is not None


def _code_lines(lines: Sequence[str]) -> list[int]:
    return [number for number, line in enumerate(lines) if line.strip() and not _is_prose(line)]


def _without_prose(lines: Sequence[str]) -> Iterator[str]:
    """The lines without sentences before and after them; some may end a text of the program."""
    code = _code_lines(lines)
    if code:
        for end in range(code[-1] + 1, min(len(lines), code[-1] + _MOST_PARTS) + 1):
            if not _TAG.match(lines[end - 1]):
                yield "\n".join(lines[code[0] : end])


# Characters

_PLAIN = str.maketrans({
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", ""),
    **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u202f\u3000", " "),
})  # fmt: skip


def _plain_characters(text: str) -> str:
    """A text without characters outside of its literals that only look like Python."""
    parts, end = [], 0
    for literal in _LITERAL.finditer(text):
        parts += [text[end : literal.start()].translate(_PLAIN), literal[0]]
        end = literal.end()
    return "".join([*parts, text[end:].translate(_PLAIN)])
