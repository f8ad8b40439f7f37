"""Programs and data that are deeper than a stack, and texts that Python's parser stumbles over."""

from tests.local.interpreter.corpus.case import Case, budget, fails, gives, overflows, refused

NEST = "x = []\nfor i in range({depth}):\n    x = [x]\n"
DEEP = NEST.format(depth=20_000)

CASES: list[Case] = [
    refused("nested parentheses", "(" * 50_000 + ")" * 50_000, "Not valid"),
    refused("nested lists", "[" * 150 + "]" * 150, "nested"),
    refused("more nested lists", "x = " + "[" * 5_000 + "]" * 5_000, ""),
    refused("nested dicts", "{1:" * 20_000 + "1" + "}" * 20_000, ""),
    refused("unary minus", "-" * 90_000 + "1", "nested"),
    refused("unary not", "not " * 20_000 + "1", ""),
    refused("unary invert", "~" * 200 + "1", "nested"),
    refused("nested calls", "f(" * 150 + ")" * 150, "nested"),
    refused("nested attributes", "x" + ".a" * 20_000, "nested"),
    refused("nested subscripts", "x" + "[0]" * 20_000, "nested"),
    refused("nested lambdas", "lambda: " * 10_000 + "1", ""),
    refused("nested ternaries", "1 if x else " * 8_000 + "1", "nested"),
    refused("nested powers", "2" + "**2" * 20_000, ""),
    refused("nested sums", "1" + "+1" * 40_000, "nested"),
    gives(
        "nested functions",
        "".join(" " * i + "def f():\n" for i in range(90)) + " " * 90 + "pass",
        None,
    ),
    refused(
        "nested blocks", "".join(" " * i + "if 1:\n" for i in range(120)) + " " * 120 + "pass", ""
    ),
    refused(
        "nested loops",
        "".join(" " * i + "for i in 'a':\n" for i in range(99)) + " " * 99 + "pass",
        "",
    ),
    refused("nested f-strings", "x = 1\n" + "f'{x:" + "{x:" * 50 + "}" * 50 + "}'", ""),
    refused("a long chain of else if", "if 0:\n    pass\n" + "elif 0:\n pass\n" * 7_000, ""),
    gives(
        "a chain of else if within the limits",
        "if 0:\n    x = 0\n" + "elif 0:\n    x = 1\n" * 2_000 + "else:\n    x = 2\nx",
        2,
    ),
    refused(
        "nested patterns",
        "match 1:\n    case " + "[" * 200 + "x" + "]" * 200 + ":\n        pass",
        "",
    ),
    gives("nested comprehensions", "len(" + "[" * 80 + "1" + " for x in 'a']" * 80 + ")", 1),
    refused("so many parts of a comparison", "1" + " < 1" * 20_000, "nodes"),
    refused("so many targets", "x = " * 20_000 + "1", "nodes"),
    refused("so many arguments", "f(" + "1," * 30_000 + ")", "nodes"),
    refused(
        "nested else if across the limit of the tree",
        "if 0:\n    pass\n" * 1
        + "else:\n"
        + "".join(
            " " * (i + 1) + "if 0:\n" + " " * (i + 2) + "pass\n" + " " * (i + 1) + "else:\n"
            for i in range(99)
        )
        + " " * 100
        + "pass",
        "",
    ),
    budget("nested calls at run time", "def f(n):\n    return f(n + 1)\nf(0)", "depth"),
    budget(
        "two functions that call each other",
        "def f():\n    return g()\ndef g():\n    return f()\nf()",
        "depth",
    ),
    budget("a lambda that calls itself", "f = lambda: f()\nf()", "depth"),
    overflows("recursion in a sort key", "def f(x):\n    return sorted([1, 2], key=f)\nf(1)"),
    overflows("recursion in a map", "def f(x):\n    return list(map(f, [x]))\nf(1)"),
    overflows("recursion in a filter", "def f(x):\n    return list(filter(f, [x]))\nf(1)"),
    overflows("recursion in a comprehension", "def f(x):\n    return [f(y) for y in [x]]\nf(1)"),
    overflows("recursion in a generator", "def f(x):\n    return sum(f(y) for y in [x])\nf(1)"),
    overflows(
        "recursion in a replacement", "import re\ndef f(m):\n    return re.sub('a', f, 'a')\nf(1)"
    ),
    budget(
        "recursion in a factory",
        "from collections import defaultdict\ndef f():\n    return defaultdict(f)[0]\nf()",
    ),
    budget(
        "recursion in a default",
        "def f(x=1):\n    def g(y=f()):\n        return y\n    return g\nf()",
        "depth",
    ),
    budget("recursion in a condition", "def f():\n    while f():\n        pass\nf()", "depth"),
    budget(
        "recursion in a handler",
        "def f():\n    try:\n        1 / 0\n    except ZeroDivisionError:\n        return f()\nf()",
        "depth",
    ),
    budget(
        "recursion in a finally",
        "def f():\n    try:\n        pass\n    finally:\n        f()\nf()",
        "depth",
    ),
    overflows("recursion in a max", "def f(x):\n    return max([1, 2], key=f)\nf(1)"),
    overflows(
        "recursion through long expressions",
        "def f(n):\n    return 1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + f(n + 1))))))))\nf(0)",
    ),
    overflows(
        "recursion through nested blocks",
        "def f(n):\n"
        + "".join("    " * (i + 1) + "if True:\n" for i in range(15))
        + "    " * 16
        + "f(n + 1)\nf(0)",
    ),
    gives(
        "recursion within the limit",
        "def f(n):\n    return 0 if n == 0 else 1 + f(n - 1)\nf(90)",
        90,
    ),
    budget(
        "calls that branch", "def f(n):\n    return 1 if n == 0 else f(n - 1) + f(n - 1)\nf(90)"
    ),
    # Iterators within iterators: each level is a frame of Python's when it is read.
    overflows(
        "maps within maps",
        "x = iter([1])\nfor i in range(5_000):\n    x = map(str, x)\nnext(x)",
        known="nested iterators overflow the C stack",
    ),
    overflows(
        "zips within zips",
        "x = iter([1])\nfor i in range(5_000):\n    x = zip(x)\nnext(x)",
        known="nested iterators overflow the C stack",
    ),
    overflows(
        "filters within filters",
        "x = iter([1])\nfor i in range(5_000):\n    x = filter(None, x)\nnext(x)",
        known="nested iterators overflow the C stack",
    ),
    overflows(
        "chains within chains",
        "from itertools import chain\nx = iter([1])\nfor i in range(5_000):\n    x = chain(x)\nnext(x)",
        known="nested iterators overflow the C stack",
    ),
    overflows(
        "slices within slices",
        "from itertools import islice\nx = iter([1])\nfor i in range(5_000):\n    x = islice(x, 5)\nnext(x)",
        known="nested iterators overflow the C stack",
    ),
    overflows(
        "enumerations within enumerations",
        "x = iter([1])\nfor i in range(5_000):\n    x = enumerate(x)\nnext(x)",
        known="nested iterators overflow the C stack",
    ),
    overflows(
        "generators within generators",
        "x = iter([1])\nfor i in range(5_000):\n    x = (y for y in x)\nnext(x)",
    ),
    # Deep data.
    overflows("deep lists shown", DEEP + "str(x)"),
    overflows("deep lists compared", DEEP + "y = x\n" + DEEP + "x == y"),
    overflows("deep lists as the answer", DEEP + "x"),
    overflows("deep lists as JSON", DEEP + "import json\njson.dumps(x)"),
    overflows("deep lists in a list", DEEP + "[1] in [x]"),
    overflows("deep lists to a tool", DEEP + "send(to='a', body=x)"),
    budget("deep lists dropped", DEEP + "x = 1\nwhile True:\n    pass"),
    overflows("deep dicts shown", "x = {}\nfor i in range(20_000):\n    x = {'a': x}\nf'{x}'"),
    overflows(
        "deep tuples hashed",
        "x = ()\nfor i in range(20_000):\n    x = (x,)\n{x}",
        known="tuple hash recursion",
    ),
    overflows(
        "deep tuples compared",
        "x = ()\ny = ()\nfor i in range(20_000):\n    x = (x,)\n    y = (y,)\nx < y",
    ),
    overflows(
        "deep exceptions shown",
        "x = ValueError()\nfor i in range(5_000):\n    x = ValueError(x)\nstr(x)",
    ),
    overflows(
        "deep tuples for isinstance",
        "x = (int,)\nfor i in range(5_000):\n    x = (x,)\nisinstance('', x)",
    ),
    budget("deep JSON read", "import json\njson.loads('[' * 100_000)"),
    budget("deep JSON objects read", "import json\njson.loads('{\"a\":' * 100_000)"),
    budget("deep data in an exception that is not caught", DEEP + "raise ValueError(x)"),
    budget(
        "deep data with labels under except",
        NEST.format(depth=20_000)
        + "y = [secret, x]\ntry:\n    str(y)\nexcept RecursionError:\n    1",
    ),
    budget("deep exits", DEEP + "exit(x)"),
    # Texts.
    refused("a null byte", "x = 1\0\nx", ""),
    refused("a null byte in a text", "x = 'a\0b'", ""),
    refused("half a character", "x = '\ud800'", "characters"),
    refused(
        "a coding line that lies", "# -*- coding: rot13 -*-\nriny('1')\nimport os", "import os"
    ),
    refused("letters that become eval", "\uff45val('1')", "eval", known="NFKC identifiers"),
    refused(
        "letters that become exec",
        "\U0001d41e\U0001d431\U0001d41e\U0001d41c('1')",
        "exec",
        known="NFKC identifiers",
    ),
    refused(
        "letters that become an attribute",
        "().__\uff43lass__",
        "__class__",
        known="NFKC identifiers",
    ),
    refused(
        "underscores that become two", "()._\uff3fclass__", "__class__", known="NFKC identifiers"
    ),
    refused("underscores of another kind", "()\ufe4e\ufe4eclass", ""),
    refused(
        "letters that become import",
        "__\uff49mport__('os')",
        "__import__",
        known="NFKC identifiers",
    ),
    refused(
        "letters that become a module", "import \uff4fs", "import os", known="NFKC identifiers"
    ),
    refused(
        "letters that become a keyword argument",
        "dict(_\uff3fclass__=1)",
        "start with",
        known="NFKC identifiers",
    ),
    gives("letters that become a plain name", "\ufb01 = 3\nfi", 3),
    refused("marks that turn the text round", "x = 1 \u202e\nimport os", ""),
    refused("a form feed before a statement", "\fimport os", "import os"),
    refused("a continued line", "imp\\\nort os", ""),
    refused("a continued import", "import \\\n    os", "import os"),
    refused("a statement after a semicolon", "x = 1; import os", "import os"),
    refused(
        "a statement behind a carriage return",
        "# harmless\rimport os",
        "import os",
        known="hidden by a carriage return",
    ),
    gives(
        "a statement behind a line separator is a comment", "x = 1 # harmless\u2028import os\nx", 1
    ),
    refused("a statement in a very long line", "x = 1" + " " * 50_000 + "; import os", "import os"),
    refused("brackets that never close", "(" * 150, "Not valid"),
    refused("a text that never closes", "'''" + "a" * 50_000, "Not valid"),
    refused("a bad escape of a name", "'\\N{" + "A" * 10_000 + "}'", "Not valid"),
    refused("indents of many kinds", "if 1:\n\tx = 1\n        y = 2", "Not valid"),
    refused("so many indents", "".join(" " * i + "if 1:\n" for i in range(300)), ""),
    refused("return at the top", "return 1", ""),
    refused("break outside of a loop", "break", ""),
    refused("continue outside of a loop", "def f():\n    continue", ""),
    refused(
        "break in a function within a loop",
        "for i in [1]:\n    def f():\n        break\n    f()",
        "",
    ),
    refused("nonlocal of nothing", "def f():\n    nonlocal x\n    x = 1\nf()", ""),
    refused("nonlocal at the top", "nonlocal x\nx = 1", ""),
    refused("global after use", "def f():\n    x = 1\n    global x\n    x = 2\nf()", ""),
    refused("the same parameter twice", "def f(a, a):\n    return a\nf(1, 2)", ""),
    refused("two stars in a target", "*a, *b = [1, 2]", ""),
    refused("a star on its own", "*a", ""),
    refused("a star as the target", "*a = [1]", ""),
    refused("a binding of a comprehension's variable", "[x := 1 for x in [1]]", ""),
    gives("a name bound twice in a pattern", "match [1, 2]:\n    case [x, x]:\n        pass", None),
    gives(
        "a pattern behind one that takes all",
        "match 1:\n    case x:\n        pass\n    case 2:\n        pass",
        None,
    ),
    gives(
        "alternatives that bind different names",
        "match 1:\n    case [x] | [y]:\n        pass",
        None,
    ),
    refused("an assignment to a constant", "None = 1", ""),
    refused("an assignment to True by a loop", "for True in [1]:\n    pass", ""),
    refused("the debug constant", "__debug__", ""),
    refused("a default before none", "def f(a=1, b):\n    pass", ""),
    fails("a variable that is deleted", "x = 1\ndel x\nx", "NameError"),
]
