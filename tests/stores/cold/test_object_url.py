"""What the URL of a cold tier may say, and what of it is never shown."""

from __future__ import annotations

import pytest
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from holdfast.errors import ConfigurationError
from holdfast.settings import masked_url
from holdfast.stores.cold.object_url import ObjectUrl
from holdfast.testing.objects import give_credentials, take_credentials

ENDPOINT = "https://objects.example:9000"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///srv/my%20cold", ObjectUrl(scheme="file", bucket="/srv/my cold")),
        ("file://localhost/srv/cold", ObjectUrl(scheme="file", bucket="/srv/cold")),
        ("memory://", ObjectUrl(scheme="memory")),
        ("s3://bucket", ObjectUrl(scheme="s3", bucket="bucket", virtual=True, parts=True)),
        (
            f"s3://bucket/a/b/?endpoint={ENDPOINT}/&region=eu-north-1&timeout=2.5&ca=/etc/ca.pem&multipart=off",
            ObjectUrl(
                scheme="s3",
                bucket="bucket",
                prefix="a/b",
                endpoint=ENDPOINT,
                region="eu-north-1",
                patience=2.5,
                ca="/etc/ca.pem",
            ),
        ),
        ("gs://bucket/prefix", ObjectUrl(scheme="gs", bucket="bucket", prefix="prefix", virtual=True)),
        ("az://container/prefix", ObjectUrl(scheme="az", bucket="container", prefix="prefix", virtual=True)),
        (
            "abfs://container@account.dfs.core.windows.net/prefix",
            ObjectUrl(scheme="abfs", bucket="container", account="account", prefix="prefix", virtual=True),
        ),
    ],
)
def test_a_url_says_where_objects_are(url: str, said: ObjectUrl) -> None:
    assert ObjectUrl.parse(url) == said


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/path", "s3"),
        ("s3://", "name of a bucket"),
        ("s3:///prefix", "name of a bucket"),
        ("s3://bucket:9000/prefix", "endpoint"),
        ("s3://bucket/prefix#part", "fragment"),
        ("s3://bucket/a/../b", "prefix"),
        ("s3://bucket/a//b", "prefix"),
        ("s3://bucket/.hidden", "prefix"),
        ("s3://bucket?colour=red", "addressing, ca, endpoint, multipart, region, timeout"),
        ("s3://bucket?access_key_id=hunter2", "takes no access_key_id"),
        ("s3://hunter2:hunter2@bucket", "environment or a role"),
        ("s3://hunter2@bucket", "environment or a role"),
        ("gs://hunter2@bucket", "environment or a role"),
        ("gs://bucket?region=here", "takes no region"),
        ("az://container?addressing=path", "takes no addressing"),
        ("abfs://container@hunter2.example", "dfs.core.windows.net"),
        ("s3://bucket?endpoint=objects.example", "endpoint is"),
        ("s3://bucket?endpoint=ftp://objects.example", "endpoint is"),
        ("s3://bucket?endpoint=https://hunter2:hunter2@objects.example", "endpoint is"),
        ("s3://bucket?endpoint=https://objects.example:hunter2", "endpoint is"),
        ("s3://bucket?endpoint=https://", "endpoint is"),
        ("s3://bucket?timeout=soon", "timeout is"),
        ("s3://bucket?timeout=0", "timeout is"),
        ("s3://bucket?timeout=nan", "timeout is"),
        ("s3://bucket?addressing=none", "addressing is"),
        ("s3://bucket?multipart=perhaps", "multipart is"),
        ("s3://bucket?region=hunter2/../", "region is"),
        ("s3://bucket?=", "takes no"),
        ("s3://bucket?nothing", "cannot be read"),
        ("file://srv/cold", "whole path"),
        ("file:///srv/cold?timeout=1", "takes none"),
        ("memory://here", "nothing after it"),
        ("memory://?timeout=1", "takes none"),
    ],
)
def test_what_cannot_be_is_refused_and_not_shown(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ObjectUrl.parse(url)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value).replace("takes no hunter2", "")


@pytest.mark.parametrize(
    ("url", "store"),
    [
        ("memory://", MemoryStore),
        ("s3://bucket/prefix", S3Store),
        ("gs://bucket/prefix", GCSStore),
        ("abfs://container@account.dfs.core.windows.net/prefix", AzureStore),
    ],
)
def test_a_scheme_opens_its_store_without_a_request(
    url: str, store: type[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    give_credentials(monkeypatch)
    opened = ObjectUrl.parse(url).store()
    assert isinstance(opened, store)
    assert getattr(opened, "prefix", "prefix") == "prefix"


def test_azure_needs_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    take_credentials(monkeypatch)
    with pytest.raises(ConfigurationError, match="Account must be specified"):
        ObjectUrl.parse("az://container").store()
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert isinstance(ObjectUrl.parse("az://container").store(), AzureStore)


def test_a_url_is_shown_in_the_settings_without_what_may_be_secret() -> None:
    shown = masked_url(f"s3://me:hunter2@bucket/prefix?endpoint={ENDPOINT}&secret_access_key=hunter2&token=hunter2")
    assert "hunter2" not in shown
    assert "endpoint=" in shown
    assert masked_url(f"s3://bucket/prefix?endpoint={ENDPOINT}") == f"s3://bucket/prefix?endpoint={ENDPOINT}"
