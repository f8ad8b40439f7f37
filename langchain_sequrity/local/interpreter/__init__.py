"""The interpreter of planner programs: a small Python in which every value carries labels.

`parse` reads a program and refuses what the language lacks. `Run` runs it up to each tool call and
takes the result, or the next program; what it returns is data, and so is its log. Programs reach
nothing but tools.
"""

from langchain_sequrity.labels import Labeled
from langchain_sequrity.local.interpreter.faults import ProgramRefused, ReplayDiverged
from langchain_sequrity.local.interpreter.machine import Limits
from langchain_sequrity.local.interpreter.program import Program, parse
from langchain_sequrity.local.interpreter.run import (
    NextProgram,
    ProgramFinished,
    ProgramRaised,
    Run,
    ToolCall,
    ToolFailure,
)

__all__ = [
    "Labeled",
    "Limits",
    "NextProgram",
    "Program",
    "ProgramFinished",
    "ProgramRaised",
    "ProgramRefused",
    "ReplayDiverged",
    "Run",
    "ToolCall",
    "ToolFailure",
    "parse",
]
