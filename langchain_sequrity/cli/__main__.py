"""`python -m langchain_sequrity.cli`."""

from langchain_sequrity.cli import main

main()
