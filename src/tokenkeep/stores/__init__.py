"""One backend, one room."""
