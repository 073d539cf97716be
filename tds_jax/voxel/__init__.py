"""Radar volumes -> what a LiDAR would see.

Here: the task, its evaluation and its doors; below, `data`, `networks` and `methods`. Never:
another domain, or how the trainer does its work.
"""
