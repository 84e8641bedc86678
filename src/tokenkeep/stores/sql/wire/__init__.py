"""Look-ups in the words of the drivers themselves."""
