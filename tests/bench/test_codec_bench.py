"""The codec benchmark runs, with and without the recordings, and prints the keys documented for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]


@pytest.mark.parametrize("is_recorded", [True, False], ids=["as configured", "without recordings"])
def test_codec_benchmark_prints_its_keys(is_recorded: bool, tmp_path: Path) -> None:
    environ = dict(os.environ) if is_recorded else {**os.environ, "TANDEM_FIXTURES": str(tmp_path)}
    command = [sys.executable, "-m", "bench.codec", "--runs", "1", "--json"]
    done = subprocess.run(
        command, cwd=REPO, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == {
        f"{name}_{key}"
        for name in (
            *(f"{venue}{kind}" for venue in ("", "okx_", "bybit_") for kind in ("book_ticker", "depth")),
            "execution",
        )
        for key in ("ratio", "us", "bare_us")
    }
    assert all(value > 0 for value in found.values())
