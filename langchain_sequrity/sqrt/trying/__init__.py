"""Policies tried on calls: what they decide, which rules that exercised, what a change changes."""
