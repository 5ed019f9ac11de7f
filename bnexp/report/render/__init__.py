"""Renders a comparison for the terminal and as HTML, JSON, CSV and Markdown.

The content is written in sentences, overview, table, heading, next_steps and footnotes. The renderers
terminal, html, json_export, csv_export and markdown arrange it and import nothing from each other.
"""
