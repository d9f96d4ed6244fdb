"""The CUDA backend: the loops of a plan mapped to threads, compiled to cubins, launched from a prepared list."""
