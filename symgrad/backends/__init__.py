"""Loops to running code, one module or package per backend."""
