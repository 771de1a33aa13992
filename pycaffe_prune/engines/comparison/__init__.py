"""Two engines, or two nets, held against each other."""
