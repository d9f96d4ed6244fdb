"""Graph to plan: which values get memory, which share a kernel, in what order, over which loops."""
