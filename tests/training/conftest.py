import pytest

from landscape.data.sources import open_source


@pytest.fixture(scope="module")
def digits():
    return open_source("digits")
