"""Measurements of the course, by command; their results lie in `results/`."""
