"""Loads the fixtures; this must be the top-level conftest."""

pytest_plugins = ["langchain_sequrity.testing"]
