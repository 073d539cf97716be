"""What a `model.name` stands for: how networks are put together, trained and sampled.

Here: losses, noise, teachers and students. Never: reports, doors, formats of files.
"""
