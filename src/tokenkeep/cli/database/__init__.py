"""What `tokenkeep db` does: each module is loaded by the command that wants it."""
