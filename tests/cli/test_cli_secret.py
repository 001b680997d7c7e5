"""Secrets: stored by a command, used by an adapter, shown by nothing."""

import copy
import json
import pickle
import stat
from pathlib import Path

import msgspec
import pytest
from cli_tools import tandem

from host.api import Params, Secret, params_schema
from host.config import RunOptions, load_config
from host.config.private_files import NotPrivate
from host.config.secret_files import SecretFiles
from host.node import run

KEY = "Zk3-quite-a-secret-0f9a"

PLUGIN = '''
from decimal import Decimal
from pathlib import Path

from host.api import ExchangeError, Params, Secret, ExchangeAdapter


class VaultParams(Params, frozen=True):
    api_key: str = "public"
    api_secret: Secret | None = None
    note: str = ""


class Vault(ExchangeAdapter[VaultParams]):
    """Signs with its secret, and says everything that it can about its parameters."""

    async def connect(self):
        Path("signed.txt").write_text(self.params.api_secret.reveal()[::-1])
        raise ExchangeError(f"params were {self.params} {self.params!r} {self.params.api_secret:>20}")

    async def subscribe(self, symbols):
        raise ExchangeError("never connected")

    def send(self, command, deadline_ns):
        raise ExchangeError("never connected")

    def resync(self, symbol):
        raise ExchangeError("never connected")

    async def close(self):
        Path("closed.txt").touch()
'''

CONFIG = """
[node]
data_dir = "data"
plugin_dirs = ["plugins"]

[control]
listen = []

[store]
url = ""

[[account]]
name = "main"
exchange = "vault"
params = {{ api_secret = "{secret}" }}

[[instance]]
name = "mm"
plugin = "two_sided"
account = "main"
symbols = ["BTC-USDT"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "vault.py").write_text(PLUGIN)
    path = tmp_path / "tandem.toml"
    path.write_text(CONFIG.format(secret="secret:main-key"))
    return path


def everything_under(folder: Path) -> bytes:
    skipped = {"signed.txt", "main-key"}
    return b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in skipped)


# -- the commands ----------------------------------------------------------------------------------


def test_a_secret_is_read_from_standard_input_and_never_shown(config: Path) -> None:
    results = [
        tandem("secret", "set", "main-key", stdin=KEY + "\n"),
        tandem("secret", "list"),
        tandem("secret", "list", "--json"),
    ]
    assert [result.exit_code for result in results] == [0, 0, 0]
    assert 'write "secret:main-key"' in results[0].output
    assert [(one["name"], one["kept"], one["key_id"]) for one in json.loads(results[2].stdout)] == [
        ("main-key", "file", "")
    ]
    assert "not encrypted" in results[0].output
    assert not any(KEY in result.output for result in results)
    path = Path("data/secrets/main-key")
    assert path.read_text() == KEY
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent)] == [0o600, 0o700]


def test_a_key_of_many_lines_is_kept_as_it_is(config: Path) -> None:
    pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----\n"
    assert tandem("secret", "set", "pem", stdin=pem).exit_code == 0
    assert SecretFiles(Path("data/secrets")).get("pem").reveal() == pem.removesuffix("\n")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(config: Path, name: str) -> None:
    assert tandem("secret", "set", name, stdin=KEY).exit_code == 1
    assert not Path("data").exists()


def test_an_empty_secret_is_refused(config: Path) -> None:
    assert tandem("secret", "set", "main-key", stdin="\n").exit_code == 1


def test_a_secret_is_removed_once(config: Path) -> None:
    tandem("secret", "set", "main-key", stdin=KEY)
    assert tandem("secret", "remove", "main-key", "--yes").exit_code == 0
    again = tandem("secret", "remove", "main-key", "--yes")
    assert again.exit_code == 1
    assert "there are: none" in again.output


# -- the way to an adapter -------------------------------------------------------------------------


def test_the_adapter_gets_the_secret_and_nothing_else_does(
    config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tandem("secret", "set", "main-key", stdin=KEY)
    loaded = load_config(config, None, {})
    with pytest.raises(Exception, match=r"params were .*Secret\(\*\*\*\)") as failed:
        run(loaded.config, RunOptions(duration_s=1))
    assert Path("signed.txt").read_text()[::-1] == KEY
    shown = capfd.readouterr()
    assert "Secret(***)" in shown.err + str(failed.value)
    assert KEY not in shown.out + shown.err + repr(failed.value)
    assert KEY.encode() not in everything_under(Path.cwd())


def test_neither_configuration_nor_check_show_it(config: Path) -> None:
    tandem("secret", "set", "main-key", stdin=KEY)
    results = [tandem("config", "check"), tandem("config", "check", "--json")]
    assert [result.exit_code for result in results] == [0, 0], results[0].output
    assert not any(KEY in result.output for result in results)
    assert json.loads(results[1].stdout)["config"]["account"][0]["params"] == {
        "api_secret": "secret:main-key"
    }


def test_a_check_names_the_secret_that_is_missing_and_the_command_that_stores_it(config: Path) -> None:
    result = tandem("config", "check")
    assert result.exit_code == 2
    assert 'there is no secret "main-key"' in result.output
    assert "`tandem secret set main-key`" in result.output


def test_a_secret_written_into_the_configuration_is_refused_and_not_repeated(config: Path) -> None:
    config.write_text(CONFIG.format(secret=KEY))
    result = tandem("config", "check")
    assert result.exit_code == 2
    assert "params.api_secret" in result.output
    assert "tandem secret set NAME" in result.output
    assert KEY not in result.output


def test_a_secret_in_a_parameter_that_is_shown_is_refused(config: Path) -> None:
    tandem("secret", "set", "main-key", stdin=KEY)
    config.write_text(config.read_text().replace("api_secret =", "note ="))
    result = tandem("config", "check")
    assert result.exit_code == 2
    assert "must be of type str, was Secret(***)" in result.output
    assert KEY not in result.output


def test_a_file_that_others_can_read_is_refused(config: Path) -> None:
    tandem("secret", "set", "main-key", stdin=KEY)
    Path("data/secrets/main-key").chmod(0o644)
    result = tandem("config", "check")
    assert result.exit_code == 2
    assert "chmod 600 data/secrets/main-key" in result.output
    with pytest.raises(NotPrivate):
        SecretFiles(Path("data/secrets")).get("main-key")


# -- under a master key ----------------------------------------------------------------------------


@pytest.fixture
def encrypting(config: Path) -> Path:
    config.write_text(config.read_text() + '[secrets]\nmaster_key = "file:master.key"\n')
    assert tandem("secret", "key", "master.key").exit_code == 0
    return config


def test_with_a_master_key_a_secret_is_encrypted_and_used_all_the_same(encrypting: Path) -> None:
    stored = tandem("secret", "set", "main-key", stdin=KEY + "\n")
    assert (stored.exit_code, "encrypted in data/secrets.json" in stored.output) == (0, True), stored.output
    assert KEY.encode() not in everything_under(Path.cwd())
    assert tandem("config", "check").exit_code == 0
    with pytest.raises(Exception, match=r"params were .*Secret\(\*\*\*\)"):
        run(load_config(encrypting, None, {}).config, RunOptions(duration_s=1))
    assert Path("signed.txt").read_text()[::-1] == KEY


def test_a_secret_that_was_a_plain_file_is_one_no_more_once_it_is_set_under_a_master_key(
    encrypting: Path,
) -> None:
    files = SecretFiles(Path("data/secrets"))
    files.set("main-key", "old")
    files.set("other", "stays")
    assert tandem("secret", "set", "main-key", stdin=KEY).exit_code == 0
    assert files.names() == ["other"]
    listed = json.loads(tandem("secret", "list", "--json").stdout)
    assert [(one["name"], one["kept"]) for one in listed] == [("main-key", "encrypted"), ("other", "file")]
    assert all(tandem("secret", "remove", name, "--yes").exit_code == 0 for name in ("main-key", "other"))
    assert tandem("secret", "list").output == "there are no secrets\n"


def test_the_list_shows_names_times_and_keys(encrypting: Path) -> None:
    tandem("secret", "set", "okx/api_key", stdin=KEY)
    [one] = json.loads(tandem("secret", "list", "--json").stdout)
    made = tandem("secret", "list").output
    assert (one["name"], one["kept"], len(one["key_id"])) == ("okx/api_key", "encrypted", 16)
    assert all(part in made for part in one.values())
    assert KEY not in made


def test_a_rotation_puts_everything_under_a_new_key_and_prints_no_key(encrypting: Path) -> None:
    tandem("secret", "set", "main-key", stdin=KEY)
    [before] = json.loads(tandem("secret", "list", "--json").stdout)
    old_text = Path("master.key").read_text()
    done = tandem("secret", "rotate", "--drop-old")
    [after] = json.loads(tandem("secret", "list", "--json").stdout)
    assert done.exit_code == 0 and f"all are under {after['key_id']}" in done.output
    assert after["key_id"] != before["key_id"] and after["set_at"] == before["set_at"]
    assert tandem("config", "check").exit_code == 0
    texts = [*old_text.split(), *Path("master.key").read_text().split()]
    assert len(texts) == 2 and not any(text in done.output for text in texts)


def test_without_the_key_nothing_is_stored_in_plain_instead(encrypting: Path) -> None:
    tandem("secret", "set", "main-key", stdin=KEY)
    Path("master.key").unlink()
    for again in (tandem("secret", "set", "second", stdin=KEY), tandem("secret", "rotate")):
        assert again.exit_code == 1 and "`tandem secret key master.key` makes one" in again.output
    checked = tandem("config", "check")
    assert checked.exit_code == 2 and "there is no master key" in checked.output
    assert not Path("data/secrets").exists()


def test_a_name_of_parts_without_a_master_key_says_what_it_needs(config: Path) -> None:
    result = tandem("secret", "set", "okx/api_key", stdin=KEY)
    assert result.exit_code == 1 and "`tandem secret key PATH`" in result.output


# -- the type --------------------------------------------------------------------------------------


class VaultParams(Params, frozen=True):
    secret: Secret | None = None


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret(KEY)
    params = VaultParams(secret=secret)
    shown = f"{secret} {secret!r} {secret:>30} {params} {params!r} {[secret]} %s" % secret
    assert KEY not in shown
    assert shown.count("Secret(***)") == 7
    with pytest.raises(TypeError):
        pickle.dumps(params)
    for encode in (msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins):
        with pytest.raises(TypeError):
            encode(params)
    assert copy.deepcopy(params) == params
    assert secret == Secret(KEY) != Secret(KEY + "x")


def test_the_schema_of_a_secret_says_so() -> None:
    schema = params_schema(VaultParams)["$defs"]["VaultParams"]["properties"]["secret"]
    assert {"type": "string", "format": "secret", "writeOnly": True} in schema["anyOf"]
