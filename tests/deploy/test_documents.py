"""deploy/README.md and TROUBLESHOOTING.md: commands that exist, files that are there, values the chart has."""

import os
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deploy.tools.manifests import DEPLOY_DIR, read_values
from registry.cli.main import main
from registry.config.settings import SETTINGS
from tests.deploy.kubernetes_objects import by_kind_and_name, kubectl, overlay
from tests.support.source_code import ROOT

README, TROUBLE = DEPLOY_DIR / "README.md", DEPLOY_DIR / "TROUBLESHOOTING.md"
DOCUMENTS = (README, TROUBLE)

both = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)


def lines(path: Path) -> Iterator[str]:
    """Yield every command of a document: of its blocks, and those that stand in its tables and sentences."""
    text = path.read_text(encoding="utf-8")
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        # A quote that is open at the end of a line goes on in the next one.
        waiting = ""
        for line in block.replace("\\\n", " ").splitlines():
            waiting = f"{waiting}\n{line}" if waiting else line
            if waiting.count("'") % 2 == 0:
                yield waiting
                waiting = ""
        assert not waiting, waiting
    yield from re.findall(r"`((?:kubectl|helm|curl) [a-z-]+[^`]*)`", text)


def commands(path: Path, program: str) -> list[list[str]]:
    """Return the words of every call of a program, without where its output goes."""
    found = [re.split(r" (?:[|>&<]|&&) ?", line)[0] for line in lines(path)]
    return [shlex.split(line) for line in found if line.startswith(f"{program} ")]


@both
def test_kubectl_knows_every_command_and_option(path: Path, tmp_path: Path) -> None:
    """Its own parser reads them; nothing is sent anywhere."""
    calls = commands(path, "kubectl")
    assert len(calls) > 10
    for words in calls:
        kept, inside = (words[: words.index("--")], words) if "--" in words else (words, [])
        said = kubectl(*kept[1:], "--help", HOME=str(tmp_path))
        verb = next(word for at, word in enumerate(kept[1:], 1) if word[0] != "-" and kept[at - 1] != "-n")
        assert re.search(rf"^  kubectl (?:.* )?{verb}\b", said.partition("Usage:")[2], re.MULTILINE), words
        if "mcp-mesh-registry" in inside:
            ours = inside[inside.index("--") + 2 :]
            assert CliRunner().invoke(main, [ours[0], "--help"]).exit_code == 0


@both
def test_what_kubectl_is_asked_for_is_there(path: Path) -> None:
    """Every object by its kind and name, every file and folder."""
    there = {*by_kind_and_name(overlay("ha")), *by_kind_and_name(overlay("dev"))}
    named = {(kind.lower(), name) for kind, name in there}
    text = path.read_text(encoding="utf-8")

    assert re.search(r"(statefulset|cronjob)/", text)
    for kind, name in re.findall(r"\b(statefulset|svc|cronjob|configmap)[/ ](mcp-[a-z-]+)", text):
        assert (kind.replace("svc", "service"), name) in named, (kind, name)
    for file in re.findall(r"(?<![/\w])(deploy/[\w./-]*\w)", text):
        assert file.startswith("deploy/kubernetes") or (ROOT / file).exists(), file
    for folder in re.findall(r"(?<![/\w])deploy/kubernetes/(\w+)", text):
        assert (DEPLOY_DIR / "kubernetes" / folder / "kustomization.yaml").is_file(), folder


@both
def test_the_chart_has_every_value_that_is_set(path: Path) -> None:
    """Under `--set`, and a file of values is there."""
    values = read_values("values.yaml")
    for words in commands(path, "helm"):
        for option, value in pairwise(words):
            if option in {"--set", "--set-string"}:
                found: Any = values
                for part in value.partition("=")[0].split("."):
                    assert part in found, value
                    found = found[part]
            if option == "--values":
                assert (ROOT / value).is_file()


@both
def test_every_link_leads_somewhere(path: Path) -> None:
    """To a file, and there to a heading."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", path.read_text(encoding="utf-8")):
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
            assert anchor in slugs, anchor


@both
def test_what_looks_like_a_setting_is_one(path: Path) -> None:
    """Or one of the guide's, which is answered here."""
    ours = {setting.env for setting in SETTINGS.values()} | {"REDIS_PASSWORD"}
    guides = {"DATABASE_TYPE", "DATABASE_PATH"}
    found = set(
        re.findall(r"`(?:config\.)?((?:REGISTRY|REDIS|AGENT|LEADER|ENABLE|DATABASE|AUTH)_[A-Z_]+)", path.read_text())
    )

    assert found - ours - guides == set()


def test_what_the_alerts_send_people_to_is_there() -> None:
    """By its heading."""
    said = (DEPLOY_DIR / "chart" / "monitoring" / "alerts.yaml").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", TROUBLE.read_text(encoding="utf-8"), re.MULTILINE)

    assert {*re.findall(r'See "([^"]+)" in TROUBLESHOOTING', said)} <= {*headings}


def test_the_script_is_run_as_it_is_named() -> None:
    """It can be started."""
    assert os.access(DEPLOY_DIR / "health_check.sh", os.X_OK)
