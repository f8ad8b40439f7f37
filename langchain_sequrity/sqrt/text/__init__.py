"""Policies as text: laid out, printed from nodes, in colour."""
