"""Dual-LLM turns: a planner writes a program, the program runs under policy, data stays data.

| Module | Content |
|---|---|
| `turn` | which turn continues, ends or begins |
| `history_diff` | what a request adds: results, words of the user, a repetition |
| `loop` | the programs of a turn: written, run, repaired |
| `planner`, `prompts`, `model_calls` | having a program written; prompts; asking models |
| `calls`, `internal_tools` | calls of the caller's tools; tools that the service runs itself |
| `runs` | paused programs, live or replayed |
| `state` | what a session remembers |
| `reports` | the checks and the result at the end of a turn |
"""
