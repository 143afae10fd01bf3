"""How `duet-plus` was chosen: candidates asked on validation pictures, never on held-out ones."""
