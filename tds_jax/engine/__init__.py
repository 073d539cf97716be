"""The trainer: state, step, program, loop, evaluation, checkpoints, logs and reports.

Here: what every run does, whatever it learns. Never: a domain's words, formats of data, layers.
"""
