"""Tokens: what is taken, what is not, and what is left of them on disk."""

import concurrent.futures
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.config.private_files import NotPrivate, PrivateFileError
from host.control.principal import Principal, Role, Via
from host.control.tokens import TokenStore, TokenStoreError

NOW_NS = 1_754_650_000_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control" / "tokens.json"


def test_a_token_is_known_by_name_and_role(path: Path) -> None:
    token = TokenStore.open(path).create("deploy", Role.OPERATOR, NOW_NS, None)
    assert TokenStore.open(path).verify(token, NOW_NS) == Principal("deploy", Role.OPERATOR, Via.TOKEN)


def test_no_part_of_the_secret_is_stored(path: Path) -> None:
    token = TokenStore.open(path).create("deploy", Role.OPERATOR, NOW_NS, None)
    secret = token.split("_", 2)[2]
    stored = path.read_text()
    assert not any(secret[i : i + 8] in stored for i in range(len(secret) - 7))


def test_two_tokens_never_share_a_secret_or_an_id(path: Path) -> None:
    store = TokenStore.open(path)
    tokens = [store.create(f"t{i}", Role.VIEWER, NOW_NS, None) for i in range(20)]
    assert len({token.split("_", 2)[1] for token in tokens}) == 20
    assert len({token.split("_", 2)[2] for token in tokens}) == 20


def test_a_token_is_refused_from_the_moment_it_expires(path: Path) -> None:
    store = TokenStore.open(path)
    token = store.create("deploy", Role.OPERATOR, NOW_NS, NOW_NS + 1_000)
    assert store.verify(token, NOW_NS + 999) is not None
    assert store.verify(token, NOW_NS + 1_000) is None


def test_a_store_that_is_open_sees_what_another_process_creates_and_revokes(path: Path) -> None:
    node, operator = TokenStore.open(path), TokenStore.open(path)
    token = operator.create("deploy", Role.OPERATOR, NOW_NS, None)
    assert node.verify(token, NOW_NS) is not None
    operator.revoke("deploy")
    assert node.verify(token, NOW_NS) is None
    path.unlink()
    assert node.records() == ()


@given(where=st.integers(0, 58), character=st.characters())
def test_no_token_with_one_other_character_is_taken(where: int, character: str) -> None:
    ((store, token),) = SHARED
    changed = token[:where] + character + token[where + 1 :]
    assert (store.verify(changed, NOW_NS) is not None) == (changed == token)


@given(text=st.text())
def test_any_text_is_refused_and_never_raises(text: str) -> None:
    ((store, token),) = SHARED
    assert store.verify(text, NOW_NS) is None
    assert store.verify(token + text, NOW_NS) is None or not text


@pytest.fixture(scope="module", autouse=True)
def _shared(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = TokenStore.open(tmp_path_factory.mktemp("shared") / "control" / "tokens.json")
    SHARED[:] = [(store, store.create("shared", Role.VIEWER, NOW_NS, None))]


SHARED: list[tuple[TokenStore, str]] = []
"""One store and its token, for the many examples of hypothesis."""


def test_a_name_is_given_once_while_its_token_is_good(path: Path) -> None:
    store = TokenStore.open(path)
    store.create("deploy", Role.OPERATOR, NOW_NS, NOW_NS + 1)
    with pytest.raises(TokenStoreError, match='a token named "deploy"; revoke it first'):
        store.create("deploy", Role.ADMIN, NOW_NS, None)
    store.create("deploy", Role.ADMIN, NOW_NS + 1, None)  # the other one has expired


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "x" * 65, "\x1b[31m", "-a"])
def test_a_name_that_a_log_could_not_show_is_refused(path: Path, name: str) -> None:
    with pytest.raises(TokenStoreError, match="name should be"):
        TokenStore.open(path).create(name, Role.VIEWER, NOW_NS, None)
    assert not path.exists()


def test_revoking_what_is_not_there_says_what_is(path: Path) -> None:
    store = TokenStore.open(path)
    store.create("deploy", Role.OPERATOR, NOW_NS, None)
    with pytest.raises(TokenStoreError, match=r'"grafana"; there are: deploy \([0-9a-f]{8}\)'):
        store.revoke("grafana")
    assert len(store.records()) == 1


def test_file_and_folder_are_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        TokenStore.open(path).create("deploy", Role.OPERATOR, NOW_NS, None)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent)] == [0o600, 0o700]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_can_use_lets_nobody_in(path: Path, mode: int) -> None:
    store = TokenStore.open(path)
    token = store.create("deploy", Role.OPERATOR, NOW_NS, None)
    path.chmod(mode)
    with pytest.raises(NotPrivate, match=f"chmod 600 {path}"):
        store.verify(token, NOW_NS)
    with pytest.raises(NotPrivate):
        TokenStore.open(path)
    path.chmod(0o600)
    assert store.verify(token, NOW_NS) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"tokens": [{}]}',
        '{"version": 1, "tokens": 3}',
        '{"version": 2, "tokens": []}',
        '{"version": 1, "tokens": [{"id": "00000000", "name": "x", "role": "root", "sha256": "", '
        '"created_ns": 1, "expires_ns": null}]}',
    ],
)
def test_a_damaged_file_lets_nobody_in_and_is_named(path: Path, text: str) -> None:
    store = TokenStore.open(path)
    token = store.create("deploy", Role.OPERATOR, NOW_NS, None)
    path.write_text(text)
    for _ in range(2):  # it does not become good by being looked at
        with pytest.raises(TokenStoreError, match=r"tokens\.json"):
            store.verify(token, NOW_NS)


def test_tokens_created_at_the_same_time_are_all_kept(path: Path) -> None:
    def create(number: int) -> str:
        return TokenStore.open(path).create(f"t{number}", Role.VIEWER, NOW_NS, None)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(create, range(24)))
    store = TokenStore.open(path)
    assert all(store.verify(token, NOW_NS) is not None for token in tokens)
    assert sorted(p.name for p in path.parent.iterdir()) == [".tokens.json.lock", "tokens.json"]


def test_a_write_that_fails_leaves_the_tokens_there_were(path: Path) -> None:
    store = TokenStore.open(path)
    token = store.create("deploy", Role.OPERATOR, NOW_NS, None)
    blocker = path.with_name(f".{path.name}.{os.getpid()}.new")
    blocker.mkdir()
    with pytest.raises(PrivateFileError, match=r"cannot write .*tokens\.json"):
        store.create("other", Role.VIEWER, NOW_NS, None)
    assert store.verify(token, NOW_NS) is not None
    assert [record["name"] for record in json.loads(path.read_text())["tokens"]] == ["deploy"]


def test_roles_are_ordered_and_written_in_small_letters() -> None:
    assert [str(role) for role in sorted(Role)] == ["viewer", "operator", "trader", "admin"]
    for has in Role:
        for needs in Role:
            assert Principal("x", has, Via.TOKEN).may(needs) == (
                list(Role).index(has) >= list(Role).index(needs)
            )
    with pytest.raises(ValueError, match='one of viewer, operator, trader, admin, was "root"'):
        Role.parse("root")
