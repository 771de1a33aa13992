"""Connection pruning (masks) and unit pruning (physical deletion)."""
