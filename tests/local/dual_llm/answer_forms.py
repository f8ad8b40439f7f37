"""Answers of planners in many forms, each around a known program.

An answer is a program in a form (tags, fences, quotes, a transcript, JSON, parts), with characters
that copying leaves behind, and with thoughts and sentences around it. Some answers have two
programs: then the last one counts, because models correct themselves.

`python -m tests.local.dual_llm.answer_forms --count 5000` prints the answers that are misread.
"""

import argparse
import ast
import html
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import httpx

from langchain_sequrity.display.progress import hide, tracked
from tests.local.api import Api
from tests.local.dual_llm.conversation import Stage, Teller
from tests.local.dual_llm.dialog import Dialog, calls, ended

PROGRAMS = [
    "final_return_value = 1",
    'x = """\n```\n1\n```\n"""\nx.strip()',
    "look_up(word='a')",
    "final_return_value = look_up(word='a')",
    'mail = look_up(word="a")\nif mail:\n    final_return_value = f"Mail: {mail}"\nelse:\n    final_return_value = "None."',
    "import json\n\nmail = look_up(word='a')\n\nfinal_return_value = json.dumps(mail)",
    "# Read the mail, and then answer the user.\nmail = look_up(word='a')\n# This is all that is needed.\nfinal_return_value = mail",
    "def size(text):\n    \"\"\"Say how long the text is.\n\n    Nothing else is done here at all.\n    \"\"\"\n    return len(str(text))\n\n\nfinal_return_value = size(look_up(word='a'))",
    "text = \"\"\"\nDear Ann,\n\nthe beds flood at night. Please come soon.\n\"\"\"\nsend(word=text)\nfinal_return_value = 'sent'",
    "text = '''\n```python\nx = 1\n```\n'''\nsend(word=text)\nfinal_return_value = text",
    "text = '''\n~~~\nx = 1\n~~~\n'''\nsend(word=text)\nfinal_return_value = text",
    "text = 'Write it in <sequrity_plan> and </sequrity_plan>.'\nfinal_return_value = text",
    "text = '''\n<sequrity_plan>\nfinal_return_value = 2\n</sequrity_plan>\n'''\nfinal_return_value = text",
    "text = 'Use <think> and </think> first.'\nfinal_return_value = text",
    "final_return_value = 'Call `look_up`, then `send`.'",
    "final_return_value = 'Three: ``` and ~~~ and ````.'",
    "final_return_value = '“Yes”, she said.\u00a0«Well»…'",
    "final_return_value = 'a &lt; b &amp; c'",
    "a, b = 1, 2\nfinal_return_value = a < b and a & b",
    'final_return_value = {\n    "a": [1, 2],\n    "b": look_up(\n        word="x",\n    ),\n}',
    "final_return_value = None\nfor word in ['a', 'b']:\n    final_return_value = look_up(word=word)",
    "total = 0\nwhile total < 3:\n    total += 1\nfinal_return_value = total",
    "try:\n    x = int(look_up(word='a'))\nexcept ValueError as problem:\n    x = str(problem)\nfinal_return_value = x",
    "match look_up(word='a'):\n    case [a, b]:\n        final_return_value = a\n    case _:\n        final_return_value = 'other'",
    "if (mail := look_up(word='a')) is not None and \\\n        mail != '':\n    final_return_value = mail\nelse:\n    exit(1)",
    "from pydantic import BaseModel\n\nclass Mail(BaseModel):\n    subject: str\n    body: str = ''\n\nmail = Mail(subject='a')\nfinal_return_value = mail.subject",
    "(a, b) = (1, 2)\n[c, d] = [3, 4]\nfinal_return_value = a + b + c + d",
    "x: int = 1\nfinal_return_value = x",
    "words = [word.upper() for word in 'a b c'.split() if word not in 'ab']\nfinal_return_value = words",
    "f = lambda a, *, b=1: a if a else b\nfinal_return_value = f(0)",
    "größe = 1\nfinal_return_value = größe",
    "final_return_value = '''He said:\n> yes\n- no\n1. maybe'''",
    'final_return_value = """In a shell:\n>>> x = 1\n... y\n"""',
    "final_return_value = 'a'; send(word='b')",
    "\"\"\"Answer the question.\"\"\"\nfinal_return_value = look_up(word='a')",
    "send(word='Let\\'s meet. It\\'s \"fine\".')\nfinal_return_value = \"it's sent\"",
    "final_return_value = json_text = '{\"program\": \"final_return_value = 2\"}'",
    "def outer():\n    def inner():\n        return look_up(word='a')\n    return inner()\nfinal_return_value = outer()",
    "values = {'a': 1}\nvalues['b'] = 2\ndel values['a']\nassert values\nfinal_return_value = values",
    "import re\nfrom datetime import datetime, timedelta\nday = datetime(2020, 1, 1) + timedelta(days=1)\nfinal_return_value = re.sub('-', '.', day.isoformat())",
    'text = """Dear Ann,\nplease come to the party.\nBest wishes"""\nsend(word=text)\nfinal_return_value = "done"',
    "names = look_up(word='a')\nfor name in names:\n    if name == 'Ann':\n        continue\n\n    send(word=name)\n\nfinal_return_value = len(names)",
    "final_return_value = r'\\d+ \\n' + f'{1:>3}' + '\\t'",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and the program that it contains.

    Attributes:
        text: The answer.
        program: The program.
        forms: Names of the forms.
    """

    text: str
    program: str
    forms: tuple[str, ...]


Form = Callable[[str, random.Random], str]


def _indented(text: str, mark: str) -> str:
    return "\n".join(f"{mark}{line}" if line else line for line in text.split("\n"))


def _fenced(program: str, rng: random.Random, *, closed: bool = True) -> str:
    char = rng.choice("`~")
    # A fence is longer than those in its content, as Markdown requires.
    inner = max(map(len, re.findall(rf"^{char}{{3,}}", program, re.MULTILINE)), default=0)
    fence = char * max(rng.choice([3, 3, 3, 4, 6]), inner + 1)
    language = rng.choice(
        ["", "", "python", "py", "Python", "python3", " python", 'python title="a"']
    )
    return f"{fence}{language}\n{program}" + (f"\n{fence}" if closed else "")


def _short_fence(program: str, _: random.Random) -> str:
    """A fence that models write, also around a program that has the same one in its texts."""
    return f"```python\n{program}\n```"


def _transcript(program: str, _: random.Random) -> str:
    first, *others = program.split("\n")
    lines = [f">>> {first}"]
    for line in others:
        goes_on = line.startswith((" ", ")", "}", "]", "else", "except")) or not line
        lines.append(f"{'...' if goes_on else '>>>'} {line}".rstrip())
    return "\n".join(lines)


TAGS: dict[str, Form] = {
    "tags": lambda p, _: f"<sequrity_plan>\n{p}\n</sequrity_plan>",
    "tags on its lines": lambda p, _: f"<sequrity_plan>{p}</sequrity_plan>",
    "open tag": lambda p, _: f"<sequrity_plan>\n{p}",
    "only the closing tag": lambda p, _: f"{p}\n</sequrity_plan>",
    "upper case": lambda p, _: f"<SEQURITY_PLAN>\n{p}\n</SEQURITY_PLAN>",
    "attributes": lambda p, _: f'<sequrity_plan lang="python" >\n{p}\n</sequrity_plan >',
    "spaces": lambda p, _: f"< sequrity_plan >\n{p}\n</ sequrity_plan>",
    "escaped": lambda p, _: html.escape(f"<sequrity_plan>\n{p}\n</sequrity_plan>", quote=False),
    "fence in tags": lambda p, r: f"<sequrity_plan>\n{_fenced(p, r)}\n</sequrity_plan>",
    "tags in a fence": lambda p, r: _fenced(f"<sequrity_plan>\n{p}\n</sequrity_plan>", r),
    "prose in tags": lambda p, _: f"<sequrity_plan>\nHere it is:\n{p}\nDone.\n</sequrity_plan>",
}
FENCES: dict[str, Form] = {
    "fence": _fenced,
    "short fence": _short_fence,
    "open fence": lambda p, r: _fenced(p, r, closed=False),
    "fence in a list": lambda p, r: f"1. Run this:\n{_indented(_fenced(p, r), '   ')}",
    "fence after a bullet": lambda p, r: "- " + _indented(_fenced(p, r), "  ").lstrip(),
    "fence in a quote": lambda p, r: "\n".join(
        f"> {line}".rstrip() for line in _fenced(p, r).split("\n")
    ),
    "prose in a fence": lambda p, _: f"```python\nHere is the program:\n{p}\n```",
    "transcript in a fence": lambda p, r: _fenced(_transcript(p, r), r),
    "JSON in a fence": lambda p, _: "```json\n" + json.dumps({"program": p}, indent=1) + "\n```",
}
OTHERS: dict[str, Form] = {
    "alone": lambda p, _: p,
    "backticks": lambda p, _: f"`{p}`",
    "JSON": lambda p, r: json.dumps({"thought": "I do it.", r.choice(["program", "code"]): p}),
    "transcript": _transcript,
    "smart quotes": lambda p, r: r.choice(["“{}”", "„{}“", "«{}»", "“\n{}\n”"]).replace("{}", p),
}
FORMS = {"tags": TAGS, "fences": FENCES, "others": OTHERS}

_THOUGHTS = [
    "<think>\nI need mail = look_up(\n</think>\n\n",
    "<think>I could write\n```python\nfinal_return_value = 0\n```\nbut that is wrong.</think>\n",
    "<thinking>final_return_value = 0</thinking>\n",
    "so I look it up, and then I answer.\n</think>\n",
    "<think></think>\n\n",
]
_BEFORE = [
    "Here is the program:\n\n",
    "Sure! I can do that.\n",
    "Thought: I have to look up the word first.\n\n",
    "Let's think step by step: first look it up, then answer.\nmail = look_up( would give us the mail.\nThen we are done.\n\n",
    "Okay, the user wants the mail.\n\n1. First, look it up.\n2. Then answer.\n\n",
    "**Plan**\n\n- look up the word\n- answer the user with it\n\nProgram:\n",
    "let's see what the user wants here\n",
    "I call `look_up` and put the result into `final_return_value`.\n\n",
]
_AFTER = [
    "\n\nThis program looks it up.",
    "\n\nThat is all!",
    "\n\n**Explanation:** the program calls `look_up`, and answers with the result.",
    "\n\nNote: it does not send anything.\nTell me if you need more.",
    "\n<think>Was that right?",
    "\n\n1. It looks up the word.\n2. It answers.",
]


def answer(seed: int) -> Answer:
    rng = random.Random(seed)  # noqa: S311 - the same each time
    program = rng.choice(PROGRAMS)
    group = rng.choice([*FORMS, "two programs"])
    if group == "two programs":
        name, text, program = _two(program, rng)
    else:
        name = rng.choice([*FORMS[group]])
        text = FORMS[group][name](program, rng)
    names = [name]
    is_whole = name in ("JSON", "backticks", "smart quotes")  # the answer is nothing else
    if not is_whole and rng.random() < 0.4:
        names.append("before")
        text = rng.choice(_BEFORE) + text
    if not is_whole and not name.startswith("open") and rng.random() < 0.4:
        names.append("after")
        text += rng.choice(_AFTER)
    if rng.random() < 0.3:
        names.append("thought")
        text = rng.choice(_THOUGHTS) + text
    if name not in ("JSON", "JSON in a fence") and rng.random() < 0.2:
        names.append("characters")
        text = _copied(text, program, rng)
    if rng.random() < 0.2:
        names.append("CRLF")
        text = text.replace("\n", "\r\n")
    if rng.random() < 0.1:
        names.append("BOM")
        text = "\ufeff" + text
    return Answer(text, program, tuple(names))


def _copied(text: str, program: str, rng: random.Random) -> str:
    """The answer with invisible characters outside of the program's texts."""
    if re.search(r"[\"'`#<>&]", program):  # only where all of the program is outside of texts
        return text
    return (
        text.replace(" ", "\u00a0").replace("=", "\u200b=")
        if rng.random() < 0.5
        else text.replace("\n", "\u200b\n")
    )


_PARTS = [
    ("import json\nfrom datetime import date", "final_return_value = json.dumps([str(date(2020, 1, 1))])"),
    ("mail = look_up(word='a')", "final_return_value = f'Mail: {mail}'"),
    ("def size(text):\n    return len(str(text))", "final_return_value = size(look_up(word='a'))"),
    ("import re\nwords = ['a']", "for word in words:\n    send(word=word)\nfinal_return_value = re.sub('a', 'b', words[0])"),
]  # fmt: skip
_DRAFTS = [
    "mail = look_up(word='draft')\nfinal_return_value = mail",
    "mail = look_up(word='draft'\nfinal_return_value = mail",
    "send(word='draft')\nfinal_return_value = 'sent'",
    "mail = look_up(word='draft')",
]


def _two(program: str, rng: random.Random) -> tuple[str, str, str]:
    """Two programs in one answer: name, text, and the program that counts."""
    name = rng.choice(["corrected", "options", "twice", "parts", "tags win"])
    form = rng.choice([*(TAGS[name] for name in ("tags", "upper case", "attributes")), _fenced])
    draft = rng.choice(_DRAFTS)
    if "sequrity_plan" in program and form is not _fenced:  # nobody could tell which tags are which
        program = PROGRAMS[0]
    if "final_return_value" not in program:  # another program with an answer goes first
        program = f"final_return_value = {program}"
    if name == "corrected":
        between = rng.choice(
            ["\n\nWait, that is not right. The corrected program:\n\n", "\n\n", "\nBetter:\n"]
        )
        return name, form(draft, rng) + between + form(program, rng), program
    if name == "options":
        texts = [f"Option A:\n{form(draft, rng)}", f"Option B:\n{form(program, rng)}"]
        return name, "\n\n".join(texts), program
    if name == "twice":
        return name, form(program, rng) + "\n\nAgain, in full:\n" + form(program, rng), program
    if name == "parts":
        first, second = rng.choice(_PARTS)
        between = rng.choice(["\n\nAnd then:\n\n", "\n\n"])
        return name, form(first, rng) + between + form(second, rng), f"{first}\n{second}"
    tagged = TAGS["tags"](program, rng)
    return name, f"{tagged}\n\nFor example, it does not do this:\n{_fenced(draft, rng)}", program


def answers(seed: int = 0) -> Iterator[Answer]:
    """An endless stream of answers."""
    return map(answer, count(seed))


class Reading:
    """Reads answers on one server."""

    def __init__(self, stage: Stage, http: httpx.Client) -> None:
        self._api = Api(stage.server, http, key="sq-test")
        self._stage = stage

    def program_of(self, text: str) -> str:
        """The program that the server reads in an answer."""
        planner = Teller("planner", {"text": text})
        config = {
            "fsm": {"max_pllm_failed_steps": 1},
            "response_format": {"include_program": True},
        }
        dialog = Dialog(self._api, self._stage.cast(planner), planner, config=config)
        reply = dialog.say()
        while calls(reply):
            reply = dialog.answer("text")
        program: str = ended(reply).get("program", "")
        return program


def broken(seed: int) -> Answer:
    """An answer whose program lacks a character, so that it is not a program."""
    rng = random.Random(seed)  # noqa: S311 - the same each time
    while True:
        program = rng.choice(PROGRAMS)
        place = rng.choice([at for at, char in enumerate(program) if char in "()[]{}:'\"="])
        mistaken = program[:place] + program[place + 1 :]
        # Without a quotation mark, nobody can tell tags and prompts in a text from real ones.
        if not is_same(mistaken, mistaken) and not re.search("sequrity_plan|>>>", program):
            group = rng.choice([*FORMS])
            name = rng.choice([*FORMS[group]])
            return Answer(FORMS[group][name](mistaken, rng), mistaken, (name,))


def is_same(program: str, expected: str) -> bool:
    """Whether two programs differ in comments and empty lines at most."""
    try:
        return ast.dump(ast.parse(program)) == ast.dump(ast.parse(expected))
    except SyntaxError:
        return False


def main(arguments: Sequence[str]) -> int:
    """Read answers; returns 1 if one is misread."""
    parser = argparse.ArgumentParser(description="Read programs in answers of many forms.")
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    misread: Counter[str] = Counter()
    with Stage() as stage, httpx.Client() as http:
        reading = Reading(stage, http)
        chosen = islice(answers(options.seed), options.count)
        tried = tracked(chosen, "Reading", unit="answers", total=options.count)
        for number, one in enumerate(tried, options.seed):
            program = reading.program_of(one.text)
            if not is_same(program, one.program):
                misread[one.forms[0]] += 1
                hide()
                sys.stdout.write(
                    f"# answer {number}: {one.forms}\n{one.text}\n# read:\n{program}\n\n"
                )
    sys.stdout.write(f"answers: {options.count}, misread: {misread.total()}, {dict(misread)}\n")
    return bool(misread)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
