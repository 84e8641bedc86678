"""One module a revision. Each is frozen when it is released; `Tables` is what they lead to together."""
