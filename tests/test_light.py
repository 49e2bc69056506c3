"`import xltnb` and `xltnb --help` are light"
import os
import resource
import subprocess
import sys

import pytest
from conftest import LIB, ROOT

from xltnb.names import TOP_NAMES
from xltnb.runs.experiments import has_part, papers

LIMIT_S = 0.5  # of `xltnb --help`
IMPORT_S = 0.2  # of `import xltnb`
READ = """import json, pathlib, sys, numpy, scipy.special, yaml
for p in pathlib.Path(sys.argv[1]).glob('*/*.json'): json.loads(p.read_bytes())"""  # the floor of an answer: what it has to import, and all records
TIMES = {'list': 1.5, 'list mothello': 1.5, 'doctor': 1.5, 'plan': 2.5, 'plan --preset laptop': 3.5, 'claims': 5., 'claims --preset laptop': 5.}  # the floor, at most
SHIPPED = [p for p in papers() if has_part(p, 'experiments')]
HEAVY = ('torch', 'transformers', 'datasets', 'pandas', 'numba', 'plotly', 'IPython')


def fastest(args, n=5, enough=LIMIT_S/2):
    "Least processor time of `n` runs, which a busy machine does not change, and the last run"
    times, spent = [], lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    for _ in range(n):
        t = spent()
        done = subprocess.run(args, cwd=ROOT, capture_output=True, encoding='utf-8', env={k: v for k, v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'})
        times.append(spent() - t)
        if times[-1] < enough: break
    return min(times), done


def loaded(code):
    "Heavy modules that `code` loads"
    done = subprocess.run([sys.executable, '-c', f'{code}\nimport sys; print("LOADED", *[m for m in {HEAVY!r} if m in sys.modules])'], cwd=ROOT, capture_output=True, encoding='utf-8')
    assert 'LOADED' in done.stdout, done.stderr
    return done.stdout.rpartition('LOADED')[2].split()


def loaded_by(words):
    "Heavy modules that a command loads; it has to end well"
    return loaded(f'import sys\nsys.argv = {["xltnb", *words.split()]!r}\ntry:\n from xltnb.cli import main; main()\nexcept SystemExit as e: assert not e.code, e.code')


def test_import_is_light():
    assert loaded('import xltnb') == []
    s, done = fastest([sys.executable, '-c', 'import xltnb'])
    assert done.returncode == 0 and s < IMPORT_S, f'import xltnb took {s:.2f} s'


def test_names_at_the_top():
    "Each name is there, nothing heavy is loaded before one is asked for, and the wrong one is answered"
    import xltnb
    assert loaded('import xltnb; dir(xltnb)') == []
    assert set(TOP_NAMES) <= set(dir(xltnb))
    for name, module in TOP_NAMES.items(): assert getattr(xltnb, name).__module__ == f'xltnb.{module}', f'{name} is not defined in {module}'
    with pytest.raises(AttributeError, match="did you mean 'finetune'"): xltnb.fintune
    assert not hasattr(xltnb, '__wrapped__')


@pytest.mark.parametrize('made', ['xltnb/nbs', 'xltnb/data', 'xltnb'])
def test_a_folder_of_our_name_hides_nothing(tmp_path, made):
    "From the parent of a clone, or beside a folder that is called xltnb"
    (tmp_path/made).mkdir(parents=True)
    code = 'from xltnb.files import package_data, project_root; print(package_data("bench").is_dir(), project_root(), sep="\\n")'
    env = os.environ | dict(PYTHONPATH=str(ROOT))  # this checkout, whichever one is installed
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=env, capture_output=True, encoding='utf-8')
    assert done.stdout.splitlines() == ['True', str(ROOT)], done.stderr


def test_another_nbdev_project_is_not_ours(tmp_path):
    "Its commit does not get into our records, and ours are found from there"
    (tmp_path/'nbs').mkdir()
    (tmp_path/'settings.ini').touch()
    git = ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b']
    for words in (['init', '-q'], ['add', '.'], ['commit', '-q', '-m', 'theirs']): subprocess.run([*git, *words], check=True)
    theirs = subprocess.run([*git, 'rev-parse', 'HEAD'], capture_output=True, encoding='utf-8', check=True).stdout.strip()
    code = 'from xltnb.files import project_root; from xltnb.records.record import provenance; print(project_root(), provenance("cpu")["commit"], sep="\\n")'
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=os.environ | dict(PYTHONPATH=str(ROOT)), capture_output=True, encoding='utf-8')
    root, commit = done.stdout.splitlines()
    assert root == str(ROOT) and commit != theirs, done.stderr


def test_help_is_light():
    code = 'import sys\nsys.argv = ["xltnb", "--help"]\ntry:\n from xltnb.cli import main; main()\nexcept SystemExit: pass'
    assert loaded(code) == []
    s, done = fastest([sys.executable, '-m', 'xltnb.cli', '--help'])
    assert done.returncode == 0, done.stderr
    assert 'run' in done.stdout and 'claims' in done.stdout
    assert s < LIMIT_S, f'xltnb --help took {s:.2f} s'


def test_first_rooms_load_no_torch():
    names = ['core', 'stats', *(f'records.{p.stem}' for p in sorted((LIB/'records').glob('[!_]*.py')))]
    assert len(names) > 7
    got = loaded('\n'.join(f'import xltnb.{m}' for m in names))
    assert not {'torch', 'transformers'} & set(got)


def test_the_meter_sees_a_heavy_import(): assert loaded('import plotly') == ['plotly']


def test_listing_papers_reads_their_published_files_alone():
    assert not {'torch', 'transformers', 'datasets', 'numba'} & set(loaded_by('list'))


@pytest.mark.parametrize('words', ['list', 'plan', 'plan --preset laptop', 'claims', 'claims --preset laptop', 'compare robust --preset laptop', 'doctor', *[f'list {p}' for p in SHIPPED]])
def test_planning_and_judging_load_nothing_that_trains(words):
    assert not set(HEAVY) & set(loaded_by(words))


def test_the_shipped_leaderboard_loads_no_torch():
    assert not {'torch', 'transformers', 'datasets', 'numba'} & set(loaded_by('leaderboard --show --preset laptop'))


@pytest.mark.parametrize('words', TIMES)
def test_an_answer_comes_at_once(words):
    "As a multiple of its floor, the two in turns: machines differ by half, and records become more"
    floor, took = [], []
    for _ in range(9):  # a busy machine only adds
        floor.append(fastest([sys.executable, '-c', READ, str(ROOT/'nbs/results')], 1)[0])
        s, done = fastest([sys.executable, '-m', 'xltnb.cli', *words.split()], 1)
        assert done.returncode == 0, done.stderr
        took.append(s)
        if min(took) < TIMES[words]*min(floor): return
    pytest.fail(f'xltnb {words} took {min(took):.2f} s of processor time, {min(took)/min(floor):.1f} times the {min(floor):.2f} s of reading the records')


def test_a_job_still_finds_its_function():
    "Registered by name: each names a module of its paper and a function in it"
    from xltnb.runs.experiments import EXPERIMENTS, load_jobs
    for paper in SHIPPED: load_jobs(paper)
    shipped = {n: e for n, e in EXPERIMENTS.items() if n.split('.')[0] in SHIPPED}
    assert {n.split('.')[0] for n in shipped} == set(SHIPPED)
    for name, exp in shipped.items():
        with pytest.raises(AttributeError, match="'NoneType' object"): exp.fn(None, None, None)
