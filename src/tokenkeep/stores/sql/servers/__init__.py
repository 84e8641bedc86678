"""Servers of SQL: how they are reached, and what they say."""
