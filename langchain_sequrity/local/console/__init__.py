"""The console at `/console`: a page in the browser that shows what agents did, and why.

It is HTML that the server makes, with htmx for parts of a page; nothing is loaded from elsewhere
(`docs/console.md`).
"""
