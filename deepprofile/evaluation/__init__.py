"""Evaluation of any estimate with layers or a profile against stations or a known truth."""
