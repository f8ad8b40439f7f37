"""To look at a graph and at its runs: tables, charts, a line in the terminal."""
