"""The encrypted store: it opens with its key alone, and only as it was written."""

import json
import pickle
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secret_tools import VALUES, filled_store, sources_at, values_at

from host.config.private_files import NotPrivate, PrivateFileError
from host.config.secret_files import SecretProblem
from host.secrets import KeyRing, KeySource, MasterKey, SecretStore, write_new_key
from host.secrets.records import seal, unseal


def edit(path: Path, change: Any) -> None:
    contents = json.loads(path.read_text())
    change(contents["records"])
    path.write_text(json.dumps(contents))


def test_what_was_stored_comes_back_and_is_not_in_the_file(tmp_path: Path) -> None:
    sources = filled_store(tmp_path)
    assert values_at(tmp_path) == VALUES
    data = sources.store.path.read_text()
    assert not any(value in data for value in VALUES.values())
    assert stat.S_IMODE(sources.store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "master.key").stat().st_mode) == 0o600


@given(st.text(min_size=1), st.text())
def test_any_text_is_sealed_and_opened(value: str, name: str) -> None:
    from host.api import Secret

    ring = KeyRing((MasterKey.new(),), "here")
    try:
        value.encode()
        name.encode()
    except UnicodeEncodeError:
        return  # a half of a surrogate pair is no text that could be typed or read
    record = seal(ring.newest, name, Secret(value), "2026-01-01")
    assert unseal(ring, name, record, "there").reveal() == value


def test_equal_values_are_sealed_with_nonces_of_their_own(tmp_path: Path) -> None:
    sources = filled_store(tmp_path)
    sources.store.set("twin", VALUES["pem"])
    first = sources.store.records()["pem"]
    sources.store.set("pem", VALUES["pem"])
    records = sources.store.records()
    nonces = [first.nonce, *(record.nonce for record in records.values())]
    assert len(set(nonces)) == len(nonces)
    assert len({first.sealed, records["pem"].sealed, records["twin"].sealed}) == 3


def test_records_cannot_be_swapped(tmp_path: Path) -> None:
    store = filled_store(tmp_path).store

    def swap(records: dict[str, Any]) -> None:
        records["pem"], records["okx/api_key"] = records["okx/api_key"], records["pem"]

    edit(store.path, swap)
    for name in ("pem", "okx/api_key"):
        with pytest.raises(
            SecretProblem, match=f'secret "{name}".*not what was stored.*tandem secret set {name}'
        ):
            sources_at(tmp_path).get(name)
    assert sources_at(tmp_path).get("okx/api_secret").reveal() == VALUES["okx/api_secret"]


@pytest.mark.parametrize("field", ["sealed", "nonce"])
def test_one_changed_byte_is_noticed_and_the_record_named(tmp_path: Path, field: str) -> None:
    store = filled_store(tmp_path).store

    def change(records: dict[str, Any]) -> None:
        text = records["pem"][field]
        records["pem"][field] = ("B" if text[0] == "A" else "A") + text[1:]

    edit(store.path, change)
    with pytest.raises(SecretProblem, match=r'"pem".*not what was stored'):
        sources_at(tmp_path).get("pem")


def test_a_changed_time_and_an_empty_nonce_are_noticed(tmp_path: Path) -> None:
    store = filled_store(tmp_path).store
    edit(store.path, lambda records: records["pem"].update(set_at="2000-01-01T00:00:00+00:00"))
    edit(store.path, lambda records: records["okx/api_key"].update(nonce=""))
    for name in ("pem", "okx/api_key"):
        with pytest.raises(SecretProblem, match=f'"{name}".*not what was stored'):
            sources_at(tmp_path).get(name)


def test_a_wrong_key_is_told_from_tampering_and_both_keys_are_named(tmp_path: Path) -> None:
    right = filled_store(tmp_path).store.listed()[0].key_id
    (tmp_path / "master.key").unlink()
    wrong = write_new_key(tmp_path / "master.key").id
    with pytest.raises(SecretProblem) as refused:
        sources_at(tmp_path).get("pem")
    text = str(refused.value)
    assert all(part in text for part in ('"pem"', right, wrong, "master.key"))


def test_a_missing_key_says_where_it_should_be_and_how_to_make_one(tmp_path: Path) -> None:
    filled_store(tmp_path)
    (tmp_path / "master.key").unlink()
    with pytest.raises(SecretProblem, match=r"master\.key does not exist; `tandem secret key"):
        sources_at(tmp_path).get("pem")
    with pytest.raises(SecretProblem, match="variable TANDEM_MASTER_KEY: export"):
        sources_at(tmp_path, has_key_file=False).get("pem")


def test_a_key_that_is_none_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for text in ("c2hvcnQ=", "not base64!", ""):
        key = tmp_path / "bad.key"
        key.write_text(text)
        key.chmod(0o600)
        with pytest.raises(SecretProblem) as refused:
            KeySource.parse(f"file:{key}").load({})
        assert str(key) in str(refused.value)
        assert not text or text not in str(refused.value)


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    filled_store(tmp_path)
    (tmp_path / "master.key").chmod(0o640)
    with pytest.raises(NotPrivate, match="chmod 600"):
        sources_at(tmp_path).get("pem")


def test_a_store_that_others_can_read_is_refused(tmp_path: Path) -> None:
    filled_store(tmp_path).store.path.chmod(0o604)
    with pytest.raises(NotPrivate, match="chmod 600"):
        sources_at(tmp_path).get("pem")


def test_a_key_in_a_variable_does_as_well(tmp_path: Path) -> None:
    filled_store(tmp_path)
    environ = {"TANDEM_MASTER_KEY": (tmp_path / "master.key").read_text()}
    assert sources_at(tmp_path, environ, has_key_file=False).get("pem").reveal() == VALUES["pem"]


def test_a_key_file_is_never_replaced_by_a_new_key(tmp_path: Path) -> None:
    write_new_key(tmp_path / "master.key")
    before = (tmp_path / "master.key").read_text()
    with pytest.raises(SecretProblem, match="exists"):
        write_new_key(tmp_path / "master.key")
    assert (tmp_path / "master.key").read_text() == before
    with pytest.raises(PrivateFileError, match="there is no folder"):
        write_new_key(tmp_path / "nowhere" / "master.key")


def test_listing_needs_no_key(tmp_path: Path) -> None:
    filled_store(tmp_path)
    (tmp_path / "master.key").unlink()
    assert [one.name for one in sources_at(tmp_path).store.listed()] == sorted(VALUES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ('{"format": "tandem secrets", "version": 1, "records": {"a": {}}}', "damaged"),
        ('{"format": "tandem secrets", "version": 2, "records": {}}', "version 2"),
        ('{"format": "something", "version": 1, "records": {}}', '"something"'),
    ],
)
def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path, text: str, says: str) -> None:
    store = filled_store(tmp_path).store
    store.path.write_text(text)
    for attempt in (lambda: store.get("pem"), lambda: store.set("pem", "x"), lambda: store.remove("pem")):
        with pytest.raises(SecretProblem, match=says):
            attempt()
    assert store.path.read_text() == text


@pytest.mark.parametrize("name", ["", "../x", "/a", "a/", "a//b", ".a", "a b", "a/b/c/d/e", "x" * 65])
def test_names_that_cannot_be_told_apart_by_eye_or_path_are_refused(tmp_path: Path, name: str) -> None:
    store = filled_store(tmp_path).store
    before = store.path.read_bytes()
    with pytest.raises(SecretProblem, match="name"):
        store.set(name, "x")
    assert store.path.read_bytes() == before


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    filled_store(tmp_path)
    start = threading.Barrier(4)

    def write(number: int) -> None:
        store = sources_at(tmp_path).store
        start.wait()
        for count in range(5):
            store.set(f"w{number}-{count}", "x")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(values_at(tmp_path)) == len(VALUES) + 20


def test_keys_show_themselves_to_nobody() -> None:
    key = MasterKey.new()
    ring = KeyRing((key,), "here")
    shown = f"{key} {key!r} {ring} {ring!r}"
    assert key.id in shown
    assert key.text() not in shown
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(ValueError, match="32 bytes"):
        MasterKey(b"short")


def test_a_store_is_not_made_by_looking(tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "none.json", lambda: KeyRing((MasterKey.new(),), "here"))
    assert store.get("a") is None
    assert store.listed() == []
    assert not store.remove("a")
    assert list(tmp_path.iterdir()) == []
