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

from xltnb.files import cache_dir

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
    return SimpleNamespace(bin=home/'bin', site=site, cache=cache_dir())


def unprivileged():
    "In a new process: root may no longer write what is read-only"
    libc = ctypes.CDLL(None)
    if os.geteuid() == 0: libc.prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def run(env, cwd, *words, program='xltnb', ok=True, home=None, **more):
    "What a program of the environment prints; its exit code has to be 0, or 2 and one line where `ok` is not"
    variables = SMALL | (dict(HOME=str(home)) if home else {}) | (dict(XLTNB_CACHE=str(env.cache)) if home != '/proc' else {})
    done = subprocess.run([env.bin/program, *words], cwd=cwd, env=variables, capture_output=True, text=True, errors='surrogateescape', **more)
    assert 'Traceback' not in done.stderr and done.returncode == (0 if ok else 2), done.stdout[-1000:]+done.stderr[-3000:]
    if not ok: assert len(done.stderr.strip().split('\n')) == 1, done.stderr
    return done.stdout if ok else done.stderr


@pytest.fixture(scope='module')
def place(env, tmp_path_factory):
    "A folder with a name that few expect, and in it a store with mOthello's runs at smoke"
    folder = tmp_path_factory.mktemp('place')/f'"{ODD}"'
    folder.mkdir()
    assert ' 9 ran' in run(env, folder, 'run', 'mothello', '--store', 'my runs')
    return folder


def test_the_wheel_holds_the_library_and_its_data(wheel):
    with zipfile.ZipFile(wheel) as z: names, size = z.namelist(), sum(i.compress_size for i in z.infolist())/1e6
    tops = {n.split('/')[0] for n in names} - {'xltnb'}
    assert len(tops) == 1 and tops.pop().endswith('.dist-info')
    assert not [n for n in names if n.startswith(('xltnb/dev/', 'tests/', 'nbs/'))], 'builders, tests and pages need a checkout'
    shipped = {f'xltnb/{p.relative_to(ROOT/"xltnb").as_posix()}' for p in (ROOT/'xltnb').rglob('*') if p.is_file() and p.suffix not in ('.nbi', '.nbc', '.pyc')}
    assert {n for n in shipped if not n.startswith('xltnb/dev/')} <= set(names)
    assert size < 41, f'the wheel has {size:.1f} MB'  # three heads of nine each among them


def test_it_plans_judges_and_reports_without_a_record(env, tmp_path):
    papers = json.loads(run(env, tmp_path, 'list', '--json'))
    assert {'mothello', 'salt'} <= {p['paper'] for p in papers}
    assert 'runs to do' in run(env, tmp_path, 'plan', 'mothello')
    claims = json.loads(run(env, tmp_path, 'claims', 'mothello', '--json'))
    assert claims and {c['verdict'] for c in claims} <= {'to run', 'not measured', 'not read'} and not any(c['n'] for c in claims)
    assert 'smoke' in run(env, tmp_path, 'report', 'mothello', '--preset', 'smoke') and (tmp_path/'results'/'report-smoke.html').exists()


def test_it_judges_and_reports_its_own_runs(env, place):
    assert any(c['n'] for c in json.loads(run(env, place, 'claims', 'mothello', '--store', 'my runs', '--json')))
    run(env, place, 'report', 'mothello', '--store', 'my runs', '--out', 'r.html')
    assert 'mothello.C1' in (place/'r.html').read_text(encoding='utf-8')
    assert 'what the abstracts assert' in run(env, place, 'reproduce', 'mothello', '--store', 'my runs')


ADAPTERS = """
from xltnb.models.adapter_files import load_adapter, save_adapter
from xltnb.models.adapters import Adapter, Backbone, BottleneckCfg
shape = Backbone('tiny', 2, 16, 32)
for i, n in enumerate('ab'): save_adapter(Adapter(n, BottleneckCfg(), shape, init=i), f'{n}.safetensors')
"""


def test_it_merges(env, tmp_path):
    run(env, tmp_path, '-c', ADAPTERS, program='python')
    run(env, tmp_path, 'merge', 'a.safetensors', 'b.safetensors', '--weight', '.7', '--out', 'ab.safetensors')
    assert (tmp_path/'ab.safetensors').stat().st_size > 1000


def test_it_scores_an_encoder(env, tmp_path):
    rows = json.loads(run(env, tmp_path, 'leaderboard', '--rows', 'plain', '--scale', 'frozen', '--json'))
    assert rows[0]['method'] == 'plain' and rows[0]['n'] == 1


def test_every_module_is_imported_without_the_extras(env, tmp_path):
    "Only widgets ask for more, and say for what; the README's three lines, which come first, find their names"
    three = re.search(r'```python\n(from xltnb import .*?)\n', (ROOT/'README.md').read_text(encoding='utf-8'))[1]
    code = f"{three}\nprint(load_task('cldr_cat'))\nprint('modules')" + """
import importlib, pathlib, xltnb
home = pathlib.Path(xltnb.__file__).parent
for p in sorted(home.rglob('*.py')):
    name = '.'.join(('xltnb', *p.relative_to(home).with_suffix('').parts)).removesuffix('.__init__')
    try: importlib.import_module(name)
    except Exception as e: print(name, type(e).__name__, e)
"""
    task, said = run(env, tmp_path, '-c', code, program='python').strip().split('modules\n')
    said = said.split('\n')
    assert 'yo' in task and all('explorer XltError' in s and "pip install 'xltnb[lab]'" in s for s in said), said


@pytest.mark.parametrize('words, says', [('docs', 'needs a checkout'), ('corpus out', 'needs a checkout'), ('data build', 'needs a checkout'), ('page mothello_tab1', 'in a checkout'), ('pages', 'in a checkout'),
                                         ('lab', "pip install 'xltnb[lab]'"), ('speed othello-games', "pip install 'xltnb[peers]'")])
def test_what_a_wheel_lacks_is_said_in_a_line(env, tmp_path, words, says): assert says in run(env, tmp_path, *words.split(), ok=False)


def test_the_doctor_advises_what_a_wheel_can_do(env, tmp_path):
    rows = json.loads(run(env, tmp_path, 'doctor', '--json'))
    assert {r['name']: r['remedy'] for r in rows}['papermill'] == "pip install 'xltnb[lab]'"
    assert not [r for r in rows if 'make setup' in r['remedy'] or '-e .' in r['remedy'] or r['state'] == 'missing']


ONE = 'run', 'mothello', '--jobs', 'align-atomic-0', '--store'


@pytest.mark.parametrize('home', [None, '/nowhere/at/all', '/dev/null'])
def test_a_home_that_is_missing(env, tmp_path, home):
    assert 'mothello' in run(env, tmp_path, 'claims', 'mothello', home=home)
    run(env, tmp_path, 'doctor', home=home)


def test_site_packages_that_cannot_be_written(env, tmp_path):
    made = [env.site, *(p for p in env.site.rglob('*') if p.is_dir())]
    for p in made: p.chmod(0o555)
    try:
        if subprocess.run(['touch', env.site/'x'], preexec_fn=unprivileged, capture_output=True).returncode == 0: pytest.skip('this user writes what is read-only')
        assert '1 ran' in run(env, tmp_path, *ONE, 'runs', home='/proc', preexec_fn=unprivileged)
        assert 'mothello' in run(env, env.site, 'list', home='/proc', preexec_fn=unprivileged)
    finally:
        for p in made: p.chmod(0o755)


def test_names_that_are_no_text(env, tmp_path):
    odd = os.fsdecode(b'st\xffore')
    run(env, tmp_path, 'claims', 'mothello', '--store', odd)
    run(env, tmp_path, 'report', 'mothello', '--store', odd, '--out', odd+'.html')
    assert (tmp_path/(odd+'.html')).exists()
    for words in (('page', odd+'.ipynb'), ('merge', odd+'.yaml')): run(env, tmp_path, *words, ok=False)


def other_pythons():
    "Interpreters of the other releases that xltnb runs on"
    mine = '.'.join(map(str, sys.version_info[:2]))
    found = {v: next(iter([*map(str, Path.home().glob(f'.pyenv/versions/{v}.*/bin/python')), *filter(None, [shutil.which(f'python{v}')])]), None) for v in ('3.11', '3.12', '3.13')}
    return {v: p for v, p in found.items() if v != mine}


@pytest.mark.audit
@pytest.mark.parametrize('version', other_pythons())
def test_other_pythons(wheel, tmp_path, version):
    "The same from an installation of its own, where an interpreter and its packages are at hand"
    uv, python, home = Path(sys.executable).with_name('uv'), other_pythons()[version], tmp_path/'env'
    if not python or not uv.exists(): pytest.skip(f'no Python {version} on this machine')
    if subprocess.run([python, '-m', 'venv', '--without-pip', home], capture_output=True).returncode: pytest.skip(f'Python {version} makes no environments')
    got = subprocess.run([uv, 'pip', 'install', '-q', '--offline', '-p', home/'bin'/'python', '-c', ROOT/'constraints.txt', '--overrides', ROOT/'overrides.txt', wheel], capture_output=True, text=True)
    if got.returncode: pytest.skip(f'the packages for Python {version} are not in the cache of uv')
    env = SimpleNamespace(bin=home/'bin', cache=cache_dir())
    run(env, tmp_path, 'list')
    assert '1 ran' in run(env, tmp_path, *ONE, 'runs')
    run(env, tmp_path, 'claims', 'mothello', '--store', 'runs')
