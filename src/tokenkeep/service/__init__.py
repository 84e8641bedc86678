"""A process beside applications in any language: it hands them the tokens of their accounts over HTTP.

`tokenkeep serve` runs it. `tokenkeep.service.application` makes it of a vault and an issuer of your own; it needs
the extra `[service]`, which the command's groups of words about callers do not.
"""
