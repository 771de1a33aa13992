"""A report as a page, as Markdown, in the terminal and elsewhere."""
