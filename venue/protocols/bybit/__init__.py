"""Bybit v5 in front of the simulated exchange: REST, public, private and order-entry WebSockets."""
