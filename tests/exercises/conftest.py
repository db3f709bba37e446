"""`code` is the code that the tests of the exercises grade."""

import pytest
from yours import load_code


@pytest.fixture
def code():
    """The paper's files, as they are in this copy."""
    return load_code()
