"""The compressed file of weights (``.cpz``): docs/compressed.md has it byte by byte."""
