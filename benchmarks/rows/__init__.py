"""One module a row: `measure(setting)` yields the lines of the table."""
