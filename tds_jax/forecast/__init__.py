"""Gridded days -> the coming days.

Here: fields, networks, baselines and forecasts. Never: another domain, or how the trainer does its
work.
"""
