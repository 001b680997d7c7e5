"""Real venues' wire protocols in front of the simulated exchange."""
