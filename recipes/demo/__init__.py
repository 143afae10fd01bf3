"""How the demonstration model is trained, and what its model card measures: `python -m recipes.demo --help`."""
