"""Derives the backward graph."""
