"""What tests and demonstrations need beside the package itself."""
