"""Tests of session stores: one contract for all, and workers that share a Redis."""
