"""What operators see of a run: records, metrics, exit codes, the cluster in one line."""
