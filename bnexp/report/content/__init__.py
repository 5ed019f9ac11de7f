"""What a report says: its heading, table cells, sentences, footnotes and next steps, as plain strings."""
