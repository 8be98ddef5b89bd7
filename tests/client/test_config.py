"""Configuration errors name the key, the line and the remedy; the sample installs as it is."""

from __future__ import annotations

import re

import pytest

from tests.client.harness import CLIENT, Host, in_every_shell

SAMPLE = CLIENT.with_name("config.sample")


WRONG = [
    ("colour = red", "colour", "is not a key; the keys are: url source"),
    ("keep = everything", "keep", "rdiff, mirror, directory or encfs"),
    ("encrypt = rot13", "encrypt", "inplace or reverse"),
    ("increments = many", "increments", "whole number"),
    ("bandwidth_kib = -1", "bandwidth_kib", "whole number"),
    ("source = home", "source", "full path"),
    ("source = /home/*", "source", "may not contain"),
    ("exclude = home/x", "exclude", "full path"),
    ("exclude = *", "exclude", "be * alone"),
    ("archive_dir =", "archive_dir", "has no value"),
    ("url = http://example.com", "url", "https://"),
    ("url = https://a@b", "url", "https://"),
    ("just words", "just words", "key = value"),
]


def test_wrong_lines(new_host: Host) -> None:
    for line, key, says in WRONG:
        new_host.config_file.write_text(f"state_dir = {new_host.state}\r\n# comment\n\n   {line}  \n")
        done = new_host.run("backup")
        assert done.returncode == 2
        assert f"{new_host.config_file} line 4: `{key}`" in done.stderr
        assert says in done.stderr


def test_no_config(new_host: Host) -> None:
    new_host.config_file.unlink()
    done = new_host.run("backup")
    assert done.returncode == 2
    assert "config.sample" in done.stderr


@pytest.mark.parametrize("lines", [["keep = directory"], ["keep = mirror", "encrypt = reverse"]])
def test_sources_that_do_not_fit(host: Host, lines: list[str]) -> None:
    (host.source / "file").touch()
    host.configure(*lines, sources=[host.source, host.source / "file"])
    assert host.run("archive").returncode == 2
    host.configure(*lines, sources=[])
    assert "source = /home" in host.run("archive").stderr


@in_every_shell
def test_values_may_hold_blanks_and_signs(host: Host) -> None:
    odd = host.folder / "a b = c # d"
    odd.mkdir()
    (odd / "file").touch()
    host.config_file.write_text(f"state_dir={host.state}\n  source  =  {odd}  \nkeep=directory")
    assert host.good("archive").stdout.strip().endswith(f": {odd}")


def test_sample_installs_as_it_is(new_host: Host) -> None:
    text = SAMPLE.read_text()
    new_host.config_file.write_text(f"{text}\nstate_dir = {new_host.state}\n")
    assert new_host.run("backup").returncode == 3  # not enrolled: the config itself is fine
    script = CLIENT.read_text()
    [keys] = re.findall("^CONFIG_KEYS='(.*)'", script, re.MULTILINE)
    assert set(re.findall("^#?([a-z_]+) = ", text, re.MULTILINE)) == set(keys.split())
    before = text.split("\n")
    for number, line in enumerate(before):
        if re.match("#?[a-z_]+ = ", line):
            assert before[number - 1].startswith("#") or re.match("[a-z_]+ = ", before[number - 1]), (
                f"no comment above {line}"
            )


def test_usage(new_host: Host) -> None:
    shown = new_host.good("--help").stdout
    readme = CLIENT.with_name("README.md").read_text()
    for code, meaning in re.findall(r"^ +(\d+)  (.+)$", shown, re.MULTILINE):
        assert f"| {code} | {meaning} |" in readme
    assert new_host.good("--version").stdout.startswith("nightvault ")
    for wrong in (
        [],
        ["backups"],
        ["backup", "now"],
        ["enroll"],
        ["enroll", "https://x"],
        ["status", "--max-age", "x"],
        ["status", "x"],
    ):
        assert new_host.run(*wrong).returncode == 2, wrong
