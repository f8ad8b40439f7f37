"""What follows a denial, in the words of the graph; what a human may approve."""
