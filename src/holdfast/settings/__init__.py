"""Settings: the environment and a file in, typed values out.

Defaults give way to a TOML file, and the file to the environment (``HOLDFAST_HOME``, ``HOLDFAST_LIMITS__ITEMS``).
Whatever is not known, or is of the wrong sort, is refused before anything is opened.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import msgspec

from holdfast.errors import ConfigurationError
from holdfast.model.limits import Limits
from holdfast.model.retention import Retention
from holdfast.settings.sections import Auth, Service
from holdfast.settings.sorts import SORTS

PREFIX = "HOLDFAST_"
OTHER_VARIABLES = frozenset({"CONFIG", "DEBUG", "URL", "TOKEN"})
"""Variables that are read elsewhere and are no settings; those beginning with ``HOLDFAST_TEST_`` are the tests'."""

MASK = "***"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, repr_omit_defaults=True):
    """Everything that can be set. Times are in seconds, sizes in bytes; what each one means stands in ``SETTINGS``.

    ``keys`` is a secret: it is masked wherever settings are shown.
    """

    home: Path = msgspec.field(default_factory=lambda: default_home(os.environ))
    hot: str | None = None
    warm: str | None = None
    cold: str | None = None
    sinks: Mapping[str, str] = {}
    embedder: str = "lexical-hash-1"
    key_file: Path | None = None
    keys: str | None = None
    limits: Limits = Limits()
    retention: Retention = Retention()
    grace: float = 604_800.0
    lock: float = 900.0
    lease: float = 30.0
    sweep: float = 60.0
    suspend_after: float | None = 3_600.0
    archive_after: float | None = None
    flush_queue: int = 10_000
    acknowledge: str = "hot"
    service: Service = Service()
    auth: Auth = Auth()

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, file: str | Path | None = None) -> Settings:
        """The settings of this process.

        Args:
            environ: the environment, that of the process by default.
            file: a TOML file that must be there; by default ``HOLDFAST_CONFIG``, else ``holdfast.toml`` in the home if
                there is one.
        Raises:
            ConfigurationError: a setting is unknown, or its value is not of its sort; names the setting, says what was
                found and what is allowed, and shows no secret.
        """
        environ = os.environ if environ is None else environ
        given = dict(_from_environment(environ))
        named = file if file is not None else environ.get(f"{PREFIX}CONFIG") or None
        home = given.get("home") or default_home(environ)
        path = Path(named).expanduser() if named is not None else home / "holdfast.toml"
        values = dict(_from_file(path)) if named is not None or path.is_file() else {}
        sinks = {**values.get("sinks", {}), **given.get("sinks", {})}
        values |= given
        values.setdefault("home", home)
        if sinks:
            values["sinks"] = sinks
        for group, kind in _SECTIONS.items():
            start = f"{group}."
            fields = {name.removeprefix(start): values.pop(name) for name in list(values) if name.startswith(start)}
            values[group] = kind(**fields)
        return cls(**values)

    def __post_init__(self) -> None:
        longest, ttl = self.retention.maximum, self.retention.ttl
        if longest is not None and (ttl is None or ttl > longest):
            raise ConfigurationError(
                f"retention.ttl is {'permanent' if ttl is None else f'{ttl:g} seconds'}, which is beyond"
                f" retention.maximum, {longest:g} seconds."
            )

    def __repr__(self) -> str:
        return f"Settings({self.masked()!r})"

    @property
    def hot_url(self) -> str:
        """Where the hot tier is: the SQLite file in the home unless set."""
        return self.hot or self._in_home("sqlite", "holdfast.sqlite")

    @property
    def warm_url(self) -> str:
        """Where the warm tier is: the same SQLite file unless set."""
        return self.warm or self._in_home("sqlite", "holdfast.sqlite")

    @property
    def cold_url(self) -> str:
        """Where the cold tier is: the directory ``cold`` in the home unless set."""
        return self.cold or self._in_home("file", "cold")

    @property
    def sink_urls(self) -> Mapping[str, str]:
        """Where each sink is: ``vectors`` and ``directory`` in the home, and what is set beside or over them."""
        embedded = {
            "vectors": self._in_home("vectors", "vectors.sqlite"),
            "directory": self._in_home("directory", "published"),
        }
        return {**embedded, **self.sinks}

    @property
    def key_path(self) -> Path:
        """The key file: ``keys.json`` in the home unless set."""
        return self.key_file or self.home / "keys.json"

    def masked(self) -> dict[str, Any]:
        """Every setting by its dotted name, in JSON-ready values and fit to be shown: secrets are masked."""
        shown: dict[str, Any] = {}
        for setting in SETTINGS:
            value: Any = self
            for part in setting.name.split("."):
                value = getattr(value, part)
            shown[setting.name] = _shown(setting, value)
        return shown

    def _in_home(self, scheme: str, name: str) -> str:
        return f"{scheme}://{quote(str((self.home / name).absolute()))}"


_SECTIONS: Mapping[str, type[Limits | Retention | Service | Auth]] = {
    "limits": Limits,
    "retention": Retention,
    "service": Service,
    "auth": Auth,
}


class Setting(NamedTuple):
    """One setting: its dotted name, its sort (a key of ``SORTS``), and what it means."""

    name: str
    sort: str
    meaning: str
    secret: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.replace(".", "__").upper()


SETTINGS = (
    Setting("home", "path", "The directory of everything that is embedded."),
    Setting("hot", "url", "The hot tier. None: `holdfast.sqlite` in the home."),
    Setting("warm", "url", "The warm tier. None: `holdfast.sqlite` in the home."),
    Setting("cold", "url", "The cold tier. None: the directory `cold` in the home."),
    Setting(
        "sinks",
        "urls",
        "Publishing targets by name; `vectors` (`vectors.sqlite`) and `directory` (`published`) are in the home unless"
        " set. In the environment a variable each: `HOLDFAST_SINKS__VECTORS`.",
    ),
    Setting("embedder", "word", "What turns text into vectors."),
    Setting("key_file", "path?", "The file of the key-encryption keys. None: `keys.json` in the home."),
    Setting(
        "keys",
        "keys",
        "The keys themselves, `id:base64` with commas between, the first is active; only from the environment, and"
        " instead of the file.",
        secret=True,
    ),
    Setting("limits.session_bytes", "bytes", "Bodies of all items of a session together."),
    Setting("limits.items", "count", "Items in a session."),
    Setting("limits.item_bytes", "bytes", "The body of one item."),
    Setting("limits.depth", "count", "Nesting of a JSON body."),
    Setting("limits.operations", "count", "Items changed by one change-set."),
    Setting("limits.sessions", "count", "Sessions of one owner that are not gone."),
    Setting("limits.labels", "count", "Labels of a session."),
    Setting("limits.grants", "count", "Grants on a session."),
    Setting("limits.source_bytes", "bytes", "A document handed to ingest."),
    Setting("retention.ttl", "time?", "How long a new session is kept. None: for good."),
    Setting("retention.sliding", "flag", "Whether each write starts that time anew."),
    Setting("retention.maximum", "time?", "How long after its creation a session can be kept at most. None: no bound."),
    Setting("grace", "time0", "How long what was discarded or expired can be restored. 0: it is gone at once."),
    Setting("lock", "time", "How long a preview holds the draft still."),
    Setting("lease", "time", "How long a lease lasts without a heartbeat."),
    Setting("sweep", "time", "How often the sweeper looks for what is due."),
    Setting(
        "suspend_after",
        "time?",
        "How long after its last write a session leaves the hot tier for the warm one, where the two are apart. None:"
        " never.",
    ),
    Setting(
        "archive_after",
        "time?",
        "How long after its last write a draft or published session goes to the cold tier. None: never.",
    ),
    Setting(
        "flush_queue",
        "count",
        "Writes that may wait for the warm tier, in each partition of the hot one; beyond it writes are refused.",
    ),
    Setting(
        "acknowledge",
        "acknowledged",
        "Which tier must have a write before it is acknowledged; `warm` waits for the warm one each time.",
    ),
    Setting("service.host", "text", "The address the service listens on. In local mode only a loopback one."),
    Setting("service.port", "port", "The port it listens on."),
    Setting("service.origins", "origins", "Origins whose pages may call it from a browser (CORS). Empty: none."),
    Setting(
        "service.body_bytes", "bytes", "The body of a request, but for an upload, which `limits.source_bytes` bounds."
    ),
    Setting("service.header_seconds", "time", "How long a peer may take for the head of a request."),
    Setting("service.body_seconds", "time", "How long a peer may take for the body of a request."),
    Setting("service.send_seconds", "time", "How long a peer may leave an answer or an event unread before it is cut."),
    Setting("service.idle_seconds", "time", "How long a connection is kept open between requests."),
    Setting(
        "service.stop_seconds", "time", "How long requests under way have to finish once the service is told to stop."
    ),
    Setting("service.heartbeat", "time", "How often a feed without news says that it is alive."),
    Setting("service.connections", "count", "Connections at a time; one more is answered 503."),
    Setting("service.streams", "count", "Feeds one principal may follow at a time."),
    Setting("service.rate", "count", "Requests a second of one principal, for each process."),
    Setting("service.burst", "count", "Requests of one principal at once, before the rate counts."),
    Setting("service.log", "level", "What is logged; `debug` logs every request."),
    Setting("auth.issuer", "text?", "Who issues the tokens (`iss`). None: local mode, with a token of the home's own."),
    Setting("auth.audience", "text?", "Whom the tokens are for (`aud`); must be set with an issuer."),
    Setting("auth.family", "family", "The one family of algorithms the issuer signs with."),
    Setting("auth.keys", "url", "The issuer's public keys as a JWKS: an https:// or file:// URL."),
    Setting(
        "auth.secret",
        "text?",
        "The shared secret of the HS family, 32 bytes or more; only from the environment.",
        secret=True,
    ),
    Setting("auth.type", "text", "The type a token must name in its head (`typ`)."),
    Setting("auth.leeway", "time0", "By how much clocks may differ."),
    Setting("auth.lifetime", "time", "How long a token may be valid at most, from `iat` to `exp`."),
    Setting("auth.tenant_claim", "text", "The claim that names the tenant; without it, the tenant is `default`."),
    Setting("auth.roles_claim", "text", "The claim that lists service roles: `admin`, `auditor`, `operator`."),
)
"""Every setting there is; the page docs/settings.md is made from this."""

BY_NAME = {setting.name: setting for setting in SETTINGS}


def default_home(environ: Mapping[str, str]) -> Path:
    """``HOLDFAST_HOME`` aside: ``holdfast`` in the user's data directory (XDG Base Directory Specification)."""
    shared = environ.get("XDG_DATA_HOME", "")
    if Path(shared).is_absolute():
        return Path(shared) / "holdfast"
    user = environ.get("HOME")
    return (Path(user) if user else Path.home()) / ".local" / "share" / "holdfast"


# -- the sources -----------------------------------------------------------------------------------------------------


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    sinks: dict[str, str] = {}
    for variable in sorted(environ):
        short = variable.removeprefix(PREFIX)
        if short == variable or short in OTHER_VARIABLES or short.startswith("TEST_"):
            continue
        name = short.lower().replace("__", ".")
        if name.startswith("sinks."):
            sinks |= _read("sinks", {name.removeprefix("sinks."): environ[variable]}, variable, Path.cwd())
        else:
            yield name, _read(name, environ[variable], variable, Path.cwd())
    if sinks:
        yield "sinks", sinks


def _from_file(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"There is no settings file {path}.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"The settings file {path} cannot be read: {error}.") from None
    for name, value in _leaves(tables):
        if name in BY_NAME and BY_NAME[name].secret:
            raise ConfigurationError(f"{path}: {name} is a secret and is not read from a settings file; use key_file.")
        yield name, _read(name, value, f"{name} in {path}", path.absolute().parent)


def _leaves(tables: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tables.items():
        name = start + key
        if isinstance(value, dict) and any(known.startswith(f"{name}.") for known in BY_NAME):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _read(name: str, value: Any, where: str, base: Path) -> Any:
    setting = BY_NAME.get(name)
    if setting is None:
        groups = [known for known in BY_NAME if known.startswith(f"{name}.")]
        near = groups or difflib.get_close_matches(name, BY_NAME, n=1)
        hint = f" Did you mean {', '.join(near)}?" if near else f" There are: {', '.join(BY_NAME)}."
        raise ConfigurationError(f"{where}: there is no setting {name!r}.{hint}")
    read, allowed = SORTS[setting.sort]
    try:
        return read(value, base)
    except ValueError:
        raise ConfigurationError(f"{where}: {_found(setting, value)}; allowed is {allowed}.") from None


def _found(setting: Setting, value: Any) -> str:
    """The value in words, for a message: what sort of thing it is, and itself unless it may hold a secret."""
    sorts = {bool: "a flag", int: "a number", float: "a number", str: "text", list: "a list", dict: "a table"}
    sort = sorts.get(type(value), f"a {type(value).__name__}")
    if setting.secret or setting.sort in ("url", "urls") or isinstance(value, list | dict):
        return f"the value is {sort}" + (" that does not fit" if isinstance(value, str) else "")
    return f"{value!r} is {sort}" + (" that does not fit" if isinstance(value, str) else "")


# -- showing them ----------------------------------------------------------------------------------------------------


def _shown(setting: Setting, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if setting.secret:
        return MASK
    if setting.sort == "url":
        return masked_url(value)
    if isinstance(value, tuple):
        return list(value)
    if setting.sort == "urls":
        return {name: masked_url(url) for name, url in value.items()}
    return str(value)


def masked_url(url: str) -> str:
    """A URL without its password and without the values of its query that are secrets by their name."""
    parts = urlsplit(url)
    netloc = parts.netloc
    user, at, host = netloc.rpartition("@")
    if at and ":" in user:
        netloc = f"{user.partition(':')[0]}:{MASK}@{host}"
    secret = re.compile(r"(?i)pass|pwd|secret|token|key|sig|credential")
    query = [(name, MASK if secret.search(name) else value) for name, value in parse_qsl(parts.query, True)]
    masked = parts._replace(netloc=netloc, query=urlencode(query, safe="*/:,"))
    return url if netloc == parts.netloc and MASK not in masked.query else urlunsplit(masked)


def settings_table() -> str:
    """Every setting as the Markdown of docs/settings.md: a table, and what each sort of value allows."""
    defaults = Settings(home=Path("~/.local/share/holdfast"))
    lines = ["| setting | environment | default | sort | what it is |", "|---|---|---|---|---|"]
    for setting in SETTINGS:
        value = defaults.masked()[setting.name]
        default = f"{value:g}" if isinstance(value, float) else str(value).lower()
        variable = f"{setting.variable}__NAME" if setting.sort == "urls" else setting.variable
        lines.append(f"| `{setting.name}` | `{variable}` | `{default}` | {setting.sort} | {setting.meaning} |")
    lines += ["", "| sort | what is allowed |", "|---|---|"]
    lines += [f"| {sort} | {allowed} |" for sort, (_, allowed) in SORTS.items()]
    return "\n".join(lines) + "\n"
