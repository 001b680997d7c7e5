"""OKX v5 at the venue's door; `front` says what is where."""
