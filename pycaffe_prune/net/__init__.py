"""The net as a graph: who produces and who consumes which blob."""
