"Caches heal by content, whoever waits for a cache gets its turn"
import json
import threading
import time

import pytest

from xltnb.core import XltError, stable_hash, to_dict
from xltnb.othello.settings import GPTCfg
from xltnb.records import built
from xltnb.records.built import built_once
from xltnb.records.leases import Lease
from xltnb.runs.experiments import Ctx, Paused, tidy


def cut(f): f.write_bytes(f.read_bytes()[:-10])
def flip(f): f.write_bytes(f.read_bytes()[:-1]+bytes([f.read_bytes()[-1]^1]))
def empty(f): f.write_bytes(b'')


@pytest.mark.parametrize('harm', [cut, flip, empty])
def test_a_damaged_model_is_trained_again(tmp_path, harm):
    "mOthello's pretrained models: the job that needs one trains it again, and gets the same"
    from xltnb.othello.settings import LMCfg
    from xltnb.papers.mothello.approaches import WorldCfg
    from xltnb.papers.mothello.training import pretrain
    world, lm = WorldCfg(n=4, layers=1, heads=1, width=8), LMCfg(steps=3, batch=4, warmup=1)
    want = {k: v.tolist() for k, v in pretrain(world, lm, 0, tmp_path).model.state_dict().items()}
    file, = (tmp_path/'models').glob('*.safetensors')
    harm(file)
    with pytest.warns(UserWarning, match=rf'{file.name} was cut or changed.*now damaged-{file.name}, and is made again'): again = pretrain(world, lm, 0, tmp_path)
    assert {k: v.tolist() for k, v in again.model.state_dict().items()} == want
    assert sorted(p.name for p in file.parent.iterdir()) == sorted(['.claims', f'damaged-{file.name}', file.name, f'{file.name}.seal'])


@pytest.mark.parametrize('harm', [cut, flip, empty])
def test_a_damaged_seal_costs_the_thing_and_no_more(tmp_path, harm):
    alone = lambda: pytest.fail('nobody else is at it, so there is nothing to wait for')
    home = built_once(tmp_path/'a', lambda path: path.write_text('x', encoding='utf-8'), waiting=alone)
    harm(tmp_path/'a.seal')
    with pytest.warns(UserWarning, match='is damaged'): assert built_once(home, lambda path: path.write_text('x', encoding='utf-8')).read_text(encoding='utf-8') == 'x'
    assert built_once(home, lambda path: pytest.fail('it is there')) == home


def test_what_has_no_seal_is_made_again(tmp_path):
    (tmp_path/'a').write_text('put there by hand', encoding='utf-8')
    with pytest.warns(UserWarning, match='a.seal is missing.*now damaged-a, and is made again'): assert built_once(tmp_path/'a', lambda path: path.write_text('made', encoding='utf-8')).read_text(encoding='utf-8') == 'made'
    assert built_once(tmp_path/'a', lambda path: pytest.fail('it is there')).read_text(encoding='utf-8') == 'made'


def test_a_seal_that_cannot_be_written_leaves_nothing_half(tmp_path, monkeypatch):
    def full(*args): raise OSError(28, 'No space left on device')
    def make(path):
        path.write_text('x', encoding='utf-8')
        monkeypatch.setattr('xltnb.files.os.write', full)
    with pytest.raises(XltError, match='No space left.*free some space'): built_once(tmp_path/'a', make)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ['.claims']


def test_a_builder_that_was_frozen_takes_what_another_has_built(tmp_path):
    "Its lease was taken over meanwhile; its own failure is told where nobody has"
    lock, home = tmp_path/'.claims'/'a.lock', tmp_path/'a'
    def frozen(path):
        lock.write_text('{"token": "of another"}', encoding='utf-8')
        home.mkdir()
        (home/'weights').write_text('built', encoding='utf-8')
        built._write_seal(home, home)
        lock.unlink()
        raise FileNotFoundError(2, 'No such file or directory')
    assert (built_once(home, frozen)/'weights').read_text(encoding='utf-8') == 'built'
    def broken(path): raise FileNotFoundError(2, 'No such file or directory')
    with pytest.raises(FileNotFoundError): built_once(tmp_path/'b', broken)


def test_a_builder_that_fails_each_time_its_lease_is_lost_tells_it(tmp_path, monkeypatch):
    "The work of another is waited for once, not for ever"
    for name in ('_STALE_S', '_WATCH_S'): monkeypatch.setattr(f'xltnb.records.leases.{name}', -1.)  # a lock that nobody touches is free at once
    tries = []
    def lost(path):
        (tmp_path/'.claims'/'a.lock').write_text('{"token": "of another"}', encoding='utf-8')
        tries.append(path)
        raise ValueError('a mistake of the builder')
    with pytest.raises(ValueError, match='a mistake of the builder'): built_once(tmp_path/'a', lost)
    assert len(tries) == 2


def test_two_stores_that_share_a_cache_take_turns(tmp_path):
    "Fine-tuning's own folder: the second driver waits for the first, finds what it trained, and the folder goes once both have measured"
    ctx, seen = Ctx(cache=tmp_path), []
    def job(i):
        with ctx.scratch('demo', GPTCfg(), 0) as folder:
            seen.append(('in', i, folder.exists()))
            folder.mkdir(parents=True, exist_ok=True)
            time.sleep(.3)
            seen.append(('out', i, True))
    both = [threading.Thread(target=job, args=(i,)) for i in range(2)]
    for t in both: t.start()
    for t in both: t.join()
    assert [s[0] for s in seen] == ['in', 'out', 'in', 'out'] and [s[2] for s in seen if s[0] == 'in'] == [False, True]
    tidy(ctx.lent)
    assert not [p for p in (tmp_path/'demo').iterdir() if not p.name.startswith('.')]


def test_who_waits_too_long_is_paused(tmp_path):
    ctx = Ctx(cache=tmp_path, deadline=time.time()+.3)
    with Lease(tmp_path/'demo'/'.claims'/f"{stable_hash([1, to_dict(GPTCfg()), 0])}.lock"), pytest.raises(Paused, match='is at the same run for another store'):
        with ctx.scratch('demo', GPTCfg(), 0): pytest.fail('it is taken')


def test_a_job_whose_lock_cannot_be_written_fails_alone(tmp_path, monkeypatch):
    from xltnb.runs.experiments import EXPERIMENTS, Result, experiment, make_job
    from xltnb.runs.job import Setup, run_job
    experiment('healing.sum')(lambda cfg, seed, ctx: Result(metrics={}))
    try:
        job = make_job('a', 'healing.sum', {}, 0)
        def full(*args): raise OSError(28, 'No space left on device')
        monkeypatch.setattr('xltnb.files.os.write', full)
        out = run_job(job, Setup(str(tmp_path/'store'), committed=False), lambda *a: None)
        assert out.status == 'failed' and 'No space left' in out.note and 'free some space' in out.note
        assert not list((tmp_path/'store'/'.claims').glob('*.lock*'))
    finally: del EXPERIMENTS['healing.sum']


def test_what_an_optimiser_keeps_goes_where_its_weight_is():
    "The count of a fused AdamW too: on a GPU a count that stayed behind is an error"
    import torch
    from xltnb.records.checkpoints import from_tensors, to_tensors
    net = torch.nn.Linear(3, 1)
    opt = torch.optim.AdamW(net.parameters(), fused=True)
    net(torch.ones(2, 3)).sum().backward()
    opt.step()
    kept, there = to_tensors(dict(net.named_parameters()), opt), torch.nn.Linear(3, 1, device='meta')  # a device that is not the CPU
    again = torch.optim.AdamW(there.parameters())
    from_tensors(kept, dict(there.named_parameters()), again)
    found = {k: v.device.type for p in there.parameters() for k, v in again.state[p].items()}
    assert found == dict(step='meta', exp_avg='meta', exp_avg_sq='meta')


def test_a_checkpoint_vouches_for_what_it_says_too(tmp_path):
    import torch

    from xltnb.records.checkpoints import Damaged, read_state, write_state
    f = tmp_path/'a.safetensors'
    write_state(f, dict(w=torch.ones(3)), dict(step=7, note='x'*50))
    raw = f.read_bytes()
    for at in range(8, len(raw), 7):
        f.write_bytes(raw[:at]+bytes([raw[at]^4])+raw[at+1:])
        with pytest.raises(Damaged): read_state(f)
    n = int.from_bytes(raw[:8], 'little')
    head = json.loads(raw[8:8+n])
    del head['__metadata__']['digest']
    text = json.dumps(head).encode()
    f.write_bytes(len(text).to_bytes(8, 'little')+text+raw[8+n:])
    with pytest.raises(Damaged): read_state(f)


def test_a_checkpoint_that_cannot_be_read_now_is_left_as_it_is(tmp_path, monkeypatch):
    "Too many open files is no damage"
    from pathlib import Path

    import torch

    from xltnb.records.checkpoints import newest_state, write_state
    f = tmp_path/'a.safetensors'
    write_state(f, dict(w=torch.ones(3)), dict(step=7))
    def full(*a): raise OSError(24, 'Too many open files')
    with monkeypatch.context() as m:
        m.setattr(Path, 'read_bytes', full)
        with pytest.raises(XltError, match='Too many open files'): newest_state(f)
    assert newest_state(f)[1] == dict(step=7) and [p.name for p in tmp_path.iterdir()] == [f.name]


def test_a_sealed_folder_vouches_for_each_file(tmp_path):
    "A byte that is changed, a file too many, a file too few; hidden files do not count"
    from xltnb.records.checkpoints import Damaged, read_seal, write_seal
    (tmp_path/'deep').mkdir()
    for name in ('a', 'b', 'deep/c'): (tmp_path/name).write_bytes(name.encode()*20)
    write_seal(tmp_path, dict(step=7, note='x'*50))
    files = {f: f.read_bytes() for f in tmp_path.rglob('*') if f.is_file()}
    for f, raw in files.items():
        for at in range(0, len(raw), 7 if f.name == 'seal.json' else 19):
            if raw[at:at+1].isspace(): continue  # between the fields of the seal
            f.write_bytes(raw[:at]+bytes([raw[at]^4])+raw[at+1:])
            with pytest.raises(Damaged): read_seal(tmp_path)
        f.unlink()
        with pytest.raises(Damaged): read_seal(tmp_path)
        f.write_bytes(raw)
    (tmp_path/'.DS_Store').touch()
    assert read_seal(tmp_path) == dict(step=7, note='x'*50)
    (tmp_path/'deep'/'d').touch()
    with pytest.raises(Damaged, match='deep/d is new'): read_seal(tmp_path)
