"""The local server as a service for a team: one configuration file, and how it is read again.

`settings` reads the file, `models` makes the chat models that it names, and `server` runs a
`LocalServer` with both. Needs the extra `gateway`.
"""
