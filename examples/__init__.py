"""Examples. `demo` runs from here; `mail-agent` is a project of its own."""
