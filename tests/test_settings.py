"""Settings: what is read, from where, which wins, and what is refused in which words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from holdfast.errors import ConfigurationError
from holdfast.model.limits import Limits
from holdfast.model.retention import Retention
from holdfast.settings import MASK, SETTINGS, Settings, masked_url, settings_table
from holdfast.settings.sorts import SORTS

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
SECRET = "k1:c2VjcmV0IGtleSBtYXRlcmlhbCBvZiB0aGUgdGVzdHM="


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "PATH": "/bin"}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def leaves(struct: type[msgspec.Struct], start: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from leaves(field.type, f"{start}{field.name}.")
        else:
            yield start + field.name


# -- the sources ---------------------------------------------------------------------------------------------------


def test_with_nothing_set_everything_is_embedded_in_the_users_data_directory(
    environ: dict[str, str], tmp_path: Path
) -> None:
    settings = Settings.load(environ)
    home = tmp_path / ".local" / "share" / "holdfast"
    assert settings == Settings(home=home)
    assert settings.hot_url == settings.warm_url == f"sqlite://{home}/holdfast.sqlite"
    assert settings.cold_url == f"file://{home}/cold"
    assert settings.sink_urls == {
        "vectors": f"vectors://{home}/vectors.sqlite",
        "directory": f"directory://{home}/published",
    }
    assert settings.key_path == home / "keys.json"
    assert settings.limits == Limits()
    assert settings.retention == Retention()
    assert (settings.grace, settings.lock, settings.lease, settings.sweep) == (7 * 86_400, 900, 30, 60)


def test_the_data_directory_of_xdg_is_used_if_it_is_absolute(environ: dict[str, str], tmp_path: Path) -> None:
    assert Settings.load(environ | {"XDG_DATA_HOME": "/srv/data"}).home == Path("/srv/data/holdfast")
    assert Settings.load(environ | {"XDG_DATA_HOME": "data"}).home == tmp_path / ".local" / "share" / "holdfast"


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(
    environ: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path / "holdfast.toml", "lock = 60\nlease = 10\n[limits]\nitems = 5\nlabels = 6\n")
    settings = Settings.load(
        environ | {"HOLDFAST_HOME": str(tmp_path), "HOLDFAST_LIMITS__ITEMS": "7", "HOLDFAST_LOCK": "1m"}
    )
    assert (settings.lock, settings.lease, settings.sweep) == (60, 10, 60)
    assert settings.limits == Limits(items=7, labels=6)


def test_the_file_is_that_of_the_home_or_the_one_that_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / ".local" / "share" / "holdfast" / "holdfast.toml", "lease = 1")
    other = write(tmp_path / "other.toml", "lease = 2")
    third = write(tmp_path / "third.toml", "lease = 3")
    assert Settings.load(environ).lease == 1
    assert Settings.load(environ | {"HOLDFAST_CONFIG": str(other)}).lease == 2
    assert Settings.load(environ | {"HOLDFAST_CONFIG": str(other)}, file=third).lease == 3


def test_sinks_of_the_file_and_of_the_environment_are_one_table(environ: dict[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / "holdfast.toml", '[sinks]\nvectors = "qdrant://one"\narchive = "file:///srv/archive"\n')
    settings = Settings.load(environ | {"HOLDFAST_SINKS__VECTORS": "qdrant://two"}, file=file)
    assert settings.sinks == {"vectors": "qdrant://two", "archive": "file:///srv/archive"}
    assert set(settings.sink_urls) == {"vectors", "archive", "directory"}
    assert settings.sink_urls["vectors"] == "qdrant://two"


def test_the_home_may_stand_in_the_file_and_paths_in_it_are_relative_to_it(
    environ: dict[str, str], tmp_path: Path
) -> None:
    file = write(tmp_path / "conf" / "holdfast.toml", 'home = "../data"\nkey_file = "keys.json"\n')
    settings = Settings.load(environ, file=file)
    assert settings.home.resolve() == tmp_path / "data"
    assert settings.key_path == tmp_path / "conf" / "keys.json"
    assert Settings.load(environ | {"HOLDFAST_HOME": "/srv/x"}, file=file).home == Path("/srv/x")


def test_variables_that_are_no_settings_are_left_alone(environ: dict[str, str]) -> None:
    others = {"HOLDFAST_DEBUG": "1", "HOLDFAST_TEST_SEED": "5", "HOLDFASTER": "x"}
    others |= {"HOLDFAST_URL": "http://127.0.0.1:8420", "HOLDFAST_TOKEN": "a token"}  # the client's
    assert Settings.load(environ | others) == Settings.load(environ)


def test_a_home_with_odd_characters_gives_urls_that_lead_back_to_it(environ: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "a b#c?d%e"
    assert Settings.load(environ | {"HOLDFAST_HOME": str(home)}).cold_url == (home / "cold").as_uri()


def test_settings_are_those_of_this_process_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path))
    monkeypatch.setenv("HOLDFAST_LEASE", "7s")
    assert (Settings.load().home, Settings.load().lease) == (tmp_path, 7)


# -- values --------------------------------------------------------------------------------------------------------

GOOD = [
    ("HOLDFAST_GRACE", "0", "grace", 0),
    ("HOLDFAST_GRACE", "2w", "grace", 14 * 86_400),
    ("HOLDFAST_LOCK", "15m", "lock", 900),
    ("HOLDFAST_LEASE", "1.5", "lease", 1.5),
    ("HOLDFAST_LEASE", "250 ms", "lease", 0.25),
    ("HOLDFAST_RETENTION__TTL", "none", "retention.ttl", None),
    ("HOLDFAST_RETENTION__TTL", "permanent", "retention.ttl", None),
    ("HOLDFAST_RETENTION__TTL", "7d", "retention.ttl", 7 * 86_400),
    ("HOLDFAST_RETENTION__SLIDING", "no", "retention.sliding", False),
    ("HOLDFAST_RETENTION__SLIDING", "TRUE", "retention.sliding", True),
    ("HOLDFAST_LIMITS__SESSION_BYTES", "20MB", "limits.session_bytes", 20_000_000),
    ("HOLDFAST_LIMITS__ITEM_BYTES", "1 MiB", "limits.item_bytes", 2**20),
    ("HOLDFAST_LIMITS__SOURCE_BYTES", "1_000", "limits.source_bytes", 1_000),
    ("HOLDFAST_LIMITS__ITEMS", "500", "limits.items", 500),
    ("HOLDFAST_EMBEDDER", "lexical", "embedder", "lexical"),
    ("HOLDFAST_SUSPEND_AFTER", "never", "suspend_after", None),
    ("HOLDFAST_ARCHIVE_AFTER", "30d", "archive_after", 30 * 86_400),
    ("HOLDFAST_FLUSH_QUEUE", "500", "flush_queue", 500),
    ("HOLDFAST_ACKNOWLEDGE", "warm", "acknowledge", "warm"),
    ("HOLDFAST_COLD", "s3://bucket/prefix", "cold", "s3://bucket/prefix"),
    ("HOLDFAST_COLD", "none", "cold", None),
    ("HOLDFAST_KEY_FILE", "/run/keys.json", "key_file", Path("/run/keys.json")),
    ("HOLDFAST_KEY_FILE", "none", "key_file", None),
    ("HOLDFAST_KEYS", SECRET, "keys", SECRET),
]


@pytest.mark.parametrize(("variable", "text", "name", "value"), GOOD)
def test_a_value_is_read_as_its_sort(
    environ: dict[str, str], variable: str, text: str, name: str, value: object
) -> None:
    found: object = Settings.load(environ | {variable: text})
    for part in name.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) in (type(value), float) or isinstance(value, Path)


BAD = [
    *((f"HOLDFAST_LIMITS__{name}", text) for name in ("ITEMS", "SESSION_BYTES") for text in
      ("", "many", "0", "-1", "1.5", "1e3", "nan", "10 parsecs", "none", "99999999999999999999", "٣")),
    ("HOLDFAST_LIMITS__ITEMS", "10MB"),
    *(("HOLDFAST_LEASE", text) for text in ("", "soon", "0", "-5", "5 parsecs", "5MB", "inf", "none", "1h30m", "101y")),
    ("HOLDFAST_LEASE", "99999999w"),
    ("HOLDFAST_GRACE", "-1"),
    ("HOLDFAST_RETENTION__TTL", "0"),
    ("HOLDFAST_RETENTION__SLIDING", "perhaps"),
    ("HOLDFAST_RETENTION__SLIDING", "2"),
    ("HOLDFAST_EMBEDDER", "../lexical"),
    *(("HOLDFAST_ACKNOWLEDGE", text) for text in ("", "cold", "disk", "Warm", "none")),
    *(("HOLDFAST_FLUSH_QUEUE", text) for text in ("0", "none", "1.5")),
    *(("HOLDFAST_SUSPEND_AFTER", text) for text in ("0", "soon", "-1")),
    ("HOLDFAST_HOT", "/srv/holdfast.sqlite"),
    ("HOLDFAST_HOT", "redis://host:port:x[/"),
    ("HOLDFAST_HOME", " "),
    ("HOLDFAST_HOME", "a\0b"),
    ("HOLDFAST_KEYS", " "),
    ("HOLDFAST_SINKS__VECTORS", "nowhere"),
    ("HOLDFAST_SINKS__VECTORS", "none"),
    ("HOLDFAST_SINKS__A.B", "file:///x"),
]  # fmt: skip


@pytest.mark.parametrize(("variable", "text"), BAD)
def test_a_value_of_another_sort_is_refused_and_the_message_names_it_and_what_is_allowed(
    environ: dict[str, str], variable: str, text: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(environ | {variable: text})
    assert variable in str(caught.value)
    assert "allowed is" in str(caught.value)


FILES = [
    ("limits = 5", "limits"),
    ("[limits]\nitems = true", "limits.items"),
    ("[limits]\nitems = [1]", "limits.items"),
    ("[limits]\nitems = 1.5", "limits.items"),
    ("[retention]\nsliding = 1", "retention.sliding"),
    ("[retention]\nttl = nan", "retention.ttl"),
    ("lock = 2026-01-01", "lock"),
    ("embedder = 5", "embedder"),
    ("hot = 5", "hot"),
    ("home = 5", "home"),
    ("sinks = 5", "sinks"),
    ("[sinks]\nvectors = 5", "sinks"),
    ("[sinks.vectors]\nurl = 'file:///x'", "sinks"),
    ("[limits]\nitms = 5", "limits.items"),
    ("[limmits]\nitems = 5", "limits"),
    ("color = 'red'", "color"),
]


@pytest.mark.parametrize(("text", "named"), FILES)
def test_a_file_with_what_is_unknown_or_of_another_sort_is_refused_by_name(
    environ: dict[str, str], tmp_path: Path, text: str, named: str
) -> None:
    file = write(tmp_path / "holdfast.toml", text)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(environ, file=file)
    assert named in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("text", ["lock = ", "\xff"])
def test_a_file_that_is_no_toml_is_refused(environ: dict[str, str], tmp_path: Path, text: str) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Settings.load(environ, file=file)


def test_a_file_that_is_named_must_be_there(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no settings file"):
        Settings.load(environ, file=tmp_path / "nowhere.toml")
    with pytest.raises(ConfigurationError, match="no settings file"):
        Settings.load(environ | {"HOLDFAST_CONFIG": str(tmp_path / "nowhere.toml")})


@pytest.mark.parametrize(
    ("variable", "hint"),
    [("HOLDFAST_LIMTS__ITEMS", "limits.items"), ("HOLDFAST_LIMITS", "limits.items"), ("HOLDFAST_ZZZ", "retention.ttl")],
)
def test_an_unknown_variable_is_refused_with_the_nearest_that_is_known(
    environ: dict[str, str], variable: str, hint: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{variable}: there is no setting.*{hint}"):
        Settings.load(environ | {variable: "5"})


@pytest.mark.parametrize("given", [{"HOLDFAST_RETENTION__TTL": "2h"}, {"HOLDFAST_RETENTION__TTL": "none"}])
def test_a_time_to_live_beyond_the_maximum_is_refused(environ: dict[str, str], given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"retention\.maximum"):
        Settings.load(environ | given | {"HOLDFAST_RETENTION__MAXIMUM": "1h"})
    assert Settings.load(environ | given).retention.maximum is None


# -- secrets -------------------------------------------------------------------------------------------------------


def test_s27_secrets_are_masked_wherever_settings_are_shown(environ: dict[str, str]) -> None:
    settings = Settings.load(
        environ
        | {
            "HOLDFAST_KEYS": SECRET,
            "HOLDFAST_HOT": "redis://ana:hunter2@host:6379/0",
            "HOLDFAST_COLD": "s3://bucket/p?secret_access_key=hunter2&region=x",
            "HOLDFAST_SINKS__SQL": "postgresql://ana:hunter2@host/db",
        }
    )
    shown = settings.masked()
    assert shown["keys"] == MASK
    assert shown["hot"] == "redis://ana:***@host:6379/0"
    assert shown["cold"] == "s3://bucket/p?secret_access_key=***&region=x"
    assert shown["sinks"] == {"sql": "postgresql://ana:***@host/db"}
    for text in (repr(settings), str(settings), msgspec.json.encode(shown).decode()):
        assert "hunter2" not in text
        assert SECRET not in text
    assert settings.keys == SECRET


def test_s27_keys_are_not_read_from_a_settings_file(environ: dict[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / "holdfast.toml", f'keys = "{SECRET}"')
    with pytest.raises(ConfigurationError, match="key_file") as caught:
        Settings.load(environ, file=file)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("variable", ["HOLDFAST_HOT", "HOLDFAST_SINKS__SQL"])
def test_s27_no_message_shows_a_url_that_may_hold_a_password(environ: dict[str, str], variable: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(environ | {variable: "ana:hunter2@host"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["file:///srv/cold", "s3://bucket/a%20b?region=x", "memory://", "redis://host"])
def test_a_url_without_secrets_is_shown_as_it_is(url: str) -> None:
    assert masked_url(url) == url


# -- what is written about them ------------------------------------------------------------------------------------


def test_every_field_is_a_setting_and_every_setting_a_field() -> None:
    assert [setting.name for setting in SETTINGS] == list(leaves(Settings))
    assert {setting.sort for setting in SETTINGS} == set(SORTS)


def test_the_page_of_settings_is_made_from_them() -> None:
    page = PAGE.read_text(encoding="utf-8")
    made = page.partition("<!-- made from the code -->\n")[2].partition("<!-- to here -->")[0]
    assert made == settings_table(), (
        "docs/settings.md is out of date; replace what is between its marks by settings_table()"
    )


def test_every_setting_can_be_set_by_the_variable_that_is_written_of_it(environ: dict[str, str]) -> None:
    values = {
        "path": "/x", "path?": "/x", "url": "file:///x", "word": "other", "keys": SECRET, "bytes": "7", "count": "7",
        "flag": "no", "time": "7", "time0": "7", "time?": "3d", "text": "other", "text?": "other", "port": "7",
        "origins": "https://a.example", "family": "ES", "level": "debug",
        "acknowledged": "warm",
    }  # fmt: skip
    for setting in SETTINGS:
        if setting.sort == "urls":
            continue
        changed = Settings.load(environ | {setting.variable: values[setting.sort]}).masked()
        assert changed[setting.name] != Settings.load(environ).masked()[setting.name], setting.variable
