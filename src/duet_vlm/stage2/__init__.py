"""Stage 2: which words ask, and which visual tokens they rank first."""
