"""The process that loads and runs trading plugins."""
