"""The append-only log that every change of trading state goes through."""
