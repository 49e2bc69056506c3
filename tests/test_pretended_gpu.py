"""Every loop on a GPU that is only pretended: tensors of two devices never meet, and an update waits for the device at most as often as is written here.

The library looks once in each forward pass whether a batch has padding: that wait is its own. The laboratory of meta-pretraining is for the CPU."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretend import Mismatch, PretendedGPU
from test_frozen import CFG, Tok, reader, task  # noqa: F401 (fixtures)
from test_invented_encoder import TWO
from test_metapretrain import TINY
from test_mlm import Tok as MaskedTok
from test_mlm import corpus
from test_mlm import net as masked_net
from test_trainer import WORDS, net, tokenizer, toy_task
from transformers import BertConfig, BertForMaskedLM, BertModel, TrainerCallback

from xltnb.core import XltError
from xltnb.invented.encoder import neighbours
from xltnb.invented.world import Invented
from xltnb.machine import upload
from xltnb.models.adapters import Adapter, BottleneckCfg
from xltnb.models.alignment import alignment, retrieval_hits
from xltnb.models.heads import add_head
from xltnb.models.word_alignment import pair_states
from xltnb.othello.interventions import edit_run, make_cases, misses, next_logits, read_by
from xltnb.othello.legality import legality
from xltnb.othello.lexicon import make_lexicon
from xltnb.othello.probes import align, train_probes
from xltnb.othello.replays import game_set
from xltnb.othello.settings import LMCfg
from xltnb.othello.tokens import Encoder
from xltnb.othello.train import _Run, model_for
from xltnb.papers.arithmetic.pipeline import TaskCfg, _fit, answers, train_language, train_task
from xltnb.papers.metapretrain.arms import arm_cfg
from xltnb.papers.metapretrain.phases import Pretraining
from xltnb.papers.robust.methods import ADV, RSRP, FreeADV
from xltnb.papers.robust.views import EAR, Consistency, PreparedViews
from xltnb.papers.salt.mixup import EmbedMixup
from xltnb.papers.salt.proposals import propose
from xltnb.training.arguments import arguments
from xltnb.training.frozen import frozen_study
from xltnb.training.methods import Method
from xltnb.training.settings import MLMCfg
from xltnb.training.masking import Frame, hide
from xltnb.training.masked_loss import masked_loss
from xltnb.training.mlm_run import MLMRun
from xltnb.training.settings import FineCfg
from xltnb.training.trainer import Finetuner


@pytest.fixture
def gpu():
    with PretendedGPU() as g: yield g


def waits(gpu, update, n=3):
    "Waits an update, after a first one that makes the optimiser's state"
    update()
    return sum(gpu.waits_of(lambda: [update() for _ in range(n)]).values())/n


# the pretended device itself

@pytest.mark.parametrize('mixed', [lambda x, y: x+y, lambda x, y: y[x.long()], lambda x, y: torch.cat([x, y]), lambda x, y: torch.stack([x.sum(), y.sum()]),
    lambda x, y: torch.rand(3, generator=torch.Generator(), device='cuda'), lambda x, y: x.numpy(), lambda x, y: np.asarray(x),
    lambda x, y: torch.nn.functional.cross_entropy(x[None], y[None]), lambda x, y: x.requires_grad_().mul(2).register_hook(lambda g: g+y) and x.mul(2).sum().backward() or x+y])
def test_a_planted_mismatch_is_found(gpu, mixed):
    x, y = torch.ones(3, device='cuda'), torch.ones(3)
    with pytest.raises(Mismatch): mixed(x, y)


def test_a_mismatch_in_a_backward_pass_is_found(gpu):
    x = torch.ones(3, device='cuda', requires_grad=True)
    twice, y = x*2, torch.ones(3)
    twice.register_hook(lambda g: g*y)
    with pytest.raises(Mismatch): twice.sum().backward()


def test_an_optimiser_state_on_the_cpu_is_found(gpu):
    layer = torch.nn.Linear(2, 2).to('cuda')
    opt = torch.optim.AdamW(layer.parameters(), fused=True)
    def update():
        layer(torch.ones(1, 2, device='cuda')).sum().backward()
        opt.step()
    update()
    opt.state[layer.weight]['step'] = opt.state[layer.weight]['step'].cpu()
    with pytest.raises(Mismatch): update()


@pytest.mark.parametrize('n,f', [(0, lambda x: (x+1).sum()), (1, lambda x: x.sum().item()), (1, lambda x: bool(x[0])), (1, lambda x: x.tolist()), (1, lambda x: x.cpu()),
    (1, lambda x: x[x>0]), (1, lambda x: x[[0, 1]]), (1, lambda x: x.nonzero()), (1, lambda x: torch.tensor([1], device='cuda')), (1, lambda x: torch.ones(2).to('cuda')),
    (1, lambda x: torch.ones(2).to('cuda', non_blocking=True)), (0, lambda x: upload(torch.ones(2), 'cuda')), (0, lambda x: upload(x, 'cuda')), (1, lambda x: x.copy_(torch.ones(3)))])
def test_waits_are_counted(gpu, n, f):
    x = torch.ones(3, device='cuda')
    assert sum(gpu.waits_of(lambda: f(x)).values()) == n


# mOthello

@pytest.mark.parametrize('kinds,more', [(('atomic',), {}), (('atomic', 'compositional'), {}), (('atomic', 'atomic'), dict(unique=32)), (('atomic', 'compositional'), dict(unique=32, draw='game'))])
def test_othello(gpu, kinds, more):
    lex = make_lexicon(kinds, 6)
    run = _Run(model_for(lex, 2, 2, 32, device='cuda'), lex, LMCfg(steps=100, batch=8, **more), 0, None)
    assert waits(gpu, run.update) == 0


def test_othello_measures(gpu):
    lex = make_lexicon(('atomic', 'compositional'), 6)
    model, gs = model_for(lex, 2, 4, 64, device='cuda').eval(), game_set(20, 6, 1, device='cuda')
    found, probes = align(model, lex, (1, 2), gs, gs, (0, 1), 0, batch=64)
    assert found.acc.shape[:3] == (2, 2, 2) and legality(model, lex, gs, 1, 'float32').strict.shape == (20,)
    cases, enc, of = make_cases(gs, 0), Encoder(lex, 'cuda'), {1: probes.pick([0]), 2: probes.pick([2])}
    assert len(misses(next_logits(model, enc, gs, cases, 0, of, steps=2), lex, cases, 0)) == len(cases)
    assert 0 <= read_by(edit_run(model, enc, gs, cases, 0, of, False, steps=2), of) <= 1


def test_probes(gpu):
    x, y = torch.randn(2, 64, 8, device='cuda'), torch.randint(3, (64, 5), device='cuda')
    one, ten = (gpu.waits_of(lambda: train_probes(x, y, 4, epochs=n, batch=16)) for n in (1, 10))
    assert sum((ten-one).values()) <= 9, 'the order of a pass is copied'


# fine-tuning

class Columns(Method):
    "Columns that mixing reads, as a switching method would write them"
    columns, stage = ('switched_ids', 'soft_ids', 'soft_at', 'soft_probs'), 'tokens'

    def prepare(self, data, ctx):
        rows = data['input_ids']
        made = dict(switched_ids=[r[:1]+r[1:-1][::-1]+r[-1:] for r in rows], soft_ids=[[[5, 6]] for _ in rows], soft_at=[[[1, 1]] for _ in rows], soft_probs=[[[.5, .5]] for _ in rows])
        for k in self.columns: data = data.add_column(k, [x[0] if k.startswith('soft') else x for x in made[k]])
        return data


TABLE = {w: [WORDS[(i+7) % 60]] for i, w in enumerate(WORDS)}
METHODS = dict(  # most waits of an update beside one in each forward pass; name: (waits, passes, methods)
    plain=(0, 1, []), adv=(1, 2, [ADV(.1)]), cube=(1, 2, [ADV(.1, norm='linf', start='random')]), adv_last=(0, 2, [ADV(.1, site='last')]), steps=(1, 4, [ADV(.1, steps=3)]),
    free=(4, 1, [FreeADV(.1)]), rsrp=(1, 1, [RSRP(.2)]), rsrp2=(2, 2, [RSRP(.2, samples=2)]), rsrp_last=(0, 1, [RSRP(.2, site='last')]), views=(1, 1, [PreparedViews(TABLE, 2)]),
    consistency=(1, 2, [Consistency(TABLE, 2)]), ear=(1, 2, [EAR(TABLE, 2, push=0, layer=1)]), pair=(0, 1, [EmbedMixup()]), last=(0, 3, [EmbedMixup(site='last')]),
    soft=(0, 1, [EmbedMixup('soft')]), classic=(0, 2, [EmbedMixup('classic')]), both=(1, 2, [EmbedMixup(), ADV(.1)]))


class Count(TrainerCallback):
    "Notes the waits before each update is logged, and stops"
    def __init__(self, gpu): self.gpu, self.seen = gpu, []

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append(sum(self.gpu.waits.values()))
        control.should_training_stop = len(self.seen) == 5


@pytest.mark.parametrize('name', METHODS)
def test_finetuning(gpu, name, tmp_path):
    most, passes, methods = METHODS[name]
    methods, data, count = [*methods, *[Columns()]*(name in ('pair', 'last', 'soft', 'both'))], toy_task(), Count(gpu)
    f = Finetuner(add_head(net(), data.kind, data.labels, seed=0), data, FineCfg(steps=500, batch=8, bf16='no'), methods, tokenizer(), out=tmp_path)
    f.add_callback(count)
    f.train()
    assert max(np.diff(count.seen)) <= most+passes and f.model.classifier.weight.is_cuda


def test_scoring(gpu, tmp_path):
    data = toy_task()
    f = Finetuner(add_head(net(), data.kind, data.labels, seed=0), data, FineCfg(steps=2, batch=8, looks=1, select='best', bf16='no'), [ADV(.1)], tokenizer(), out=tmp_path).fit()
    assert f.done and 0 <= f.zero_shot('test').main('de') <= 1


# masked words and adapters

@pytest.mark.parametrize('often', [0, 12])
def test_masked_words(gpu, often, tmp_path):
    run = MLMRun(MLMCfg(tokens=3000, block=32, batch=4, often=often, bf16='no'), tmp_path, corpus(), (masked_net().to('cuda'), MaskedTok()), sentences=50)
    batches = iter(run.chunk(0))
    assert waits(gpu, lambda: run.update(next(batches))) <= 1+1
    assert np.isfinite(run.train(log=lambda line: None).at.curve[-1][1]['plain'][0])


def test_a_resumed_run_of_masked_words(gpu, tmp_path):
    make = lambda: MLMRun(MLMCfg(tokens=3000, block=32, batch=4, bf16='no'), tmp_path, corpus(), (masked_net().to('cuda'), MaskedTok()), sentences=50)
    make().train(log=lambda line: None, stop=lambda run: run.at.updates == 3)
    assert make().train(log=lambda line: None).progress >= 1


def test_parts_of_a_batch_are_the_batch():
    "No GPU: the gradient of a batch in parts is that of the whole"
    rng, frame, model = np.random.default_rng(0), Frame(0, 2, 1, 59, 60), masked_net()
    rows = rng.integers(5, 50, (5, 12))
    rows[3, 7:] = frame.pad
    b = hide(rows, rows != frame.pad, .4, frame, rng, lang=np.zeros_like(rows))
    def grad(parts):
        model.zero_grad()
        for p in parts: (masked_loss(model, p)[0]*(len(p.place)/len(b.place))).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert [len(p.ids) for p in b.parts(2)] == [2, 2, 1] and b.parts(5) == [b]
    torch.testing.assert_close(grad(b.parts(2)), grad([b]), rtol=1e-4, atol=1e-6)


def adapted(n=1):
    model = masked_net().to('cuda').eval()
    return model, [Adapter(f'a{i}', BottleneckCfg(reduction=4), model).to('cuda') for i in range(n)]


def test_a_language_adapter(gpu, tmp_path):
    model, (adapter,) = adapted()
    run = train_language(adapter, model, MaskedTok(), corpus(), MLMCfg(tokens=2000, block=32, batch=4, bf16='no'), tmp_path)
    assert run.progress >= 1 and next(adapter.parameters()).is_cuda


def test_a_task_adapter(gpu):
    model, (language,) = adapted()
    ids, labels = np.random.default_rng(0).integers(5, 50, (32, 9)), np.arange(32) % 3
    tagger, made = train_task(model.bert, 'classify', ('a', 'b', 'c'), (ids, labels), 1, language.requires_grad_(False), TaskCfg(2, 8))
    assert answers(tagger, ids, 1, language, made).shape == (32, 3)
    x, y, head = torch.from_numpy(ids), torch.from_numpy(labels), add_head(masked_net().bert, 'classify', ('a', 'b', 'c')).to('cuda')
    one, four = (gpu.waits_of(lambda: _fit(head, x, y, 1, TaskCfg(n, 8), 0)) for n in (1, 4))
    assert sum((four-one).values()) <= 3*4, 'four updates a pass'


def test_adapters_are_timed_on_the_device_that_the_figure_names(gpu, monkeypatch):
    from xltnb.papers.arithmetic import speed
    seen, sizes = [], dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=128)
    said = lambda trainer, n: seen.append((trainer.model.device.type, trainer.args.use_cpu)) or 1.
    asked = lambda model, *args, real=speed.answers: seen.append(model.device.type) or real(model, *args)
    small = dict(load_mlm=lambda: (BertForMaskedLM(BertConfig(vocab_size=60, **sizes)), MaskedTok()), headed=lambda task, layers: (add_head(net(), task.kind, task.labels), tokenizer()),
                 load_bench=lambda *names: toy_task(), bench_corpus=lambda *args: corpus(), DataCollatorForLanguageModeling=lambda *args, **kw: None, matmul_rate=lambda dtype=None: 1e12, merge_ms=lambda: 1.,
                 alternate=lambda ours, peer, n: (ours(), peer(), 1.), timed=said, answers=asked)
    for k, f in small.items(): monkeypatch.setattr(speed, k, f)
    assert speed.speed_adapter_train(1, 2, 1, 1)['device'] == 'cuda' and seen == [('cuda', False)]
    assert speed.speed_merge_sweep(1, 20, 3, 1)['same_score'] and {*seen[1:]} == {'cuda'}


# meta-pretraining

@pytest.mark.parametrize('arm', ['META', 'JOINT', 'body', 'overlap', 'focus', 'META_tlm'])
def test_pretraining(gpu, arm, tmp_path):
    size = replace(TINY, tlm=.2) if arm.endswith('tlm') else TINY
    make = lambda: Pretraining(arm_cfg(arm, size), 0, tmp_path, device='cuda')
    run = make()
    run.model.train()
    assert waits(gpu, run.update, 2) <= 1+arm.endswith('tlm')
    run.save()
    run = make().run()
    assert run.done and all(p.is_cuda for p in run.model.parameters())


def test_pretraining_that_forgets_and_reads_in_parts(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr('xltnb.papers.metapretrain.phases.PASS', 64)
    cfg = arm_cfg('JOINT', TINY)
    run = Pretraining(replace(cfg, phases=tuple(replace(p, forget_every=2) for p in cfg.phases)), 0, tmp_path, device='cuda').run()
    assert run.done


# what reads and trains nothing

@pytest.mark.parametrize('methods', [(), (RSRP(.2),), (ADV(.2),)], ids=repr)
def test_frozen_vectors(gpu, methods, task, reader):  # noqa: F811
    reader.net.to('cuda')
    assert 0 <= frozen_study(task, methods, 0, CFG, reader)[0].main('xx') <= 1


def test_retrieval_and_alignment(gpu):
    model, tok, texts = net().to('cuda'), tokenizer(), [' '.join(WORDS[i:i+5]) for i in range(12)]
    assert alignment(model, tok, texts, dict(de=texts[::-1]), specials=False).pairs == 12
    x, world = torch.randn(8, 4).to('cuda'), Invented(TWO)
    assert retrieval_hits(x, x).mean() == 1
    small = BertConfig(vocab_size=len(world.tokenizer()), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    assert list(neighbours(BertModel(small).to('cuda'), world.tokenizer(), world).index) == ['x1']
    assert len(pair_states(model, tok, WORDS[:4], WORDS[4:9])) and model.embeddings.word_embeddings.weight.is_cuda
    with torch.no_grad(): model.encoder.layer[1].output.dense.weight[0] = torch.nan
    with pytest.raises(XltError, match='not finite'): alignment(model, tok, texts, dict(de=texts))


def test_proposals(gpu):
    class Words(MaskedTok):
        def convert_ids_to_tokens(self, ids): return [f'▁word{chr(97+i//26)}{chr(97+i%26)}' for i in ids]
    found = propose(masked_net().to('cuda'), Words(), [np.arange(5, 9), np.arange(20, 26)], np.arange(60) > 40, k=3, batch=2)
    assert len(found) == 10 and found.ids.min() > 40


def test_one_process_trains_on_one_gpu(gpu, tmp_path, monkeypatch):
    "The library would split each batch over all that it sees, and multiply it: another run under the same key"
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    args = arguments(FineCfg(batch=16), 100, 0, tmp_path)
    assert (args.n_gpu, args.train_batch_size) == (1, 16)
