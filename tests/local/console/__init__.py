"""Tests of the console, in a browser.

`chromium` starts the browser and records what a page must not do, `injections` has the texts that
the console must only display, and `accessibility` asks axe-core. `holes` has pages with the faults
that these tools must see.
"""
