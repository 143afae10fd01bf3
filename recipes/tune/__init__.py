"""How often `duet tune` keeps its word: the tables of docs/tune.md."""
