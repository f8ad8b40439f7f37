"""Policies in English, rule by rule."""
