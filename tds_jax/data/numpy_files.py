"""NumPy's files, which several threads of a process read."""

import threading

# NumPy reads a header by `ast.literal_eval`, which before Python 3.13 keeps its depth in one place
# for all threads. The garbage collector may begin inside, jax has it call Python, there another
# thread gets its turn, and a whole file ends in "AST constructor recursion depth mismatch". So who
# reads a header holds this; a thread that has it may take it again.
one_reader = threading.RLock()
