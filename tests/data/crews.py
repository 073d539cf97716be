"""Crews of threads in one process, which hear of each other as processes do."""

import collections
import threading
from concurrent.futures import ThreadPoolExecutor

from tds_jax.data.crew import Crew


def together(count, work):
    """What work(crew) returns to each of so many members, who do it at the same time.

    One that ends with an error ends those who wait for it.
    """
    said, changed, failed = collections.defaultdict(dict), threading.Condition(), []

    def member(index):
        asked = iter(range(1 << 30))

        def gather(value):
            with changed:
                heard = said[next(asked)]
                heard[index] = value
                changed.notify_all()
                assert changed.wait_for(lambda: len(heard) == count or failed, timeout=60)
            assert len(heard) == count, "another has failed"
            return [heard[i] for i in range(count)]

        def add(arrays):
            return [sum(parts) for parts in zip(*gather(arrays), strict=True)]

        try:
            return work(Crew(index, count, gather, add))
        except BaseException as error:
            with changed:
                failed.append(error)
                changed.notify_all()
            raise

    with ThreadPoolExecutor(count) as pool:
        jobs = [pool.submit(member, index) for index in range(count)]
    return [job.result() for job in jobs]
