"""`tokenkeep demo`. This module stays empty: each process of the demo imports it, and needs no command line."""
