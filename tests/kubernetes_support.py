"""A Kubernetes of one test: an API that obeys a Role, and pods that are processes of this machine.

What the operator of Dask does with a ``DaskCluster`` is done by the operator's own functions; its
controller, which needs a true API server, is not run. Images, volumes and limits of pods are not
looked at.
"""

import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import yaml
from cluster_support import free_ports
from dask_kubernetes.operator.controller.controller import (
    build_scheduler_deployment_spec,
    build_worker_deployment_spec,
)

NAMESPACE = "deepprofile"
DASK = "kubernetes.dask.org"
BINARIES = Path(sys.executable).parent
VERBS = {"POST": "create", "DELETE": "delete", "PATCH": "patch"}
PORTS = ("tcp-comm", "http-dashboard")
DISCOVERY = {
    "version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
    "api": {"kind": "APIVersions", "versions": ["v1"]},
    "api/v1": {
        "groupVersion": "v1",
        "resources": [
            {"name": "pods", "singularName": "pod", "kind": "Pod", "namespaced": True},
            {"name": "services", "singularName": "service", "kind": "Service", "namespaced": True},
        ],
    },
    "apis": {
        "kind": "APIGroupList",
        "groups": [
            {
                "name": DASK,
                "versions": [{"groupVersion": f"{DASK}/v1", "version": "v1"}],
                "preferredVersion": {"groupVersion": f"{DASK}/v1", "version": "v1"},
            }
        ],
    },
    f"apis/{DASK}/v1": {
        "groupVersion": f"{DASK}/v1",
        "resources": [
            {"name": f"{kind.lower()}s", "singularName": kind.lower(), "kind": kind,
             "namespaced": True}
            for kind in ("DaskCluster", "DaskWorkerGroup", "DaskAutoscaler")
        ],
    },
}  # fmt: skip
"""What anyone may ask of the API."""
WORKER = "0123456789"
"""Number that the operator would draw for the pod of a worker."""


class Kubernetes:
    """Objects by resource and name, and the processes of the pods.

    Attributes:
        asked: verbs and resources of all requests, such as ``("create", "daskclusters")``.
        refused: those that the rules don't allow.
    """

    def __init__(self, rules, secrets):
        self.rules, self.secrets = rules, secrets
        self.asked, self.refused = set(), set()
        self.objects = {"daskclusters": {}, "pods": {}, "services": {}, "daskautoscalers": {}}
        self.objects["daskworkergroups"] = {}
        self.processes = {}
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))

    def allows(self, verb, group, resource):
        self.asked.add((verb, resource))
        allowed = any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
            for rule in self.rules
        )
        if not allowed:
            self.refused.add((verb, resource))
        return allowed

    def create(self, resource, document):
        name = document["metadata"]["name"]
        self.objects[resource][name] = document
        if resource == "daskclusters":
            document["status"] = {"phase": "Running"}
            self._operate(name, document["spec"])

    def delete(self, resource, name):
        del self.objects[resource][name]
        if resource == "daskclusters":
            self.close()

    def close(self):
        for process in self.processes.values():
            children = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.wait(20)
            for child in children:
                if child.is_running():
                    child.kill()
        self.processes = {}

    def _operate(self, name, spec):
        """What the operator does with a cluster."""
        address = f"tcp://127.0.0.1:{self.ports['tcp-comm']}"
        made = build_scheduler_deployment_spec(name, spec["scheduler"]["spec"], {}, {})
        places = ["--host", "127.0.0.1", "--port", str(self.ports["tcp-comm"])]
        places.append("--no-dashboard")
        self._run(made["spec"]["template"], f"{name}-scheduler", places, {})
        service = spec["scheduler"]["service"]
        for port in service["ports"]:
            port["port"] = self.ports[port["name"]]
        service["clusterIP"] = "127.0.0.1"
        metadata = {"name": f"{name}-scheduler", "namespace": NAMESPACE}
        self.objects["services"][metadata["name"]] = {"metadata": metadata, "spec": service}
        for number in range(spec["worker"]["replicas"]):
            made = build_worker_deployment_spec(
                f"{name}-default", NAMESPACE, name, f"{WORKER}{number}", spec["worker"]["spec"],
                {}, {},
            )  # fmt: skip
            places = ["--host", "127.0.0.1", "--no-dashboard"]
            found = {"DASK_SCHEDULER_ADDRESS": address}
            self._run(made["spec"]["template"], f"{name}-{number}", places, found)

    def _run(self, pod, name, places, found):
        """What the node does with a pod: its command, its variables."""
        (container,) = pod["spec"]["containers"]
        variables = {}
        for source in container.get("envFrom", ()):
            variables |= self.secrets[source["secretRef"]["name"]]
        variables |= {one["name"]: one["value"] for one in container["env"]} | found
        command = [
            re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], argument)
            for argument in container["args"]
        ]
        own = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        self.processes[name] = subprocess.Popen(
            [str(BINARIES / command[0]), *command[1:], *places], env={**own, **variables}
        )
        conditions = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")]
        self.objects["pods"][name] = {
            "metadata": {"name": name, "namespace": NAMESPACE, **pod["metadata"]},
            "spec": pod["spec"],
            "status": {"phase": "Running", "conditions": conditions},
        }


@contextmanager
def kubernetes(folder, rules, secrets):
    """Run it; yields it and the file by which clients find its API."""
    cluster = Kubernetes(rules, secrets)
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [
            {"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "users": [{"name": "test", "user": {"token": "none"}}],
        "contexts": [
            {
                "name": "test",
                "context": {"cluster": "test", "user": "test", "namespace": NAMESPACE},
            }
        ],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    try:
        yield cluster, path
    finally:
        cluster.close()
        server.shutdown()
        server.server_close()
        thread.join(20)


class _Handler(BaseHTTPRequestHandler):
    """Requests for objects of the namespace: /api/v1/… and /apis/GROUP/v1/…"""

    cluster: Kubernetes
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = urlsplit(self.path).path.strip("/")
        if path in DISCOVERY:
            self._answer(200, DISCOVERY[path])
        else:
            self._serve()

    def do_POST(self):
        self._serve()

    def do_DELETE(self):
        self._serve()

    def do_PATCH(self):
        self._serve()

    def _serve(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        url = urlsplit(self.path.replace("/?", "?").rstrip("/"))
        match = re.fullmatch(r"/apis?/(?:([^/]+)/)?v1/namespaces/([^/]+)/(\w+)(?:/(.+))?", url.path)
        assert match and match[2] == NAMESPACE, self.path
        group, resource, name = match[1] or "", match[3], match[4]
        verb = VERBS.get(self.command, "get" if name else "list")
        if not self.cluster.allows(verb, group, resource):
            self._answer(403, {"kind": "Status", "message": f"may not {verb} {resource}"})
            return
        objects = self.cluster.objects[resource]
        if verb == "list":
            items = [one for one in objects.values() if _matches(one, parse_qs(url.query))]
            self._answer(200, {"kind": "List", "metadata": {}, "items": items})
        elif verb == "create":
            self.cluster.create(resource, body)
            self._answer(201, body)
        elif name not in objects:
            self._answer(404, {"kind": "Status", "message": f"no {name}"})
        elif verb == "delete":
            document = objects[name]
            self.cluster.delete(resource, name)
            self._answer(200, document)
        else:
            if verb == "patch":
                objects[name]["spec"] |= body["spec"]
            self._answer(200, objects[name])

    def _answer(self, status, document):
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _matches(document, query):
    for text in query.get("labelSelector", ()):
        labels = document["metadata"].get("labels", {})
        if any(labels.get(key) != value for key, value in _pairs(text)):
            return False
    for text in query.get("fieldSelector", ()):
        for key, value in _pairs(text):
            part, field = key.split(".")
            if document[part].get(field) != value:
                return False
    return True


def _pairs(text):
    return [pair.split("=", 1) for pair in text.split(",")]
