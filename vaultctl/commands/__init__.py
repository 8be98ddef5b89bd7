"""The commands, one module a theme; each has `add_to(app)`."""
