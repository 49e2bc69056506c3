"Records: what is written is read back, and nothing is half written"
import errno
import json
import math
import os
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xltnb import files
from xltnb.records import leases, store
from xltnb.core import XltError, from_dict, plain, seed_for, stable_hash, to_dict
from xltnb.files import atomic_write, sha256_of, write_new
from xltnb.records.built import built_once
from xltnb.records.leases import Lease
from xltnb.records.pack import PACK, pack_bytes
from xltnb.records.record import _SEAL, MeanOf, Record, RunKey, _sealed_text, pack_items, read_record, record_json, unpack_items
from xltnb.records.store import Store

settings.register_profile('calm', deadline=None) # a busy machine is no failure
settings.load_profile('calm')

names = st.text('abcdefgh_', min_size=1, max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
values = st.recursive(st.none() | st.booleans() | st.integers(-2**53, 2**53) | numbers | st.text(max_size=8),
                      lambda kids: st.lists(kids, max_size=4) | st.dictionaries(names, kids, max_size=4), max_leaves=12)
configs = st.dictionaries(names, values, max_size=5)


@pytest.fixture
def empty(tmp_path): return Store(tmp_path/'store', committed=False)


def a_record(i=0, **kw):
    key = RunKey('demo.align', 1, {'i': i}, 0)
    return Record(key.experiment, key.key, key.config, 0, **dict(provenance=dict(cpu='x')) | kw)


@given(configs, st.randoms())
def test_hash_ignores_order_and_container(cfg, rnd):
    items = list(cfg.items())
    rnd.shuffle(items)
    assert stable_hash(cfg)==stable_hash(dict(items))==stable_hash(json.loads(json.dumps(plain(cfg))))


@given(configs, configs)
def test_hash_tells_apart(a, b): assert (stable_hash(a)==stable_hash(b))==(json.dumps(plain(a), sort_keys=True)==json.dumps(plain(b), sort_keys=True))


def test_hash_is_the_same_in_another_process():
    code = "from xltnb.core import stable_hash, seed_for; print(stable_hash({'b': (1, 2.5), 'a': 'ü'}), seed_for('x', 1))"
    outs = {subprocess.run([sys.executable, '-c', code], capture_output=True, encoding='utf-8', env={**os.environ, 'PYTHONHASHSEED': s}).stdout for s in '12'}
    assert outs=={f"{stable_hash({'a': 'ü', 'b': [1, 2.5]})} {seed_for('x', 1)}\n"}


@given(st.lists(st.one_of(names, st.integers()), min_size=1, max_size=4))
def test_seeds_fit(axes): assert 0<=seed_for(*axes)<2**63


@dataclass(frozen=True)
class Cfg:
    layers:int = 2
    lr:float = 0.1
    name:str = 'x'
    sizes:tuple[int, ...] = ()
    limit:int|None = None


@given(st.builds(Cfg, st.integers(-9, 9), numbers, names, st.lists(st.integers(), max_size=3).map(tuple), st.none() | st.integers()))
def test_config_round_trip(cfg): assert from_dict(Cfg, json.loads(json.dumps(to_dict(cfg))))==cfg


@pytest.mark.parametrize('bad, says', [({'layer': 1}, "did you mean 'layers'"), ({'layers': 1.5}, 'Cfg.layers must be int'), ({'layers': True}, 'Cfg.layers must be int'),
                                       ({'sizes': ['a']}, r'Cfg.sizes\[0\] must be int'), ({'lr': 'fast'}, 'Cfg.lr must be float'), ({'limit': 'a'}, 'Cfg.limit must be')])
def test_bad_configs(bad, says):
    with pytest.raises(XltError, match=says): from_dict(Cfg, bad)


@given(st.lists(st.one_of(numbers, st.just(math.nan)), max_size=200))
def test_items_round_trip(xs):
    back, x = np.array(unpack_items(json.loads(json.dumps(pack_items(xs))))), np.array(xs, float)
    assert len(back)==len(x) and (np.isnan(back)==np.isnan(x)).all()
    ok = ~np.isnan(x)
    if ok.any(): assert np.abs(back[ok]-x[ok]).max()<=(x[ok].max()-x[ok].min())/65534*0.51+1e-6*np.abs(x[ok]).max()


@given(st.lists(st.integers(-30000, 30000), min_size=1, max_size=50))
def test_whole_items_are_exact(xs): assert unpack_items(pack_items(xs)).tolist()==xs


@settings(max_examples=40)
@given(st.dictionaries(names, numbers, max_size=4), configs, st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_record_round_trip(tmp_path_factory, metrics, cfg, items):
    s = Store(tmp_path_factory.mktemp('s'), committed=False)
    key = RunKey('demo.align', 2, cfg, 3)
    rec = Record(key.experiment, key.key, plain(cfg), 3, metrics, {'train': {'loss': [1., .5]}}, {'de': {'acc': 1.}}, {'acc': items}, {'cpu': 'x'}, 2, 'arm-1')
    s.put(rec)
    got = s.get(key.key)
    np.testing.assert_allclose(got.items.pop('acc'), items, atol=1e-5)
    rec.items = {}
    assert got==rec and s.has(key.key) and s.keys()=={key.key}


def test_frame(empty):
    for i in range(3): empty.put(a_record(i, metrics={'acc': i/2}, arm='a'))
    df = empty.frame('demo.align')
    assert list(df['cfg.i'])==[0, 1, 2] or set(df['cfg.i'])=={0, 1, 2}
    assert {'experiment', 'arm', 'seed', 'key', 'acc'}<=set(df.columns) and empty.frame('other').empty


@pytest.mark.parametrize('text', ['', '{', '[]', '{"metrics": {}}', '{"experiment": 1, "items": {"a": {"n": 3, "u16": "!!"}}, "metrics": {}}', '\x00\xff'])
def test_broken_record(empty, text):
    f = empty.put(a_record())
    empty.put(a_record(1))
    f.write_text(text, encoding='utf-8')
    with pytest.raises(XltError, match='delete the file and run again') as e: empty.get(f.stem)
    assert str(f) in str(e.value)
    with pytest.warns(UserWarning, match='broken record'): assert len(empty.records()) == 1


def test_nan_metrics_are_null_in_the_file(empty):
    f = empty.put(a_record(metrics={'acc': math.nan}))
    assert json.loads(f.read_text(encoding='utf-8'), parse_constant=pytest.fail)['metrics']=={'acc': None}
    assert math.isnan(read_record(f).metrics['acc'])


def test_committed_records_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(store, 'project_root', lambda: tmp_path)
    monkeypatch.setenv('XLTNB_HOME', str(tmp_path))
    (tmp_path/'nbs').mkdir()
    Store('nbs/results').put(a_record(metrics={'acc': 1.}))
    mine = Store('results')
    mine.put(a_record(metrics={'acc': 2.}))
    assert mine.get(a_record().key).metrics=={'acc': 1.} and len(mine.records())==1
    assert Store('results', committed=False).get(a_record().key).metrics=={'acc': 2.}
    assert mine.path==tmp_path/'results'
    monkeypatch.setenv('XLTNB_FRESH', '1')
    assert Store('results').get(a_record().key).metrics=={'acc': 2.}, 'asked for, the committed ones stand aside'


@pytest.mark.parametrize('word, fresh', [('1', True), ('yes', True), ('true', True), ('', False), ('0', False), ('false', False), ('No', False), ('maybe', None)])
def test_a_word_that_says_off_is_off(tmp_path, monkeypatch, word, fresh):
    monkeypatch.setenv('XLTNB_FRESH', word)
    if fresh is None:
        with pytest.raises(XltError, match="XLTNB_FRESH is 'maybe': 1 switches it on, 0 or nothing"): Store(tmp_path)
    else: assert (len(Store(tmp_path).folders) == 1) == fresh


def full_disk(fd, data):
    "Writes three bytes, then the disk is full"
    if len(data)<4: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return real_write(fd, bytes(data)[:3]) if data[:1]==b'{' else (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


real_write = os.write


def test_full_disk_keeps_the_old_file(empty, monkeypatch):
    f = empty.put(a_record(metrics={'acc': 1.}))
    before = f.read_text(encoding='utf-8')
    monkeypatch.setattr(files.os, 'write', full_disk)
    with pytest.raises(XltError, match='No space left.*MB free'): empty.put(a_record(metrics={'acc': 2.}))
    monkeypatch.undo()
    assert f.read_text(encoding='utf-8')==before and [p.name for p in f.parent.iterdir()]==[f.name]


@pytest.mark.skipif(sys.platform!='linux' or not hasattr(os, 'geteuid') or os.geteuid()!=0, reason='needs root on Linux to mount a small disk')
def test_really_full_disk(tmp_path):
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', tmp_path], capture_output=True).returncode: pytest.skip('this container may not mount')
    try:
        f = atomic_write(tmp_path/'a.json', 'old')
        with pytest.raises(XltError, match='No space left'): atomic_write(f, 'x'*200_000)
        assert f.read_text(encoding='utf-8')=='old' and [p.name for p in tmp_path.iterdir()]==['a.json']
    finally: subprocess.run(['umount', tmp_path], check=True)


def test_partial_writes_are_completed(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, 'write', lambda fd, data: real_write(fd, bytes(data)[:7]))
    assert atomic_write(tmp_path/'f', 'abcdefghij'*10).read_text(encoding='utf-8')=='abcdefghij'*10


@pytest.mark.parametrize('key', ['../x', '', 'a/b', '.hidden'])
def test_keys_are_file_names(empty, key):
    with pytest.raises(XltError, match='cannot be a file name'): empty.put(Record('demo.align', key, {}, 0))


def test_one_lease_at_a_time(empty):
    "Twenty threads, one lease"
    held = []
    leases = [empty.lease('k') for _ in range(20)]
    threads = [Thread(target=lambda c=c: held.append(bool(c.take()))) for c in leases]
    for t in threads: t.start()
    for t in threads: t.join()
    assert sum(held)==1 and empty.busy('k')
    for c in leases: c.release()
    assert not empty.busy('k') and not list((empty.path/'.claims').glob('*.lock'))


@pytest.mark.parametrize('says', [dict(pid=1, host='elsewhere'), dict(space='pid:[1]'), dict(boot='another'), dict(pid=None)], ids=str)
@pytest.mark.parametrize('old', [0, 200, 86400, -86400])
def test_who_cannot_be_asked_is_watched(empty, monkeypatch, says, old):
    "By our own stopwatch: neither clock needs to be right"
    lock, now = empty.lease('k').lock, [1000.]
    monkeypatch.setattr(leases.time, 'monotonic', lambda: now[0])
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps(leases._me() | says), encoding='utf-8')
    for i in range(5):  # its owner lives, and touches it
        os.utime(lock, (0, time.time()-old+i))
        assert empty.busy('k')
        now[0] += 30
    now[0] += 30  # 60 s without a touch: a network folder may show one as late as that
    assert empty.busy('k')
    now[0] += 40  # 100 s
    assert empty.busy('k') == (old < 120)
    now[0] += 60
    with empty.lease('k') as c: assert c


@pytest.mark.parametrize('text', ['garbage', '[1]', '', '{"pid": '])
def test_a_lock_that_cannot_be_read_is_named_and_taken(empty, text):
    lock = empty.lease('k').lock
    lock.parent.mkdir(parents=True)
    lock.write_text(text, encoding='utf-8')
    with pytest.warns(UserWarning, match='k.lock cannot be read: it is taken'), empty.lease('k') as c: assert c


@pytest.mark.skipif(os.name=='nt', reason='processes are not asked there')
@pytest.mark.parametrize('says, free', [({}, False), ({'start': None}, False), ({'start': 'long ago'}, sys.platform=='linux'), ({'pid': None}, False), ({'host': 'elsewhere'}, False)])
def test_a_living_owner_that_slept_keeps_its_lease(tmp_path, says, free):
    lock = tmp_path/'k.lock'
    lock.write_text(json.dumps(leases._me() | says), encoding='utf-8')
    os.utime(lock, (0, 0))
    with Lease(lock) as c: assert bool(c)==free


def test_who_lost_a_lease_does_not_keep_it_fresh(tmp_path):
    with Lease(tmp_path/'k.lock', beat_s=0.05) as c:
        c.lock.write_text('{"pid": 1, "host": "elsewhere", "token": "x"}', encoding='utf-8')
        os.utime(c.lock, (0, 0))
        time.sleep(0.3)
        assert c.lock.stat().st_mtime==0 and c.owner()=='process 1 on elsewhere'
    assert Lease(tmp_path/'gone').owner()=='another process', 'who has just gone has no number'


def test_a_lease_is_touched(tmp_path):
    with Lease(tmp_path/'k.lock', beat_s=0.05) as c:
        os.utime(c.lock, (0, 0))
        for _ in range(100):
            if c.lock.stat().st_mtime>0: break
            c._stop.wait(0.05)
        assert c.lock.stat().st_mtime>0


def test_a_heart_beats_on_when_the_folder_did_not_answer_once(tmp_path, monkeypatch):
    read, said = Path.read_text, []
    def stale(path, *a, **kw):
        if path.name=='k.lock' and not said: said.append(1); raise OSError(116, 'Stale file handle')
        return read(path, *a, **kw)
    monkeypatch.setattr(Path, 'read_text', stale)
    with Lease(tmp_path/'k.lock', beat_s=0.05) as c:
        os.utime(c.lock, (0, 0))
        for _ in range(100):
            if c.lock.stat().st_mtime>0: break
            time.sleep(0.05)
        assert said and c.lock.stat().st_mtime>0


def test_a_lock_that_cannot_be_read_when_it_is_given_back_does_not_stay(tmp_path, monkeypatch):
    def stale(*a, **kw): raise OSError(116, 'Stale file handle')
    mine = Lease(tmp_path/'k.lock').take()
    with monkeypatch.context() as m:
        m.setattr(Path, 'read_text', stale)
        mine.release()
    assert not mine.lock.exists() and Lease(mine.lock).take()


def test_a_lock_that_cannot_be_read_at_the_moment_is_not_taken(tmp_path, monkeypatch):
    def stale(*a, **kw): raise OSError(116, 'Stale file handle')
    with Lease(tmp_path/'k.lock') as c, monkeypatch.context() as m:
        m.setattr(Path, 'read_text', stale)
        assert Lease(c.lock).busy() and not Lease(c.lock).take()


def test_who_lost_a_lease_does_not_release_it(tmp_path):
    first = Lease(tmp_path/'k.lock').take()
    first.lock.unlink()
    with Lease(tmp_path/'k.lock') as second:
        first.release()
        assert second and second.lock.exists()


LEASES = '''
import fcntl, os, random, sys, time
from pathlib import Path
from xltnb.records.leases import Lease
fcntl.flock = fcntl.lockf = lambda *args: None # as on a network folder that carries no locks
folder, rng = Path(sys.argv[1]), random.Random(sys.argv[2])
log = os.open(folder/'log', os.O_WRONLY|os.O_CREAT|os.O_APPEND)
(folder/f'here {sys.argv[2]}').touch()
while len(list(folder.glob('here *')))<2: time.sleep(.001)
for i in range(60):
    while not (folder/f'done {i}').exists():
        with Lease(folder/f'{i}.lock') as mine:
            if not mine or (folder/f'done {i}').exists(): continue
            os.write(log, f'{i}\\n'.encode())
            time.sleep(rng.random()*.01)
            (folder/f'done {i}').touch()
'''


@pytest.mark.parametrize('dead', [False, True], ids=['free', 'of a dead owner'])
def test_no_lease_is_doubled_where_locks_of_the_system_do_nothing(tmp_path, dead):
    gone = subprocess.Popen([sys.executable, '-c', ''])
    gone.wait()
    for i in range(60 if dead else 0): (tmp_path/f'{i}.lock').write_text(json.dumps(leases._me() | dict(pid=gone.pid, token=str(i))), encoding='utf-8')
    both = [subprocess.Popen([sys.executable, '-c', LEASES, str(tmp_path), str(i)]) for i in range(2)]
    assert [p.wait(timeout=120) for p in both] == [0, 0]
    assert sorted(map(int, (tmp_path/'log').read_text(encoding='utf-8').split())) == list(range(60))
    assert not [p.name for p in tmp_path.iterdir() if '.lock' in p.name]


def test_who_saw_a_dead_owner_does_not_take_it_from_the_living_one_that_came_between(tmp_path, monkeypatch):
    lock = tmp_path/'k.lock'
    lock.write_text('{}', encoding='utf-8')
    stale, living = leases._is_stale, Lease(lock)
    def seen_too_early(path):
        found = stale(path)
        if path == lock and not living:
            living.held = True
            atomic_write(lock, living._text())
        return found
    monkeypatch.setattr(leases, '_is_stale', seen_too_early)
    assert not Lease(lock).take() and living.ours()


def test_whoever_comes_second_may_find_its_draft_tidied_away(tmp_path, monkeypatch):
    "The first one removes the drafts of killed processes; that of a living one may be among them"
    def first(tmp, path):
        Path(path).write_text('first', encoding='utf-8')
        Path(tmp).unlink()
        raise FileExistsError(17, 'File exists')
    monkeypatch.setattr(os, 'link', first)
    monkeypatch.setattr(Path, 'exists', lambda self: True)  # it went right after it was seen
    assert not write_new(tmp_path/'k.lock', 'second') and (tmp_path/'k.lock').read_text(encoding='utf-8') == 'first'


def test_a_draft_of_a_killed_process_goes_with_the_lease(tmp_path):
    with Lease(tmp_path/'k.lock') as mine:
        assert mine
        (tmp_path/'.k.lock.0123abcd.tmp').write_text('', encoding='utf-8')
    assert not list(tmp_path.iterdir())


def test_who_lost_a_lease_does_not_replace_the_first_record(empty):
    first, second = (record_json(a_record(metrics={'acc': x})) for x in (1., 2.))
    key = a_record().key
    assert [empty.put_first('demo.align', key, text) for text in (first, second)] == [True, False]
    assert empty.get(key).metrics == {'acc': 1.}
    empty.file('demo.align', key).write_text('cut', encoding='utf-8')
    assert empty.put_first('demo.align', key, second) and empty.get(key).metrics == {'acc': 2.}


def test_a_file_system_without_links_still_gives_a_name_to_one(tmp_path, monkeypatch):
    def no_links(*args): raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    monkeypatch.setattr(files.os, 'link', no_links)
    assert [files.write_new(tmp_path/'a', x) for x in 'xy'] == [True, False] and (tmp_path/'a').read_text(encoding='utf-8') == 'x'
    with Lease(tmp_path/'k.lock') as mine: assert mine and not Lease(tmp_path/'k.lock').take()


def test_a_lost_answer_to_a_link_is_no_refusal(tmp_path, monkeypatch):
    real = os.link
    def lossy(a, b):
        real(a, b)
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    monkeypatch.setattr(files.os, 'link', lossy)
    assert files.write_new(tmp_path/'a', 'x') and [p.name for p in tmp_path.iterdir()] == ['a']


def test_records_can_vanish_while_being_read(empty):
    f = empty.put(a_record())
    f.unlink()
    empty._places = lambda *a, **k: {f.stem: [f]}
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert empty.records()==[]


def test_a_folder_is_listed_once_and_again_when_it_has_changed(empty, monkeypatch):
    "A list of a folder that has just changed is not kept: the next change may fall into the same tick"
    listed = []
    monkeypatch.setattr(store, '_names', lambda d, real=store._names: listed.append(d.name) or real(d))
    a, b = empty.put(a_record(0)), empty.put(a_record(1))
    for _ in range(2): assert empty.keys() == {a.stem, b.stem}
    assert listed.count('demo.align') == 2
    os.utime(a.parent, (1e9, 1e9))
    for _ in range(3): empty.keys(), empty.whole({a.stem}), empty.faults({b.stem}), empty.getter()(a.stem)
    assert listed.count('demo.align') == 3
    c = empty.put(a_record(2))
    assert empty.keys() == {a.stem, b.stem, c.stem} and empty.whole({c.stem, '0'*16}) == {c.stem}


def packed(empty, n=300):
    "A store of many records in a pack, and their texts"
    texts, home = {}, empty.path/'demo.align'
    home.mkdir(parents=True)
    for i in range(n):
        key = RunKey('demo.align', 1, {'i': i%3}, i)
        rec = Record(key.experiment, key.key, key.config, i, {'acc': i/2, 'none': math.nan}, {'train': {'loss': [i]}}, {'de': {'acc': 1.}}, {'acc': [0, 1, i]}, {'cpu': 'ü'}, arm=f'a-{i%3}')
        texts[rec.key] = record_json(rec)
        (home/f'{rec.key}.json').write_text(texts[rec.key], encoding='utf-8')
    assert [(r['experiment'], r['records']) for r in empty.pack()] == [('demo.align', n)]
    assert [p.name for p in home.iterdir()] == ['packed.parquet']
    return texts


def test_a_pack_reads_as_its_files(empty):
    texts = packed(empty)
    before = [empty.keys(), empty.records(), empty.frame().to_json(), empty.whole({*texts, 'x'}), empty.faults({*texts}), [empty.getter()(k) for k in texts]]
    assert empty.unpack() == 300 and {f.stem: f.read_text(encoding='utf-8') for f in empty.path.glob('*/*.json')} == texts
    after = [empty.keys(), empty.records(), empty.frame().to_json(), empty.whole({*texts, 'x'}), empty.faults({*texts}), [empty.getter()(k) for k in texts]]
    assert before[0] == after[0] == {*texts} and before[2:5] == after[2:5] and list(map(repr, before[1]+before[5])) == list(map(repr, after[1]+after[5]))


def test_a_pack_takes_new_records_in_and_leaves_what_it_cannot_keep(empty):
    texts = packed(empty, 5)
    new, odd, bad, newer = (empty.put(a_record(i)) for i in (10, 11, 12, 13))
    above = json.dumps({k: v for k, v in json.loads(odd.read_text(encoding='utf-8')).items() if k != 'sha256'}, indent=1).removesuffix('\n}')
    odd.write_text(f'{above}{_SEAL}{sha256_of(above.encode())}"\n}}\n', encoding='utf-8')  # formatted by hand
    bad.write_text('cut', encoding='utf-8')
    empty.put(Record(**vars(empty.get(next(iter(texts))))))  # one that the pack has, as a file again
    [row] = empty.pack()
    assert row['records'] == 7 and {f.name for f in empty.path.glob('*/*.json')} == {odd.name, bad.name}
    assert empty.has(new.stem) and empty.has(odd.stem) and empty.has(newer.stem) and not empty.has(bad.stem) and empty.pack() == []


def test_a_command_that_is_reading_while_a_store_is_packed_misses_nothing(empty):
    recs = [a_record(i) for i in range(4)]
    for r in recs: empty.put(r)
    get = empty.getter()
    empty.pack()
    assert [get(r.key).key for r in recs] == [r.key for r in recs]


@pytest.mark.parametrize('where', ['middle', 'end', 'empty'])
def test_a_damaged_pack_is_named_and_its_runs_count_as_missing(empty, where):
    texts = packed(empty)
    f = empty.path/'demo.align'/'packed.parquet'
    data = bytearray(f.read_bytes())
    if where == 'middle': data[len(data)//3:len(data)//3+400] = bytes(400)
    f.write_bytes(dict(middle=data, end=data[:-300], empty=b'')[where])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        lost = {*texts}-empty.whole({*texts})
        assert lost and (where == 'middle' or 'copy it again' in str(told[0].message))
        again = Record(**vars(a_record()) | dict(config={'i': 0}, key=RunKey('demo.align', 1, {'i': 0}, 0).key))
        if again.key in lost:
            empty.put_first('demo.align', again.key, record_json(again))
            assert empty.get(again.key).provenance == {'cpu': 'x'}
        empty.records(), empty.frame()


def test_packing_beside_unpacking_loses_nothing(empty, monkeypatch):
    texts, refused = packed(empty, 5), []
    def busy():
        with pytest.raises(XltError, match='wait for it') as e: Store(empty.path, committed=False).pack()
        refused.append(e)
    monkeypatch.setattr(store.os, 'sync', busy)
    assert empty.unpack() == 5 and len(refused) == 1 and empty.keys() == texts.keys() == {f.stem for f in empty.path.glob('*/*.json')}


@pytest.mark.parametrize('where', ['row', 'end'])
def test_a_damaged_pack_is_not_packed_over(empty, where):
    texts, f = packed(empty, 50), empty.path/'demo.align'/'packed.parquet'
    if where == 'end': f.write_bytes(f.read_bytes()[:-1]+b'x')
    else: f.write_bytes(pack_bytes(t.replace('"acc": 3.5', '"acc": 4.5') for t in texts.values()))
    before, new = f.read_bytes(), empty.put(a_record(99))
    with pytest.raises(XltError, match='copy .* again'): empty.pack()
    assert f.read_bytes() == before and new.exists()


def test_packing_that_is_killed_loses_nothing(empty, monkeypatch):
    recs = [a_record(i) for i in range(4)]
    for r in recs: empty.put(r)
    def killed(*args): raise KeyboardInterrupt
    monkeypatch.setattr(store, '_keep_bytes', lambda *a, real=store._keep_bytes: (real(*a), killed()))
    with pytest.raises(KeyboardInterrupt): empty.pack()
    monkeypatch.undo()
    assert len(empty.records()) == 4 and empty.pack()[0]['records'] == 4 and len(empty.keys()) == 4


SHIPPED = Path(__file__).parents[1]/'nbs'/'results'
def test_a_mean_of_rows_is_kept_by_name(empty):
    rec = a_record(items=dict(de=[1., 0.], sw=[0., 0.], targets=MeanOf(('de', 'sw'))), source='en')
    f = empty.put(rec)
    assert empty.get(f.stem) == rec and json.loads(f.read_text(encoding='utf-8'))['items']['targets'] == {'mean_of': ['de', 'sw']}
    assert [p.tolist() for p in empty.get(f.stem).item_parts('targets')] == [[1., 0.], [0., 0.]] and empty.get(f.stem).item_parts('source') is None


def test_a_getter_reads_each_record_once(empty, monkeypatch):
    f, reads = empty.put(a_record()), []
    monkeypatch.setattr(store, 'read_record', lambda path: reads.append(path) or read_record(path))
    get = empty.getter()
    assert get(f.stem) is get(f.stem) and get('0'*16) is None and reads == [f]


BUILD = '''
import os, sys, time
from pathlib import Path
from xltnb.records.built import built_once
home, log = Path(sys.argv[1]), Path(sys.argv[2])
def make(path):
    path.mkdir()
    for i in range(5):
        (path/f'part{i}').write_text('x', encoding='utf-8')
        time.sleep(.2)
    with open(log, 'a', encoding='utf-8') as f: f.write(f'{os.getpid()}\\n')
seen = built_once(home, make)
print(len(list(seen.iterdir())), flush=True)
'''


def test_of_two_processes_one_builds_and_both_get_the_whole(tmp_path):
    home, log = tmp_path/'home', tmp_path/'log'
    both = [subprocess.Popen([sys.executable, '-c', BUILD, str(home), str(log)], stdout=subprocess.PIPE, encoding='utf-8') for _ in range(2)]
    assert [p.communicate(timeout=120)[0].strip() for p in both] == ['5', '5']
    assert len(log.read_text(encoding='utf-8').split()) == 1 and sorted(p.name for p in tmp_path.iterdir()) == ['.claims', 'home', 'home.seal', 'log']


def test_what_a_killed_builder_left_is_cleared_and_built_again(tmp_path):
    home, log = tmp_path/'home', tmp_path/'log'
    first = subprocess.Popen([sys.executable, '-c', BUILD, str(home), str(log)])
    while not list(tmp_path.glob('.home.*.tmp/part1')): time.sleep(.05)
    first.kill()
    first.wait()
    assert not home.exists()
    built_once(home, lambda path: path.write_text('made', encoding='utf-8'))
    assert home.read_text(encoding='utf-8') == 'made' and not list(tmp_path.glob('.home.*')) and not log.exists()


def test_a_builder_that_fails_leaves_nothing_and_is_heard(tmp_path):
    def fail(path):
        path.mkdir()
        raise OSError('no space')
    with pytest.raises(OSError, match='no space'): built_once(tmp_path/'home', fail)
    assert [p.name for p in tmp_path.iterdir()] == ['.claims'] and built_once(tmp_path/'home', fail, deadline=0) is None


def test_a_frame_of_several_experiments_is_that_of_its_rows(empty, monkeypatch):
    import gc
    import pandas as pd
    rows = []
    for i in range(12):
        name, config, metrics = ('a.x', 'b.y', 'c.z')[i % 3], {'n': i} | ({'lr': .5} if i % 2 else {'on': True}), {'acc': i/10} | ({'f1': 1} if i > 6 else {})
        key = RunKey(name, 1, config, 0).key
        empty.put(Record(name, key, config, 0, metrics, provenance=dict(wall_s=float(i)), source='en'))
        rows.append(dict(experiment=name, arm='', seed=0, key=key, **{f'cfg.{k}': v for k, v in config.items()}, **metrics, wall_s=float(i)))
    monkeypatch.setattr('xltnb.core.plain', lambda *a: pytest.fail('what was read from JSON is plain already'))
    got = empty.frame()
    pd.testing.assert_frame_equal(got, pd.DataFrame(sorted(rows, key=lambda r: (r['experiment'], r['arm'], r['seed'], r['key']))))
    assert gc.isenabled() and list(got['cfg.on'].dropna().unique()) == [True]


def test_plain_data_has_one_hash():
    from xltnb.core import plain_hash, stable_hash
    d = {'b': [1, 2.5, None, 'ä', {'x': True}], 'a': float('nan')}
    assert plain_hash(json.loads(json.dumps(d))) == stable_hash(d) != stable_hash({**d, 'a': None})


def test_every_committed_record_is_read():
    from xltnb.files import project_root
    folder = project_root()/'nbs'/'results'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(Store(folder, committed=False).records()) == len(list(folder.glob('*/*.json')))


def test_a_pack_keeps_what_a_newer_version_wrote(tmp_path, monkeypatch):
    "Rows that this version cannot read are packed again and unpacked as they are; a damaged row is not dropped in silence"
    monkeypatch.setenv('XLTNB_FRESH', '1')
    s = Store(tmp_path)
    def made(seed): return Record('toy.x', RunKey('toy.x', 1, {}, seed).key, {}, seed, dict(m=1.), provenance=dict(started='2026'))
    old, new, more = map(made, range(3))
    text = record_json(new)
    newer = _sealed_text({k: v for k, v in json.loads(text).items() if k != 'sha256'} | dict(colour='blue'))
    (tmp_path/'toy.x').mkdir()
    atomic_write(tmp_path/'toy.x'/PACK, pack_bytes([record_json(old), newer]))
    s.put(more)
    s.pack()
    assert s.keys() == {old.key, new.key, more.key}
    assert s.unpack() == 3 and (tmp_path/'toy.x'/f'{new.key}.json').read_text(encoding='utf-8') == newer
    s.pack()  # the newer one keeps its file, which no pack may change
    atomic_write(tmp_path/'toy.x'/PACK, pack_bytes([record_json(old).replace('2026', '2025')]))
    (tmp_path/'toy.x'/f'{old.key}.json').unlink(missing_ok=True)
    with pytest.raises(XltError, match='is damaged'): s.unpack()
    assert (tmp_path/'toy.x'/PACK).exists()
