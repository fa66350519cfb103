"""Published judges as a table, with random models of their formats and what they must say, computed by hand."""
