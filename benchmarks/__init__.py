"""How fast tokenkeep is, beside raw drivers and peers that do the same work in the same minute."""
