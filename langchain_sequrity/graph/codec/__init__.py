"""State as JSON: values and their classes, and how each field goes through a program."""
