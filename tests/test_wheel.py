"""What `pip install xltnb` gives: a wheel in an environment that has the package's own requirements alone, away from the checkout

The requirements are links to what this environment has: every distribution that the package asks for, and what these ask for.
"""
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

ODD = "ein Rad für's Lager ☃"  # spaces, a quote, letters beyond ASCII
SMALL = dict(OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1', TOKENIZERS_PARALLELISM='false', PATH=os.defpath, LC_ALL='C.UTF-8', COLUMNS='120')


def plain_name(name): return re.sub(r'[-_.]+', '-', name).lower()


def needed(names, seen=None):
    "Distributions that the named ones need, themselves among them"
    seen = {} if seen is None else seen
    for n in map(plain_name, names):
        if n in seen: continue
        seen[n] = distribution(n)
        reqs = [Requirement(r) for r in seen[n].requires or []]
        needed([r.name for r in reqs if r.marker is None or r.marker.evaluate({'extra': ''})], seen)
    return seen


def link_all(dists, folder):
    "Links to the top of each distribution"
    for d in dists:
        for top in {f.parts[0] for f in d.files or []} - {'..', '__pycache__', 'tests'}:
            if not (link := folder/top).exists(): link.symlink_to(d.locate_file(top))


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "The wheel, built from a copy of the sources"
    src, out = tmp_path_factory.mktemp('src'), tmp_path_factory.mktemp('wheel')
    for f in ('pyproject.toml', 'README.md', 'LICENSE'): shutil.copy(ROOT/f, src)
    shutil.copytree(ROOT/'xltnb', src/'xltnb', ignore=shutil.ignore_patterns('__pycache__', '*.nb[ic]'))
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-build-isolation', '--no-deps', '--no-index', '-w', out, src], check=True)
    return next(out.glob('*.whl'))


@pytest.fixture(scope='module')
def env(wheel, tmp_path_factory):
    "An environment with the wheel and what it requires, and nothing else"
    home = tmp_path_factory.mktemp('env')/ODD
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', home], check=True)
    subprocess.run([sys.executable, '-m', 'pip', '-q', '--python', home/'bin'/'python', 'install', '--no-deps', '--no-index', wheel], check=True)
    site = next(home.glob('lib/python*/site-packages'))
    (deps := home/'deps').mkdir()
    asked = [Requirement(r) for r in distribution('xltnb').requires or []]
    link_all(needed(r.name for r in asked if r.marker is None).values(), deps)
    (site/'deps.pth').write_text(str(deps), encoding='utf-8')
    return SimpleNamespace(bin=home/'bin', site=site)
