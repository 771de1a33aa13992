"""A net compressed to a budget: pruned, its weights shared, retrained, and coded."""
