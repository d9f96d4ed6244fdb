"""What the user means: frozen, interned nodes with types inferred as they are made."""
