"""Examples. `demo` runs from here; `mail-agent` is a separate project."""
