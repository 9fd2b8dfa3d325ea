"""The report: one HTML page with sections of sentences, figures and tables."""
