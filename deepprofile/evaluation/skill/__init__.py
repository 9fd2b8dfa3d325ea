"""How well estimates agree with a reference or with each other: metrics, tables, summaries."""
