"""A place of a test's own in the object server, and a gateway before it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count

import pytest

from holdfast.testing.objects import Gateway, ObjectServer

_number = count(1)


@pytest.fixture
def place(credentials: None) -> str:
    """A bucket and a prefix that nobody has used."""
    return f"holdfast/test/{next(_number)}"


@pytest.fixture
async def gateway(objects: ObjectServer) -> AsyncIterator[Gateway]:
    """A gateway before the server."""
    async with Gateway(objects.address).listening() as gateway:
        yield gateway
