"""deploy/: every file is well formed, and every command line in it is one that the programs take."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from celery.bin.celery import celery as celery_command

from support import unavailable
from totalizer.ops.cli import app
from totalizer.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
#: Kind → where its pods are described.
POD_PATHS = {
    "Job": ("spec", "template"), "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Deployment": ("spec", "template"), "StatefulSet": ("spec", "template"),
}  # fmt: skip
VERSIONS = {
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "Service": "v1",
}


def manifests() -> list[Any]:
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    found = [each for path in files if path.stem != "kustomization" for each in yaml.safe_load_all(path.read_text())]
    assert len(found) >= 7
    return found


def pod(manifest: Any) -> Any:
    for step in POD_PATHS[manifest["kind"]]:
        manifest = manifest[step]
    return manifest


def containers() -> Iterator[tuple[Any, Any]]:
    for manifest in manifests():
        if manifest["kind"] in POD_PATHS:
            for container in pod(manifest)["spec"]["containers"]:
                yield manifest, container


def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def units() -> list[Path]:
    return sorted((DEPLOY / "systemd").glob("*.service"))


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every command line in deploy/, with where it stands."""
    for manifest, container in containers():
        yield f"kubernetes {manifest['metadata']['name']}", container["command"]
        for probe in ("livenessProbe", "readinessProbe"):
            if "exec" in container.get(probe, {}):
                yield f"kubernetes {container['name']} {probe}", container[probe]["exec"]["command"][2].split()
    for name, service in compose()["services"].items():
        if name not in ("postgres", "valkey"):
            yield f"compose {name}", service["command"]
    for path in units():
        [line] = re.findall(r"(?m)^ExecStart=/opt/totalizer/bin/(.*)$", path.read_text())
        yield path.name, line.split()
    yield "Dockerfile", yaml.safe_load((DEPLOY / "Dockerfile").read_text().rsplit("CMD ", 1)[1])


LINES = list(command_lines())


@pytest.mark.parametrize("words", [words for _, words in LINES], ids=[place for place, _ in LINES])
def test_a_command_line_is_one_that_its_program_takes(words: list[str]) -> None:
    program, *rest = words
    if program == "totalizer":
        ours(rest)
    else:
        assert (program, *rest[:2]) == ("celery", "-A", "totalizer.celery_app")
        celerys(rest[2], rest[3:])


def ours(words: list[str]) -> None:
    """Parse as the program itself does, short of running it."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("totalizer", [], resilient_parsing=True)
    while hasattr(command, "get_command"):
        name, *words = words
        command = command.get_command(context, name)
        assert command is not None, name
    command.make_context(name, words)


def celerys(name: str, options: list[str]) -> None:
    given = {option.split("=")[0] for option in options if option.startswith("-")}
    if name == "flower":
        from flower import options as _  # noqa: F401 - it defines them
        from tornado.options import options as known

        assert {option.lstrip("-") for option in given} <= set(known)
        return
    command: Any = celery_command.commands[name]
    if hasattr(command, "commands"):
        command = command.commands[options[0]]
    assert given <= {option for parameter in command.params for option in parameter.opts} | {"--destination"}


def test_manifests_have_what_their_kinds_need() -> None:
    names = set()
    for manifest in manifests():
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        assert manifest["apiVersion"] == VERSIONS[kind], name
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
        assert (kind, name) not in names
        names.add((kind, name))
        if kind in ("Deployment", "StatefulSet"):
            labels = pod(manifest)["metadata"]["labels"]
            assert manifest["spec"]["selector"]["matchLabels"].items() <= labels.items(), name
        if kind in ("Job", "CronJob"):
            assert pod(manifest)["spec"]["restartPolicy"] in ("OnFailure", "Never")
    assert {kind for kind, _ in names} == set(VERSIONS)
    listed = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())["resources"]
    assert all((DEPLOY / "kubernetes" / name).exists() for name in listed)


def test_containers_run_without_rights_and_write_only_where_they_may() -> None:
    for manifest, container in containers():
        spec = pod(manifest)["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] == 10001
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"]
        assert not rights["allowPrivilegeEscalation"]
        assert rights["capabilities"]["drop"] == ["ALL"]
        known = {volume["name"] for volume in spec.get("volumes", [])}
        known |= {claim["metadata"]["name"] for claim in manifest["spec"].get("volumeClaimTemplates", [])}
        assert {mount["name"] for mount in container["volumeMounts"]} <= known
        assert container["resources"]["limits"]["memory"]


def test_probes_ask_routes_that_there_are() -> None:
    text = (ROOT / "src/totalizer/web/health_routes.py").read_text()
    asked = [
        (container["name"], probe["httpGet"])
        for _, container in containers()
        for name, probe in container.items()
        if name.endswith("Probe") and "httpGet" in probe
    ]
    assert len(asked) == 3
    for name, request in asked:
        assert f'"{request["path"]}"' in text, name
        assert request["port"] == "http"


def test_services_of_compose_are_whole() -> None:
    document = compose()
    services, volumes = document["services"], document["volumes"]
    assert {
        "backend",
        "loader",
        "monitor",
        "celery-worker",
        "celery-beat",
        "flower",
        "scheduler",
        "migrate",
    } <= services.keys()
    for name, service in services.items():
        assert service.get("image"), name
        assert set(service.get("depends_on", {})) <= services.keys(), name
        for mount in service.get("volumes", []):
            assert mount.split(":")[0] in volumes, name
        if service["image"] == "totalizer":
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name


def test_variables_are_settings() -> None:
    known = {str(field.validation_alias) for field in Settings.model_fields.values()}
    named = set(compose()["x-totalizer"]["environment"])
    named |= {variable["name"] for _, container in containers() for variable in container["env"]}
    named |= set(re.findall(r"(TOTALIZER_HOME|HOST|PORT)=", (DEPLOY / "Dockerfile").read_text()))
    assert named <= known


def test_units_are_accepted_by_systemd(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        unavailable("systemd-analyze is not installed")
        return
    programs = Path(sys.executable).parent
    for path in units():
        text = path.read_text().replace("/opt/totalizer/bin", str(programs))
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        [verify, "verify", *sorted(tmp_path.glob("*.service"))], capture_output=True, text=True, check=False
    )
    ours_only = [line for line in done.stderr.splitlines() if "totalizer-" in line]
    assert (done.returncode, ours_only) == (0, []), done.stderr


def test_the_image_is_not_roots_and_copies_what_there_is() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r"(?m)^USER (.*)$", text) == ["10001:10001"]
    for names in re.findall(r"(?m)^COPY (?!--from)(.*)$", text):
        assert all((ROOT / name).exists() for name in names.split()[:-1])


def test_the_wheel_that_the_image_installs_can_be_built_and_is_whole(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    [wheel] = tmp_path.glob("totalizer-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = (
        "totalizer/celery_app.py",
        "totalizer/store/lease.lua",
        "totalizer/store/migrations/versions/0008_jobs.sql",
    )
    assert set(wanted) <= names
    pinned = re.findall(r"(?m)^[a-z0-9._-]+==[^ ;\\]+", (ROOT / "requirements.lock").read_text())
    assert len(pinned) > 100, "the constraints that the image is built with"
