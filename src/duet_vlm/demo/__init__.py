"""The demonstration model: a small LLaVA trained from scratch on procedurally drawn scenes."""
