"""Benchmarks: each prints one table, or one JSON object with --json."""
