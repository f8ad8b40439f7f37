"""Dual-LLM turns: a planner writes a program, the program runs under policy, data stays data.

| Module | Idea |
|---|---|
| `news` | what a request brings to a session: results, words of the user, a repetition |
| `given` | the program that a caller brings along |
| `state`, `context` | what a session remembers; what all parts of a request work with |
| `turn` | which turn goes on, ends or begins |
| `loop` | the programs of a turn: written, run, repaired |
| `planning`, `prompts`, `asking` | having a program written; what models are told; asking them |
| `names` | what programs call the caller's tools |
| `calls`, `internal_tools` | calls of tools; those that the service runs itself |
| `runs` | paused programs, live or replayed |
| `reports` | what is said of a turn at its end |
"""
