"Two processes under torchrun share a run: one record, the key and the numbers of one process; what cannot be shared says so"
import os
import subprocess
import sys

import numpy as np
import pytest

from xltnb.core import XltError
from xltnb.records.store import Store
from xltnb.runs.experiments import EXPERIMENTS, Ctx, Paused, Result, experiment, make_job
from xltnb.runs.naps import naps
from xltnb.runs.plan import Plan
from xltnb.runs.run import run_plan
from xltnb.training.arguments import shared_out
from xltnb.training.settings import FineCfg

# a toy of the whole way: an experiment that fine-tunes a small encoder without dropout, planned and run like any other
SCRIPT = '''
import sys; sys.path[:0] = [sys.argv[1]]
from dataclasses import dataclass, field
from test_trainer import *
from xltnb.core import Config
from xltnb.records.store import Store
from xltnb.runs.experiments import Result, experiment, make_job
from xltnb.runs.plan import Plan
from xltnb.runs.run import run_plan
from xltnb.training.arguments import shared_out

@dataclass(frozen=True)
class Cfg(Config):
    fine:FineCfg = field(default_factory=FineCfg)

@experiment('toy.finetune', cfg=Cfg, ranks=True)
def toy_run(cfg, seed, ctx):
    task = toy_task(91)
    with ctx.scratch('toy.finetune', cfg, seed) as out:
        fine = shared_out(cfg.fine, ctx.ranks)
        ft = Finetuner(add_head(net(), task.kind, task.labels, seed=seed), task, fine, [], tokenizer(), seed, out=out, use_cpu=True).fit()
    probs = np.concatenate([torch.tensor(l).softmax(-1).numpy() for l in logits_of(ft.model, make_features(task.rows('de').remove_columns('label'), 'classify', tokenizer()), tokenizer())])
    return Result(dict(accuracy=ft.zero_shot().main('de')), curves=dict(probs=probs.tolist(), weights=weights(ft).tolist()))

fine = FineCfg(epochs=2, batch=16, lr=1e-3, looks=1, bf16='no')
jobs = [make_job(f'toy-{s}', 'toy.finetune', Cfg(fine), s) for s in (0, 1)]
report = run_plan(Plan('toy', 'smoke', jobs, Store(sys.argv[2], committed=False)), engine=sys.argv[3], show=False)
print(report, flush=True)
sys.exit(report.exit_code)
'''
TWO = ['-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_port=0', '--rdzv_backend=c10d', '--rdzv_endpoint=localhost:0']


@pytest.fixture
def started(tmp_path):
    "start(how, store, engine): the ended process"
    script = tmp_path/'run.py'
    script.write_text(SCRIPT, encoding='utf-8')
    def start(how, store, engine):
        env = os.environ | dict(OMP_NUM_THREADS='1', ACCELERATE_USE_CPU='true', GLOO_SOCKET_IFNAME='lo', XLTNB_CACHE=str(tmp_path/f'cache of {store}'))
        return subprocess.run([sys.executable, *how, script, os.path.dirname(__file__), tmp_path/store, engine], env=env, capture_output=True, encoding='utf-8', timeout=300)
    return start


def test_two_processes_make_the_record_of_one(started, tmp_path):
    "91 rows in batches of 16: the last one has 11, of which one process reads six"
    one, two = started([], 'one', 'inline'), started(TWO, 'two', 'ranks')
    assert one.returncode == two.returncode == 0, (one.stderr+two.stderr)[-3000:]
    a, b = ({r.key: r for r in Store(tmp_path/s, committed=False).records()} for s in ('one', 'two'))
    assert a.keys() == b.keys() and len(a) == 2 and all(r.provenance['ranks'] == 2 for r in b.values())
    for k in a:
        assert a[k].metrics == b[k].metrics
        for c in ('probs', 'weights'): np.testing.assert_allclose(a[k].curves[c], b[k].curves[c], atol=1e-5)
    assert not list((tmp_path/'cache of two').rglob('checkpoint-*')) and len(list((tmp_path/'two').rglob('*.json'))) == 2


@pytest.mark.parametrize('rank', ['0', '1'])
def test_what_cannot_be_shared_ends_each_process(tmp_path, monkeypatch, rank):
    "Either process of two, with the other's words left out: it says why, keeps no record, and holds no lease"
    for k, v in dict(WORLD_SIZE='2', RANK=rank).items(): monkeypatch.setenv(k, v)
    monkeypatch.setattr('xltnb.runs.ranks.first_says', lambda x: x)
    monkeypatch.setattr('accelerate.PartialState', lambda cpu: None)
    monkeypatch.setitem(EXPERIMENTS, 'toy.shared', None)
    experiment('toy.shared', ranks=True)(lambda cfg, seed, ctx: Result(dict(batch=shared_out(FineCfg(batch=cfg['batch']), ctx.ranks).batch)))
    store = Store(tmp_path, committed=False)
    def go(batch): return run_plan(Plan('toy', 'smoke', [make_job('toy', 'toy.shared', dict(batch=batch), 0)], store), engine='ranks', show=False)
    with pytest.raises(XltError, match='toy seed 0: .*2 processes cannot share batch=9'): go(9)
    assert not store.keys() and not list((tmp_path/'.claims').iterdir())
    if rank == '0': assert go(8).exit_code == 0 and [r.metrics for r in store.records()] == [dict(batch=4)]


def test_all_processes_stop_where_the_first_has_to_wait_too_long(tmp_path, monkeypatch):
    "another store's process is at the same run, and time is up: nobody is left in an update that the first one never begins"
    said = []
    monkeypatch.setattr('xltnb.runs.experiments.first_says', lambda x: said.append(x) or said[0])
    with Ctx(tmp_path).scratch('toy', {}, 0):
        for rank in (0, 1):
            with pytest.raises(Paused, match='at the same run for another store'), Ctx(tmp_path, deadline=0., rank=rank, ranks=2).scratch('toy', {}, 0): pass
    assert len(said) == 2


def test_two_processes_without_the_engine_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    store = Store(tmp_path, committed=False)
    with pytest.raises(XltError, match='2 processes were started together: give engine=ranks'): run_plan(Plan('toy', 'smoke', naps(1), store), engine='inline', show=False)
    assert not store.keys()


@pytest.mark.parametrize('what', ['mothello', 'masked', 'meta'])
def test_a_loop_of_one_process_says_so(what, tmp_path, monkeypatch):
    from test_metapretrain import TINY
    from test_mlm import make

    from xltnb.othello.lexicon import make_lexicon
    from xltnb.othello.settings import LMCfg
    from xltnb.othello.train import model_for, train
    from xltnb.papers.metapretrain.arms import arm_cfg
    from xltnb.papers.metapretrain.phases import Pretraining
    monkeypatch.setenv('WORLD_SIZE', '2')
    lex = make_lexicon(n=4)
    start = dict(mothello=lambda: train(model_for(lex, 1, 2, 16), lex, LMCfg(steps=1)), masked=lambda: make(tmp_path), meta=lambda: Pretraining(arm_cfg('JOINT', TINY), 0, tmp_path))
    with pytest.raises(XltError, match='2 processes were started together'): start[what]()


ALONE = '''
import sys
from torch import distributed as d
from xltnb.models.encoders import load_encoder
d.init_process_group('gloo')
if d.get_rank() == 1: print(sum(p.numel() for p in load_encoder('e5-small')[0].parameters()), flush=True)
d.barrier()
'''


def test_any_process_may_prepare_the_encoder(tmp_path):
    "the one that comes first builds it for all; transformers lets only the first of them save a model"
    script = tmp_path/'alone.py'
    script.write_text(ALONE, encoding='utf-8')
    env = os.environ | dict(OMP_NUM_THREADS='1', GLOO_SOCKET_IFNAME='lo', XLTNB_CACHE=str(tmp_path/'cold'))
    done = subprocess.run([sys.executable, *TWO, script], env=env, capture_output=True, encoding='utf-8', timeout=300)
    assert done.returncode == 0 and int(done.stdout) > 1e7, done.stderr[-2000:]
    assert list((tmp_path/'cold').rglob('model.safetensors'))
