"""A comparison in words, on the terminal, as a page, as JSON, CSV and Markdown."""
