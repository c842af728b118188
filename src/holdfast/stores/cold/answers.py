"""What the errors of an object store mean.

obstore gives its callers one text with everything in it: the key, the address, the answer's body, a dump of its own
insides. None of that belongs in a log. A reason of ours is made of words of ours, a number and a code.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError

from holdfast.errors import HoldfastError, StoreFullError, StoreUnavailableError

_STATUS = re.compile(r"status code: (\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_ERRNO = re.compile(r"\(os error (\d{1,4})\)")

_ABSENT = frozenset({"NoSuchKey", "BlobNotFound"})
"""What S3 (and GCS, where it speaks as S3 does) and Azure call an object that is not there. A 404 also says that the
bucket is not there (``NoSuchBucket``), or comes from a server that is no object store: that is not absence."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_ROOM_CODES = frozenset({"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"})
_NO_ROOM_STATUS = "507"

_INSTANCE = ("/latest/api/token", "/latest/meta-data", "/computeMetadata/", "/metadata/identity/")
"""Where the instances of AWS, Google and Azure are asked for the credentials of their role."""


@contextmanager
def mapped(patience: float, *, unnamed: bool = False) -> Iterator[None]:
    """Turn obstore's and the system's errors into ours, which show neither key nor content.

    Args:
        patience: seconds an answer is waited for, to be told.
        unnamed: nobody has named credentials, so that the instance is asked for those of its role.
    """
    try:
        yield
    except HoldfastError:
        raise
    except (BaseError, OSError, ValueError) as error:
        if _is_full(error):
            raise StoreFullError("cold") from None
        if isinstance(error, TimeoutError) and error.errno is None:
            doubt = "; the environment names no credentials, and the instance may have none" if unnamed else ""
            raise StoreUnavailableError("cold", f"no answer within {patience:g} s{doubt}") from None
        raise StoreUnavailableError("cold", reason(error)) from None


def is_absent(error: FileNotFoundError) -> bool:
    """Whether it is the object that is not there, and not what should hold it."""
    text = str(error)
    return _STATUS.search(text) is None or _found(_CODE, text) in _ABSENT


def reason(error: Exception) -> str:
    """Why something failed, in few words."""
    text = str(error)
    if any(place in text for place in _INSTANCE):
        return "no credentials: the environment names none, and the instance gave none"
    status, code = _found(_STATUS, text), _found(_CODE, text)
    if status:
        return f"it answered {status} {code}".rstrip()
    number = _number(error)
    if number is not None:
        return os.strerror(number).lower()
    for sign, words in _SIGNS.items():
        if sign in text:
            return words
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower() + " error"


_SIGNS = {
    "BadScheme": "http is allowed only where the URL names an http:// endpoint",
    "InvalidCertificate": "its certificate is not trusted",
    "kind: Timeout": "no answer in time",
    "kind: Connect": "no connection",
    "IncompleteMessage": "the connection was lost",
    "kind: Interrupted": "the connection was lost",
    "kind: Body": "the answer broke off",
    "kind: Decode": "the answer broke off",
}
"""By what the text of an error is known, first come first served."""


def _is_full(error: Exception) -> bool:
    text = str(error)
    if _number(error) in _NO_ROOM:
        return True
    return _found(_STATUS, text) == _NO_ROOM_STATUS or _found(_CODE, text) in _NO_ROOM_CODES


def _number(error: Exception) -> int | None:
    """The system's number of an error; of obstore's only the text has it."""
    number = getattr(error, "errno", None)
    if number is None:
        found = _found(_ERRNO, str(error))
        number = int(found) if found else None
    return number


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""
