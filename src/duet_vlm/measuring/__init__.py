"""Clocks, floating point operations and benchmarks."""
