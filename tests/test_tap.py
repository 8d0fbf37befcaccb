"""The options of ``twistd imapgate``: one way to configure the gate, and nothing that is given in vain."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from imapgate.config.types import Configuration
from imapgate.model.pool_mode import PoolMode
from imapgate.tap import Options

BOTH = ["--upstream", "tcp:127.0.0.1:143", "--listen", "tcp:1143:interface=127.0.0.1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give one of"),
        (["--demo", "--config", "x"], "give one of"),
        (["--demo", *BOTH], "give one of"),
        (BOTH[:2], "go together"),
        (["--demo", *BOTH[2:]], "go together"),
        *(
            (["--config", "x", f"--{option}", "y"], f"--{option} goes without --config")
            for option in ("pool-mode", "audit-log", "control", "plugin")
        ),
    ],
)
def test_refused(words: list[str], said: str) -> None:
    """Whatever would be ignored is refused, and the sentence names it."""
    with pytest.raises(UsageError, match=said):
        Options().parseOptions(words)


def _configured(*words: str) -> Configuration:
    options = Options()
    options.parseOptions([*BOTH, *words])
    return options.configuration()


def test_options_make_a_configuration(tmp_path: Path) -> None:
    """One upstream, one listener, and what the other options say."""
    assert _configured().upstreams["main"].pool_mode is PoolMode.SESSION
    path = tmp_path / "control"
    configuration = _configured("--pool-mode", "shared", "--control", str(path))
    assert configuration.upstreams["main"].pool_mode is PoolMode.SHARED
    assert configuration.admin.control == path


def test_the_demonstration_takes_them_too(tmp_path: Path) -> None:
    """What is given beside --demo is not ignored."""
    options = Options()
    trail = tmp_path / "audit.jsonl"
    options.parseOptions(["--demo", "--audit-log", str(trail), "--plugin", "a.B", "--plugin", "c.D"])
    configuration = options.described(BOTH[1], BOTH[3])
    assert configuration.audit is not None
    assert configuration.audit.file == trail
    assert [plugin.use for plugin in configuration.plugins] == ["a.B", "c.D"]
