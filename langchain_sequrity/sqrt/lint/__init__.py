"""Checks of a policy beyond its syntax: mistakes, doubts, and rules that do nothing."""
