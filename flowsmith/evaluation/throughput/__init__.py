"""How fast the executor is, and what it loses: measured against plainer ways to render the same tasks."""
