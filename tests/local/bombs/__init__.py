"""Programs that ask the interpreter for as much as it gives, measured from outside of the server.

`bomb` says what a bomb is and how one is made of an operation, `operations` has one or more for
every operation of the language, `crafted` those that somebody thought of, `sources` those that are
a bomb before they run, and `combined` makes any number of further ones from a seed. `watching`
runs them through a real server.
"""
