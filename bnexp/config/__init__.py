"""The configuration: its schema, the checks of its values, and how its components are built."""
