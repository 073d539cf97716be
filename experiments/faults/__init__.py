"""Faults by what is hurt, and what hurts and judges; `python -m experiments.faults`."""
