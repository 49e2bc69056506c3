"Every loop on a GPU that is only pretended: no tensors of two devices meet, and an update waits for the device at most as often as written here"
import numpy as np
import pytest
import torch
from test_metapretrain import TINY
from test_mlm import make, net as masked_net, corpus as masked_corpus, Tok
from test_trainer import net, toy_task, tokenizer

from pretend import Mismatch, PretendedGPU
from xltnb.models.heads import add_head
from xltnb.othello.lexicon import make_lexicon
from xltnb.othello.settings import LMCfg
from xltnb.othello.train import _Run, model_for
from xltnb.papers.robust.methods import ADV, RSRP, FreeADV
from xltnb.training.settings import FineCfg
from xltnb.training.trainer import Finetuner


@pytest.fixture
def gpu():
    with PretendedGPU() as g: yield g


def waits(gpu, update, n=2):
    "Waits of `n` updates, after a first one that makes the optimiser's state"
    update()
    found = gpu.waits_of(lambda: [update() for _ in range(n)])
    print(dict(found))
    return sum(found.values())/n


@pytest.mark.parametrize('kinds,more', [(('atomic',), {}), (('atomic', 'atomic'), {}), (('atomic', 'compositional'), {}), (('atomic', 'atomic'), dict(unique=32)), (('atomic', 'compositional'), dict(unique=32, draw='game'))])
def test_othello(gpu, kinds, more):
    lex = make_lexicon(kinds, 6)
    run = _Run(model_for(lex, 2, 2, 32, device='cuda'), lex, LMCfg(steps=100, batch=8, **more), 0, None, None)
    print(waits(gpu, run.update))


class Seen:
    def __init__(self, gpu): self.gpu, self.at = gpu, []
METHODS = dict(plain=[], adv=[ADV(.1)], random=[ADV(.1, norm='linf', start='random')], free=[FreeADV(.1)], rsrp=[RSRP(.2)])


@pytest.mark.parametrize('name', METHODS)
def test_finetuning(gpu, name, tmp_path):
    from transformers import TrainerCallback
    task = toy_task()
    seen = []
    class Look(TrainerCallback):
        def on_step_end(self, *a, **k): seen.append(gpu.waits.copy())
    f = Finetuner(add_head(net(), task.kind, task.labels, seed=0), task, FineCfg(steps=6, batch=8, bf16='no'), METHODS[name], tokenizer(), out=tmp_path)
    f.add_callback(Look())
    f.fit()
    print([dict(b-a) for a,b in zip(seen, seen[1:])])


@pytest.mark.parametrize('often', [0, 12])
def test_masked_words(gpu, often, tmp_path):
    from xltnb.training.mlm_run import MLMCfg, MLMRun
    c = masked_corpus()
    run = MLMRun(MLMCfg(tokens=3000, block=32, batch=4, often=often, bf16='no'), tmp_path, c, (masked_net().to('cuda'), Tok()), sentences=50)
    todo = iter(run.chunk(0))
    def update():
        b = next(todo); run.update(b); run.count(b, 0)
    print(waits(gpu, update))


@pytest.mark.parametrize('arm', ['META', 'JOINT'])
def test_pretraining(gpu, arm, tmp_path):
    from xltnb.papers.metapretrain.arms import arm_cfg
    from xltnb.papers.metapretrain.phases import Pretraining
    make = lambda: Pretraining(arm_cfg(arm, TINY), 0, tmp_path, device='cuda')
    run = make()
    run.model.train()
    print(waits(gpu, run.update))
    run.save()
    print('resumed', waits(gpu, make().update))
    make().run()
