"""Graph to equal, cheaper graph."""
