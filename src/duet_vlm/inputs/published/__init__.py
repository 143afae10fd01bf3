"""What published checkpoints say of sizes: one file a group of families, each with a dict of shapes by name."""
