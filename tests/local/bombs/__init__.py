"""Bombs: programs that take as much time and memory as they can, measured from outside the server.

`bomb` defines a bomb and makes bombs from an operation. `operations` has bombs for every operation
of the language, `crafted` has handwritten ones, and `sources` has texts that are a bomb before they
run. `combined` makes any number of bombs from a seed. `watching` sends them to a real server and
measures it.
"""
