"""Runs over whole vocabularies, several models or files."""
