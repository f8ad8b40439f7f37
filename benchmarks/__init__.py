"""What a call costs, beside the clients one would use instead; see `README.md` in this folder."""
