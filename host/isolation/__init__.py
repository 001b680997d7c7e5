"""Strategies in processes of their own: the host's side (`Workers`) and the worker's (`worker`)."""
