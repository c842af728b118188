"""Redis over TLS (``rediss://``): whom the hot tier trusts, and that lanes work there as they do without."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from holdfast.errors import ConfigurationError, StoreUnavailableError
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.samples import NOW, write_at
from holdfast.testing.servers import RedisServer, free_port, redis_server

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Authority(NamedTuple):
    """Who signs certificates, and the file that whoever trusts it has."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    file: Path

    @classmethod
    def create(cls, folder: Path) -> Authority:
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority of a test, {folder.name}")])
        own = cls(name, key, folder / "authority.pem")
        signed = own._about(name, key).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        own.file.write_bytes(signed.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return own

    def certify(self, address: str) -> tuple[Path, Path]:
        """A certificate of an address and its key, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis of a test")])
        address_of = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        signed = self._about(name, key).add_extension(address_of, critical=False).sign(self.key, hashes.SHA256())
        certificate, private = self.file.with_name(f"{address}.pem"), self.file.with_name(f"{address}.key")
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, private

    def _about(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=12))
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority.create(folder / "ours")


def secured(certificate: Path, key: Path, authority: Authority) -> dict[str, str]:
    """Settings of a server that speaks TLS on a port of its own, beside the one that the test asks it by."""
    return {
        "tls_port": str(free_port()),
        "tls_cert_file": str(certificate),
        "tls_key_file": str(key),
        "tls_ca_cert_file": str(authority.file),
        "tls_auth_clients": "no",
    }


@pytest.fixture(scope="module")
def server(folder: Path, authority: Authority) -> Iterator[RedisServer]:
    settings = secured(*authority.certify("127.0.0.1"), authority)
    try:
        with redis_server(folder / "redis", **settings) as server:
            yield server
    except RuntimeError as error:
        if os.environ.get("CI") or "tls" not in str(error).lower():
            raise
        pytest.skip("this redis-server is built without TLS")


def url(server: RedisServer, ca: Path | None) -> str:
    port = server.settings["tls-port"]
    return f"rediss://127.0.0.1:{port}?timeout=10&connect=5" + ("" if ca is None else f"&ca={ca}")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_with_a_certificate_of_the_named_authority_is_spoken_to(
    loop: str, server: RedisServer, authority: Authority
) -> None:
    async def speak() -> None:
        store = await RedisHotStore.open(f"{url(server, authority.file)}&prefix={loop}")
        big = {b"%d" % number: bytes([number]) * 200_000 for number in range(10)}  # many records of TLS each way
        assert await store.write(write_at("s", 1, items=big), now=NOW)
        await asyncio.gather(*(store.write(write_at(f"t{number}", 1, items=[b"i"]), now=NOW) for number in range(64)))
        loaded = await store.load("s")
        assert loaded is not None
        assert {item.id: len(item.sealed or b"") for item in loaded[1]} == dict.fromkeys(big, 200_000)
        heads = await asyncio.gather(*(store.head(f"t{number}") for number in range(64)))
        assert [head.id for head in heads if head is not None] == [f"t{number}" for number in range(64)]
        await store.close()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(speak())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_that_is_killed_and_comes_back_is_spoken_to_again(
    loop: str, server: RedisServer, authority: Authority
) -> None:
    """F03, F08: nobody waits for a connection that is gone."""

    async def speak() -> None:
        store = await RedisHotStore.open(f"{url(server, authority.file)}&prefix=killed-{loop}")
        assert await store.write(write_at("s", 1), now=NOW)
        server.pause()
        asking = [asyncio.ensure_future(store.head("s")) for _ in range(8)]
        await asyncio.sleep(0.05)
        server.kill()
        for one in asking:
            with pytest.raises(StoreUnavailableError):
                await asyncio.wait_for(one, 2)
        await asyncio.to_thread(server.start)
        head = await store.head("s")
        assert head is not None
        assert head.step == 1
        await store.close()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(speak())


async def test_a_certificate_of_another_authority_is_refused_with_what_to_set(
    server: RedisServer, folder: Path
) -> None:
    other = Authority.create(folder / "theirs")
    for ca in (other.file, None):
        with pytest.raises(ConfigurationError, match=r"certificate .* is not accepted .* with ca in the URL"):
            await RedisHotStore.open(url(server, ca))


async def test_a_certificate_of_another_address_is_refused(folder: Path, authority: Authority) -> None:
    settings = secured(*authority.certify("127.0.0.2"), authority)
    with (
        redis_server(folder / "elsewhere", **settings) as server,
        pytest.raises(ConfigurationError, match=r"not accepted .*address"),
    ):
        await RedisHotStore.open(url(server, authority.file))


async def test_a_file_of_authorities_that_is_not_there_is_a_matter_of_the_settings(
    server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").write_bytes(b"")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(ConfigurationError, match=r"ca in the URL .* cannot be read as certificates"):
            await RedisHotStore.open(url(server, tmp_path / name))


async def test_without_tls_such_a_port_lets_nobody_in_and_the_other_way_round(server: RedisServer) -> None:
    for wrong in (
        f"redis://127.0.0.1:{server.settings['tls-port']}",
        f"rediss://127.0.0.1:{server.port}",
    ):
        with pytest.raises((ConfigurationError, StoreUnavailableError)):
            await RedisHotStore.open(wrong)
