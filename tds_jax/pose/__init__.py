"""Surface EMG -> joint angles of a hand.

Here: recordings, networks, baselines, predictions and streams of pose. Never: another domain, or
how the trainer does its work.
"""
