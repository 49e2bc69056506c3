"1,000 bad inputs, always the same: each is refused with a word about it, or does no harm; the harms stand on the page runs/11_spoil"
import csv
import dataclasses
import io
import json
import math
import os
import random
import sys
import traceback
import warnings

import numpy as np
import pytest
import yaml
from conftest import ROOT, configs, write_paper
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from xltnb.core import Config, XltError, from_dict
from xltnb.runs.spoil import ODD, spoil_bytes, spoil_tree, spoil_words

COUNTS = dict(words=200, settings=250, records=200, published=150, data=100, pages=50, encoders=50)


def test_they_are_a_thousand(): assert sum(COUNTS.values()) == 1000


def each(kind):
    "The numbers of a kind's inputs"
    return [random.Random(f'{kind}-{i}') for i in range(COUNTS[kind])]


def refused(call, names, what):
    "What `call` gives, or None if it is refused with a message that holds one of `names`"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return call()
    except XltError as e:
        assert any(n in str(e) for n in names), f'{what}: {e}'
    except Exception:
        pytest.fail(f'{what}:\n{traceback.format_exc()[-1500:]}')


def no_halves(folder):
    left = [str(p) for p in folder.rglob('*') if p.suffix == '.tmp' or '.partial' in p.name or p.suffix == '.lock']
    assert not left, left


# ---- settings: hypothesis draws the values, also shrunken ones

VALUE = st.one_of(st.sampled_from(ODD), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.one_of(st.integers(), st.floats(), st.none()), max_size=3))


def keeps(value, f):
    "Does a value keep what its field declares?"
    low, high, above = (*f.metadata.get('bounds', ()), -math.inf, math.inf, False)[:3] if 'bounds' in f.metadata else (-math.inf, math.inf, False)
    if isinstance(value, (tuple, list)): return all(keeps(v, f) for v in value)
    if 'options' in f.metadata: return value in f.metadata['options']
    if value is None and f.default is None: return True
    if isinstance(value, bool) or not isinstance(value, (int, float)): return 'bounds' not in f.metadata
    return math.isfinite(value) and low <= value <= high and not (above and value == low)


@seed(0)
@settings(max_examples=COUNTS['settings'], database=None, deadline=None, derandomize=False, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 999), st.integers(0, 99), VALUE)
def test_settings(which, field, value):
    cls = configs()[which % len(configs())]
    assert issubclass(cls, Config)
    f = dataclasses.fields(cls)[field % len(dataclasses.fields(cls))]
    names = f'{cls.__name__}.{f.name}', f.name, 'kind', 'languages', 'name', 'select', 'mapping', 'key of', 'heads', 'square', 'probe_layer', 'edit_from', 'epochs', 'phase'
    given = {f.name: 'a' for f in dataclasses.fields(cls) if f.default is f.default_factory} | {f.name: value}  # names without a default
    for make in (lambda: cls(**given), lambda: from_dict(cls, given)):
        got = refused(make, names, f'{cls.__name__}({f.name}={value!r})')
        if got is not None: assert keeps(getattr(got, f.name), f), f'{cls.__name__}.{f.name}={value!r} is believed'


# ---- the command line, on a paper of two jobs

STUDY = '''
from xltnb.runs.experiments import Result, experiment, make_job, preset_jobs

@experiment('fuzz.sum')
def total(cfg, seed, ctx): return Result(metrics={'sum': 1.})

@preset_jobs('fuzz')
def jobs(preset, seeds=None): return [make_job('a', 'fuzz.sum', {}, s, cost_s=.01) for s in range(min(seeds or 1, 3))]
'''
COMMANDS = (['plan', 'fuzz', '--preset', 'smoke', '--seeds', '2'], ['claims', 'fuzz', '--store', '{tmp}/s', '--json'], ['list', 'fuzz', '--preset', 'smoke'],
            ['run', 'fuzz', '--engine', 'inline', '--minutes', '1', '--store', '{tmp}/s'], ['run', 'fuzz', '--jobs', 'a', '--workers', '1', '--store', '{tmp}/s', '--engine', 'inline'],
            ['compare', 'fuzz', '--store', '{tmp}/s'], ['page', '{tmp}/page.ipynb', '--out', '{tmp}/out'], ['report', 'fuzz', '--store', '{tmp}/s', '--out', '{tmp}/r.html'])


def test_words(tmp_path, monkeypatch, capsys):
    from xltnb.cli import main
    write_paper(tmp_path/'papers', 'fuzz', experiments=STUDY)
    monkeypatch.setenv('XLTNB_PAPERS', str(tmp_path/'papers'))
    monkeypatch.setenv('XLTNB_CACHE', str(tmp_path/'cache'))
    monkeypatch.chdir(tmp_path)
    import xltnb.verdicts.report, xltnb.verdicts.judge, xltnb.verdicts.pages, xltnb.runs.run  # noqa: E401, F401: commands import them late
    for name, module in list(sys.modules.items()):  # whatever a command is told to write stays here
        if name.startswith('xltnb.') and hasattr(module, 'project_root'): monkeypatch.setattr(module, 'project_root', lambda: tmp_path)
    (tmp_path/'page.ipynb').write_text('{}', encoding='utf-8')
    monkeypatch.setattr('xltnb.terminal.signal.signal', lambda *a: None)
    for i, rng in enumerate(each('words')):
        words = spoil_words([w.format(tmp=tmp_path) for w in COMMANDS[i % len(COMMANDS)]], rng)
        if words and words[0] in ('', 'lab', 'reproduce') or words in (['run'], ['plan'], ['report'], ['claims']) or len(words) > 1 and words[0] in ('run', 'report', 'claims') and words[1][:2] in ('', '--'): continue
        try: main(words)
        except SystemExit as e: code = e.code
        except BaseException: pytest.fail(f'{words!r:.300}:\n{traceback.format_exc()[-1500:]}')
        said = capsys.readouterr()
        assert code in range(5), (words, code)
        assert 'Traceback' not in said.out+said.err, words
        if code == 2: assert said.err.startswith('xltnb') and len(said.err.strip()) > 20, (words, said.err)
        if code == 0 and words[0] == 'run': assert 'ran' in said.out or 'done' in said.out or '--help' in words, (words, said.out)
    no_halves(tmp_path)


# ---- records

def test_records(tmp_path):
    from xltnb.records.record import Record, RunKey
    from xltnb.records.store import Store
    store = Store(tmp_path/'store', committed=False)
    key = RunKey('demo.align', 1, {'n': 3, 'lr': .1}, 0)
    rec = Record(key.experiment, key.key, key.config, 0, {'acc': .5}, dict(loss=dict(step=[1, 2])), dict(en=dict(acc=.5)), dict(acc=[0., 1.]), dict(cpu='x'), source='en')
    f = store.put(rec)
    whole, tree = f.read_bytes(), json.loads(f.read_text(encoding='utf-8'))
    for i, rng in enumerate(each('records')):
        if i % 2: f.write_bytes(spoil_bytes(whole, rng))
        else: f.write_text(json.dumps(spoil_tree(tree, rng)), encoding='utf-8')
        got = refused(lambda: store.get(f.stem), [str(f)], f.read_bytes()[:300])
        if got is None:
            assert not store.has(f.stem) or refused(lambda: store.get(f.stem), [str(f)], 'x') is None
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter('always')
                assert store.records() == [] and store.frame().empty, f.read_bytes()
            assert all(str(f) in str(w.message) for w in told) and told
        else: assert 'sha256' not in json.loads(f.read_text(encoding='utf-8')) or got == rec, f.read_text(encoding='utf-8')
    f.write_bytes(whole)
    assert store.get(f.stem) == rec
    no_halves(tmp_path)


# ---- published files

def test_published(tmp_path):
    from xltnb.records.published import read_published
    f = tmp_path/'published.yaml'
    source = (ROOT/'xltnb'/'papers'/'mothello'/'published.yaml').read_bytes()
    tree = yaml.safe_load(source)
    small = dict(tree, claims=tree['claims'][:2], tables=dict(list(tree['tables'].items())[:1]))
    text = yaml.safe_dump(small, allow_unicode=True).encode()
    for i, rng in enumerate(each('published')):
        f.write_bytes(spoil_bytes(text, rng) if i % 3 == 0 else yaml.safe_dump(spoil_tree(small, rng), allow_unicode=True).encode())
        got = refused(lambda: read_published(f), [f.name], f.read_bytes()[:300])
        if got is not None:
            numbers = [c.margin for claim in got.claims for c in claim.checks]
            assert all(m is None or math.isfinite(m) for m in numbers)


# ---- own data

ROWS = [dict(id=f'r{i}', text=f'text number {i}', label='ab'[i % 2]) for i in range(6)]


def table(rows, kind):
    if kind == 'jsonl': return '\n'.join(map(json.dumps, rows)).encode()
    out = io.StringIO()
    w = csv.DictWriter(out, list(ROWS[0]), delimiter='\t' if kind == 'tsv' else ',', extrasaction='ignore')
    w.writeheader()
    for r in rows: w.writerow(r if isinstance(r, dict) else {})
    return out.getvalue().encode()


def test_data(tmp_path):
    from xltnb.tasks.own import own_task
    whole = {s: tmp_path/f'{s}-en.jsonl' for s in ('train', 'validation', 'test')}
    for f in whole.values(): f.write_bytes(table(ROWS, 'jsonl'))
    for i, rng in enumerate(each('data')):
        kind = ('jsonl', 'csv', 'tsv')[i % 3]
        f = tmp_path/f'train-de.{kind}'
        f.write_bytes(spoil_bytes(table(ROWS, kind), rng) if i % 2 else table(spoil_tree(ROWS, rng), kind))
        files = dict(en=whole, de=dict(test=f))
        refused(lambda: own_task('mine', 'classify', files), [f.name, 'de', 'en', 'mine'], f.read_bytes()[:300])


# ---- pages

def test_pages(tmp_path):
    import nbformat
    from xltnb.verdicts.pages import page_params
    cell = nbformat.v4.new_code_cell("n:int = 3 # rows\nwho:str = 'x' # name", metadata=dict(tags=['parameters']))
    tree = json.loads(nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('# A page'), cell], metadata=dict(kernelspec=dict(name='python3', language='python', display_name='x')))))
    f = tmp_path/'page.ipynb'
    for i, rng in enumerate(each('pages')):
        f.write_bytes(spoil_bytes(json.dumps(tree).encode(), rng) if i % 2 else json.dumps(spoil_tree(tree, rng)).encode())
        refused(lambda: page_params(str(f)), ['page.ipynb'], f.read_bytes()[:300])


# ---- encoder files

def test_encoders(tmp_path):
    from xltnb.models.q4 import read_q4, write_q4
    sizes = dict(hidden=32, layers=0, heads=1, ffn=32, vocab=1, positions=1, types=1)
    f = write_q4(tmp_path/'a.bin', {'x': np.ones((1, 32), np.float32), 'y': np.ones(3)}, sizes, pieces=('▁a',), scores=[-1.])
    whole = f.read_bytes()
    for rng in each('encoders'):
        f.write_bytes(spoil_bytes(whole, rng))
        def read():
            file = read_q4(f)
            return [file.tensor(k) for k in file.index]
        refused(read, [f.name], f.read_bytes()[:120])
    no_halves(tmp_path)
    assert os.listdir(tmp_path) == ['a.bin']
