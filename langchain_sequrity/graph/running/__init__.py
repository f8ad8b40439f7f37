"""A run: hidden nodes make requests, the user's nodes answer the calls."""
