"""SQL projections of the journal, for queries and reports."""
