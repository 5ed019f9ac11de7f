"""From many runs to one verdict: reads run folders, compares groups, renders the result. Imports no torch."""
