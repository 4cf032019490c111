"""What no module may hold: ways to run what was only meant to be read, and ways to be reached from outside.

The syntax trees are looked at and not the text, so that neither a comment nor another spelling decides.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("sessions", "engine", "screens", "workbench")
MODULES = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "dbm", "jsonpickle",
    "yaml", "code", "xmlrpc", "http", "socketserver", "ftplib", "telnetlib", "smtplib", "asyncore", "aiohttp",
    "requests", "httpx", "urllib3",
}  # fmt: skip
NAMES = {"eval", "exec", "compile", "__import__"}
DOTTED = {
    "torch.load", "torch.save", "torch.jit.load", "torch.package", "torch.hub", "numpy.load", "numpy.save",
    "os.system", "os.popen", "os.execv", "os.spawnv", "tempfile.mktemp", "subprocess.getoutput",
    "subprocess.getstatusoutput", "asyncio.start_server", "asyncio.open_connection",
    "asyncio.create_subprocess_shell", "socket.create_server", "socket.create_connection", "socket.AF_INET",
    "socket.AF_INET6", "socket.socketpair", "urllib.request", "builtins.eval", "builtins.exec", "faulthandler",
}  # fmt: skip
KEYWORDS = {"shell", "weights_only", "allow_pickle"}
ATTRIBUTES = {"create_server", "create_connection", "create_subprocess_shell", "AF_INET", "AF_INET6"}
ALIASES = {"np": "numpy"}


def found(source: str) -> list[tuple[int, str]]:
    """Line and name of everything forbidden in a module."""
    tree = ast.parse(source)
    names = dict(ALIASES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0]
                      for a in node.names}  # fmt: skip
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return [(getattr(node, "lineno", 0), what) for node in ast.walk(tree) for what in _forbidden(node, names)]


def _forbidden(node: ast.AST, names: dict[str, str]) -> Iterator[str]:
    match node:
        case ast.Import(names=imported):
            yield from (a.name for a in imported if a.name.partition(".")[0] in MODULES or _dotted(a.name))
        case ast.ImportFrom(module=str(module), names=imported, level=0):
            if module.partition(".")[0] in MODULES:
                yield module
            yield from (f"{module}.{a.name}" for a in imported if _dotted(f"{module}.{a.name}") or _dotted(module))
        case ast.Attribute(attr=attr):
            whole = _whole(node, names)
            if _dotted(whole) or attr in ATTRIBUTES:
                yield whole
        case ast.Name(id=name) if name in NAMES:
            yield name
        case ast.Call(func=func, keywords=keywords):
            called = _whole(func, names)
            for keyword in keywords:
                if keyword.arg in KEYWORDS:
                    yield f"{keyword.arg}="
                if keyword.arg == "trust_remote_code" and not _may_trust(keyword.value):
                    yield "trust_remote_code="
            if called.endswith(".from_pretrained") and not any(k.arg in (None, "trust_remote_code") for k in keywords):
                yield "from_pretrained without trust_remote_code"
            if called.endswith("import_module") and any(isinstance(a, ast.Constant) for a in node.args):
                yield from (f"import_module({a.value})" for a in node.args
                            if isinstance(a, ast.Constant) and str(a.value).partition(".")[0] in MODULES)  # fmt: skip
        case ast.Dict(keys=keys, values=values):
            for key, value in zip(keys, values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "trust_remote_code" and not _may_trust(value):
                    yield "trust_remote_code:"


def _may_trust(value: ast.expr) -> bool:
    """False, or a name that says what the person gave; never True by itself."""
    if isinstance(value, ast.Constant):
        return value.value is False
    return isinstance(value, ast.Name | ast.Attribute) and _whole(value, {}).endswith("trust_remote_code")


def _dotted(name: str) -> bool:
    return any(name == forbidden or name.startswith(forbidden + ".") for forbidden in DOTTED)


def _whole(node: ast.expr, names: dict[str, str]) -> str:
    """``np.load`` as ``numpy.load``; what is called on an expression begins with a dot."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(names.get(node.id, node.id) if isinstance(node, ast.Name) else "")
    return ".".join(reversed(parts))


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_forbidden_is_in_a_package(package: str) -> None:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert len(paths) > 10
    assert [(str(p.relative_to(ROOT)), *what) for p in paths for what in found(p.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "import os.path, marshal",
        "def f():\n    import dill",
        "from joblib import load",
        "import shelve",
        "import torch\ntorch.load(x)",
        "import torch as t\nt.load(x)",
        "from torch import load",
        "from torch import load as read\nread(x)",
        "import torch\nread = torch.load",
        "import torch\ntorch.hub.load(x)",
        "import numpy as np\nnp.load(x)",
        "np.load(x, allow_pickle=True)",
        "read(x, allow_pickle=True)",
        "eval('1')",
        "run = exec",
        "__import__('pickle')",
        "import importlib\nimportlib.import_module('pickle')",
        "from importlib import import_module as load\nload('x')\nimport importlib\nimportlib.import_module('dill.x')",
        "import os\nos.system('x')",
        "from os import system",
        "import os as o\no.popen('x')",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "subprocess.Popen('x', shell=yes)",
        "import asyncio\nasyncio.create_subprocess_shell('x')",
        "import socket\nsocket.socket(socket.AF_INET)",
        "from socket import AF_INET6",
        "import asyncio\nasyncio.start_server(f)",
        "loop.create_server(f)",
        "loop.create_connection(f)",
        "import urllib.request",
        "from urllib import request",
        "import http.server",
        "import yaml",
        "import faulthandler\nfaulthandler.enable()",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=1 == 1)",
        "AutoModel.from_pretrained(x, trust_remote_code=settings.shall)",
        "AutoModel.from_pretrained(x)",
        "options = {'trust_remote_code': True}",
        "import tempfile\ntempfile.mktemp()",
    ],
)
def test_the_look_finds_every_spelling(source: str) -> None:
    assert found(source) != []


@pytest.mark.parametrize(
    "source",
    [
        "# import pickle",
        "'torch.load(x)'",
        "from safetensors.torch import load_file\nload_file(x)",
        "model.eval()",
        "import re\nre.compile('x')",
        "import subprocess\nsubprocess.run(['x'])",
        "import socket\nsocket.socket(socket.AF_UNIX)",
        "import asyncio\nasyncio.start_unix_server(f)",
        "AutoModel.from_pretrained(x, trust_remote_code=False)",
        "AutoModel.from_pretrained(x, trust_remote_code=settings.trust_remote_code)",
        "AutoModel.from_pretrained(x, trust_remote_code=trust_remote_code)",
        "AutoModel.from_pretrained(x, **options)",
        "import json\njson.load(x)",
        "import os\nos.path.join(x)",
    ],
)
def test_the_look_finds_nothing_else(source: str) -> None:
    assert found(source) == []
