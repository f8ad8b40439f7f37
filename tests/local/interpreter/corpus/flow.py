"""Loops without end, and attempts to catch what cannot be caught (`behaviour.md`, M6)."""

from tests.local.interpreter.corpus.case import (
    Case,
    budget,
    exits,
    fails,
    gives,
    hoards,
    overflows,
    refused,
)

FOREVER = "while True:\n    pass"


CASES: list[Case] = [
    budget("a loop", FOREVER),
    budget("a loop of a loop", "while True:\n    while True:\n        break"),
    budget("a loop that goes on", "while True:\n    continue"),
    budget("a loop in a function", "def f():\n    while True:\n        pass\nf()"),
    budget("a loop in its own condition", "while (lambda: True)():\n    pass"),
    budget("a loop without a body in its condition", "while True: 1"),
    budget("a loop over a list that is filled", "x = [1]\nfor i in x:\n    x.insert(0, 1)"),
    budget(
        "a loop over what makes itself", "from itertools import count\nfor i in count():\n    pass"
    ),
    budget(
        "a loop in a comprehension", "from itertools import count\n[i for i in count() if False]"
    ),
    budget(
        "a loop in a dict comprehension", "from itertools import count\n{1: i for i in count()}"
    ),
    budget("a loop in a set comprehension", "from itertools import count\n{1 for i in count()}"),
    budget("a loop in a generator", "from itertools import count\nsum(1 for i in count())"),
    budget(
        "a loop in nested comprehensions",
        "[1 for a in range(10 ** 6) for b in range(10 ** 6) for c in []]",
    ),
    budget(
        "a loop in a match",
        "match 1:\n    case x if [i for i in range(10 ** 12) if False]:\n        pass",
    ),
    budget("a loop in an f-string", "f'{[i for i in range(10 ** 12) if False]}'"),
    budget("a loop in an assertion", "assert [i for i in range(10 ** 12) if False]"),
    budget("a loop in a default", "def f(x=[i for i in range(10 ** 12) if False]):\n    pass"),
    budget("a loop by next with a default", "g = iter([])\nwhile next(g, True):\n    pass"),
    budget("a loop of empty products", "x = range(10 ** 18)\nfor i in x:\n    x == x"),
    budget("iter of a function", "i = 0\nwhile True:\n    i = i + 1 - 1"),
    budget("sleeping", "import time\nwhile True:\n    time.sleep(3600)"),
    gives("sleeping once costs nothing", "import time\ntime.sleep(10 ** 9)", None),
    budget(
        "waiting for a clock",
        "import time\nend = time.time() + 10 ** 9\nwhile time.time() < end:\n    pass",
    ),
    budget("waiting for chance", "import random\nwhile random.random() < 2:\n    pass"),
    budget("tools without end", "while True:\n    send(to='a', body='b')", "calls"),
    budget(
        "tools without end by a map",
        "from itertools import repeat\n"
        "for x in map(lambda a, b: send(to=a, body=b), repeat('a'), repeat('b')):\n    pass",
        "calls",
    ),
    # Nothing catches the end of the budget.
    budget("a loop under except", "try:\n    while True:\n        pass\nexcept Exception:\n    1"),
    budget("a loop under a bare except", "try:\n    while True:\n        pass\nexcept:\n    1"),
    budget(
        "a loop under except of everything by name",
        "try:\n    while True:\n        pass\nexcept (Exception, ValueError, OSError, MemoryError, RecursionError):\n    1",
    ),
    budget(
        "a loop under finally",
        "def f():\n    try:\n        while True:\n            pass\n    finally:\n        return 1\nf()",
    ),
    budget(
        "a loop under finally with a break",
        "while True:\n    try:\n        while True:\n            pass\n    finally:\n        break",
    ),
    budget(
        "a loop in a handler",
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    while True:\n        pass",
    ),
    budget("a loop in finally", "try:\n    1 / 0\nfinally:\n    while True:\n        pass"),
    budget("a loop in else", "for i in []:\n    pass\nelse:\n    while True:\n        pass"),
    budget(
        "a loop caught in a loop",
        "while True:\n    try:\n        while True:\n            pass\n    except:\n        pass",
    ),
    budget(
        "a loop of handlers",
        "while True:\n    try:\n        raise ValueError\n    except ValueError:\n        continue\n    finally:\n        continue",
    ),
    budget("a size under except", "try:\n    'a' * 10 ** 10\nexcept:\n    1", "text"),
    budget(
        "a size under finally",
        "def f():\n    try:\n        return [0] * 10 ** 10\n    finally:\n        return 1\nf()",
        "items",
    ),
    hoards(
        "memory under except",
        "x = []\ntry:\n    while True:\n        x = [x, [], [], []]\nexcept MemoryError:\n    1",
    ),
    budget(
        "recursion under except",
        "def f():\n    try:\n        return f()\n    except RecursionError:\n        return 1\nf()",
        "depth",
    ),
    budget(
        "recursion under a bare except at each level",
        "def f():\n    try:\n        f()\n    except:\n        f()\nf()",
        "depth",
    ),
    budget(
        "a slow pattern under except",
        "import re\ntry:\n    re.match('(a|aa)+$', 'a' * 5000 + 'b')\nexcept TimeoutError:\n    1",
        "regex_seconds",
    ),
    overflows(
        "deep data under except",
        "x = []\nfor i in range(20_000):\n    x = [x]\ntry:\n    str(x)\nexcept RecursionError:\n    1",
    ),
    budget(
        "a budget in a key under except",
        "def key(v):\n    while True:\n        pass\ntry:\n    sorted([2, 1], key=key)\nexcept:\n    1",
    ),
    budget(
        "a budget in a map under except",
        "def f(v):\n    while True:\n        pass\ntry:\n    list(map(f, [1]))\nexcept:\n    1",
    ),
    budget(
        "a budget in a replacement under except",
        "import re\ndef f(m):\n    return 'a' * 10 ** 10\ntry:\n    re.sub('a', f, 'a')\nexcept:\n    1",
        "text",
    ),
    # Nor an exit.
    exits("an exit", "exit(1)"),
    exits("an exit under except", "try:\n    exit(1)\nexcept Exception:\n    1"),
    exits("an exit under a bare except", "try:\n    exit(1)\nexcept:\n    1"),
    exits(
        "an exit under finally",
        "def f():\n    try:\n        exit(1)\n    finally:\n        return 1\nf()",
    ),
    exits(
        "an exit under finally that loops",
        "while True:\n    try:\n        exit(1)\n    finally:\n        continue",
    ),
    exits("an exit within a key", "try:\n    sorted([1], key=exit)\nexcept:\n    1"),
    exits("an exit within a map", "try:\n    list(map(quit, [2]))\nexcept:\n    1"),
    # Exceptions.
    refused(
        "the frames of an exception",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    e.__traceback__.tb_frame.f_back",
        known="CTF classic: traceback frames",
    ),
    refused(
        "the context of an exception",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    e.__context__",
    ),
    refused(
        "the cause of an exception",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    e.__cause__",
    ),
    refused(
        "a new traceback",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise e.with_traceback(e.__traceback__)",
    ),
    fails("a traceback by its method", "ValueError().with_traceback(None)", "AttributeError"),
    fails("a note on an exception", "ValueError().add_note('a' * 100)", "AttributeError"),
    fails(
        "the object of an attribute error",
        "try:\n    len.x\nexcept AttributeError as e:\n    e.obj",
        "AttributeError",
        known="PEP 473: AttributeError.obj holds the object",
    ),
    fails(
        "the name of a name error",
        "try:\n    missing\nexcept NameError as e:\n    e.name",
        "AttributeError",
    ),
    fails(
        "the value of a stop",
        "try:\n    next(iter([]))\nexcept StopIteration as e:\n    e.value",
        "AttributeError",
    ),
    fails(
        "the document of a JSON error",
        "import json\ntry:\n    json.loads('x')\nexcept ValueError as e:\n    e.doc",
        "AttributeError",
    ),
    fails(
        "the object of an encoding error",
        "try:\n    '\u00e9'.encode('ascii')\nexcept UnicodeEncodeError as e:\n    e.object",
        "AttributeError",
    ),
    gives(
        "the arguments of an exception are plain",
        "try:\n    len.x\nexcept AttributeError as e:\n    x = list(map(type, e.args)) == [str]\nx",
        True,
    ),
    fails("an exception that is none", "raise 1", "TypeError"),
    fails("an exception that is a function", "raise repr", "TypeError"),
    fails("an exception that is a tool", "raise send", "TypeError"),
    fails("a handler of what is no exception", "try:\n    1 / 0\nexcept 5:\n    1", "TypeError"),
    fails("a handler of a function", "try:\n    1 / 0\nexcept repr:\n    1", "TypeError"),
    fails(
        "a handler whose type loops back",
        "try:\n    1 / 0\nexcept (ValueError, [ZeroDivisionError]):\n    1",
        "TypeError",
    ),
    fails(
        "the name of an exception after its handler",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    pass\ne",
        "NameError",
    ),
    fails("a cause that is none", "raise ValueError from repr", "ValueError"),
    fails(
        "a stop that a generator raises does not end what reads it",
        "def f():\n    raise StopIteration\nlist(f() for i in [1])",
        "",
        known="PEP 479",
    ),
    fails("a raise without an exception", "raise", "RuntimeError"),
    # Constructs that have hooks in Python.
    refused("with", "with open('x') as f:\n    pass"),
    refused("with on a value", "with [] as x:\n    pass", "`with`"),
    refused("async with", "async def f():\n    async with x:\n        pass"),
    refused("async for", "async def f():\n    async for x in y:\n        pass"),
    refused("async comprehension", "[x async for x in y]"),
    refused("await", "await f()"),
    refused(
        "yield",
        "def f():\n    yield 1\nf().gi_frame",
        "`yield`",
        known="CVE-2023-37271: generator frames",
    ),
    refused(
        "yield from",
        "def f():\n    yield from [1]\nf()",
        "`yield from`",
        known="CVE-2023-37271: generator frames",
    ),
    refused("yield in a lambda", "lambda: (yield)", "`yield`"),
    fails(
        "the frame of a generator",
        "(x for x in [1]).gi_frame",
        "AttributeError",
        known="CVE-2023-37271: generator frames",
    ),
    fails(
        "the code of a generator",
        "g = (x for x in [1])\ng.gi_code",
        "AttributeError",
        known="CVE-2023-37271: generator frames",
    ),
    fails(
        "the frame of a generator that reads it",
        "g = (g.gi_frame.f_back for x in [1])\nnext(g)",
        "AttributeError",
        known="CVE-2023-37271: generator frames",
    ),
    fails("what a generator reads from", "(x for x in [1]).gi_yieldfrom", "AttributeError"),
    fails(
        "something thrown into a generator", "(x for x in [1]).throw(ValueError)", "AttributeError"
    ),
    fails("something sent into a generator", "(x for x in [1]).send(None)", "AttributeError"),
    fails("a generator closed", "(x for x in [1]).close()", "AttributeError"),
    refused("the frame of a coroutine", "async def f():\n    pass\nf().cr_frame", "async"),
    refused(
        "decorators",
        "@repr\ndef f():\n    pass",
        "Decorators",
        known="CTF classic: decorators as calls",
    ),
    refused(
        "decorators of a class",
        "@exit\nclass A:\n    pass",
        "Decorators",
        known="CTF classic: decorators as calls",
    ),
    refused("except star", "try:\n    pass\nexcept* ValueError:\n    pass", "except*"),
    refused(
        "class patterns",
        "match 1:\n    case object(__class__=x):\n        x",
        "Class patterns",
        known="CTF: class patterns read attributes",
    ),
    refused(
        "patterns of a type's attributes",
        "match 1:\n    case int(real=x):\n        x",
        "Class patterns",
        known="CTF: class patterns read attributes",
    ),
    refused("patterns of hidden values", "match 1:\n    case x.__class__:\n        1"),
    fails("ellipsis does not go out", "...", "value"),
    refused("matrix product", "1 @ 1"),
    refused("matrix product in place", "x = 1\nx @= 1"),
    # Names.
    gives(
        "a built-in shadowed stays shadowed for the program alone",
        "len = 5\nsum = [len]\nmax(sum)",
        5,
    ),
    fails("a built-in shadowed is not called", "len = 5\nlen([1])", "TypeError"),
    fails("a tool shadowed is not called", "send = 5\nsend(to='a', body='b')", "TypeError"),
    gives(
        "a tool shadowed by a function is that function",
        "def send(to):\n    return to\nsend('x')",
        "x",
    ),
    fails("a tool deleted is the tool again", "send = 5\ndel send\nsend()", "TypeError"),
    fails("a built-in cannot be deleted", "del len", "NameError"),
    fails(
        "a name of an enclosing function is not leaked",
        "def f():\n    hidden = 1\nf()\nhidden",
        "NameError",
    ),
    fails(
        "a variable of a comprehension is not leaked",
        "[hidden for hidden in [1]]\nhidden",
        "NameError",
    ),
    gives("a binding in a comprehension is the module's", "[y := x for x in [1, 2]]\ny", 2),
    fails(
        "a binding in a function's comprehension is the function's",
        "def f():\n    return [y := x for x in [1, 2]]\nf()\ny",
        "NameError",
    ),
    fails(
        "a local before it is bound",
        "x = 1\ndef f():\n    y = x\n    x = 2\nf()",
        "UnboundLocalError",
    ),
    gives(
        "global reaches the module alone", "def f():\n    global made\n    made = 1\nf()\nmade", 1
    ),
    fails("a walrus does not reach built-ins", "(len := 3)\nlen('a')", "TypeError"),
    # Calls.
    fails("a call of a text", "'a'()", "TypeError"),
    fails("a call of a list", "[]()", "TypeError"),
    fails("a call of None", "None()", "TypeError"),
    fails("keywords that are no names", "dict(**{1: 2})", "TypeError"),
    fails(
        "keywords that are hidden names",
        "def f(x):\n    return x\nf(**{'__class__': 1})",
        "TypeError",
    ),
    fails("keywords that name the machine", "len(machine=1)", "TypeError"),
    fails(
        "keywords that name the machine of a sized function", "round(1, machine=None)", "TypeError"
    ),
    fails(
        "keywords that name a parameter of the interpreter",
        "str(value='x', machine=1)",
        "TypeError",
    ),
    fails("the same keyword twice", "def f(x):\n    return x\nf(x=1, **{'x': 2})", "TypeError"),
    fails("a hidden keyword to a method", "[].sort(**{'__class__': 1})", "TypeError"),
    fails(
        "a hidden keyword to a tool",
        "send(**{'__class__': 1, 'to': 'a', 'body': 'b'})",
        "TypeError",
    ),
    fails("an argument that a tool lacks", "send(to='a', body='b', labels=[])", "TypeError"),
    fails(
        "labels smuggled into a tool's arguments",
        "send(to='a', body='b', meta={'tags': []})",
        "TypeError",
    ),
    budget(
        "so many arguments that are spread",
        "def f(*a):\n    return a\nf(*[0] * 199_000, *[0] * 199_000)",
        "items",
    ),
    budget(
        "so many keywords",
        "def f(**a):\n    return a\nx = {str(i): i for i in range(90_000)}\nwhile True:\n    f(**x)",
    ),
    budget("arguments collected without end", "def f(*a):\n    return f(*a, *a)\nf(1)"),
]
