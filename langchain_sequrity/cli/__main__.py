"""`python -m langchain_sequrity.cli`."""

from langchain_sequrity.cli import main

if __name__ == "__main__":  # workers of `serve` import it too
    main()
