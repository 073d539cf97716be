"""Crews of threads in one process, which hear of each other as processes do."""

import threading
from concurrent.futures import ThreadPoolExecutor

from tds_jax.data.crew import Crew


def together(count, work):
    """What work(crew) returns to each of so many members, who do it at the same time."""
    barrier, said = threading.Barrier(count, timeout=60), [None] * count

    def member(index):
        def gather(value):
            said[index] = value
            barrier.wait()
            found = list(said)
            barrier.wait()
            return found

        def add(arrays):
            return [sum(parts) for parts in zip(*gather(arrays), strict=True)]

        try:
            return work(Crew(index, count, gather, add))
        except BaseException:
            barrier.abort()  # the others do not wait for it
            raise

    with ThreadPoolExecutor(count) as pool:
        jobs = [pool.submit(member, index) for index in range(count)]
    return [job.result() for job in jobs]
