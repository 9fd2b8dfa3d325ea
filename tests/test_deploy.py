"""Images and deployment: the files of deploy/ are sound, fit together, and hold what is needed."""

import os
import re
import shlex
import socket
import subprocess
import sys
import textwrap
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import click
import kubernetes_validate
import pytest
import typer
import yaml
from dask.utils import parse_bytes
from dask_kubernetes.operator.controller.controller import (
    build_scheduler_deployment_spec,
    build_worker_deployment_spec,
)
from dask_kubernetes.operator.validation import validate_cluster_name
from distributed.cli import dask_scheduler, dask_worker
from kubernetes_support import NAMESPACE, kubernetes

from deepprofile.cli import app
from deepprofile.cluster import connect
from deepprofile.cluster.base import ALLOWED_FAILURES, ClusterError
from deepprofile.cluster.connecting import read_spec
from deepprofile.cluster.kubernetes import LONGEST_NAME
from deepprofile.cluster.preload import CORES
from deepprofile.exit_codes import Code
from deepprofile.operators.logs import VARIABLE, LogFormat
from deepprofile.recipe import load_recipe
from deepprofile.stages import chain

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
MANIFESTS = ["kubernetes/access.yaml", "kubernetes/daily.yaml", "kubernetes/standing/dask.yaml"]
PAGES = [
    DEPLOY / "README.md",
    *(
        ROOT / "docs" / f"{page}.md"
        for page in ("from-demo-to-cluster", "operations", "monitoring")
    ),
]
BATCH = DEPLOY / "slurm/deepprofile.sbatch"
STYLE = "{extends: default, rules: {document-start: disable, line-length: {max: 110}}}"
KUBERNETES_VERSIONS = ["1.31", kubernetes_validate.latest_version()]
"""From the first in which all that is used is out of beta."""
RECIPES = ["global", "daily"]
POD_CLUSTER = {
    "kind": "kubernetes", "image": "none", "name": "soil", "memory": "2GiB", "cores": 3,
    "adaptive": {"maximum": 2}, "environment": {"AWS_REGION": "moon"}, "secret": "s3",
    "idle_timeout": "30 minutes",
}  # fmt: skip


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def of_kind(kind):
    everything = [document for name in MANIFESTS for document in documents(name)]
    return [document for document in everything if document["kind"] == kind]


def pod_of(document):
    """Metadata and spec of the pods that a document makes; None where it makes none."""
    spec = document.get("spec", {})
    return spec.get("jobTemplate", {}).get("spec", spec).get("template")


PODS = {
    pod["spec"]["containers"][0]["name"]: pod
    for name in MANIFESTS
    for document in documents(name)
    if (pod := pod_of(document))
}
CONTAINERS = {name: pod["spec"]["containers"][0] for name, pod in PODS.items()}


YAML = [
    *DEPLOY.rglob("*.yaml"),
    *ROOT.glob("cluster/*.yaml"),
    *ROOT.glob("pipelines/**/*.yaml"),
]
LINTERS = {
    "hadolint": ([], [DEPLOY / "Dockerfile"], "FROM x:1\nRUN cd /tmp\n"),
    "shellcheck": ([], [BATCH], "#!/bin/bash\necho $1\n"),
    "yamllint": (["--strict", "-d", STYLE], YAML, "a: 1\na: 2\n"),
}


@pytest.mark.parametrize("name", LINTERS)
def test_linters_find_nothing(name, tmp_path):
    options, files, bad = LINTERS[name]
    wrong = tmp_path / "bad"
    wrong.write_text(bad)
    command = [str(Path(sys.executable).parent / name), *options]
    done = subprocess.run([*command, *files], capture_output=True, text=True)
    assert files and done.returncode == 0, done.stdout + done.stderr
    assert subprocess.run([*command, wrong], capture_output=True).returncode != 0


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_manifests_have_what_kubernetes_knows(version):
    for name in MANIFESTS:
        for document in documents(name):
            kubernetes_validate.validate(document, version, strict=True)
    wrong = documents("kubernetes/daily.yaml")[0]
    wrong["spec"]["concurency"] = "Forbid"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


@pytest.mark.parametrize("gpus", [0, 1])
def test_pods_of_the_operator_have_what_kubernetes_knows(tmp_path, gpus):
    document = yaml.safe_load((ROOT / "cluster/kubernetes.yaml").read_text())
    document |= {"gpus": gpus, "service_account": "reader"}
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(document))
    made = read_spec(path).resource()
    assert re.fullmatch("[a-z][a-z0-9-]{0,50}", made["metadata"]["name"])
    scheduler, worker = (made["spec"][role] for role in ("scheduler", "worker"))
    pods = [
        build_scheduler_deployment_spec(
            "a", scheduler["spec"], scheduler["metadata"]["annotations"], {}
        ),
        build_worker_deployment_spec(
            "a-b", "n", "a", "0", worker["spec"], worker["metadata"]["annotations"], {}
        ),
    ]
    for deployment in pods:
        kubernetes_validate.validate(deployment, KUBERNETES_VERSIONS[-1], strict=True)
        pod = deployment["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        parse(container["args"])
        ports = [str(port["containerPort"]) for port in container["ports"]]
        assert pod["metadata"]["annotations"]["prometheus.io/port"] in ports
        assert pod["spec"]["serviceAccountName"] == "reader"
    sources = [one["spec"]["containers"][0].get("envFrom") for one in (scheduler, worker)]
    assert sources == [None, [{"secretRef": {"name": document["secret"]}}]]
    amounts = [one["spec"]["containers"][0]["resources"]["limits"] for one in (scheduler, worker)]
    assert ["nvidia.com/gpu" in one for one in amounts] == [False, bool(gpus)]


# Command lines ------------------------------------------------------------------------------------


def parse(words):
    """Values of a command line as the program reads it, without running it; raises if it can't."""
    if words[0] == "dask":
        main = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}[words[1]]
        return main.make_context(words[1], list(words[2:])).params
    assert words[0] == "deepprofile", words
    group = typer.main.get_command(app)
    outer = click.Context(group)
    name, command, rest = group.resolve_command(outer, list(words[1:]))
    return command.make_context(name, rest, parent=outer).params


def command_lines(page):
    """Commands of the blocks of a page, lines that go on joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def lines_of_pages():
    return [words for page in PAGES for words in command_lines(page) if words]


def programs(words):
    """Command lines of deepprofile and of Dask in a command line of any program."""
    while "=" in words[0]:  # variables of the command
        words = words[1:]
    if words[0] == "docker" and words[1] == "run":
        words = words[words.index(image()) + 1 :]
    if BATCH.relative_to(ROOT).as_posix() in words:
        start = words.index(BATCH.relative_to(ROOT).as_posix()) + 1
        words = ["deepprofile", *words[start:], "--cluster", "cluster/slurm.yaml"]
    words = [word.removeprefix(".venv/bin/") for word in words[:1]] + words[1:]
    return [words] if words[0] in ("deepprofile", "dask") else []


def image():
    return read_spec(ROOT / "cluster/kubernetes.yaml").image


def test_programs_accept_their_command_lines():
    found = [line for words in lines_of_pages() for line in programs(words)]
    found += [container["args"] for container in CONTAINERS.values()]
    assert len(found) > 9
    for words in found:
        parse(words)
    with pytest.raises(Exception, match="No such option"):
        parse(["dask", "worker", "tcp://host:1", "--thread-number", "4"])
    with pytest.raises(Exception, match="No such option"):
        parse(["deepprofile", "daily", "recipe.yaml", "--clusters", "local"])


def test_files_that_command_lines_name_are_there_and_load():
    named = {word for words in lines_of_pages() for word in words}
    named = {word.rpartition("=")[2] for word in named}
    files = {word for word in named if re.match(r"(cluster|pipelines|deploy|docs)/\S+\.\w+$", word)}
    assert {"pipelines/daily.yaml", "cluster/kubernetes.yaml"} <= files
    for name in sorted(files):
        assert (ROOT / name).is_file(), name
        if name.startswith("cluster/") or name.endswith("standing/cluster.yaml"):
            read_spec(ROOT / name)
        if name.startswith("pipelines/"):
            load_recipe(ROOT / name)


def test_links_of_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


# Image --------------------------------------------------------------------------------------------


def instructions():
    text = (DEPLOY / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "").splitlines()
    return [line.split(maxsplit=1) for line in joined if line.strip()]


def reaches_builder(path):
    """Whether a file is part of the build's context: the last pattern that fits decides."""
    kept = True
    for pattern in (ROOT / ".dockerignore").read_text().splitlines():
        if not pattern or pattern.startswith("#"):
            continue
        bare = pattern.lstrip("!").removeprefix("**/")
        parts = Path(path).parts
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        tails = list(parts) if "**/" in pattern else []
        if any(fnmatch(text, bare) for text in [*heads, *tails]):
            kept = pattern.startswith("!")
    return kept


def test_the_builder_gets_what_the_image_copies_and_nothing_else():
    copied = [words.split()[:-1] for name, words in instructions() if name == "COPY"]
    sources = {source for some in copied for source in some}
    assert {"deepprofile", "pyproject.toml", "requirements.lock"} <= sources
    for source in sources:
        assert (ROOT / source).exists() and reaches_builder(source), source
    assert reaches_builder("deepprofile/store/template.py")
    others = {path.name for path in ROOT.iterdir()} - sources | {".git", ".venv", "demo"}
    for other in [*others, "deepprofile/__pycache__", "deepprofile/store/__pycache__/a.pyc"]:
        assert not reaches_builder(other), other


def test_the_image_runs_any_command_and_is_not_root():
    names = [name for name, _ in instructions()]
    last = dict(instructions())
    assert "ENTRYPOINT" not in names  # the operator gives its pods arguments alone
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])  # a number, for runAsNonRoot
    assert last["CMD"] == '["deepprofile", "--help"]'
    arguments = dict(words.split("=") for name, words in instructions() if name == "ARG")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(arguments["EXTRAS"].split(",")) <= set(project["optional-dependencies"])
    assert {"s3", "kubernetes", "dashboard"} <= set(arguments["EXTRAS"].split(","))
    assert re.fullmatch(r"python:3\.(1[1-9])-slim", arguments["BASE"])
    assert set(re.findall(r"`(\w+)`", table_of_arguments())) >= set(arguments)


def table_of_arguments():
    text = PAGES[0].read_text()
    return "\n".join(line for line in text.splitlines() if line.startswith("| `"))


def test_the_lock_holds_all_that_the_image_installs():
    """The environment of the tests is made of the lock, so what it has must be in there."""
    import importlib.metadata as metadata

    from packaging.requirements import Requirement

    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = {plain(line.partition("==")[0]) for line in lines if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    waiting = [Requirement(text) for text in project["dependencies"]]
    waiting += [
        Requirement(text) for name in ("s3", "kubernetes", "dashboard") for text in extras[name]
    ]
    seen = set()
    while waiting:
        one = waiting.pop()
        if (one.name, *one.extras) in seen:
            continue
        seen.add((one.name, *one.extras))
        for text in metadata.requires(one.name) or ():
            needed = Requirement(text)
            wanted = [{"extra": name} for name in one.extras or ("",)]
            if needed.marker is None or any(needed.marker.evaluate(env) for env in wanted):
                waiting.append(needed)
    missing = {plain(name) for name, *_ in seen} - locked - {"setuptools"}
    assert not missing


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


# Kubernetes ---------------------------------------------------------------------------------------


def test_manifests_agree_with_each_other_and_with_the_cluster_file():
    assert {container["image"] for container in CONTAINERS.values()} == {image()}
    assert f"--tag {image()} " in PAGES[0].read_text().replace("\n", " ")
    everything = [document for name in MANIFESTS for document in documents(name)]
    for document in everything:
        meta = document["metadata"]
        name = meta["name"] if document["kind"] == "Namespace" else meta["namespace"]
        assert name == NAMESPACE
    (account,), (role,), (binding,) = map(of_kind, ("ServiceAccount", "Role", "RoleBinding"))
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    subjects = [{"kind": "ServiceAccount", **account["metadata"]}]
    assert binding["subjects"] == subjects
    assert PODS["driver"]["spec"]["serviceAccountName"] == account["metadata"]["name"]
    secret = read_spec(ROOT / "cluster/kubernetes.yaml").secret
    for name in ("driver", "worker"):
        assert CONTAINERS[name]["envFrom"] == [{"secretRef": {"name": secret}}]
    assert "envFrom" not in CONTAINERS["scheduler"]
    for deployment in of_kind("Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels


def test_the_config_map_has_the_files_that_the_driver_reads():
    (volume,) = [one for one in PODS["driver"]["spec"]["volumes"] if "configMap" in one]
    (mount,) = [one for one in CONTAINERS["driver"]["volumeMounts"] if one["name"] == "config"]
    folder = f"{mount['mountPath']}/"
    read = {
        word.removeprefix(folder)
        for word in CONTAINERS["driver"]["args"]
        if word.startswith(folder)
    }
    made = [words for words in lines_of_pages() if "configmap" in words]
    assert volume["name"] == "config" and len(made) == 3
    for words in made:
        assert words[words.index("configmap") + 1] == volume["configMap"]["name"]
        given = [word.split("=") for word in words if word.startswith("--from-file=")]
        files = {key: path for _, key, path in given}
        assert set(files) == read == {"daily.yaml", "cluster.yaml"}
        load_recipe(ROOT / files["daily.yaml"])
        read_spec(ROOT / files["cluster.yaml"])
        assert words[words.index("--namespace") + 1] == NAMESPACE
    (variable,) = CONTAINERS["driver"]["env"]
    assert variable == {"name": VARIABLE, "value": LogFormat.JSON.value}
    (secret,) = [words for words in lines_of_pages() if "secret" in words]
    assert CONTAINERS["driver"]["envFrom"][0]["secretRef"]["name"] in secret
    (job,) = [words for words in lines_of_pages() if "job" in words]
    assert f"--from=cronjob/{of_kind('CronJob')[0]['metadata']['name']}" in job


def test_only_what_failed_is_tried_again():
    (rule, drained) = of_kind("CronJob")[0]["spec"]["jobTemplate"]["spec"]["podFailurePolicy"][
        "rules"
    ]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["operator"] == "In"
    assert set(rule["onExitCodes"]["values"]) == set(Code) - {Code.DONE, Code.FAILED}
    assert rule["onExitCodes"]["containerName"] == CONTAINERS["driver"]["name"]
    assert drained["action"] == "Ignore"


def test_a_standing_scheduler_is_what_the_driver_expects():
    found = {item["name"]: item["value"] for item in CONTAINERS["scheduler"]["env"]}
    code = "import dask, distributed; print([dask.config.get(f'distributed.scheduler.{key}') "
    code += "for key in ('allowed-failures', 'no-workers-timeout')])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **found}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    address = read_spec(DEPLOY / "kubernetes/standing/cluster.yaml")
    assert done.stdout.strip() == str([ALLOWED_FAILURES, address.workers_timeout])
    (service,) = of_kind("Service")
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    name = service["metadata"]["name"]
    assert address.address == f"tcp://{name}:{ports['tcp-comm']}"
    assert service["spec"]["selector"] == PODS["scheduler"]["metadata"]["labels"]
    listening = {one["name"]: one["containerPort"] for one in CONTAINERS["scheduler"]["ports"]}
    given = parse(CONTAINERS["scheduler"]["args"])
    assert given["port"] == str(listening["tcp-comm"]) == str(ports["tcp-comm"])
    worker = parse(CONTAINERS["worker"]["args"])
    assert worker["scheduler"] == address.address
    seen = {
        "scheduler": given["dashboard_address"].lstrip(":"),
        "worker": worker["dashboard_address"].lstrip(":"),
    }
    open_ports = {
        str(port["port"])
        for rule in of_kind("NetworkPolicy")[0]["spec"]["ingress"]
        for port in rule.get("ports", ())
    }
    assert open_ports == set(seen.values())
    for role, port in seen.items():
        assert PODS[role]["metadata"]["annotations"]["prometheus.io/port"] == port
    limits = CONTAINERS["worker"]["resources"]["limits"]
    assert parse_bytes(worker["memory_limit"]) == parse_bytes(f"{limits['memory']}B")
    assert worker["nthreads"] == int(limits["cpu"])
    assert {"name": CORES, "value": limits["cpu"]} in CONTAINERS["worker"]["env"]


def test_only_chosen_namespaces_reach_the_pods():
    """The dashboard, with logs and call stacks, has the ports of the metrics."""
    everyone, metrics = of_kind("NetworkPolicy")[0]["spec"]["ingress"]
    named = [
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for rule in (everyone, metrics)
        for peer in rule["from"]
        if peer != {"podSelector": {}}
    ]
    assert named == ["dask-operator", "monitoring"] and {"podSelector": {}} not in metrics["from"]
    assert "ports" not in everyone and metrics["ports"]
    assert f"`{named[1]}`" in PAGES[0].read_text()


def test_every_run_has_a_cluster_of_its_own(tmp_path):
    path = tmp_path / "cluster.yaml"
    longest = "s" * LONGEST_NAME
    path.write_text(yaml.safe_dump({**POD_CLUSTER, "name": longest}))
    spec = read_spec(path)
    names = [spec.resource()["metadata"]["name"] for _ in range(2)]
    assert len(set(names)) == 2
    for name in names:
        assert name.startswith(f"{longest}-")
        validate_cluster_name(name)
    for wrong in (f"{longest}s", "Soil", "soil-"):
        path.write_text(yaml.safe_dump({**POD_CLUSTER, "name": wrong}))
        with pytest.raises(ClusterError, match="name"):
            read_spec(path)


def test_a_cluster_of_pods_starts_works_and_ends_with_the_rights_of_the_role(tmp_path, monkeypatch):
    """The API is the test's own and obeys the Role; the commands of the pods run as processes."""
    (role,) = of_kind("Role")
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(POD_CLUSTER))
    true_look_up = socket.getaddrinfo

    def look_up(host, *arguments, **options):
        own = re.fullmatch(rf"soil-\w+-scheduler\.{NAMESPACE}", str(host))
        host = "127.0.0.1" if own else host
        return true_look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    secrets = {"s3": {"AWS_ACCESS_KEY_ID": "someone"}}
    with kubernetes(tmp_path, role["rules"], secrets) as (cluster, configuration):
        monkeypatch.setenv("KUBECONFIG", str(configuration))
        cluster.objects["daskclusters"]["soil"] = {"metadata": {"name": "soil"}}  # another's
        with connect(path) as client:
            (name,) = cluster.objects["daskclusters"].keys() - {"soil"}
            idle = cluster.objects["daskclusters"][name]["spec"]["idleTimeout"]
            assert idle == 1800
            names = ["AWS_REGION", "AWS_ACCESS_KEY_ID", "OMP_NUM_THREADS"]
            found = client.submit(lambda: [os.environ.get(name) for name in names]).result()
            assert found == ["moon", "someone", "3"]
            settings = client.run_on_scheduler(
                lambda dask_scheduler: (
                    dask_scheduler.allowed_failures,
                    dask_scheduler.no_workers_timeout,
                    dask_scheduler.idle_timeout,
                )
            )
            assert settings[:2] == (ALLOWED_FAILURES, 600)
            assert settings[2] > idle  # the operator would set 300 s, at which the scheduler ends
            (autoscaler,) = cluster.objects["daskautoscalers"].values()
            assert autoscaler["spec"]["maximum"] == 2
        assert not cluster.refused
        assert set(cluster.objects["daskclusters"]) == {"soil"} and not cluster.processes
        asked = set(cluster.asked)
        cluster.asked.clear()
        client.close()  # as when it is collected
        assert not cluster.asked
    granted = {
        (verb, resource)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert not granted - asked - {("get", "pods/log")}


# Slurm --------------------------------------------------------------------------------------------


def stand_in(folder, body):
    """A command in the place of deepprofile."""
    path = folder / "command"
    path.write_text(f"#!{sys.executable}\nimport signal, sys, time\n{body}\n")
    path.chmod(0o755)
    return {**os.environ, "DEEPPROFILE": str(path), "CLUSTER": "some.yaml"}


def test_the_batch_job_ends_as_its_command_does(tmp_path):
    env = stand_in(tmp_path, "print(sys.argv[1:]); sys.exit(3)")
    done = subprocess.run(
        [BATCH, "daily", "a recipe.yaml"], env=env, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 3
    assert done.stdout.strip() == str(["daily", "a recipe.yaml", "--cluster", "some.yaml"])


def test_a_signal_to_the_batch_job_reaches_the_command(tmp_path):
    body = """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
    print("here", flush=True)
    time.sleep(60)"""
    env = stand_in(tmp_path, textwrap.dedent(body))
    process = subprocess.Popen([BATCH, "daily", "x"], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    process.terminate()
    assert process.wait(20) == 7
    options = re.findall(r"^#SBATCH --(\w[\w-]*)=(\S+)$", BATCH.read_text(), re.MULTILINE)
    assert dict(options)["signal"] == "B:TERM@120"  # B: to the batch script alone
    assert set(re.findall(r"--signal=(\S+)", BATCH.read_text())) == {"B:TERM@120"}


def test_a_batch_job_in_the_wrong_folder_says_so(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "DEEPPROFILE"}
    done = subprocess.run([BATCH, "daily", "x"], env=env, capture_output=True, text=True,
                          cwd=tmp_path)  # fmt: skip
    assert done.returncode == 2 and str(tmp_path) in done.stderr and "DEEPPROFILE=" in done.stderr
    done = subprocess.run([BATCH], env=env, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "usage" in done.stderr


# Memory -------------------------------------------------------------------------------------------


def workers():
    """Memory in bytes and threads of a worker of each cluster whose file says both."""
    found = {}
    for path in sorted(ROOT.glob("cluster/*.yaml")):
        spec = read_spec(path)
        if type(spec).model_fields.keys() >= {"memory", "jobs"}:  # batch jobs
            n_workers = spec.gpus or spec.cores // spec.threads_per_worker
            found[path.stem] = parse_bytes(spec.memory) // n_workers, spec.threads_per_worker
        elif hasattr(spec, "memory"):
            found[path.stem] = parse_bytes(spec.memory), spec.threads_per_worker
        elif getattr(spec, "memory_limit", "auto") != "auto":
            found[path.stem] = parse_bytes(spec.memory_limit), spec.threads_per_worker
    given = parse(CONTAINERS["worker"]["args"])
    found["standing"] = parse_bytes(given["memory_limit"]), given["nthreads"]
    return found


def too_large(plans, memory, threads):
    """Stages whose jobs don't fit into a worker, see `deepprofile.store.check_memory`."""
    return [
        name
        for name, plan in plans.items()
        if plan.worker_memory + min(threads, plan.jobs or threads) * plan.job_memory > memory
    ]


@pytest.mark.parametrize("recipe", RECIPES)
def test_workers_have_the_memory_that_the_plan_of_the_globe_needs(recipe):
    plans = chain.plans(load_recipe(ROOT / f"pipelines/{recipe}.yaml"))
    found = workers()
    assert {"slurm", "slurm-gpu", "kubernetes", "ssh", "standing"} <= set(found)
    small = {name: some for name, (memory, threads) in found.items()
             if (some := too_large(plans, memory, threads))}  # fmt: skip
    assert not small
    assert too_large(plans, 2 * 2**30, 4)
