"""Layers that two domains share, and what they stand on: scans, recomputation, precision.

Here: functions of arrays. Never: the trainer, a budget, a config object, a domain's words.
"""
