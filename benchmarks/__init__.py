"""The cost of a call, compared with other clients. See `README.md` in this folder."""
