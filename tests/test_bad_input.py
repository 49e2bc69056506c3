"What cannot be right is refused, with the file or the value and what to do about it"
import base64
import copy
import dataclasses
import errno
import io
import json
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from conftest import ROOT, configs, write_paper

from xltnb.cli import main
from xltnb.core import XltError, from_dict
from xltnb.files import atomic_write, cache_dir
from xltnb.records.leases import Lease
from xltnb.records.pack import PACK, _keys, _numbers, _opened
from xltnb.records.published import read_published
from xltnb.records.record import Record, RunKey, Unreadable, _sealed_text, read_numbers, read_record, record_json
from xltnb.records.store import Store, _fault_of
from xltnb.runs.experiments import EXPERIMENTS, PRESET_JOBS, experiment, Result, load_jobs, make_job, preset_jobs
from xltnb.runs.job import lease_job
from xltnb.runs.plan import make_plan
from xltnb.runs.run import run_plan
from xltnb.runs.status import status_line, status_rows


def a_record(i=0, **kw):
    key = RunKey('demo.align', 1, {'i': i}, 0)
    return Record(key.experiment, key.key, key.config, 0, {'acc': .5}, provenance=dict(cpu='x'), source='en', **kw)


@pytest.fixture
def store(tmp_path): return Store(tmp_path/'store', committed=False)


def packed(n, data): return dict(n=n, low=0., scale=1., u16=base64.b64encode(zlib.compress(data, 9)).decode())


BROKEN = dict(
    another_config=dict(config={'i': 1}), another_seed=dict(seed=1), another_key=dict(key='0'*16), version_99=dict(version=99), text_version=dict(version='1'),
    words=dict(metrics={'acc': '0.5'}), truth=dict(metrics={'acc': True}), infinite=dict(metrics={'acc': 1e999}), a_list=dict(metrics=[1]), nowhere=dict(provenance={}),
    no_place=dict(provenance=None), a_large_bomb=dict(items={'acc': packed(5*10**8, bytes(10**6))}), negative=dict(items={'acc': packed(-1, b'')}),
    many=dict(items={f'm{i}': packed(2**21, bytes(2**22)) for i in range(3)}))


def seal_again(f, **changes):
    "Change a record's file, and give it the hash of what it is now"
    fields = json.loads(f.read_text(encoding='utf-8')) | changes
    f.write_text(_sealed_text({k: v for k, v in fields.items() if k != 'sha256'}), encoding='utf-8')


@pytest.mark.parametrize('what', BROKEN)
def test_a_record_is_what_its_name_says(store, what):
    f = store.put(a_record())
    seal_again(f, **BROKEN[what])
    for read in (lambda: read_record(f), lambda: store.get(f.stem)):
        with pytest.raises(XltError, match='delete the file and run again') as e: read()
        assert str(f) in str(e.value)
    with pytest.warns(UserWarning, match='broken record'): assert store.getter()(f.stem) is None
    assert not store.has(f.stem)
    with pytest.warns(UserWarning, match='broken record'): assert store.records() == []
    if 'items' not in BROKEN[what]:
        with pytest.warns(UserWarning, match='broken record'): assert store.frame().empty


ITEMS = dict(gone=packed(3, b'\0\0'), a_bomb=packed(1, bytes(10**8)), endless=packed(1, b'\0\0') | dict(scale=1e999), words=dict(n=1, low=0., scale=1., u16='é'))


@pytest.mark.parametrize('what', ITEMS)
def test_items_that_nobody_packed_are_refused_when_they_are_asked_for(store, what):
    f = store.put(a_record())
    seal_again(f, items={'acc': ITEMS[what]})
    with pytest.raises(XltError, match='the items of a record are damaged'): read_record(f).item_parts('acc')


@pytest.mark.filterwarnings('ignore:broken record')
def test_every_changed_byte_of_a_record_is_noticed(store):
    f = store.put(a_record(items=dict(acc=[0., 1.]), curves=dict(loss=dict(epoch=[1, 2]))))
    raw = f.read_bytes()
    for at in range(len(raw)):
        f.write_bytes(raw[:at]+bytes([raw[at]^1])+raw[at+1:])
        for read in (lambda: store.get(f.stem), lambda: next(iter(store._each(read_numbers)), None)):
            try: got = read()
            except XltError as e: got = str(f) in str(e) and None
            assert got is None, (at, raw[max(0, at-9):at+9])
    f.write_bytes(raw)
    assert store.get(f.stem).metrics == {'acc': .5}


@pytest.mark.parametrize('where', ['demo.align/0123456789abcdef.json', 'other/{}.json'])
def test_a_copy_under_another_name_is_refused(store, where):
    f = store.put(a_record())
    copy = store.path/where.format(f.stem)
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(f.read_bytes())
    with pytest.raises(XltError, match='broken record'): read_record(copy)


def test_a_record_that_is_no_file_does_not_hang(store):
    f = store.put(a_record())
    f.unlink()
    os.mkfifo(f)
    with pytest.raises(XltError, match='broken record'): store.get(f.stem)


def test_all_shipped_records_are_what_their_names_say():
    files = sorted((ROOT/'nbs'/'results').glob('*/*.json'))
    assert len(files) > 200 and {read_record(f).key for f in files} == {f.stem for f in files}


@pytest.mark.parametrize('key', ['*', '', '../x', 'a/b', '.hidden', '[a-z]*', None, 3])
def test_a_key_is_a_name(store, key):
    store.put(a_record())
    for ask in (store.has, store.get):
        with pytest.raises(XltError, match='cannot be a file name'): ask(key)


@pytest.fixture
def study():
    @experiment('bad_input.sum')
    def total(cfg, seed, ctx): return Result(metrics={'sum': float(sum(range(cfg['n'])))}, items={'parts': [seed*.5, 1.]})

    @preset_jobs('bad_input')
    def jobs(preset, seeds=None): return [make_job('sum-10', 'bad_input.sum', {'n': 10}, s, cost_s=.1) for s in range(seeds or 3)]
    yield 'bad_input'
    del EXPERIMENTS['bad_input.sum'], PRESET_JOBS['bad_input']


def test_a_broken_record_counts_as_missing_and_is_made_again(study, store):
    run_plan(make_plan(study, store=store), show=False)
    whole = {f: json.loads(f.read_text(encoding='utf-8')) for f in store.path.glob('*/*.json')}
    assert 'all 3 runs are done' in str(make_plan(study, store=store))
    f = next(iter(whole))
    f.write_bytes(f.read_bytes()[:200])
    plan = make_plan(study, store=store)
    assert '1 of 3 runs to do' in str(plan) and '1 record cannot be read and counts as missing' in str(plan) and str(f) in str(plan)
    assert sorted(plan.df.state) == ['broken', 'done', 'done']
    rep = run_plan(plan, show=False)
    assert rep.exit_code == 0 and [o.status for o in rep.outcomes] == ['done'] and 'all 3 runs are done' in str(make_plan(study, store=store))
    same = lambda d: {k: v for k, v in d.items() if k not in ('provenance', 'sha256')}
    assert {f: same(json.loads(f.read_text(encoding='utf-8'))) for f in whole} == {f: same(d) for f, d in whole.items()}
    assert (f.parent/f'.damaged-{f.name}').stat().st_size == 200, 'what was broken is still there'
    f.write_bytes(f.read_bytes()[:100])
    run_plan(make_plan(study, store=store), show=False)
    assert {p.stat().st_size for p in f.parent.glob('.damaged-*')} == {100, 200}, 'and so is what broke before'


def of_a_newer_version(f):
    "Write a record as a later version might: whole, sealed, with a field that this one does not know"
    seal_again(f, energy_kwh=1.5, notes={})
    return f.read_bytes()


def test_a_record_of_a_newer_version_stays_as_it_is(study, store, capsys):
    run_plan(make_plan(study, store=store), show=False)
    f, *others = sorted(store.path.glob('*/*.json'))
    newer = of_a_newer_version(f)
    for read in (read_record, read_numbers):
        with pytest.raises(XltError, match='newer version of xltnb wrote it .*energy_kwh.*update xltnb') as e: read(f)
        assert str(f) in str(e.value) and 'delete' not in str(e.value)
    plan = make_plan(study, store=store)
    assert sorted(plan.df.state) == ['done', 'done', 'newer'] and not plan.todo()
    assert sorted(r['state'] for r in status_rows(plan)) == ['done', 'done', 'newer'] and '2 done, 1 newer' in status_line(plan, status_rows(plan))
    assert str(plan).splitlines()[-1].startswith('bad_input at smoke: 2 of 3 runs are done; 1 record is of a newer version of xltnb and stays as it is: update xltnb to read it')
    rep = run_plan(plan, show=False)
    assert rep.exit_code == 3 and '2 were there, 1 of a newer version' in str(rep), 'what an update alone will read is left to do'
    assert rep.outcomes == [] and f.read_bytes() == newer and sorted(store.path.glob('*/*.json')) == [f, *others] and not list(f.parent.glob('.damaged-*'))
    with pytest.raises(XltError, match='newer version'): store.put(dataclasses.replace(read_record(others[0]), key=f.stem))
    assert f.read_bytes() == newer
    others[0].unlink()  # what is missing beside it is made
    assert [o.status for o in run_plan(make_plan(study, store=store), show=False).outcomes] == ['done'] and f.read_bytes() == newer
    with pytest.warns(UserWarning, match='newer version'): assert len(store.records()) == 2


def test_a_newer_record_that_was_changed_or_renamed_is_broken(study, store):
    run_plan(make_plan(study, store=store), show=False)
    f = sorted(store.path.glob('*/*.json'))[0]
    newer = of_a_newer_version(f)
    other = f.with_name('0123456789abcdef.json')
    other.write_bytes(newer)
    with pytest.raises(XltError, match='delete the file and run again'): read_record(other)
    other.unlink()
    f.write_bytes(newer.replace(b'1.5', b'2.5'))
    assert sorted(make_plan(study, store=store).df.state) == ['broken', 'done', 'done']


def test_a_whole_record_stands_in_for_a_broken_committed_one(tmp_path, monkeypatch):
    monkeypatch.setattr('xltnb.records.store.project_root', lambda: tmp_path)
    monkeypatch.setenv('XLTNB_HOME', str(tmp_path))
    (tmp_path/'nbs').mkdir()
    f = Store('nbs/results').put(a_record())
    f.write_text('{', encoding='utf-8')
    mine = Store('results')
    assert not mine.has(f.stem)
    mine.put(a_record())
    assert mine.has(f.stem) and mine.get(f.stem).metrics == {'acc': .5} == mine.getter()(f.stem).metrics


def test_inputs_are_part_of_a_record(store):
    key = RunKey('demo.align', 1, {}, 0, {'data': 'abc'})
    f = store.put(Record(key.experiment, key.key, {}, 0, {}, provenance=dict(cpu='x'), inputs=key.inputs))
    assert read_record(f).inputs == {'data': 'abc'} and '"inputs"' not in record_json(a_record())


def test_a_table_of_many_records_reads_what_it_needs(store, monkeypatch):
    for i in range(300): store.put(a_record(i, items=dict(acc=[0., 1.]*500), curves=dict(loss=dict(epoch=list(range(300)))), arm=f'a{i%3}'))
    want = store.records()
    monkeypatch.setattr('xltnb.records.record.unpack_items', lambda d: pytest.fail('items are not needed'))
    df = store.frame()
    assert len(df) == 300 and list(df.key) == [r.key for r in want] and list(df['cfg.i']) == [r.config['i'] for r in want]


PAGE = '''paper: mini
citation: {{title: A paper}}
claims:
  - id: C1
    text: A claim
    place: Section 1
    checks:
      - {{presets: [smoke], arms: {{a: x}}, effect: a.m, rule: above, margin: {margin}, why: because}}
tables:
  T1: {{caption: A table, place: Table 1, source: printed, tolerance: {tolerance}, blocks: [{{arm: x, metric: m, rows: [r], columns: [c], values: [[{value}]]}}]}}
{more}'''


@pytest.mark.parametrize('change, says', [
    (dict(more='claims: []\n'), r"yaml:3: the key 'claims' stands twice"), (dict(more='claims: []'), "'claims' stands twice"),
    (dict(margin='.1, margin: .2'), r"yaml:8: the key 'margin' stands twice"), (dict(margin='.nan'), 'yaml:8: margin is nan'), (dict(margin='-.inf'), 'margin is -inf'),
    (dict(tolerance='.nan'), 'tolerance is nan'), (dict(tolerance='.inf'), 'tolerance is inf'), (dict(value='.nan'), "a value of row 'r' is nan"), (dict(value='[1, .inf]'), 'is inf')])
def test_a_published_file_says_everything_once_and_in_numbers(tmp_path, change, says):
    f = tmp_path/'published.yaml'
    f.write_text(PAGE.format(**dict(margin='.1', tolerance='1', value='5.', more='')), encoding='utf-8')
    assert len(read_published(f).claims) == 1
    f.write_text(PAGE.format(**dict(margin='.1', tolerance='1', value='5.', more='') | change), encoding='utf-8')
    with pytest.raises(XltError, match=says): read_published(f)


EVIL = '<img src=x onerror=alert(1)>'


def test_names_from_data_are_escaped_where_they_are_shown():
    import numpy as np
    from xltnb.verdicts.compare import Comparison
    from xltnb.verdicts.claims import Claims
    from xltnb.training.scores import Matrix, Transfer
    row = dict.fromkeys(('paper', 'claim', 'preset', 'verdict', 'effect', 'low', 'high', 'n', 'note', 'text'), EVIL) | dict(effect=.5, low=.4, high=.6, margin=0., rule='above')
    cell = dict.fromkeys(('cell', 'source', 'paper', 'command', 'keys', 'verdict'), EVIL) | dict(n=1, now=.5, low=.4, high=.6, pinned=.5)
    shown = [Transfer(EVIL, EVIL, 'acc', {EVIL: dict(acc=.5)}, {}, majority={EVIL: .5}), Matrix((EVIL, 'de'), np.ones((2, 2, 3))), Claims([row]), Comparison([cell])]
    for x in shown: assert '<img' not in x._repr_html_() and '&lt;img' in x._repr_html_()


def test_a_figure_on_the_site_cannot_leave_its_script():
    from xltnb.dev.staging import figure_html
    page = figure_html(dict(data=[dict(type='bar', x=['<!--<script>', '</script>'], y=[1, 2])], layout={}), 'fig')
    assert page.count('<script>') == page.count('</script>') == 1 and '<!--' not in page


def test_no_code_of_an_encoder_is_run(tmp_path, monkeypatch):
    from xltnb.models import encoders
    asked = []
    monkeypatch.setattr(encoders.AutoConfig, 'from_pretrained', lambda home, **kw: asked.append(kw) or (_ for _ in ()).throw(XltError('enough')))
    monkeypatch.setattr(encoders, '_tokenizer_at', lambda home: None)
    monkeypatch.setattr(encoders, '_home', lambda name, pruned: tmp_path)
    with pytest.raises(XltError, match='enough'): encoders.load_encoder('some/encoder', random=True)
    assert asked == [dict(trust_remote_code=False)]


@pytest.mark.parametrize('kind', ['link', 'folder', 'pipe', 'dangling'])
def test_only_a_file_is_replaced(tmp_path, kind):
    at, other = tmp_path/'out.html', tmp_path/'other'
    other.write_text('mine', encoding='utf-8')
    dict(link=lambda: at.symlink_to(other), folder=at.mkdir, pipe=lambda: os.mkfifo(at), dangling=lambda: at.symlink_to('nowhere'))[kind]()
    with pytest.raises(XltError, match='only a file is replaced; name another one'): atomic_write(at, 'new')
    assert other.read_text(encoding='utf-8') == 'mine' and sorted(p.name for p in tmp_path.iterdir()) == ['other', 'out.html']


def said(capsys, *args):
    "What a command says to standard error; it exits with 2"
    with pytest.raises(SystemExit) as e: main(list(args))
    err = capsys.readouterr().err
    assert e.value.code == 2 and 'Traceback' not in err, err
    return err


STORES = ['~nouser/x', '/'+'x'*5000, '', '{loop}', '{file}/x', '{file}']


@pytest.mark.parametrize('store', STORES)
def test_a_store_that_cannot_be_is_refused(capsys, tmp_path, store):
    (tmp_path/'loop').symlink_to('loop')
    (tmp_path/'file').write_text('', encoding='utf-8')
    err = said(capsys, 'plan', 'mothello', f'--store={store.format(loop=tmp_path/"loop", file=tmp_path/"file")}')
    assert 'name another' in err or 'name a f' in err


def test_a_cache_that_cannot_be_is_said_before_anything_runs(capsys, tmp_path, monkeypatch):
    (tmp_path/'file').write_text('', encoding='utf-8')
    monkeypatch.setenv('XLTNB_CACHE', str(tmp_path/'file'/'cache'))
    assert 'XLTNB_CACHE' in said(capsys, 'run', 'mothello', '--store', str(tmp_path/'store'), '--engine', 'inline')
    assert not list((tmp_path/'store').glob('*/*.json'))
    with pytest.raises(XltError, match='XLTNB_CACHE'): cache_dir()
    monkeypatch.setenv('XLTNB_CACHE', '~/x')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert cache_dir() == tmp_path/'x'


def test_a_home_is_expanded_where_code_reads_and_writes(tmp_path, monkeypatch):
    from xltnb.models.adapterhub import from_hub, to_hub
    from xltnb.models.adapter_files import load_adapter, save_adapter
    from xltnb.models.adapters import Adapter, Backbone, BottleneckCfg
    from xltnb.models.sources import TensorSource
    from xltnb.tasks.catalog import data_folder
    from xltnb.tasks.formats import stream_texts
    from xltnb.tasks.own import own_task
    from xltnb.tasks.own_files import find_own
    monkeypatch.setenv('HOME', str(tmp_path))
    for lang in ('en','de'): atomic_write(f'~/mine/test-{lang}.csv', 'text,label\n' + ''.join(f'{lang} {i},{i%2}\n' for i in range(4)))
    found = find_own('~/mine')
    assert found['de']['test'] == tmp_path/'mine'/'test-de.csv' and data_folder('xnli', '~/mine') == tmp_path/'mine'
    task = own_task('mine', 'classify', {l: {s: f'~/mine/test-{l}.csv' for s in ('train','test')[l=='de':]} for l in ('en','de')})
    assert len(task.data['de']['test']) == 4
    atomic_write('~/text.txt', 'a\n\nb\n')
    assert len(list(stream_texts('~/text.txt'))) == 2
    adapter = Adapter('es', BottleneckCfg(), Backbone('xlm-roberta', 2, 32))
    save_adapter(adapter, '~/es.safetensors')
    to_hub(adapter, '~/es')
    assert load_adapter('~/es.safetensors').name == from_hub('~/es').name == TensorSource('~/es').adapter.name == 'es'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['es', 'es.safetensors', 'mine', 'text.txt']
    for ask in (lambda: own_task('mine', 'classify', dict(en=dict(train='~nouser/a.csv'))), lambda: save_adapter(adapter, '~nouser/a')):
        with pytest.raises(XltError, match='~nouser'): ask()


@pytest.mark.parametrize('args, says', [
    (('plan', 'mothello', '--jobs', ','), "',' names no arm"), (('plan', 'mothello', '--jobs='), 'names no arm'), (('plan', 'mothello', '--seeds=2147483648'), 'seeds is 2147483648: give an integer from 1 to 10000'),
    (('run', 'mothello', '--minutes', 'NaN', '--store', '{tmp}/s'), 'minutes is nan: give a number above 0'), (('run', 'mothello', '--minutes', 'inf', '--store', '{tmp}/s'), 'minutes is inf: give a number above 0'),
    (('page', '{tmp}/broken.ipynb'), 'is no notebook'), (('page', '{tmp}/empty.ipynb'), 'is no notebook'), (('page', '{tmp}/none.ipynb'), 'no notebook at'),
    (('page', '~nouser/a.ipynb'), 'name another one'), (('page', 'mothello_fig8', '--out', '{tmp}/broken.ipynb/x'), 'name another one'),
    (('report', 'mothello', '--store', '{tmp}/s', '--out', '{tmp}/broken.ipynb/x.html'), 'name another one'), (('report', 'mothello', '--store', '{tmp}/s', '--out', '{tmp}/folder'), 'a folder')])
def test_a_wrong_word_on_the_command_line_is_named(capsys, tmp_path, args, says):
    (tmp_path/'folder').mkdir()
    (tmp_path/'broken.ipynb').write_text('{"cells": ', encoding='utf-8')
    (tmp_path/'empty.ipynb').write_text('', encoding='utf-8')
    assert says in said(capsys, *(a.format(tmp=tmp_path) for a in args))


def test_a_page_whose_writer_was_killed_leaves_nothing_after_the_next(tmp_path):
    from xltnb.reports.pages import _clear_partial
    gone = subprocess.Popen([sys.executable, '-c', ''])
    gone.wait()
    for pid in (gone.pid, os.getpid()): (tmp_path/f'page-1.{pid}-abcd.partial.ipynb').write_text('', encoding='utf-8')
    (tmp_path/'page-1.ipynb').write_text('', encoding='utf-8')
    _clear_partial(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([f'page-1.{os.getpid()}-abcd.partial.ipynb', 'page-1.ipynb'])


def test_a_lock_that_cannot_be_written_is_told_and_not_left(tmp_path, monkeypatch):
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('xltnb.files.os.write', full)
    with pytest.raises(XltError, match='could not write .*k.lock: No space left.*free some space'): Lease(tmp_path/'k.lock').take()
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    with Lease(tmp_path/'k.lock') as mine: assert mine


def without_a_range(cls):
    "Fields whose numbers may be anything"
    from xltnb.core import Config, _hints, _leaves
    if not issubclass(cls, Config): return ['it is no Config']
    return [f.name for f in dataclasses.fields(cls) if {int, float} & _leaves(_hints(cls)[f.name]) and not {'bounds', 'options'} & {*f.metadata}]


def test_every_number_of_a_configuration_has_a_range():
    found = configs()
    assert {'BottleneckCfg', 'LoraCfg', 'IA3Cfg', 'MergeCfg', 'MetaCfg', 'PhaseCfg', 'LabCfg', 'ShapeCfg', 'FineCfg'} <= {c.__name__ for c in found} and len(found) > 30
    assert {c.__name__: w for c in found if (w := without_a_range(c))} == {}


def test_a_number_without_a_range_is_seen():
    from xltnb.core import Config, within
    @dataclasses.dataclass(frozen=True)
    class LooseCfg(Config):
        n:int = within(1, 0)
        mix:tuple[tuple[str, float], ...] = ()
    assert without_a_range(LooseCfg) == ['mix']


@pytest.mark.parametrize('name, wrong, says', [
    ('BottleneckCfg', dict(reduction=0), 'BottleneckCfg.reduction is 0: give a number above 0'), ('BottleneckCfg', dict(scaling=None), 'scaling is None'),
    ('BottleneckCfg', dict(places='output '), 'unknown BottleneckCfg.places'), ('BottleneckCfg', dict(places=('ouput',)), r"places\[0\] 'ouput'; did you mean 'output'"),
    ('LoraCfg', dict(rank=1.5), 'LoraCfg.rank is 1.5: give an integer from 1 to 1048576'), ('LoraCfg', dict(alpha=float('nan')), 'LoraCfg.alpha is nan'), ('LoraCfg', dict(leave_out=(-1,)), r'leave_out\[0\] is -1'),
    ('IA3Cfg', dict(targets=('q',)), "unknown IA3Cfg.targets"), ('MergeCfg', dict(method='ties', density=0), 'MergeCfg.density is 0: give a number above 0'), ('MergeCfg', dict(normalise='x'), 'MergeCfg.normalise must be bool'),
    ('MetaCfg', dict(mask=.95), 'MetaCfg.mask is 0.95'), ('PhaseCfg', dict(rows=(('de', 0),)), r'PhaseCfg.rows\[0\]\[1\] is 0'), ('PhaseCfg', dict(rows=(('de', '1'),)), 'PhaseCfg.rows'),
    ('LabCfg', dict(stack=True), 'LabCfg.stack is True'), ('LabCfg', dict(heads=5), 'LabCfg.width is 64, not a multiple of its 5 heads'), ('ShapeCfg', dict(pairs=-1), 'ShapeCfg.pairs is -1'), ('FamilyCfg', dict(seed=-1), 'FamilyCfg.seed is -1')])
def test_ranges_stand_at_the_field(name, wrong, says):
    cls = next(c for c in configs() if c.__name__ == name)
    with pytest.raises(XltError, match=says): cls(**wrong)
    with pytest.raises(XltError): from_dict(cls, wrong)


# -- the command line, as a shell sees it --

KILL = 'import os, signal; os.kill(os.getpid(), signal.SIGINT)'


def shell(tmp_path, *args, **env):
    "Run the console script; its exit code and what it says"
    script = tmp_path/'bin'/'xltnb'
    script.parent.mkdir(exist_ok=True)
    script.write_text('import sys\nfrom xltnb.cli import main\nsys.exit(main())\n', encoding='utf-8')
    path = os.pathsep.join([env.pop('PYTHONPATH', ''), str(ROOT)]).strip(os.pathsep)
    def hears(): signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs do not
    done = subprocess.run([sys.executable, str(script), *args], capture_output=True, encoding='utf-8', timeout=120, preexec_fn=hears,
                          env={**os.environ, **env, 'PYTHONPATH': path})
    return done.returncode, done.stdout+done.stderr


def test_an_interrupt_while_modules_load_is_no_traceback(tmp_path):
    (tmp_path/'lib').mkdir()
    (tmp_path/'lib'/'argcomplete.py').write_text(KILL, encoding='utf-8')
    assert shell(tmp_path, 'list', PYTHONPATH=str(tmp_path/'lib')) == (-signal.SIGINT, '')
    write_paper(tmp_path/'papers', 'stops', experiments=KILL)
    code, said = shell(tmp_path, 'plan', 'stops', XLTNB_PAPERS=str(tmp_path/'papers'))
    assert code == 130 and 'Traceback' not in said, 'the command hears it again'
    done = subprocess.run([sys.executable, '-c', f'import xltnb; {KILL}'], capture_output=True, encoding='utf-8', cwd=ROOT,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert 'KeyboardInterrupt' in done.stderr, 'where xltnb is a library, nothing has changed'


@pytest.mark.parametrize('args, env, says', [
    (('plan', 'mothello', '--store=--'), {}, '--store has no value'), (('plan', 'mothello'), dict(XLTNB_PAPERS='~nouser/x'), "XLTNB_PAPERS '~nouser/x' cannot be used"),
    (('reproduce', 'mothello', '--out', '{tmp}/folder'), {}, 'it is a folder, and only a file is replaced'), (('data', 'encoder', '--export', '/dev/null'), {}, 'a device or a pipe'),
    (('report', '--out', '/dev/null'), {}, 'a device or a pipe'), (('speed', 'mlm', '--store', '{tmp}/file'), {}, 'is a file; name a folder'),
    (('leaderboard', '--encoder', '{tmp}/folder', '--rows', 'plain', '--store', '{tmp}/s'), {}, 'holds no config.json')])
def test_what_cannot_be_is_said_before_anything_runs(capsys, tmp_path, monkeypatch, args, env, says):
    (tmp_path/'folder').mkdir()
    (tmp_path/'file').write_text('', encoding='utf-8')
    for k, v in env.items(): monkeypatch.setenv(k, v)
    for slow in ('xltnb.runs.run.run_plan', 'xltnb.studies.speed.speed', 'xltnb.models.bert.export_encoder', 'xltnb.reports.report.report'): monkeypatch.setattr(slow, lambda *a, **kw: pytest.fail('it ran'))
    assert says in said(capsys, *(a.format(tmp=tmp_path) for a in args))


@pytest.mark.parametrize('harm', [b'claims: []\n', bytes(range(128, 256))])
def test_a_published_file_that_is_wrong_is_named_by_list(capsys, tmp_path, monkeypatch, harm):
    f = write_paper(tmp_path/'papers', 'wrong')/'published.yaml'
    f.write_bytes(f.read_bytes()+harm)
    monkeypatch.setenv('XLTNB_PAPERS', str(tmp_path/'papers'))
    with pytest.raises(SystemExit): main(['list'])
    told = capsys.readouterr()
    assert str(f) in told.err and 'wrong' in told.out and 'broken' in told.out
    assert str(f) in said(capsys, 'list', 'wrong')


def test_a_billion_workers_are_as_many_as_there_are_jobs():
    from xltnb.runs.experiments import Job
    from xltnb.runs.plan import wall_s
    jobs = [Job('p', 'a', 'e', 1, {}, i, cost_s=2.) for i in range(3)]
    assert wall_s(jobs, 10**9) == 2. and wall_s(jobs, 2) == 4. and wall_s([], 5) == 0.


def test_our_warnings_on_a_command_line_are_one_line():
    from xltnb.terminal import _line_of
    assert _line_of('broken record x', UserWarning, 'f.py', 3, 'code()') == 'xltnb: broken record x\n' and 'f.py' in _line_of('x', DeprecationWarning, 'f.py', 3)


def test_a_file_without_a_header_says_what_its_first_line_was_taken_for(tmp_path):
    from xltnb.tasks.own_files import read_own
    (tmp_path/'a.tsv').write_text('kittens sleep\tgood\ncats run\tbad\n', encoding='utf-8')
    with pytest.raises(XltError, match=r'first line is taken for the names of columns, and none is known: kittens sleep \| good; write a line of names'):
        read_own(tmp_path/'a.tsv')


@pytest.mark.parametrize('name,text', [('train-en.csv', 'text,label\nhello, world,pos\nbye,neg\n'), ('train-en.tsv', 'text\tlabel\nhello\tpos\t\n')])
def test_rows_longer_than_their_header_are_refused(tmp_path, name, text):
    "pandas would read them shifted by a column"
    from xltnb.tasks.own_files import read_own
    (tmp_path/name).write_text(text, encoding='utf-8')
    with pytest.raises(XltError, match='more fields than the header has names'): read_own(tmp_path/name)


def test_a_pattern_of_files_names_language_and_split(tmp_path):
    from xltnb.tasks.own_files import find_own
    (tmp_path/'de').mkdir(), (tmp_path/'de'/'train-de.csv').write_text('text,label\na,b\n', encoding='utf-8')
    assert find_own(tmp_path, '{lang}/{split}-{lang}.csv') == {'de': {'train': tmp_path/'de'/'train-de.csv'}}
    with pytest.raises(XltError, match='has no {split}'): find_own(tmp_path, '{lang}.csv')


def test_a_number_that_is_none_decides_nothing(tmp_path):
    "A metric that is NaN, and a division by zero: `not settled`, not a traceback"
    from xltnb.verdicts.judge import judge
    from xltnb.records.rules import Check
    runs = [dict(a=a_record(i)) for i in range(3)]
    for r, x in zip(runs, (.1, .2, float('nan'))): r['a'].metrics.update(x=x, zero=0.)
    for effect in ('a.x', 'a.acc/a.zero'):
        j = judge(Check(('laptop',), dict(a='arm'), effect, 'above', 0, 'made up'), runs)
        assert (j.verdict, j.n) == ('not settled', 3) and 'no number' in j.note


def test_names_that_python_callers_mistype_are_named():
    from xltnb.othello.games import perft
    from xltnb.studies.by_name import task_of
    from xltnb.verdicts.study import claims, compare
    for look in (compare, claims):
        with pytest.raises(XltError, match="unknown preset 'labtop'"): look('mothello', 'labtop')
    with pytest.raises(XltError, match='the world is a number'): task_of('invented_inference:1x')
    assert perft(0, 4) == 1


NO_WORDS = None, True, -1, 1.5, float('nan'), [], [None], {}, (), b'x', object(), Store, 3+0j, {1, 2}  # what Python callers hand over in place of a word or a path
LONG_WORDS = '/'+'x'*5000, 'x'*5000


@pytest.mark.parametrize('value', [*NO_WORDS, *LONG_WORDS, 'a\0b', '\ud800', '~nouser/x'], ids=lambda v: repr(v)[:20])
def test_whatever_a_study_is_asked_for_it_answers_in_one_line(study, tmp_path, value):
    from xltnb.reports.pages import check_values, find_page, page_params, parameter_pages
    from xltnb.verdicts.study import study as hold
    ask = lambda **kw: hold(**dict(target=study, preset='smoke', store=tmp_path/'s') | kw)
    calls = [lambda: ask(target=value), lambda: ask(store=value), lambda: ask(preset=value or 'x'), lambda: ask(seeds=value or 'x'), lambda: ask().fig(value or 'x'), lambda: ask().report(value or '\0'),
             lambda: find_page(value), lambda: page_params(value), lambda: parameter_pages(value), lambda: check_values({value if isinstance(value, str) else 'x': value}, dict(seeds='int'))]
    if value is not None: calls += [lambda: ask(jobs=value)]
    calls += [lambda k=k: ask().run(engine='inline', show=False, **{k: value or 'x'}) for k in ('workers', 'minutes', 'device', 'jobs') if value is not True or k != 'minutes']
    for i, call in enumerate(calls):
        try: call()
        except XltError as e: assert '\n' not in str(e) and len(str(e)) < 1000, (i, str(e))


def test_a_folder_that_vanishes_while_it_is_listed_ends_nothing(store, monkeypatch):
    store.put(a_record())
    real = os.listdir
    def gone(path):
        if 'demo.align' in str(path): raise FileNotFoundError(2, 'No such file or directory', str(path))
        return real(path)
    monkeypatch.setattr(os, 'listdir', gone)
    assert store.keys() == set() and store.records() == []


def test_a_terminal_is_told_nothing_that_it_would_obey(capsys):
    from xltnb.terminal import show_rows
    show_rows([{'arm': 'a\x1b[31mred\x00\n\x9b1mx', '[/b]': '[red]x[/red]'}])
    said = capsys.readouterr().out
    assert '[31mred' in said and '[/b]' in said and '[red]x[/red]' in said and not set(said) & {'\x1b', '\x00', '\x9b'} and len(said.splitlines()) == 2


def test_a_lease_beats_once_and_again_after_it_was_given_back(tmp_path):
    "However often it is taken"
    import threading
    beats = lambda: sum(t.is_alive() and '_beat' in t.name for t in threading.enumerate())
    before, lease = beats(), Lease(tmp_path/'x.lock')
    for _ in range(4): lease.take()
    assert lease.held and beats() == before+1
    lease.release()
    assert lease.take().held and not lease._stop.is_set()
    lease.release()


def test_options_beside_a_recipe_are_refused(tmp_path, capsys):
    "They would have no effect"
    (tmp_path/'r.yaml').write_text('method: linear\ninputs: [{adapter: a.safetensors, weight: 1}]\n', encoding='utf-8')
    with pytest.raises(SystemExit) as end: main(['merge', str(tmp_path/'r.yaml'), '--weight', '.3'])
    assert end.value.code == 2 and '--weight beside a recipe has no effect' in capsys.readouterr().err


@pytest.mark.parametrize('out', ['ä\0', '\0', 'x'*5000])
def test_a_recipe_that_cannot_write_is_told(tmp_path, out):
    from test_fuzz import tiny_adapter
    from xltnb.models.adapter_files import save_adapter
    from xltnb.papers.arithmetic.recipes import merge_recipe
    for n in ('es', 'eng'): save_adapter(tiny_adapter(n), tmp_path/f'{n}.safetensors')
    (tmp_path/'r.yaml').write_text(json.dumps(dict(inputs=[dict(adapter='es.safetensors'), dict(adapter='eng.safetensors')], base='zero', out=out)), encoding='utf-8')
    with pytest.raises(XltError, match='r.yaml: out .* cannot be used') as e: merge_recipe(tmp_path/'r.yaml')
    assert len(str(e.value)) < 500


# -- texts of meta-pretraining --

def lines_of(tmp_path, **files):
    from xltnb.papers.metapretrain.corpus import _folder_lines
    for name, data in files.items(): (tmp_path/name.replace('_', '.')).write_bytes(data)
    return _folder_lines(tmp_path/'en.txt')


def test_a_line_ends_where_wc_says(tmp_path):
    "A separator of paragraphs inside a sentence is no end of a line, a byte order mark is no letter"
    got = lines_of(tmp_path, en_txt='\ufeffone\u2028more\ntwo\x85\x0b\n\nthree\n'.encode(), en_ids=b'a\nb\nc\nd\n')
    assert got == [('a', 'en', 'one\u2028more'), ('b', 'en', 'two\x85\x0b'), ('d', 'en', 'three')]
    for files, says in ((dict(en_txt=b'sch\xf6n\n'), 'en.txt is not UTF-8'), (dict(en_txt=b'a\n', en_ids=b'\xff\n'), 'en.ids is not UTF-8'), (dict(en_txt=b'\n \n'), 'en.txt holds no sentence'), (dict(en_txt=b''), 'holds no sentence'),
                        (dict(en_txt=b'a\nb\n', en_ids=b'1\n'), 'en.ids has 1 lines and en.txt 2')):
        with pytest.raises(XltError, match=says): lines_of(tmp_path, **files)
    (tmp_path/'en.txt').unlink()
    os.mkfifo(tmp_path/'en.txt')
    with pytest.raises(XltError, match='a device or a pipe'): lines_of(tmp_path)


@pytest.mark.parametrize('name, text', [('wikipedia', json.dumps(dict(text='One\u2028more words.\nTwo\x85\x0b\x0c here.\r\n\r\nThree.'))+'\n'), ('cc100', 'One\u2028more words.\nTwo\x85\x0b\x0c here.\n\nThree.\n')])
def test_a_published_text_ends_its_lines_at_line_feeds_alone(tmp_path, monkeypatch, name, text):
    from xltnb.papers.metapretrain.corpus import _published_rows
    monkeypatch.setenv(f'XLTNB_{name.upper()}', str(tmp_path))
    for l in ('en', 'de'): (tmp_path/(f'{l}.jsonl' if name == 'wikipedia' else f'{l}.txt')).write_bytes(text.encode())
    assert list(_published_rows(name, ('en', 'de'))['text']) == ['One\u2028more words.', 'Two\x85\x0b\x0c here.', 'Three.']*2


@pytest.mark.parametrize('name', ['folder', 'wikipedia', 'cc100'])
def test_another_text_or_vocabulary_is_another_run(tmp_path, monkeypatch, name):
    "Of an untrained model too, which is measured on the text; and nothing that was read before is believed"
    from xltnb.papers.metapretrain.arms import MetaCfg, NetCfg, PhaseCfg
    from xltnb.papers.metapretrain.corpus import clean_text, load_vocab
    monkeypatch.setenv('XLTNB_METATEXT' if name == 'folder' else f'XLTNB_{name.upper()}', str(tmp_path/'text'))
    cfgs = MetaCfg(text=name), MetaCfg(phases=(PhaseCfg((('en', 8),)),), text=name), MetaCfg(NetCfg(str(tmp_path/'vocab')))
    def keys(word):
        (tmp_path/'text').mkdir(exist_ok=True)
        for l in ('en', 'de', 'fr', 'es'): (tmp_path/'text'/f'{l}.txt').write_text(f'The dog {word}, {l}.\n', encoding='utf-8')
        assert word in clean_text(('en', 'de'), name)[0]['text'][0]
        tok = copy.deepcopy(load_vocab('english256'))
        tok.add_tokens([word])
        tok.save_pretrained(tmp_path/'vocab')
        assert word in load_vocab(str(tmp_path/'vocab')).get_vocab()
        return {make_job('a', 'metapretrain.pretrain', c, 0).key for c in cfgs}
    load_jobs('metapretrain')
    assert len(keys('sleeps') | keys('barks')) == 6 and keys('barks') == keys('barks')


@pytest.fixture
def lists(tmp_path):
    (tmp_path/'packages'/'lists').mkdir(parents=True)
    text = {'en': 'This is a small tool that reads and writes a great many files number', 'de': 'Dieses kleine Werkzeug liest und schreibt sehr viele Dateien Nummer'}
    for lang, t in text.items(): (tmp_path/'packages'/'lists'/f'x_Translation-{lang}').write_text('\n'.join(f'Package: p\nDescription-{lang}: {t} {w}\n .\n' for w in 'abcdefgh'), encoding='utf-8')
    return tmp_path


def test_a_corpus_replaces_its_own_texts_alone(lists):
    from xltnb.dev.packages import write_corpus
    make = lambda: write_corpus(lists/'packages', ('en', 'de'), lists/'out')
    make(), make()
    first = (lists/'out'/'en.txt').read_bytes()
    (lists/'out'/'en.txt').write_bytes(first+b'mine\n')
    with pytest.raises(XltError, match='en.txt is there and was not written by this command'): make()
    assert (lists/'out'/'en.txt').read_bytes() == first+b'mine\n'
    (lists/'mine').mkdir(), (lists/'mine'/'de.txt').write_text('meins\n', encoding='utf-8')
    for harm in (None, '{', '[]', '{"texts": 3}'):
        if harm: (lists/'mine'/'corpus.json').write_text(harm, encoding='utf-8')
        with pytest.raises(XltError): write_corpus(lists/'packages', ('en', 'de'), lists/'mine')
        assert (lists/'mine'/'de.txt').read_text(encoding='utf-8') == 'meins\n' and not (lists/'mine'/'en.txt').exists()


@pytest.mark.parametrize('kw,says', [
    (dict(out=''), 'out is empty'), (dict(out='~nouser/x'), 'nouser'), (dict(out='a\0b'), 'cannot be used'), (dict(packages='~nouser/x'), 'nouser'), (dict(languages='en,**x'), "'[*][*]x' is no code of a language"),
    (dict(languages='../en'), 'is no code'), (dict(out='{tmp}/packages/lists/x_Translation-en'), 'Not a directory')])
def test_a_corpus_of_odd_words_is_refused(lists, kw, says):
    from xltnb.dev.packages import make_corpus
    given = dict(out='{tmp}/out', languages='en', packages='{tmp}/packages') | kw
    with pytest.raises(XltError, match=says): make_corpus(**{k: v.format(tmp=lists) for k, v in given.items()})


@pytest.mark.parametrize('size', [b'abc', b'-60', b'', b'1e9'])
def test_a_damaged_package_is_told(tmp_path, size):
    from xltnb.dev.sources import members
    part = lambda name, size: name.ljust(16)+b' '*32+size.ljust(10)+b'`\n'
    (tmp_path/'a.deb').write_bytes(b'!<arch>\n'+part(b'debian-binary', size)+b'2.0\n')
    with pytest.raises(XltError, match='it is damaged, fetch it again'): list(members(tmp_path/'a.deb'))
    os.mkfifo(tmp_path/'b.deb')
    with pytest.raises(XltError, match='a device or a pipe'): list(members(tmp_path/'b.deb'))


def test_a_cut_page_of_a_package_is_told():
    import gzip
    from xltnb.dev.packages import _unpacked
    for raw in (gzip.compress(b'x'*999)[:-9], b'', b'no gzip at all'):
        if raw:
            with pytest.raises(XltError, match='man/a.gz in b.deb cannot be unpacked'): _unpacked(raw, 'man/a.gz in b.deb')


# -- published files of somebody else --

@pytest.mark.parametrize('where', ['seed: 2024-13-45', 'seed: !!int x', 'seed: %s' % ('9'*5000), 'seed: %s' % ('['*5000), 'order: %s' % ('9'*5000), 'commands: %s' % ('9'*5000), 'commands: {a: 2024-13-45}'])
def test_a_published_file_that_python_cannot_read_is_named(tmp_path, monkeypatch, where):
    from xltnb.records.published import find_commands, find_papers
    f = write_paper(tmp_path/'papers', 'wrong')/'published.yaml'
    f.write_text('\n'.join(l for l in f.read_text(encoding='utf-8').splitlines() if not l.startswith(where.split(':')[0]+':'))+'\n'+where+'\n', encoding='utf-8')
    with pytest.raises(XltError, match=r'published.yaml'): read_published(f)
    monkeypatch.setenv('XLTNB_PAPERS', str(tmp_path/'papers'))
    assert 'wrong' in find_papers()
    if where.startswith('commands'):
        with pytest.raises(XltError, match='published.yaml: commands'): find_commands()


@pytest.mark.parametrize('train, test, says', [
    ('text,label\nx,good\ny,\nz,bad\n', 'text,label\nx,bad\n', 'train-en.csv) has no label: fill it in, or drop the row'),
    ('text\nx\n', 'text\nx\n', 'test-de.csv) has no label: add a column'),
    ('text,label\nx,good\nz,bad\n', 'text,label\nx,\ny,bad\n', 'test-de.csv) has no label: fill it in, or drop the row')])
def test_a_blank_label_of_a_users_file(tmp_path, train, test, says):
    from xltnb.tasks.own import own_task
    (tmp_path/'train-en.csv').write_text(train, encoding='utf-8')
    for lang in ('en', 'de'): (tmp_path/f'test-{lang}.csv').write_text(test if lang=='de' else 'text,label\nx,good\n', encoding='utf-8')
    with pytest.raises(XltError) as e: own_task('mine', 'classify', tmp_path)
    assert says in str(e.value)


def test_a_users_file_in_another_encoding_and_a_folder_that_is_none(tmp_path):
    from xltnb.tasks.own import own_task
    from xltnb.tasks.own_files import read_own
    (tmp_path/'x.csv').write_bytes('text,label\nschön,good\n'.encode('latin-1'))
    with pytest.raises(XltError, match='not UTF-8.*save it as UTF-8'): read_own(tmp_path/'x.csv')
    with pytest.raises(XltError, match='nowhere is missing'): own_task('mine', 'classify', tmp_path/'nowhere')
    with pytest.raises(XltError, match='is a file: give the folder'): own_task('mine', 'classify', tmp_path/'x.csv')


def test_pinning_in_a_store_that_is_read_only_names_another_one(capsys, tmp_path, monkeypatch):
    store, may = tmp_path/'store', os.access
    store.mkdir()
    monkeypatch.setattr(os, 'access', lambda path, mode: may(path, mode) and not (Path(path) == store and mode == os.W_OK))
    err = said(capsys, 'pin', 'mothello.C2', '--preset', 'laptop', '--store', str(store))
    assert f'cannot write to {store}; choose another folder with --store' in err and 'no run' not in err
    def refuse(path, *a, **kw): raise PermissionError(errno.EACCES, 'Permission denied')
    monkeypatch.setattr(Path, 'mkdir', refuse)
    assert f'cannot write to the store {store}: Permission denied; choose another folder' in said(capsys, 'pin', 'mothello.C2', '--preset', 'laptop', '--store', str(store))


def test_a_store_that_is_not_there_is_not_packed(tmp_path):
    from xltnb.commands import cmd_pack
    with pytest.raises(XltError, match='there is no store at'): cmd_pack(str(tmp_path/'none'))
    assert not (tmp_path/'none').exists()


def test_a_record_that_cannot_be_read_stays_as_it_is(tmp_path, monkeypatch):
    "of another user in one store, or on a disk that has a bad moment: it is no damaged one"
    s, record = Store(tmp_path, committed=False), Record('toy.sum', 'k1', {}, 0, dict(sum=1.))
    file = s.put(record)
    before = file.read_bytes()
    with monkeypatch.context() as m:
        refuse(m, file)
        with pytest.raises(Unreadable, match='cannot be read .Permission denied.: make it readable'): s.put(record)
    assert file.read_bytes() == before and [p.name for p in file.parent.iterdir()] == [file.name]


def refuse(monkeypatch, path, number=errno.EACCES, when='open'):
    "The system refuses a file, when it is opened or when it is read"
    error, whole, opened = OSError(number, os.strerror(number), str(path)), Path.read_bytes, open

    def read(self):
        if self == path: raise error
        return whole(self)

    class Bad(io.FileIO):
        def readinto(self, *a): raise error
        read = readall = readinto

    def opens(file, *args):
        if Path(file) != path: return opened(file, *args)
        if when == 'open': raise error
        return Bad(file)
    monkeypatch.setattr(Path, 'read_bytes', read)
    monkeypatch.setattr('xltnb.records.pack.open', opens, raising=False)
    for cached in (_fault_of, _opened, _keys, _numbers): cached.cache_clear()


REFUSED = dict(another_user=errno.EACCES, a_bad_disk=errno.EIO, a_stale_folder=errno.ESTALE)


@pytest.mark.parametrize('why', REFUSED)
def test_a_run_whose_record_nobody_lets_us_read_is_not_made_again(study, store, monkeypatch, why):
    run_plan(make_plan(study, store=store), show=False)
    f, *others = sorted(store.path.glob('*/*.json'))
    with monkeypatch.context() as m:
        refuse(m, f, REFUSED[why])
        plan = make_plan(study, store=store)
        assert sorted(plan.df.state) == ['done', 'done', 'unreadable'] and not plan.todo()
        told = str(plan).splitlines()[-1]
        assert f'2 of 3 runs are done; 1 record cannot be opened and stays as it is: {f} cannot be read ({os.strerror(REFUSED[why])}): make it readable (chmod' in told
        assert 'delete' not in told and [r['why'] for r in status_rows(plan) if r['state'] == 'unreadable'] == [told.split('stays as it is: ')[1]]
        rep = run_plan(plan, show=False)
        assert rep.outcomes == [] and rep.exit_code == 3 and '2 were there, 1 cannot be read' in str(rep)
        job = next(j for j in plan.jobs if j.key == f.stem)
        out = lease_job(store, job)
        assert out.status == 'failed' and 'make it readable' in out.note and not store.busy(job.key), 'told before it is computed'
        with pytest.warns(UserWarning, match='make it readable'): assert len(store.records()) == 2
        others[0].unlink()  # what is missing beside it is made
        assert [o.status for o in run_plan(make_plan(study, store=store), show=False).outcomes] == ['done']
    assert 'all 3 runs are done' in str(make_plan(study, store=store)), 'it is asked for again, not remembered'


@pytest.mark.filterwarnings('ignore:.*until then its records count as missing')
@pytest.mark.parametrize('when', ['open', 'read'])
@pytest.mark.parametrize('why', REFUSED)
def test_a_pack_that_nobody_lets_us_read_is_not_called_damaged(study, store, monkeypatch, why, when):
    run_plan(make_plan(study, store=store), show=False)
    store.pack()
    pack = store.path/'bad_input.sum'/PACK
    with monkeypatch.context() as m:
        refuse(m, pack, REFUSED[why], when)
        plan = make_plan(study, store=store)
        assert [*plan.df.state] == ['unreadable']*3 and not plan.todo()
        told = str(plan).splitlines()[-1]
        assert f'3 records cannot be opened and stay as they are: {pack} cannot be read ({os.strerror(REFUSED[why])}): make it readable' in told and 'remove' not in told
        rep = run_plan(plan, show=False)
        assert rep.outcomes == [] and rep.exit_code == 3 and [p.name for p in pack.parent.iterdir()] == [PACK]
        assert 'make it readable' in lease_job(store, plan.jobs[0]).note
        (pack.parent/'0.json').write_text('{', encoding='utf-8')
        for change in (store.unpack, store.pack):
            with pytest.raises(Unreadable, match='make it readable'): change()
    (pack.parent/'0.json').unlink()
    assert 'all 3 runs are done' in str(make_plan(study, store=store))


def test_a_folder_that_nobody_lets_us_read_is_told_and_its_runs_are_not_made_again(study, store, monkeypatch):
    run_plan(make_plan(study, store=store), show=False)
    folder, listed, scanned = store.path/'bad_input.sum', os.listdir, os.scandir
    def refusing(real):
        def ask(path):
            if Path(path) == folder: raise PermissionError(errno.EACCES, 'Permission denied')
            return real(path)
        return ask
    monkeypatch.setattr('xltnb.records.store.os.listdir', refusing(listed))
    monkeypatch.setattr('xltnb.records.store.os.scandir', refusing(scanned))
    monkeypatch.setattr('xltnb.records.store._LISTED', {})
    with pytest.warns(UserWarning, match='bad_input.sum cannot be read .Permission denied.'): plan = make_plan(study, store=store); states = plan.states()
    assert {s for s, _ in states.values()} == {'unreadable'}
    with pytest.warns(UserWarning, match='count as missing'): assert run_plan(plan, show=False).outcomes == []


def test_a_pack_is_read_where_its_path_cannot_be_spelled(study, store, tmp_path):
    "as in a locale that knows ASCII alone"
    run_plan(make_plan(study, store=store), show=False)
    store.pack()
    os.rename(store.path, tmp_path/'stör')
    code = f'from xltnb.records.store import Store\ns = Store({ascii(str(tmp_path))}+"/st"+b"\\xc3\\xb6".decode("ascii", "surrogateescape")+"r", committed=False)\nprint(len(s.records()), len(s.frame()))'
    done = subprocess.run([sys.executable, '-W', 'error', '-c', code], env=os.environ | dict(LC_ALL='C', PYTHONUTF8='0'), capture_output=True, encoding='utf-8')
    assert done.stdout.split() == ['3', '3'], done.stderr


def test_the_lease_of_a_process_that_is_hidden_is_kept(tmp_path, monkeypatch):
    "as /proc with hidepid hides those of other users"
    with Lease(tmp_path/'job.lock').take():
        monkeypatch.setattr('xltnb.records.leases._stat', lambda pid: [])
        assert Lease(tmp_path/'job.lock').busy


def wrong_calls():
    "Calls with one wrong word or number each, and what the answer has to name"
    import torch

    from xltnb.invented.world import invented
    from xltnb.leaderboard.rows import board_words
    from xltnb.leaderboard.table import comparisons
    from xltnb.othello.lexicon import decode_game, encode_game, make_lexicon, relabel
    from xltnb.papers.baselines.experiments import baseline_cfg
    from xltnb.papers.mothello.boards import board_fig
    from xltnb.papers.mothello.demo import load_demo
    from xltnb.papers.mothello.explorer import probe_board
    from xltnb.papers.mothello.training import even_steps
    from xltnb.papers.robust.methods import ascent, noise, project
    from xltnb.papers.salt.switching import SelfSwitch
    x, lex, demo, world = torch.ones(1, 2, 4), make_lexicon(n=4), load_demo('naive'), invented('tiny')
    lang = next(iter(world.words))
    states = demo.states(random_game(demo))
    return [(lambda: project(x, .5, 'l1'), "'l1'.*l2, linf"), (lambda: ascent(x, 'l1'), "'l1'.*l2, linf"),
            (lambda: noise((1, 2, 4), 'foo', torch.Generator()), "'foo'.*gaussian"), (lambda: SelfSwitch(context='duel'), "'duel'.*did you mean 'dual'"),
            (lambda: board_words('salt', 'finetun'), "'finetun'.*did you mean 'finetune'"), (lambda: comparisons([], 'frozn'), "'frozn'.*did you mean 'frozen'"),
            (lambda: relabel(lex, 9, 0), 'lang is 9'), (lambda: relabel(lex, 1, 8), 'symmetry is 8'), (lambda: encode_game(lex, [0], 5), 'lang is 5'),
            (lambda: decode_game(lex, [1], 5), 'lang is 5'), (lambda: demo.states(random_game(demo), 5), 'lang is 5'), (lambda: even_steps(100, 1), 'count is 1'),
            (lambda: probe_board(demo, states, 0, layer=9), 'layer is 9'), (lambda: probe_board(demo, states, 0, symmetry=9), 'symmetry is 9'),
            (lambda: board_fig({}, 4), 'no boards'), (lambda: baseline_cfg('foo', 'smoke'), "unknown task 'foo'"),
            (lambda: world.gloss('foo', lang), "'foo' is no word"), (lambda: world.gloss('foo', 'zz'), "'zz'"), (lambda: world.write(None, 'zz'), "'zz'")]


def random_game(demo):
    from xltnb.othello.games import random_games
    return random_games(1, demo.n, seed=0)[0]


def test_a_wrong_word_or_number_of_a_call_is_named():
    for call, said in wrong_calls():
        with pytest.raises(XltError, match=said): call()


@pytest.mark.parametrize('whole', [True, False], ids=['cut', 'none at all'])
def test_a_compressed_file_that_is_damaged_is_told_with_a_remedy(tmp_path, whole):
    import gzip
    from xltnb.tasks.own import own_task
    (tmp_path/'en.csv.gz').write_bytes(gzip.compress(b'text,label\n' + b''.join(b'row %d,x\n' % i for i in range(999)))[:600] if whole else b'text,label')
    with pytest.raises(XltError, match=r'cannot read .*en\.csv\.gz: .*if it was cut short or damaged, copy it again'):
        own_task('mine', 'classify', {'en': {'train': tmp_path/'en.csv.gz'}})
