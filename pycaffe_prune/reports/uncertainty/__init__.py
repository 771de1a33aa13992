"""How sure the numbers of a report are."""
