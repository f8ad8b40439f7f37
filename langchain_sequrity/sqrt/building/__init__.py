"""Policies in Python, for those who do not want to write text."""
