"""What happens inside a call of a compressed model; the only folder that hooks the language model."""
