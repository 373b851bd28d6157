"""Stored runs, what each should have given, and what explains the difference between two."""
