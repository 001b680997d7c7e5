"""References in a configuration, and what they lead to."""

import resource
from pathlib import Path

import pytest
from secret_tools import VALUES, filled_store, sources_at

from host.api import Secret
from host.config import ConfigError, default_config, diff, load_config
from host.config.private_files import NotPrivate
from host.config.secret_files import SecretProblem
from host.secrets import resolve_secrets


def test_each_kind_of_reference_leads_to_its_secret_wherever_it_stands(tmp_path: Path) -> None:
    filled_store(tmp_path)
    file = tmp_path / "credential"
    file.write_text("from-a-file\n")
    file.chmod(0o600)
    sources = sources_at(tmp_path, {"OKX_KEY": "from-a-variable\n"})
    params = {
        "a": "secret:okx/api_key",
        "b": {"c": ["env:OKX_KEY", 3]},
        "d": f"file:{file}",
        "plain": "no secret:pem",
        "url": "http://example.com",
        "n": None,
    }
    assert resolve_secrets(params, sources) == {
        "a": Secret(VALUES["okx/api_key"]),
        "b": {"c": [Secret("from-a-variable"), 3]},
        "d": Secret("from-a-file"),
        "plain": "no secret:pem",
        "url": "http://example.com",
        "n": None,
    }


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("secret:none", r'no secret "none" in .*secrets\.json or .*; store it with `tandem secret set none`'),
        ("secret:", 'name should be .*, was ""'),
        ("secret:../x", r'no secret "\.\./x"'),
        ("env:NOT_SET", "variable NOT_SET.*export it"),
        ("env:", "no name"),
        ("file:/nowhere/at/all", "no file /nowhere/at/all.*mode 0600"),
    ],
)
def test_what_is_missing_is_named_with_the_next_step(tmp_path: Path, reference: str, says: str) -> None:
    filled_store(tmp_path)
    with pytest.raises(SecretProblem, match=says):
        resolve_secrets({"api_key": reference}, sources_at(tmp_path))


def test_files_that_are_there_already_go_on_working_beside_a_store(tmp_path: Path) -> None:
    sources = filled_store(tmp_path)
    sources.files.set("old-key", "from before")
    assert sources_at(tmp_path).get("old-key") == Secret("from before")
    assert sources_at(tmp_path).get("pem") == Secret(VALUES["pem"])


def test_files_alone_need_no_master_key(tmp_path: Path) -> None:
    sources = sources_at(tmp_path, has_key_file=False)
    sources.files.set("a", "1")
    assert not sources.is_encrypting
    assert sources.get("a") == Secret("1")


@pytest.mark.parametrize("data", [b"", b"\n", b"x" * 100_000, b"\xff\xfe"])
def test_a_file_that_holds_no_credential_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "credential"
    file.write_bytes(data)
    file.chmod(0o600)
    with pytest.raises(SecretProblem, match=str(file)):
        resolve_secrets({"k": f"file:{file}"}, sources_at(tmp_path))


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "credential"
    file.write_text("x")
    file.chmod(0o644)
    with pytest.raises(NotPrivate, match="chmod 600"):
        resolve_secrets({"k": f"file:{file}"}, sources_at(tmp_path))


def test_a_process_that_holds_a_secret_leaves_no_core_dump(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
        resolve_secrets({"k": "env:K"}, sources_at(tmp_path, {"K": "x"}))
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.mark.parametrize("key", ["c2VjcmV0LXNlY3JldA==", "master.key", "env:", "env:two words", "file:", ""])
def test_a_master_key_in_the_configuration_is_refused_and_not_repeated(tmp_path: Path, key: str) -> None:
    path = tmp_path / "tandem.toml"
    path.write_text(f'[secrets]\nmaster_key = "{key}"\n')
    with pytest.raises(ConfigError) as refused:
        load_config(path, None, {})
    [problem] = refused.value.problems
    assert problem.key == "secrets.master_key"
    assert 'expected "file:PATH" or "env:VARIABLE"' in problem.text
    assert len(key) < 6 or key not in str(refused.value)


def test_where_secrets_are_changes_with_a_restart_only(tmp_path: Path) -> None:
    path = tmp_path / "tandem.toml"
    path.write_text('[secrets]\nstore = "a.json"\nmaster_key = "env:KEY"\n')
    plan = diff(default_config(), load_config(path, None, {}).config)
    assert {need.at for need in plan.needs_restart} >= {("secrets", "store"), ("secrets", "master_key")}


def test_an_edit_that_writes_a_key_into_the_configuration_is_refused_without_repeating_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "tandem.toml"
    text = '[[account]]\nname = "x"\nexchange = "okx"\nparams = {{ api_key = "{key}" }}\n[store]\nurl = "{url}"\n'
    path.write_text(text.format(key="secret:a", url="sqlite:///a"))
    before = load_config(path, None, {}).config
    path.write_text(text.format(key="TYPED-IN-PLAIN", url="postgresql://u:DB-PASSWORD@h/d"))
    plan = diff(before, load_config(path, None, {}).config)
    shown = " ".join([*map(str, plan.needs_restart), *plan.changes])
    assert {need.at for need in plan.needs_restart} == {("account", 0, "params"), ("store", "url")}
    assert "TYPED-IN-PLAIN" not in shown and "DB-PASSWORD" not in shown
