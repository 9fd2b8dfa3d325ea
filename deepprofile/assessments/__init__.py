"""Assessments: estimates of any origin against stations, by one file and one command."""

from deepprofile.assessments.definition import Definition, load_definition
from deepprofile.assessments.run import Result, run_assessment

__all__ = ["Definition", "Result", "load_definition", "run_assessment"]
