"""Figures and maps from plain tables and arrays."""
