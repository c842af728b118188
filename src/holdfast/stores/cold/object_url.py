"""The URL of a cold tier: where its objects are, and how they are reached.

* ``file:///srv/cold``: a directory; ``memory://``: nowhere, for tests; neither takes a query.
* ``s3://bucket[/prefix]``: S3, or what speaks like it;
* ``gs://bucket[/prefix]``: Google Cloud Storage;
* ``az://container[/prefix]`` or ``abfs://container@account.dfs.core.windows.net[/prefix]``: Azure.

The query of the last three may name:

* ``endpoint``: where the server is, in place of the provider's own; ``http://`` only here, and TLS everywhere else;
* ``timeout``: seconds an answer is waited for, 10; an object's transfer has a second more for each MiB of it;
* ``ca``: a file of authorities to trust beside the system's;
* ``region`` (S3 only): ``AWS_REGION`` or ``us-east-1`` if not named;
* ``addressing`` (S3 only): ``virtual`` (the bucket in the host's name) or ``path``; ``path`` at an ``endpoint`` and for
  a bucket with a dot in its name, else ``virtual``;
* ``multipart`` (S3 only): ``off`` where a server cannot send large objects in parts, or copy them.

Credentials are never in it. They come from where obstore looks for them: ``AWS_ACCESS_KEY_ID`` and its like, a web
identity, a container's or an instance's role; ``GOOGLE_APPLICATION_CREDENTIALS`` and its like; ``AZURE_STORAGE_…``. The
profiles of ``~/.aws`` are not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, MemoryStore, S3Store

from holdfast.drivers.store_url import StoreUrl
from holdfast.errors import ConfigurationError
from holdfast.stores.cold.answers import reason
from holdfast.stores.cold.directory import made

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, ObjectStore, RetryConfig, S3Config

SCHEMES = ("file", "memory", "s3", "gs", "az", "abfs")
PATIENCE = 10.0

_COMMON = frozenset({"endpoint", "timeout", "ca"})
_OPTIONS: Mapping[str, frozenset[str]] = {
    "file": frozenset(),
    "memory": frozenset(),
    "s3": _COMMON | {"region", "addressing", "multipart"},
    "gs": _COMMON,
    "az": _COMMON,
    "abfs": _COMMON,
}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_PREFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._=-]{0,199}")
_AZURE_HOST = re.compile(r"([a-z0-9]{3,24})\.(?:dfs|blob)\.core\.windows\.net")

_CONNECT = timedelta(seconds=2)
_LONGEST = timedelta(hours=1)
"""obstore's own limit on a request counts its whole body, however large; the store sets limits by the size."""
_RETRIES = 2
"""On a dead port 0.25 s; obstore's own ten are 6.3 s, and whoever asked can ask again."""

_S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_S3_CREDENTIALS = (
    *("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)


class ObjectUrl(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL says, with the defaults.

    Attributes:
        bucket: or container; the path of a directory.
        account: of Azure, None where the environment names it.
        patience: seconds an answer is waited for.
        parts: whether large objects are sent in parts.
    """

    scheme: str
    bucket: str = ""
    prefix: str | None = None
    account: str | None = None
    endpoint: str | None = None
    region: str | None = None
    virtual: bool = False
    ca: str | None = None
    patience: float = PATIENCE
    parts: bool = False

    @classmethod
    def parse(cls, url: str) -> ObjectUrl:
        """Read a URL.

        Raises:
            ConfigurationError: it cannot be; says what is allowed, and shows nothing of the URL but its scheme and the
                names in its query.
        """
        read = StoreUrl(url, "The URL of the cold tier")
        parts, given = read.parts, read.query
        scheme = parts.scheme
        if scheme not in _OPTIONS:
            raise ConfigurationError(f"{scheme}:// is no URL of a cold tier; there are: {', '.join(SCHEMES)}.")
        read.check_known(f"{scheme}://", _OPTIONS[scheme])
        if parts.fragment or ":" in parts.netloc.rpartition("@")[2]:
            raise ConfigurationError(f"{scheme}:// takes no port and no fragment; a server is named by endpoint=.")
        if scheme == "memory":
            if parts.netloc or parts.path.strip("/"):
                raise ConfigurationError("memory:// takes nothing after it.")
            return cls(scheme=scheme)
        if scheme == "file":
            if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
                raise ConfigurationError("file:// is followed by a whole path: file:///srv/cold.")
            return cls(scheme=scheme, bucket=unquote(parts.path))
        bucket, account = _bucket(parts)
        endpoint = _endpoint(given.get("endpoint"))
        return cls(
            scheme=scheme,
            bucket=bucket,
            account=account,
            prefix=_prefix(parts),
            endpoint=endpoint,
            region=_one_of("region", given.get("region"), _REGION, "as in eu-central-1"),
            virtual=_virtual(bucket, endpoint, given.get("addressing")),
            ca=given.get("ca"),
            patience=read.number("timeout", PATIENCE, 0.05, 600),
            parts=scheme == "s3" and read.flag("multipart", True),
        )

    @property
    def unnamed(self) -> bool:
        """Whether the environment names no credentials of S3, so that the instance is asked for those of its role."""
        return self.scheme == "s3" and not any(os.environ.get(name) for name in _S3_CREDENTIALS)

    def store(self) -> ObjectStore:
        """obstore's store of this URL; a directory is made, with mode 0700. No request is sent.

        Raises:
            ConfigurationError: what is needed beside the URL is not there: a directory, an account, a credential.
        """
        try:
            if self.scheme == "file":
                return LocalStore(prefix=made(Path(self.bucket)))
            if self.scheme == "memory":
                return MemoryStore()
            if self.scheme == "s3":
                return self._s3()
            return self._gs() if self.scheme == "gs" else self._az()
        except OSError as error:
            raise ConfigurationError(f"The cold store cannot be opened: {error}.") from None
        except (BaseError, ValueError) as error:
            # Of these the first line is a sentence, such as "Account must be specified"; none quotes a value.
            said = str(error).partition("\n")[0].rstrip(". ") if "status code" not in str(error) else reason(error)
            raise ConfigurationError(f"The cold store cannot be opened: {said[:300]}.") from None

    def _s3(self) -> S3Store:
        if self.unnamed and os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            raise ConfigurationError(
                "The environment names no credentials for S3, and AWS_EC2_METADATA_DISABLED forbids to ask the "
                "instance for those of its role. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        # Large objects are copied to their key on the condition that it is free, which S3 checks at the end of a
        # multi-part upload. A bulk delete of one object is no gain, and not every server has it.
        config: S3Config = {"copy_if_not_exists": "multipart", "disable_bulk_delete": True}
        if self.endpoint is not None:
            server = self._virtual_endpoint() if self.virtual else self.endpoint
            config |= {"endpoint": server, "aws_endpoint_url_s3": server}
        else:
            for name in _S3_ENDPOINTS:
                if os.environ.get(name, "").lower().startswith("http:"):
                    raise ConfigurationError(
                        f"{name} is an http:// endpoint. Without TLS only where the URL asks: ?endpoint=http://…"
                    )
        if "AWS_VIRTUAL_HOSTED_STYLE_REQUEST" not in os.environ or self.endpoint is not None:
            environment = any(os.environ.get(name) for name in _S3_ENDPOINTS)
            config["virtual_hosted_style_request"] = self.virtual and (self.endpoint is not None or not environment)
        if self.region is not None:
            config["region"] = self.region
        return S3Store(
            self.bucket,
            prefix=self.prefix,
            config=config,
            client_options=self._client(),
            retry_config=self._retries(),
        )

    def _gs(self) -> GCSStore:
        config: GCSConfig = {} if self.endpoint is None else {"base_url": self.endpoint}
        return GCSStore(
            self.bucket,
            prefix=self.prefix,
            config=config,
            client_options=self._client(),
            retry_config=self._retries(),
        )

    def _az(self) -> AzureStore:
        config: AzureConfig = {}
        if self.account is not None:
            config["account_name"] = self.account
        if self.endpoint is not None:
            config["endpoint"] = self.endpoint
        return AzureStore(
            self.bucket,
            prefix=self.prefix,
            config=config,
            client_options=self._client(),
            retry_config=self._retries(),
        )

    def _client(self) -> ClientConfig:
        # Both are said in so many words: obstore takes them from the environment too (AWS_ALLOW_HTTP).
        client: ClientConfig = {
            "allow_http": (self.endpoint or "").startswith("http:"),
            "allow_invalid_certificates": False,
            "connect_timeout": _CONNECT,
            "timeout": _LONGEST,
        }
        if self.ca is not None:
            client["root_certificate"] = Path(self.ca).read_bytes()
        return client

    def _retries(self) -> RetryConfig:
        return {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=self.patience)}

    def _virtual_endpoint(self) -> str:
        """obstore wants the bucket in the endpoint's name."""
        scheme, _, server = (self.endpoint or "").partition("://")
        return f"{scheme}://{self.bucket}.{server}"


def _bucket(parts: SplitResult) -> tuple[str, str | None]:
    """The bucket or container, and the account of Azure if it is named."""
    where, account = parts.netloc, None
    if parts.scheme == "abfs" and "@" in where:
        where, _, host = where.partition("@")
        match = _AZURE_HOST.fullmatch(host)
        if match is None:
            raise ConfigurationError("abfs:// names its account as container@account.dfs.core.windows.net.")
        account = match[1]
    elif "@" in where:
        raise ConfigurationError(
            f"{parts.scheme}:// takes no user and no password: credentials come from the environment or a role."
        )
    if _BUCKET.fullmatch(where) is None:
        raise ConfigurationError(f"{parts.scheme}:// is followed by the name of a bucket or container, then a prefix.")
    return where, account


def _prefix(parts: SplitResult) -> str | None:
    names = [unquote(name) for name in parts.path.strip("/").split("/")] if parts.path.strip("/") else []
    if not all(_PREFIX.fullmatch(name) for name in names):
        raise ConfigurationError(
            f"The prefix of {parts.scheme}:// is names of A-Z, a-z, 0-9, with . _ = - within, joined by /."
        )
    return "/".join(names) or None


def _endpoint(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            "endpoint is https://host[:port], or http:// for no TLS, and no user or password in it."
        )
    return text.rstrip("/")


def _virtual(bucket: str, endpoint: str | None, text: str | None) -> bool:
    if text not in (None, "virtual", "path"):
        raise ConfigurationError("addressing is virtual or path.")
    # No certificate of a wildcard fits a bucket with a dot in its name.
    return text == "virtual" if text else endpoint is None and "." not in bucket


def _one_of(name: str, text: str | None, allowed: re.Pattern[str], words: str) -> str | None:
    if text is not None and allowed.fullmatch(text) is None:
        raise ConfigurationError(f"{name} is a name, {words}.")
    return text
