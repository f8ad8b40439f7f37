"""The commands: what they take, and how their failures are worded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import click
from rich.console import Console

from langchain_sequrity.cli.serving import serve_until_stopped
from langchain_sequrity.demo.run import DEFAULT_QUESTION, LIVE_MODEL, DemoOptions, run_demo
from langchain_sequrity.display import plain
from langchain_sequrity.errors import SequrityError
from langchain_sequrity.wire.routes import PROVIDERS, Provider
