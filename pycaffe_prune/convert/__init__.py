"""Model Zoo weights in, other formats out."""
