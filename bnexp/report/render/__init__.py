"""How a report looks: on the terminal, as a page, as JSON, CSV and Markdown.

The content comes from bnexp.report.content. The renderers import nothing from each other.
"""
