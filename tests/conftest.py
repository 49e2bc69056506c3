"What every test may use: the checkout, its pages, its modules"
import configparser
import functools
import hashlib
import os
import random
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

# What a user's environment says must not reach a test: what is asked of the tests themselves is kept in ASKED
SWAYS = 'XLTNB_', 'HF_', 'TRANSFORMERS_', 'PAPERMILL_', 'TTY_'
ASKED = {k: os.environ.pop(k) for k in list(os.environ) if k.startswith(SWAYS) or k in ('COLUMNS', 'LINES', 'FORCE_COLOR', 'NO_COLOR', 'PYTHONIOENCODING')}
if 'PYTEST_XDIST_WORKER' in os.environ: ASKED |= {k.removeprefix('ASKED_'): v for k, v in os.environ.items() if k.startswith('ASKED_')}
else: os.environ |= {f'ASKED_{k}': v for k, v in ASKED.items()}  # for the processes that xdist starts
os.environ |= dict(OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1', TOKENIZERS_PARALLELISM='false')
os.environ |= dict(XLTNB_HOME=os.devnull+'/home')  # no test module may read a store while it is imported: a test has a folder of its own

ROOT = Path(__file__).resolve().parent.parent
NBS, LIB = ROOT/'nbs', ROOT/'xltnb'


def is_page(p):
    "A notebook of the checkout that is neither scratch, hidden, nor the result of a run"
    parts = p.relative_to(NBS).parts
    return not any(s[0] in '._' for s in parts) and parts[0] != 'results'


PAGES = sorted(p for p in NBS.rglob('*.ipynb') if is_page(p))
MODULES = sorted(p for p in LIB.rglob('*.py') if p.name not in ('_modidx.py', '__init__.py'))


def none_wrong(paths, fault):
    "Ask `fault` about each file, which answers with what is wrong in it or with nothing, and report all that are wrong together"
    bad = {p: w for p in paths if (w := fault(p))}
    lines = [f'{p.relative_to(ROOT)}: {w if isinstance(w, str) else "; ".join(map(str, w))}' for p, w in bad.items()]
    assert not bad, f'{len(bad)} of {len(paths)} files:\n' + '\n'.join(lines)


def settings():
    "settings.ini as a dict"
    cfg = configparser.ConfigParser(interpolation=None)
    cfg.read(ROOT/'settings.ini')
    return dict(cfg['DEFAULT'])


def chromium():
    "Path of a Chromium, or None"
    names = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
    return next((p for p in map(shutil.which, (ASKED.get('XLTNB_CHROMIUM', ''), *names)) if p), None)


def pytest_addoption(parser):
    parser.addoption('--drag', type=int, default=0, metavar='N', help="tests/test_lab.py: measure N moves of each widget's slider in JupyterLab")
    parser.addoption('--xquad', default='', metavar='DIR', help='tests/test_hub.py: test on the real XQuAD files of this folder')
    parser.addoption('--order', default='', metavar='SEED', help="run files, and the tests of each file, in an order drawn from this seed; 'reversed' turns the order round")


def pytest_configure(config): config.addinivalue_line('markers', 'audit: minutes that look again at what quicker tests watch; in CI alone')


def pytest_collection_modifyitems(config, items):
    "Audits wait for CI. Another order of files, and of tests in a file; a file stays together, since its fixtures are made once"
    later = pytest.mark.skip(reason='an audit, in CI alone: CI=1 make test')
    for i in items:
        if i.get_closest_marker('audit') and not os.environ.get('CI'): i.add_marker(later)
    if not (seed := config.getoption('--order')): return
    if seed == 'reversed': return items.reverse()
    rng, files = random.Random(seed), {}
    for i in items: files.setdefault(i.path, []).append(i)
    for tests in files.values(): rng.shuffle(tests)
    groups = list(files.values())
    rng.shuffle(groups)
    items[:] = [i for g in groups for i in g]


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
    (folder/'published.yaml').write_text(published or f'paper: {name}\ncitation: {{title: {name}, authors: nobody, venue: none, year: 2026}}\nclaims: []\n', encoding='utf-8')
    for part, text in parts.items(): (folder/f'{part}.py').write_text(text, encoding='utf-8')
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


@pytest.fixture(scope='session', autouse=True)
def one_cache(shared):
    "All tests share a cache that is not the user's: what lies there is named after what it was made from"
    os.environ['XLTNB_CACHE'] = str(shared/'cache')


@contextmanager
def own_home(shared, name):
    "A folder for stores of its own, which nobody makes before something is written there; no variable is left behind"
    env = dict(os.environ)
    os.environ['XLTNB_HOME'] = str(shared/'homes'/hashlib.sha256(name.encode()).hexdigest()[:16])
    yield
    if os.environ != env:
        os.environ.clear()
        os.environ.update(env)


@pytest.fixture(scope='module', autouse=True)
def own_module(request, shared):
    "What the fixtures of a file write is its own, and studies that it registers end with it"
    with own_home(shared, request.node.nodeid): yield
    if not (known := sys.modules.get('xltnb.runs.experiments')): return
    for names in (known.PRESET_JOBS, known.EXPERIMENTS):
        for n in [n for n in names if n not in ('page.run', 'speed.nap') and not any((d/n.split('.')[0]).is_dir() for d in (LIB, LIB/'papers'))]: del names[n]


@pytest.fixture(autouse=True)
def own_test(request, shared):
    "What a test writes is its own"
    with own_home(shared, request.node.nodeid): yield


@pytest.fixture(scope='session')
def browser():
    "A headless Chromium; without one the test is skipped, and in CI it fails"
    exe = chromium()
    if exe is None:
        why = 'no Chromium on this machine: the browser tests need one (Debian: apt install chromium)'
        (pytest.fail if ASKED.get('XLTNB_REQUIRE_BROWSER') == '1' or os.environ.get('CI') else pytest.skip)(why)
    from playwright.sync_api import sync_playwright
    flags = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=exe, args=flags.split())
        yield b
        b.close()
