"""Real servers for the tests: started on first use, on loopback, in private folders, and never anybody else's."""
