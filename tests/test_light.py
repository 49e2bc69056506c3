"`import xltnb` and `xltnb --help` are light"
import os
import resource
import subprocess
import sys

import pytest
from conftest import LIB, ROOT

LIMIT_S = 0.5
HEAVY = ('torch', 'transformers', 'datasets', 'pandas', 'numba', 'plotly', 'IPython')


def fastest(args, n=5):
    "Least processor time of `n` runs, which a busy machine does not change, and the last run"
    times, spent = [], lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    for _ in range(n):
        t = spent()
        done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, env={k: v for k, v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'})
        times.append(spent() - t)
        if times[-1] < LIMIT_S/2: break
    return min(times), done


def loaded(code):
    "Heavy modules that `code` loads"
    done = subprocess.run([sys.executable, '-c', f'{code}\nimport sys; print("LOADED", *[m for m in {HEAVY!r} if m in sys.modules])'], cwd=ROOT, capture_output=True, text=True)
    assert 'LOADED' in done.stdout, done.stderr
    return done.stdout.rpartition('LOADED')[2].split()


def test_import_is_light():
    assert loaded('import xltnb') == []
    s, done = fastest([sys.executable, '-c', 'import xltnb'])
    assert done.returncode == 0 and s < LIMIT_S, f'import xltnb took {s:.2f} s'


@pytest.mark.skipif(not (LIB/'cli.py').exists(), reason='no command line yet')
def test_help_is_light():
    code = 'import sys\nsys.argv = ["xltnb", "--help"]\ntry:\n from xltnb.cli import main; main()\nexcept SystemExit: pass'
    assert loaded(code) == []
    s, done = fastest([sys.executable, '-m', 'xltnb.cli', '--help'])
    assert done.returncode == 0, done.stderr
    assert 'run' in done.stdout and 'claims' in done.stdout
    assert s < LIMIT_S, f'xltnb --help took {s:.2f} s'


@pytest.mark.skipif(not (LIB/'store.py').exists(), reason='no base floor yet')
def test_base_floor_loads_no_torch():
    names = [m for m in ('core', 'stats', 'store', 'published', 'compare') if (LIB/f'{m}.py').exists()]
    got = loaded('\n'.join(f'import xltnb.{m}' for m in names))
    assert not {'torch', 'transformers'} & set(got)


def test_the_meter_sees_a_heavy_import(): assert loaded('import plotly') == ['plotly']


def test_listing_papers_reads_their_published_files_alone():
    code = 'import sys\nsys.argv = ["xltnb", "list"]\ntry:\n from xltnb.cli import main; main()\nexcept SystemExit: pass'
    assert not {'torch', 'transformers', 'datasets', 'numba'} & set(loaded(code))
