"""Dual-LLM turns: a planner writes programs, which run under a policy; the planner sees no data.

| Module | Content |
|---|---|
| `turn` | which turn a request continues, ends or begins; programs of callers |
| `history_diff` | the new messages of a request |
| `loop` | the programs of a turn: written, run, replaced; the end of a turn |
| `planner`, `prompts`, `model_calls` | writing a program; all prompts; calls of models |
| `calls` | tool calls of programs, and the internal tools |
| `state` | the state of a session |
"""
