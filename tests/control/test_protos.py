"""The protos: what is generated from them is what is checked in, and they follow buf's rules."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]


def test_the_stubs_are_what_the_protos_say() -> None:
    command = [str(REPO / "scripts" / "make-protos"), sys.executable, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_the_protos_follow_bufs_standard_and_everything_is_documented() -> None:
    buf = shutil.which("buf") or shutil.which("buf", path=str(Path.home() / "go" / "bin"))
    if buf is None:
        pytest.skip("buf is not installed: go install github.com/bufbuild/buf/cmd/buf@v1.60.0")
    done = subprocess.run(
        [buf, "lint"], cwd=REPO / "proto", capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
