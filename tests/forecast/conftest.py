"""What several files of tests read alike."""

import pytest

from tests.forecast.several import write_pair


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    """The record of two variables; a module that reads another has a `path` of its own."""
    return write_pair(tmp_path_factory.mktemp("targets"))
