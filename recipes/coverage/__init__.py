"""What a budget per image is worth: `coverage` against a fixed budget at the same mean tokens."""
