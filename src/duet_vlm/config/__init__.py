"""What to do, as plain data and arithmetic: settings, counts of tokens, methods fitted to a budget."""
