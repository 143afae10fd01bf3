"""The second benchmark: drawn receipts, tables, forms, plots and screens, and questions about what stands there."""
