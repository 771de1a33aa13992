"""Experiments: a TOML file, a chain of stored stages, a result."""
