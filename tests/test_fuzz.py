"2,300 bad inputs, always the same: each is refused in time with a word about it, or does no harm; the harms stand in spoil.py"
import copy
import csv
import dataclasses
import io
import json
import math
import os
import random
import signal
import sys
import traceback
import typing
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from conftest import ROOT, configs, write_paper
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from spoil import HUGE, ODD, ODD_WORDS, spoil_bytes, spoil_json, spoil_text, spoil_tree, spoil_words

from xltnb.core import Config, XltError, from_dict

COUNTS = dict(words=200, settings=250, records=200, published=150, data=100, pages=50, encoders=50,
              headers=200, hub=250, recipes=150, models=150, given=150, layouts=70, texts=30, params=200, names=30, beside=70)
PATIENCE_S = 20  # what is asked for a size without end must not try to make it


def test_they_are_as_many_as_they_say(): assert sum(COUNTS.values()) == 2300


def each(kind):
    "The numbers of a kind's inputs"
    return [random.Random(f'{kind}-{i}') for i in range(COUNTS[kind])]


def refused(call, names, what):
    "What `call` gives, or None if it is refused with a message that holds one of `names`"
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    was = signal.signal(signal.SIGALRM, _too_late)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return call()
    except XltError as e:
        assert any(n in str(e) for n in names), f'{what!r:.300}: {e}'
        assert '\n' not in str(e).strip() and len(str(e)) < 2000, f'{what!r:.300}: {e}'
    except Exception:
        pytest.fail(f'{what!r:.300}:\n{traceback.format_exc()[-1500:]}')
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, was)


def _too_late(*_): raise TimeoutError(f'no answer in {PATIENCE_S} s')


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
    if value is None and (f.default is None or type(None) in typing.get_args(f.type)): return True
    if isinstance(value, bool) or not isinstance(value, (int, float)): return 'bounds' not in f.metadata
    return math.isfinite(value) and low <= value <= high and not (above and value == low)


def needed(f):
    "A value for a field without a default"
    if 'bounds' in f.metadata: return max(1, f.metadata['bounds'][0])
    if 'options' in f.metadata: return next(iter(f.metadata['options']))
    if dataclasses.is_dataclass(f.type): return f.type(**{g.name: needed(g) for g in dataclasses.fields(f.type) if g.default is g.default_factory})
    return {} if f.type is dict else 'a'


@seed(0)
@settings(max_examples=COUNTS['settings'], database=None, deadline=None, derandomize=False, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 999), st.integers(0, 99), VALUE)
def test_settings(which, field, value):
    cls = configs()[which % len(configs())]
    assert issubclass(cls, Config)
    f = dataclasses.fields(cls)[field % len(dataclasses.fields(cls))]
    names = f'{cls.__name__}.{f.name}', f.name, 'kind', 'languages', 'name', 'select', 'mapping', 'key of', 'heads', 'square', 'probe_layer', 'edit_from', 'epochs', 'phase', 'inputs'
    given = {f.name: needed(f) for f in dataclasses.fields(cls) if f.default is f.default_factory} | {f.name: value}
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
    import xltnb.reports.report, xltnb.verdicts.judge, xltnb.reports.pages, xltnb.runs.run  # noqa: E401, F401: commands import them late
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


# ---- what a study and a page are asked for

def test_params(tmp_path, monkeypatch):
    import nbformat
    from xltnb.reports.pages import check_values, find_page, page_params, parse_param, run_page
    from xltnb.verdicts.study import claims, compare, study
    write_paper(tmp_path/'papers', 'fuzz', experiments=STUDY)
    for name, folder in dict(PAPERS='papers', CACHE='cache', HOME='a/b').items(): monkeypatch.setenv(f'XLTNB_{name}', str(tmp_path/folder))
    monkeypatch.chdir(tmp_path)
    cell = nbformat.v4.new_code_cell("preset:str = 'smoke' # a\nseeds:int = 0 # b\nstore:str = 'results' # c\nrate:float = 1. # d", metadata=dict(tags=['parameters']))
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=dict(kernelspec=dict(name='python3', language='python', display_name='x'))), tmp_path/'page.ipynb')
    spec = page_params(tmp_path/'page.ipynb')
    kinds, odd = {k: p['type'] for k, p in spec.items()}, (*ODD, *HUGE, *ODD_WORDS, b'x', {1}, object(), len, tmp_path/'page.ipynb')
    for i, rng in enumerate(each('params')):
        name, value = rng.choice(('target', 'preset', 'seeds', 'store', 'jobs')), rng.choice(odd)
        asked = dict(target='fuzz', preset='smoke', seeds=1, store=str(tmp_path/'s'), jobs='a') | {name: value}
        three = {k: asked[k] for k in ('target', 'preset', 'store')}
        calls = (lambda: repr(study(**asked)), lambda: study(**asked).run(engine='inline', show=False), lambda: study(**asked).told(), lambda: claims(**three), lambda: compare(**three),
                 lambda: check_values({name: value}, kinds), lambda: check_values(dict([parse_param(f'{name}={value}', spec)]), kinds), lambda: find_page(value), lambda: run_page(tmp_path/'page.ipynb', {name: value}, out=5))
        got = refused(calls[i % len(calls)], [name, 'target', 'paper', 'preset', 'seeds', 'store', 'arm', 'jobs', 'page', 'parameter', 'out'], (i % len(calls), name, value))
        if i % len(calls) == 8: assert got is None, (name, value)
    no_halves(tmp_path)


# ---- names that would like to be more than names, wherever they are shown

EVIL = '"><img src=x onerror=alert(1)><script>alert(2)</script></style></title>'


class Obeyed(HTMLParser):
    "What a browser would do of what EVIL says"
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if dict(attrs).get('src') == 'x' or any('alert(1)' in (v or '') for k, v in attrs if k.startswith('on')): self.found.append((tag, attrs))

    def handle_data(self, data):
        if self.get_starttag_text() == '<script>' and data.startswith('alert(2)'): self.found.append(data)


def test_names(tmp_path, monkeypatch):
    from spoil import _places
    from xltnb.reports.report import report
    from xltnb.verdicts.study import study
    monkeypatch.setenv('XLTNB_PAPERS', str(tmp_path/'papers'))
    monkeypatch.setattr('xltnb.reports.report.get_plotlyjs', lambda: '')  # four megabytes that do not change
    arm = STUDY.replace('fuzz', 'evil').replace("make_job('a',", f'make_job({EVIL!r},').replace('cost_s=.01)', f'cost_s=.01, task={EVIL!r}, row={EVIL!r})')
    folder = write_paper(tmp_path/'papers', 'evil', experiments=arm)
    tree = yaml.safe_load((ROOT/'xltnb'/'papers'/'mothello'/'published.yaml').read_bytes())
    small, shown = dict(tree, paper='evil', claims=tree['claims'][:2], tables=dict(list(tree['tables'].items())[:1])), 0
    for rng in each('names'):
        own = copy.deepcopy(small)
        *way, last = rng.choice([p for p in _places(small) if not isinstance(p[-1], int)])
        at = own
        for k in way: at = at[k]
        if rng.random() < .3: at.pop(last)  # what a paper does not say is not shown
        elif isinstance(at[last], str): at[last] = EVIL
        else: at[EVIL] = at.pop(last)
        (folder/'published.yaml').write_text(yaml.safe_dump(own, allow_unicode=True), encoding='utf-8')
        def show():
            s = study('evil', 'smoke', store=tmp_path/'s')
            s.run(engine='inline', show=False)
            return [s._repr_html_(), s.claims()._repr_html_(), s.cells()._repr_html_(), report('evil', 'smoke', tmp_path/'s', tmp_path/'r.html').read_text(encoding='utf-8')]
        got = refused(show, ['published.yaml', 'evil'], (*way, last))
        for text in got or (): assert not Obeyed(text).found, (*way, last)
        shown += got is not None
    assert shown > 5


# ---- records

def test_records(tmp_path):
    from xltnb.records.record import Record, RunKey, _sealed_text
    from xltnb.records.store import Store
    store = Store(tmp_path/'store', committed=False)
    key = RunKey('demo.align', 1, {'n': 3, 'lr': .1}, 0)
    rec = Record(key.experiment, key.key, key.config, 0, {'acc': .5}, dict(loss=dict(step=[1, 2])), dict(en=dict(acc=.5)), dict(acc=[0., 1.]), dict(cpu='x'), source='en')
    f = store.put(rec)
    whole, tree = f.read_bytes(), json.loads(f.read_text(encoding='utf-8'))
    del tree['sha256']
    for i, rng in enumerate(each('records')):
        if i % 2: f.write_bytes(spoil_bytes(whole, rng))
        else: f.write_text(_sealed_text(spoil_tree(tree, rng)), encoding='utf-8')
        got = refused(lambda: store.get(f.stem), [str(f)], f.read_bytes()[:300])
        if got is None:
            assert not store.has(f.stem) or refused(lambda: store.get(f.stem), [str(f)], 'x') is None
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter('always')
                assert store.records() == [] and (i % 2 == 0 or store.frame().empty), f.read_bytes()  # a frame reads no items
            assert all(str(f) in str(w.message) for w in told) and told
        else: assert i % 2 == 0 or got == rec, f.read_text(encoding='utf-8')
    f.write_bytes(whole)
    assert store.get(f.stem) == rec
    no_halves(tmp_path)


# ---- what lies beside the records: locks, failures, workers in a queue

def test_beside(tmp_path, monkeypatch):
    from xltnb.records.leases import _here
    from xltnb.records.store import Store
    from xltnb.runs.plan import make_plan
    from xltnb.runs.run import run_plan
    from xltnb.runs.status import status_line, status_rows
    write_paper(tmp_path/'papers', 'fuzz', experiments=STUDY)
    for name, folder in dict(PAPERS='papers', CACHE='cache').items(): monkeypatch.setenv(f'XLTNB_{name}', str(tmp_path/folder))
    for name in ('_STALE_S', '_WATCH_S'): monkeypatch.setattr(f'xltnb.records.leases.{name}', -1.)  # a lock that nobody touches is free at once
    lock = _here() | dict(pid=2**22+1, start='1', token='t', since='2020-01-01T00:00:00+0000', losses=0, where='a node')
    for i, rng in enumerate(each('beside')):
        plan = make_plan('fuzz', 'smoke', 1, Store(tmp_path/f's{i}', committed=False))
        key = plan.jobs[0].key
        at = {'lock': plan.store.lease(key).lock, 'failure': plan.store.path/'.failed'/f'{key}.txt', 'crews': plan.store.path/'.slurm'/'crews.json'}
        what = rng.choice([*at])
        tree = dict(lock=lock, failure='fuzz.sum a seed 0: it failed', crews={'12': [key]})[what]
        at[what].parent.mkdir(parents=True)
        odd = copy.deepcopy(rng.choice((*ODD, *HUGE)))
        if rng.random() < .4 and what != 'failure': body = json.dumps(odd if what == 'crews' else lock | {rng.choice(('pid', 'losses')): odd}).encode()
        else: body = spoil_bytes(tree.encode(), rng) if what == 'failure' else spoil_json(tree, rng)
        at[what].write_bytes(body)
        told = at[what].read_bytes()[:200]
        assert refused(lambda: status_line(plan, status_rows(plan)), [], (what, told)).startswith('fuzz at smoke')
        rep = refused(lambda: run_plan(plan, engine='inline', show=False), [], (what, told))
        assert [o.status for o in rep.outcomes] == ['done'] and [r.metrics for rs in plan.records().values() for r in rs] == [dict(sum=1.)], (what, told)
        assert status_rows(plan)[0]['state'] == 'done'


# ---- published files

def test_published(tmp_path):
    from xltnb.records.published import read_published
    f = tmp_path/'published.yaml'
    source = (ROOT/'xltnb'/'papers'/'mothello'/'published.yaml').read_bytes()
    tree = yaml.safe_load(source)
    small = dict(tree, claims=tree['claims'][:2], tables=dict(list(tree['tables'].items())[:1]))
    text = yaml.safe_dump(small, allow_unicode=True).encode()
    for i, rng in enumerate(each('published')):
        f.write_bytes(spoil_bytes(text, rng) if i % 3 == 0 else (yaml.safe_dump(spoil_tree(small, rng), allow_unicode=True).encode() if i % 3 == 1 else spoil_text(text.decode(), rng)))
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
    from xltnb.reports.pages import page_params
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


# ---- adapters: our own files, published folders, recipes

def tiny_adapter(name='es'):
    import torch
    from xltnb.models.adapters import Adapter, Backbone, BottleneckCfg
    a = Adapter(name, BottleneckCfg(), Backbone('xlm-roberta', 2, 16, 32))
    torch.manual_seed(len(name))
    for p in a.parameters(): p.data.normal_()
    return a


def test_headers(tmp_path):
    from safetensors.torch import save
    from xltnb.models.adapter_files import load_adapter, read_header, save_adapter
    from xltnb.models.tensors import open_tensors
    a = tiny_adapter()
    f = save_adapter(a, tmp_path/'es.safetensors')
    with open_tensors(f) as file: tree = json.loads(file.metadata()['xltnb'])
    whole = f.read_bytes()
    for i, rng in enumerate(each('headers')):
        text = spoil_json(tree, rng).decode('utf-8', 'replace')
        f.write_bytes(spoil_bytes(whole, rng) if i % 4 == 0 else save(a.weights(), dict(xltnb=text)))
        for read in (read_header, load_adapter):
            got = refused(lambda: read(f), [f.name], text)
            if got is not None and read is load_adapter: assert i % 4 == 0 or got.fingerprint == a.fingerprint, text


def test_hub(tmp_path):
    from safetensors.torch import load_file, save
    from xltnb.models.adapterhub import from_hub, to_hub
    a = tiny_adapter()
    folder = to_hub(a, tmp_path/'es')
    config, weights = folder/'adapter_config.json', folder/'adapter.safetensors'
    tree, whole, tensors = json.loads(config.read_text(encoding='utf-8')), weights.read_bytes(), {k: v.clone() for k, v in load_file(weights).items()}
    harms = (lambda k, v, rng: {k.replace('layer.0', f'layer.{10**rng.randrange(1, 9)}'): v}, lambda k, v, rng: {k+'x': v}, lambda k, v, rng: {}, lambda k, v, rng: {k: v.half()}, lambda k, v, rng: {k: v.int()},
             lambda k, v, rng: {k: v*float('inf')}, lambda k, v, rng: {k: v, k.replace('.es.', '.fr.'): v.clone()}, lambda k, v, rng: {k: v[:-1]}, lambda k, v, rng: {k: v[None]})
    for i, rng in enumerate(each('hub')):
        text, data = json.dumps(tree).encode(), whole
        if i % 5 == 0: data = spoil_bytes(whole, rng)
        elif i % 5 == 1:
            k, harm = rng.choice(sorted(tensors)), rng.choice(harms)
            data = save({n: t.contiguous() for n, t in ({n: t for n, t in tensors.items() if n != k} | harm(k, tensors[k], rng)).items()})
        else: text = spoil_json(tree, rng)
        config.write_bytes(text), weights.write_bytes(data)
        got = refused(lambda: from_hub(folder), [str(folder)], text)
        if got is not None:
            assert all(bool(w.isfinite().all()) for w in got.weights().values())
            assert i % 5 < 2 or got.fingerprint == a.fingerprint, text


def test_recipes(tmp_path):
    from xltnb.models.adapter_files import save_adapter
    from xltnb.papers.arithmetic.commands import merge_
    from xltnb.papers.arithmetic.recipes import merge_recipe
    home = tmp_path/'home'
    for n in ('es', 'eng'): save_adapter(tiny_adapter(n), home/f'{n}.safetensors')
    (tmp_path/'precious').write_text('mine', encoding='utf-8'), (home/'precious').write_text('mine', encoding='utf-8')
    before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
    tree = dict(inputs=[dict(adapter='es.safetensors', weight=.6), dict(adapter='eng.safetensors', weight=dict(nice=.2, layers=[.4, .1]))], method='dare_ties', density=.5, seed=3, name='mix', base='auto', layout='file', normalise=False)
    f = home/'r.yaml'
    for i, rng in enumerate(each('recipes')):
        own = dict(tree, out=rng.choice(('mix.safetensors', 'new/mix', '../precious', '../new', 'precious', 'es.safetensors', str(tmp_path/'x'), '~/x', '.', '..', 'r.yaml')))
        text = yaml.safe_dump(own, allow_unicode=True)
        f.write_bytes(spoil_text(json.dumps(own), rng) if i % 3 == 0 else text.encode() if i % 3 == 1 else yaml.safe_dump(spoil_tree(own, rng, (1e308, 10**400, '~nouser/x', [[0]])), allow_unicode=True).encode())
        names = ['r.yaml', 'safetensors', 'weight', str(tmp_path), 'adapter', 'layer', 'MergeCfg', 'es', 'eng', 'start']
        got = refused(lambda: merge_recipe(f), names, f.read_bytes())
        if got is not None: assert all(bool(got[k].isfinite().all()) for k in got.names), f.read_bytes()
        refused(lambda: merge_(str(f), explain=True), names, f.read_bytes())
        assert all(p == f or p.read_bytes() == was for p, was in before.items()), f.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ['home', 'precious']


# ---- an encoder's folder

def test_models(tmp_path):
    import torch
    from transformers import BertConfig, BertModel
    from xltnb.models.encoders import load_encoder
    from xltnb.models.folders import quiet
    from xltnb.models.subwords import build_tokenizer
    tok = build_tokenizer(('<s>', '<pad>', '</s>', '<unk>', '<mask>', '▁a', '▁b'), [0.]*7, dict(bos=0, pad=1, eos=2, unk=3, mask=4))
    with quiet():
        tok.save_pretrained(tmp_path)
        BertModel(BertConfig(vocab_size=7, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, pad_token_id=1)).save_pretrained(tmp_path)
    files = {p: p.read_bytes() for p in sorted(tmp_path.iterdir())}
    for i, rng in enumerate(each('models')):
        p = rng.choice(sorted(files))
        for f, whole in files.items(): f.write_bytes(whole)
        if p.suffix != '.json': p.write_bytes(spoil_bytes(files[p], rng))
        else: p.write_bytes(spoil_json(json.loads(files[p]), rng) if i % 4 else spoil_bytes(files[p], rng))
        got = refused(lambda: load_encoder(str(tmp_path), random=i % 7 == 0), [tmp_path.name], (p.name, p.read_bytes()[:200]))
        if got is not None:
            x = got[1]('a b', return_tensors='pt')
            with torch.no_grad(): assert got[0](input_ids=x['input_ids']).last_hidden_state.isfinite().all()


# ---- what is given to `own_task`, and the published layouts

def test_given():
    from xltnb.tasks.own import own_task
    kinds = dict(classify=ROWS, pair=[dict(r, text2=r['text']+' too') for r in ROWS], tag=[dict(id=str(i), tokens=['a', 'b', str(i)], tags=['O', 'B-X', 'O']) for i in range(6)],
                 span=[dict(id=str(i), question=f'q {i}', context='die rote Stadt', answers=dict(text=['rote'], answer_start=[4])) for i in range(6)])
    for i, rng in enumerate(each('given')):
        kind = [*kinds][i % 4]
        tree = spoil_tree(dict(name='mine', kind=kind, data=dict(en=dict(train=kinds[kind]), de=dict(test=kinds[kind][:3])), source='en', labels=[[], ['a', 'b'], ['O', 'B-X', 'I-X']][rng.randrange(3)]), rng, (10**400, '\ud800', 10**6, ' '))
        if not {'name', 'kind', 'data', 'source', 'labels'} >= tree.keys() or not isinstance(tree.get('labels', []), list) or 'name' not in tree or not {'kind', 'data'} <= tree.keys(): continue
        got = refused(lambda: own_task(**tree), ['mine', 'kind', 'label', 'row', 'language', 'file', 'ending', str(tree['name'])], tree)
        if got is not None: assert not any(not str(l).strip() for l in got.labels), tree


def test_layouts(tmp_path):
    from xltnb.tasks.formats import read_jsonl, read_squad, stream_texts
    squad = dict(data=[dict(title='a', paragraphs=[dict(context='a b', qas=[dict(id='1', question='q', answers=[dict(text='a', answer_start=0)])])])])
    f = tmp_path/'x.jsonl'
    for i, rng in enumerate(each('layouts')):
        f.write_bytes(spoil_json(squad if i % 2 else dict(text='Moja.', id='1'), rng))
        refused(lambda: (read_squad if i % 2 else read_jsonl)(f), [f.name], f.read_bytes())
        refused(lambda: list(stream_texts(f)), [f.name], f.read_bytes())


def test_texts(tmp_path, monkeypatch):
    from xltnb.papers.metapretrain.corpus import _folder_rows
    monkeypatch.setenv('XLTNB_METATEXT', str(tmp_path))
    whole = {'en.txt': 'one\ntwo\u2028more\nthree\n'.encode(), 'en.ids': b'1\n2\n3\n'}
    for rng in each('texts'):
        for n, data in whole.items(): (tmp_path/n).write_bytes(data)
        n = rng.choice(sorted(whole))
        (tmp_path/n).write_bytes(spoil_bytes(whole[n], rng))
        got = refused(lambda: _folder_rows(('en',)), ['en.txt', 'en.ids'], (n, (tmp_path/n).read_bytes()))
        if got is not None: assert len(got) and got['text'].str.strip().all()
