"""How the model for pages was made: its training from scratch."""
