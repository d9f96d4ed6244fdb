"""The compile-then-run surface."""
