"""Tokens that another program has kept: how they are read, when they end, and how they come into a vault."""
