"""What estimates are compared with: series of stations or of a known truth, at depths."""
