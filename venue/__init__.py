"""A simulated exchange: one matching engine behind several front ends."""
