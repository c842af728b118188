"""The cold store in S3: the suite on a real server, credentials, TLS, addresses, large objects, and time."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from obstore import sign
from obstore.store import S3Store

from holdfast.errors import AlreadyExistsError, ConfigurationError, StoreUnavailableError
from holdfast.ports.cold import ColdStore
from holdfast.stores.cold.object_url import ObjectUrl
from holdfast.stores.cold.objects import ObjectColdStore
from holdfast.testing.cold import ColdStoreSuite, large
from holdfast.testing.objects import (
    Answer,
    Asked,
    Fault,
    Gateway,
    ObjectServer,
    give_credentials,
    object_server,
    take_credentials,
)


class TestObjectsInS3(ColdStoreSuite):
    @pytest.fixture
    def connect(self, objects: ObjectServer, place: str) -> Callable[[], ColdStore]:
        return partial(ObjectColdStore.open, objects.url(place))


class TestObjectsInS3WithoutAPrefix(ColdStoreSuite):
    @pytest.fixture
    def connect(self, objects: ObjectServer, place: str) -> Callable[[], ColdStore]:
        bucket = place.replace("/", "-")
        objects.make(bucket)
        return partial(ObjectColdStore.open, objects.url(bucket))


class TestObjectsInS3InOneRequestEach(ColdStoreSuite):
    @pytest.fixture
    def connect(self, objects: ObjectServer, place: str) -> Callable[[], ColdStore]:
        return partial(ObjectColdStore.open, objects.url(place, multipart="off"))


# -- credentials -----------------------------------------------------------------------------------------------------


async def test_credentials_come_from_the_environment_and_none_from_the_url(gateway: Gateway, place: str) -> None:
    store = ObjectColdStore.open(gateway.url(place, region="eu-north-1"))
    await store.put("blobs/a", b"data")
    signed = gateway.asked[0].headers["authorization"]
    assert signed.startswith("AWS4-HMAC-SHA256 Credential=holdfast-tests/")
    assert "/eu-north-1/s3/aws4_request" in signed
    assert "nobody-checks-it" not in str(gateway.asked)


async def test_credentials_come_from_the_role_of_an_instance(
    objects: ObjectServer, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_credentials(monkeypatch)
    async with Gateway().listening() as instance, Gateway(objects.address).listening() as gateway:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", instance.endpoint)
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        role = {
            "AccessKeyId": "of-the-role",
            "SecretAccessKey": "secret",
            "Token": "session",
            "Expiration": until.isoformat(timespec="seconds").replace("+00:00", "Z"),
        }

        def rule(asked: Asked) -> Answer:
            if asked.method == "PUT":
                return Answer(200, b"token")
            named = asked.target.rstrip("/").endswith("/holdfast")
            return Answer(200, msgspec.json.encode(role) if named else b"holdfast")

        instance.rule = rule
        store = ObjectColdStore.open(gateway.url(place))
        await store.put("blobs/a", b"data")
        await store.get("blobs/a")
        assert len(instance.asked) == 3  # once for both
        assert "Credential=of-the-role/" in gateway.asked[0].headers["authorization"]


async def test_where_nothing_gives_credentials_that_is_said_at_once(
    objects: ObjectServer, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_credentials(monkeypatch)
    async with Gateway().listening() as instance:
        instance.rule = lambda asked: Answer(404)
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", instance.endpoint)
        store = ObjectColdStore.open(objects.url(place))
        begun = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="no credentials"):
            await store.get("blobs/a")
        assert time.monotonic() - begun < 1


async def test_an_instance_that_does_not_answer_is_waited_for_no_longer_than_a_server(
    objects: ObjectServer, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_credentials(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        store = ObjectColdStore.open(objects.url(place, timeout="0.3"))
        for call in (store.get("blobs/a"), store.put("blobs/a", b"data"), store.delete("blobs/a")):
            begun = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="names no credentials"):
                await call
            assert time.monotonic() - begun < 0.8


def test_where_credentials_cannot_be_the_store_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    take_credentials(monkeypatch)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID"):
        ObjectColdStore.open("s3://holdfast")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-access-key")
    with pytest.raises(ConfigurationError, match="SecretAccessKey") as caught:
        ObjectColdStore.open("s3://holdfast")
    assert "the-access-key" not in str(caught.value)


# -- addresses -------------------------------------------------------------------------------------------------------


async def test_the_bucket_is_in_the_path_or_in_the_name_of_the_host(credentials: None) -> None:
    async with Gateway().listening() as gateway:
        gateway.rule = lambda asked: Answer(200, b"data", {"last-modified": "Sat, 21 Nov 2026 09:00:00 GMT"})
        await ObjectColdStore.open(gateway.url("bucket/a/b")).get("blobs/x")
        assert gateway.asked[-1].target == "/bucket/a/b/blobs/x"
        # The name resolves to nobody; the gateway is taken for a proxy to it.
        url = "s3://bucket/a/b?endpoint=http://objects.invalid&addressing=virtual"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HTTP_PROXY", gateway.endpoint)
            await ObjectColdStore.open(url).get("blobs/x")
        assert gateway.asked[-1].target == "http://bucket.objects.invalid/a/b/blobs/x"


@pytest.mark.parametrize(
    ("bucket", "more", "host", "path"),
    [
        ("bucket", "", "bucket.s3.us-east-1.amazonaws.com", "/blobs/x"),
        ("bucket", "?region=eu-central-1", "bucket.s3.eu-central-1.amazonaws.com", "/blobs/x"),
        ("bucket", "?addressing=path", "s3.us-east-1.amazonaws.com", "/bucket/blobs/x"),
        ("my.bucket", "", "s3.us-east-1.amazonaws.com", "/my.bucket/blobs/x"),
    ],
)
def test_without_an_endpoint_it_is_amazon_s_over_tls(
    credentials: None, bucket: str, more: str, host: str, path: str
) -> None:
    store = ObjectUrl.parse(f"s3://{bucket}{more}").store()
    assert isinstance(store, S3Store)
    signed = sign(store, "GET", "blobs/x", datetime.timedelta(minutes=1))
    assert signed.startswith(f"https://{host}{path}?")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
async def test_an_endpoint_without_tls_is_only_the_url_s_to_name(
    name: str, gateway: Gateway, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="Without TLS"):
        ObjectColdStore.open(f"s3://{place}")
    store = ObjectColdStore.open(gateway.url(place))  # and the URL's counts before the environment's
    await store.put("blobs/a", b"data")
    assert gateway.asked


async def test_an_endpoint_of_the_environment_is_used_with_tls(
    secure: ObjectServer, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_credentials(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", secure.endpoint)
    store = ObjectColdStore.open(f"s3://holdfast?ca={authority}")
    with pytest.raises(StoreUnavailableError, match="404 NoSuchBucket"):  # in the path, of a server without it
        await store.get("blobs/a")


# -- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that it has signed itself, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "objects of a test")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=12))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "certificate.pem").write_bytes(signed.public_bytes(pem))
    (folder / "key.pem").write_bytes(private)
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture(scope="session")
def authority(certificate: tuple[Path, Path]) -> Path:
    return certificate[0]


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[ObjectServer]:
    with object_server(tmp_path_factory.mktemp("secure"), certificate) as server:
        yield server


async def test_a_server_whose_certificate_nobody_vouches_for_is_not_spoken_to(
    secure: ObjectServer, authority: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ALLOW_INVALID_CERTIFICATES", "true")
    with pytest.raises(StoreUnavailableError, match="certificate is not trusted"):
        await ObjectColdStore.open(secure.url(place)).get("blobs/a")
    with pytest.raises(StoreUnavailableError, match="404 NoSuchBucket"):
        await ObjectColdStore.open(secure.url(place, ca=str(authority))).get("blobs/a")


def test_an_authority_that_is_not_there_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "nonsense.pem").write_text("nonsense")
    for name in ("none.pem", "nonsense.pem"):
        with pytest.raises(ConfigurationError):
            ObjectColdStore.open(f"s3://{place}?ca={tmp_path / name}")


# -- absent, unavailable, another ------------------------------------------------------------------------------------


async def test_a_bucket_that_is_not_there_is_no_absent_object(objects: ObjectServer, credentials: None) -> None:
    store = ObjectColdStore.open(objects.url("nobody-made-it"))
    for call in (store.put("a/b", b""), store.put("a/b", large(1)), store.get("a/b"), store.delete("a/b")):
        with pytest.raises(StoreUnavailableError, match="404 NoSuchBucket"):
            await call
    with pytest.raises(StoreUnavailableError, match="404 NoSuchBucket"):
        [key async for key in store.keys("a/")]
    await store.close()


async def test_of_a_race_that_the_server_has_not_decided_yet_the_outcome_is_waited_for(
    gateway: Gateway, place: str
) -> None:
    """S3 may answer a conditional put with 409 while another's is under way, which then may come to nothing."""
    store = ObjectColdStore.open(gateway.url(place))
    conflicts = [Answer(409, b"<Error><Code>ConditionalRequestConflict</Code></Error>")] * 2
    gateway.rule = lambda asked: conflicts.pop() if asked.method == "PUT" and conflicts else None
    await store.put("blobs/a", b"data")
    assert not conflicts
    assert await store.get("blobs/a") == b"data"


async def test_a_put_whose_answer_was_lost_finds_its_own_object(gateway: Gateway, place: str) -> None:
    store = ObjectColdStore.open(gateway.url(place))
    lost = [Fault(lost=True)]
    gateway.rule = lambda asked: lost.pop() if asked.method == "PUT" and lost else None
    await store.put("blobs/a", b"data")
    assert not lost
    with pytest.raises(AlreadyExistsError):
        await store.put("blobs/a", b"other")


# -- large objects ---------------------------------------------------------------------------------------------------


async def test_a_large_object_goes_in_parts_and_to_its_key_only_if_that_is_free(gateway: Gateway, place: str) -> None:
    store = ObjectColdStore.open(gateway.url(place))
    await store.put("blobs/large", large(1))
    await store.close()
    target = f"/{place}/blobs/large"
    parts = [asked for asked in gateway.asked if "partNumber=" in asked.target and "/.staging/" in asked.target]
    assert sorted(len(asked.body) for asked in parts) == [1 << 20, 8 << 20, 8 << 20]
    assert [a.method for a in gateway.asked if a.target == target] == ["HEAD"]
    ends = [
        a for a in gateway.asked if a.method == "POST" and a.target.startswith(target) and "uploads" not in a.target
    ]
    assert [asked.headers["if-none-match"] for asked in ends] == ["*"]
    assert max(len(asked.body) for asked in gateway.asked) == 8 << 20


async def test_a_large_object_that_is_there_is_not_sent_again(gateway: Gateway, place: str) -> None:
    store = ObjectColdStore.open(gateway.url(place))
    await store.put("blobs/large", large(1))
    del gateway.asked[:]
    await store.put("blobs/large", large(1))
    assert [asked.method for asked in gateway.asked if asked.target.startswith(f"/{place}/blobs/")] == ["HEAD", "GET"]
    await store.close()


@pytest.mark.parametrize("end", ["kept", "taken", "part refused", "cut short", "cancelled"])
async def test_nothing_is_left_in_staging(
    end: str, objects: ObjectServer, gateway: Gateway, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectColdStore.open(gateway.url(place, timeout="2"))
    if end == "taken":
        taken: list[Asked] = []

        def racer(asked: Asked) -> Answer | None:
            """Somebody comes first, after the store has looked."""
            if asked.method == "HEAD" and not taken:
                taken.append(asked)
                return Answer(404)
            return None

        await store.put("blobs/large", large(2))
        gateway.rule = racer
        with pytest.raises(AlreadyExistsError):
            await store.put("blobs/large", large(1))
        assert taken
    elif end == "part refused":
        gateway.rule = lambda asked: Answer(500) if "partNumber=2" in asked.target else None
        with pytest.raises(StoreUnavailableError):
            await store.put("blobs/large", large(1))
    elif end in ("cut short", "cancelled"):
        gateway.rule = lambda asked: Fault(late=60) if f"/{place}/blobs/large?partNumber" in asked.target else None
        monkeypatch.setattr("holdfast.stores.cold.objects._SLOWEST", 1 << 40)  # no seconds for its size
        putting = asyncio.ensure_future(store.put("blobs/large", large(1)))
        if end == "cancelled":
            while not any(f"/{place}/blobs/large?partNumber" in asked.target for asked in gateway.asked):
                await asyncio.sleep(0.01)
            putting.cancel()
        with pytest.raises((StoreUnavailableError, asyncio.CancelledError)):
            await putting
        monkeypatch.setattr("holdfast.stores.cold.objects._SLOWEST", 1 << 20)
    else:
        await store.put("blobs/large", large(1))
    await store.close()
    listed = objects.ask("GET", f"/holdfast?list-type=2&prefix={place.partition('/')[2]}/.staging/")
    assert b"<Contents>" not in listed
    gateway.heal()
    await store.put("blobs/large", large(2 if end == "taken" else 1))
    await store.close()


# -- time ------------------------------------------------------------------------------------------------------------


async def test_a_dead_port_is_told_within_a_second(place: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    store = ObjectColdStore.open(f"s3://{place}?endpoint=http://127.0.0.1:{port}")
    for call in (store.put("a/b", b"data"), store.put("a/b", large(1)), store.get("a/b"), store.delete("a/b")):
        begun = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="no connection"):
            await call
        assert time.monotonic() - begun < 1
    await store.close()


async def test_a_server_held_still_is_given_up_in_time_and_served_by_again(tmp_path: Path, credentials: None) -> None:
    with object_server(tmp_path) as server:
        server.make("holdfast")
        store = ObjectColdStore.open(server.url("holdfast", timeout="0.5"))
        await store.put("a/b", b"data")
        server.pause()

        async def listed() -> list[str]:
            return [key async for key in store.keys("a/")]

        calls: list[Any] = [store.put("a/c", b"data"), store.get("a/b"), store.delete("a/b"), listed()]
        for call in calls:
            begun = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="no answer within"):
                await call
            assert time.monotonic() - begun < 1
        server.go_on()
        await store.put("a/c", b"data")
        assert await store.get("a/c") == b"data"
