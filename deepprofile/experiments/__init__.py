"""Experiments: many trainings on the samples of one recipe, and what their comparison shows."""
