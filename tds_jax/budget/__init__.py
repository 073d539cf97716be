"""What is known before a run: its bytes and seconds, and the cheapest way within a budget.

Here: targets, plans, predicted and measured bytes, the host's memory. Never: a domain's words, or
anything that changes what a run computes.
"""
