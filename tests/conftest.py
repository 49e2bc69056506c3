"What every test may use: the checkout, its pages, its modules"
import configparser
import functools
import os
import shutil
from pathlib import Path

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')

ROOT = Path(__file__).resolve().parent.parent
NBS, LIB = ROOT/'nbs', ROOT/'xltnb'


def is_page(p):
    "A notebook of the checkout that is neither scratch, hidden, nor the result of a run"
    parts = p.relative_to(NBS).parts
    return not any(s[0] in '._' for s in parts) and parts[0] != 'results'


PAGES = sorted(p for p in NBS.rglob('*.ipynb') if is_page(p))
MODULES = sorted(p for p in LIB.rglob('*.py') if p.name not in ('_modidx.py', '__init__.py'))


def settings():
    "settings.ini as a dict"
    cfg = configparser.ConfigParser(interpolation=None)
    cfg.read(ROOT/'settings.ini')
    return dict(cfg['DEFAULT'])


def chromium():
    "Path of a Chromium, or None"
    names = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
    return os.environ.get('XLTNB_CHROMIUM') or next((p for p in map(shutil.which, names) if p), None)


def pytest_addoption(parser):
    parser.addoption('--drag', type=int, default=0, metavar='N', help="tests/test_lab.py: measure N moves of each widget's slider in JupyterLab")


@functools.cache
def configs():
    "All configurations of the package, by name"
    import importlib
    import dataclasses
    found = set()
    for m in MODULES:
        if m.name == '__main__.py' or m.parent == LIB and m.stem == 'cli': continue
        module = importlib.import_module('.'.join(m.relative_to(ROOT).with_suffix('').parts))
        found |= {v for v in vars(module).values() if isinstance(v, type) and dataclasses.is_dataclass(v) and v.__module__ == module.__name__}
    from xltnb.core import Config
    from xltnb.runs.experiments import EXPERIMENTS
    used = {e.cfg for e in EXPERIMENTS.values() if e.cfg}
    return sorted((c for c in found if issubclass(c, Config) or c.__name__.endswith('Cfg') or c in used), key=lambda c: c.__name__)


def copy_checkout(dst):
    "A copy of what a test may change: sources, without environments, caches or runs"
    skip = shutil.ignore_patterns('.git', '.venv', '.cache', 'results', '_docs', '_proc*', '__pycache__', '*.egg-info', '.pytest_cache', '.hypothesis', '.ruff_cache', '.ipynb_checkpoints')
    return Path(shutil.copytree(ROOT, dst, ignore=skip, dirs_exist_ok=True))


def write_paper(papers, name, published='', **parts):
    "A paper's folder below `papers`: its published file, and a module for each of `parts`"
    folder = papers/name
    folder.mkdir(parents=True)
    (folder/'published.yaml').write_text(published or f'paper: {name}\ncitation: {{title: {name}, authors: nobody, venue: none, year: 2026}}\nclaims: []\n')
    for part, text in parts.items(): (folder/f'{part}.py').write_text(text)
    return folder


@pytest.hookimpl(optionalhook=True)  # pytest runs without xdist too
def pytest_xdist_make_scheduler(config, log):
    "Two processes share the tests: a file stays in one of them, since its fixtures are made once; each page goes wherever there is time"
    from xdist.scheduler import LoadScopeScheduling

    class FilesAndPages(LoadScopeScheduling):
        def _split_scope(self, nodeid): return nodeid if '::test_page[' in nodeid else nodeid.split('::')[0]
    return FilesAndPages(config, log)


@pytest.fixture(scope='session')
def shared(tmp_path_factory):
    "A folder that all test processes of this run have in common"
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get('PYTEST_XDIST_WORKER') else base


@pytest.fixture(scope='session')
def browser():
    "A headless Chromium; without one the test is skipped, and in CI it fails"
    exe = chromium()
    if exe is None:
        why = 'no Chromium on this machine: the browser tests need one (Debian: apt install chromium)'
        (pytest.fail if os.environ.get('XLTNB_REQUIRE_BROWSER') == '1' or os.environ.get('CI') else pytest.skip)(why)
    from playwright.sync_api import sync_playwright
    flags = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=exe, args=flags.split())
        yield b
        b.close()
