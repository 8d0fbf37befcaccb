"""``imapgate audit verify`` and ``imapgate audit key``."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from imapgate.audit.checkpoint import load_signer
from imapgate.audit.commands import add_parser
from imapgate.errors import ConfigurationError
from tests.audit.trails import Bed

Out = pytest.CaptureFixture[str]


def run(*arguments: object) -> int:
    """Run one command."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["audit", *map(str, arguments)])
    status: int = options.run(options)
    return status


def test_key_and_verify(bed: Bed, capsys: Out) -> None:
    """A key is made, a trail is signed by it, and its public half is enough to verify."""
    key, public = bed.folder / "audit.key", bed.folder / "public.pem"
    assert run("key", key) == 0
    out, _ = capsys.readouterr()
    public.write_text(out[: out.index(str(key))])
    fingerprint = load_signer(key).fingerprint
    assert out.endswith(f"{key}: made; records name it {fingerprint}; keep the public half above elsewhere\n")
    bed.process(1, chain="c1", signer=load_signer(key))
    for each in (key, public):
        assert run("verify", "--key", each, bed.path) == 0
        out, err = capsys.readouterr()
        assert (out.splitlines()[-1], err) == ("whole: 3 records; every checkpoint is signed by the key", "")
        assert out.startswith(f"{bed.path}: 3 records, 2 checkpoints; chain c1 seq 1-3; ")


def test_another_key(bed: Bed, capsys: Out) -> None:
    """Checkpoints of another key, or of none, are a fault; with several keys one must fit."""
    old, new = bed.folder / "old.key", bed.folder / "new.key"
    run("key", old)
    run("key", new)
    bed.process(1, signer=load_signer(old))
    bed.process(1, signer=load_signer(new))
    capsys.readouterr()
    assert run("verify", bed.path, "--key", old) == 1
    assert "is not signed by the key" in capsys.readouterr().out
    assert run("verify", bed.path, "--key", new) == 1
    assert run("verify", bed.path, "--key", old, "--key", new) == 0
    bed.process(1)
    assert run("verify", bed.path, "--key", old, "--key", new) == 1


def test_what_is_found(bed: Bed, capsys: Out) -> None:
    """A line for each file, then what should be known and what is wrong, then the verdict; status 1."""
    bed.process(1, chain="c1", stop=False)
    other = bed.folder / "other.jsonl"
    other.write_bytes(b"?\n")
    assert run("verify", other, bed.path) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0] == f"{other}: BROKEN at line 1: this is no record"
    assert out.splitlines()[1].startswith(f"{bed.path}: 2 records, 1 checkpoints; ")
    assert out.splitlines()[2:] == [f"fault: {other}: line 1: this is no record", "BROKEN: 1 fault"]
    assert run("verify", bed.path) == 1
    assert "no clean end" in capsys.readouterr().out
    assert run("verify", "--open", bed.path) == 0
    assert "\nnote: chain c1: seq 2 is its last so far; " in capsys.readouterr().out
    assert run("verify", "--open", bed.path, "--holds", bed.records()[1]["hash"].upper()) == 0
    assert run("verify", "--open", bed.path, "--holds", "0" * 64) == 1


def test_what_cannot_be_verified(bed: Bed, capsys: Out, tmp_path: Path) -> None:
    """A file or a key that cannot be read is neither whole nor broken: status 2, and why."""
    bed.process(1)
    packed, spoilt = tmp_path / "audit.jsonl.1.gz", tmp_path / "audit.jsonl.2.gz"
    packed.write_bytes(b"\x1f\x8b\x08\x00")
    spoilt.write_bytes(b"\x1f\x8b\x08\x00" + b"\xff" * 50)
    for arguments, why in (
        ([tmp_path / "away.jsonl"], "No such file or directory"),
        ([tmp_path], "Is a directory"),
        ([packed], f"{packed}: Compressed file ended"),
        ([spoilt], f"{spoilt}: Error -3 while decompressing"),
        ([bed.path, "--key", tmp_path / "away.key"], "away.key: No such file or directory"),
        ([bed.path, "--key", bed.path], "this is no Ed25519 key in PEM"),
    ):
        assert run("verify", *arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("imapgate audit: ")
        assert why in err


def test_a_key_that_is_there(tmp_path: Path) -> None:
    """No key is written over: the command's caller shows why."""
    (tmp_path / "audit.key").touch()
    with pytest.raises(ConfigurationError, match="there already"):
        run("key", tmp_path / "audit.key")


def test_the_others(capsys: Out) -> None:
    """All commands are there."""
    for command in ("verify", "key", "show", "report"):
        with pytest.raises(SystemExit) as ended:
            run(command, "--help")
        assert ended.value.code == 0
    capsys.readouterr()
