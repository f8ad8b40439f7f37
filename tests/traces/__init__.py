"""Exported traces as calls to try."""

from pathlib import Path

RECORDED = Path(__file__).parent / "recorded"
"""What `record.py` wrote."""
