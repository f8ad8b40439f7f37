"""What a user's graph is: its nodes and edges, and which fields its code reads and writes."""
