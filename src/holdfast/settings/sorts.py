"""The sorts of value a setting can have: how each is read, and what it allows, in words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TIME_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_QUANTITY = re.compile(r"([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?) ?([a-zA-Z]*)")
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_ORIGIN = re.compile(r"https?://[a-z0-9.\-\[\]:]+(:[0-9]+)?")
_LEVELS = ("debug", "info", "warning", "error")
FAMILIES = ("HS", "RS", "PS", "ES", "EdDSA")
_TIERS = ("hot", "warm")
_NONE = frozenset({"none", "never", "permanent"})
_LONGEST = 100 * 365 * 86_400.0


def _quantity(value: Any, units: Mapping[str, float]) -> float:
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value.strip())
        if match is None or match[2].lower() not in units:
            raise ValueError
        return float(match[1]) * units[match[2].lower()]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _time(value: Any, base: Path) -> float:
    seconds = _quantity(value, _TIME_UNITS)
    if not 0 < seconds <= _LONGEST:
        raise ValueError
    return seconds


def _time_or_zero(value: Any, base: Path) -> float:
    return 0.0 if _quantity(value, _TIME_UNITS) == 0 else _time(value, base)


def _time_or_none(value: Any, base: Path) -> float | None:
    return None if isinstance(value, str) and value.strip().lower() in _NONE else _time(value, base)


def _whole(value: Any, units: Mapping[str, float]) -> int:
    number = _quantity(value, units)
    if number != int(number) or not 1 <= number < 2**53:
        raise ValueError
    return int(number)


def _count(value: Any, base: Path) -> int:
    return _whole(value, {"": 1})


def _bytes(value: Any, base: Path) -> int:
    return _whole(value, _SIZE_UNITS)


def _flag(value: Any, base: Path) -> bool:
    flags = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in flags:
        return flags[value.strip().lower()]
    raise ValueError


def _word(value: Any, base: Path) -> str:
    if not isinstance(value, str) or _WORD.fullmatch(value) is None:
        raise ValueError
    return value


def _path(value: Any, base: Path) -> Path:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError
    return base / Path(value).expanduser()


def _path_or_none(value: Any, base: Path) -> Path | None:
    return None if isinstance(value, str) and value.strip().lower() in _NONE else _path(value, base)


def _url(value: Any, base: Path) -> str | None:
    if isinstance(value, str) and value.strip().lower() in _NONE:
        return None
    if not isinstance(value, str) or re.match(r"[a-z][a-z0-9+.-]*://", value) is None:
        raise ValueError
    urlsplit(value)  # raises for a port or an address that is none
    return value


def _urls(value: Any, base: Path) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError
    urls = {_word(name, base): _url(url, base) for name, url in value.items()}
    if None in urls.values():
        raise ValueError
    return {name: url for name, url in urls.items() if url is not None}


def _text(value: Any, base: Path) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError
    return value


def _text_or_none(value: Any, base: Path) -> str | None:
    return None if isinstance(value, str) and value.strip().lower() in _NONE else _text(value, base)


def _port(value: Any, base: Path) -> int:
    number = 0 if value in (0, "0") else _count(value, base)  # 0: whichever is free
    if number > 65_535:
        raise ValueError
    return number


def _origins(value: Any, base: Path) -> tuple[str, ...]:
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        raise ValueError
    origins = tuple(origin.strip() for origin in listed if isinstance(origin, str) and origin.strip())
    if any(_ORIGIN.fullmatch(origin) is None for origin in origins) or len(origins) < len([o for o in listed if o]):
        raise ValueError
    return origins


def _family(value: Any, base: Path) -> str:
    if value not in FAMILIES:
        raise ValueError
    return str(value)


def _level(value: Any, base: Path) -> str:
    if not isinstance(value, str) or value.lower() not in _LEVELS:
        raise ValueError
    return value.lower()


def _acknowledged(value: Any, base: Path) -> str:
    if value not in _TIERS:
        raise ValueError
    return str(value)


_TIMES = "a time above 0 in seconds, or with a unit: ms, s, m, h, d, w (90, '15m', '24h')"
_SIZES = "a whole number of bytes from 1 on, or with a unit: kB, MB, GB, KiB, MiB, GiB (1000000, '10MB')"
_URLS = "a URL with its scheme (file:///srv/cold, s3://bucket/prefix)"

SORTS: Mapping[str, tuple[Callable[[Any, Path], Any], str]] = {
    "path": (_path, "a path"),
    "path?": (_path_or_none, "a path, or 'none'"),
    "url": (_url, f"{_URLS}, or 'none'"),
    "urls": (_urls, f"a table of names (a-z, 0-9, - and _), each with {_URLS}"),
    "word": (_word, "a word of a-z, 0-9, - and _"),
    "keys": (_text, "id:base64, with commas between"),
    "text": (_text, "text on one line"),
    "text?": (_text_or_none, "text on one line, or 'none'"),
    "port": (_port, "a port number; 0 takes one that is free"),
    "origins": (_origins, "origins such as https://studio.example.org, with commas between"),
    "family": (_family, f"one of {', '.join(FAMILIES)}"),
    "acknowledged": (_acknowledged, f"one of {', '.join(_TIERS)}"),
    "level": (_level, f"one of {', '.join(_LEVELS)}"),
    "bytes": (_bytes, _SIZES),
    "count": (_count, "a whole number from 1 on"),
    "flag": (_flag, "true or false"),
    "time": (_time, _TIMES),
    "time0": (_time_or_zero, f"0, or {_TIMES}"),
    "time?": (_time_or_none, f"{_TIMES}, or 'none'"),
}
"""What a value can be: how it is read (a ``ValueError`` refuses it; relative paths are taken from the second argument),
and what is allowed, in words."""
