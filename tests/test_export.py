"Modules are what their pages export, and pages are clean: doing either again changes nothing"
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LIB, NBS, PAGES, ROOT, copy_checkout, none_wrong

BIN = Path(sys.executable).parent


def run(cmd, cwd):
    env = {**os.environ, 'PYTHONPATH': str(cwd)}
    done = subprocess.run([str(BIN/cmd)], cwd=cwd, env=env, capture_output=True, encoding='utf-8')
    assert done.returncode == 0, f'{cmd} stopped with {done.returncode}:\n{done.stdout}{done.stderr}'


def changed(old, new, files):
    "Files that differ between two folders, with the first differing line"
    out = []
    for f in sorted(files):
        a, b = [(d/f).read_text(encoding='utf-8').splitlines() if (d/f).exists() else ['(missing)'] for d in (old, new)]
        if a != b:
            i = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            show = [(x[i] if i < len(x) else '(end)')[:160] for x in (a, b)]
            out.append(f'{f}:{i+1}\n  committed {show[0]}\n  generated {show[1]}')
    return out


def sources(d): return {p.relative_to(d) for p in d.rglob('*.py')}


@pytest.fixture(scope='module')
def copy(tmp_path_factory): return copy_checkout(tmp_path_factory.mktemp('export')/'copy')


def test_export_leaves_no_difference(copy):
    for p in sources(copy/'xltnb'):
        if p.name != '__init__.py': (copy/'xltnb'/p).unlink()
    run('nbdev_export', copy)
    bad = changed(LIB, copy/'xltnb', sources(LIB) | sources(copy/'xltnb'))
    assert not bad, 'run nbdev_export and commit xltnb/:\n' + '\n'.join(bad)


def test_clean_leaves_no_difference(copy):
    run('nbdev_clean', copy)
    bad = changed(NBS, copy/'nbs', [p.relative_to(NBS) for p in PAGES])
    assert not bad, 'run nbdev_clean and commit nbs/:\n' + '\n'.join(bad)


def test_pages_carry_no_state_of_a_session():
    "A runner that stores widget state puts it into the page's metadata, and nbdev_clean leaves it there"
    none_wrong(PAGES, lambda p: set(json.loads(p.read_text(encoding='utf-8'))['metadata']) ^ {'kernelspec'})


def test_a_difference_is_seen(tmp_path):
    for d, s in (('a', 'x=1\ny=2\n'), ('b', 'x=1\ny=3\n')):
        (tmp_path/d).mkdir()
        (tmp_path/d/'m.py').write_text(s, encoding='utf-8')
    assert changed(tmp_path/'a', tmp_path/'b', ['m.py']) == ['m.py:2\n  committed y=2\n  generated y=3']


def test_parameters_keep_their_tag(copy):
    "papermill finds its parameters by a tag that nbdev_clean deletes unless settings.ini allows it"
    tagged = [p for p in PAGES if '"parameters"' in p.read_text(encoding='utf-8')]
    for p in tagged: assert '"parameters"' in (copy/'nbs'/p.relative_to(NBS)).read_text(encoding='utf-8'), f'{p.name} lost its tag'
    assert 'tags' in (ROOT/'settings.ini').read_text(encoding='utf-8').split('allowed_cell_metadata_keys')[1].split('\n')[0]
