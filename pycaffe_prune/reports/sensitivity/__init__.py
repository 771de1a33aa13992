"""A sensitivity analysis as tables and figures."""
