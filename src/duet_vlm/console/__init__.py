"""The terminal: errors in a line, progress, tables, options."""
