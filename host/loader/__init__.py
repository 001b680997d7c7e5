"""Finds plugin files, versions them by content and loads them by path."""
