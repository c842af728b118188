"""A kind's declared operations, told to programs."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.ports.kind import Operation


def explained(operation: Operation) -> dict[str, Any]:
    """An operation's name, summary, and arguments as a JSON schema."""
    return {
        "name": operation.name,
        "summary": operation.summary,
        "commutative": operation.commutative,
        "arguments": msgspec.json.schema(operation.arguments),
    }
