"""Models of other formats, read and written without PyTorch and without executing anything.

Here: files, tensors and how they fill parameters. Never: which tensor is which layer of a domain.
"""
