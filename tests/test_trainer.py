"The trainer: accumulation, resume, data-parallel runs, stock scripts, and methods inside them"
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import DatasetDict
from safetensors.torch import load_file, save_file  # noqa: F401 (processes started here take these imports along)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (BertConfig, BertModel, DataCollatorWithPadding, DebertaV2Config, DebertaV2Model, PreTrainedTokenizerFast, TrainingArguments,
                          XLMRobertaConfig, XLMRobertaModel)

from xltnb.compose import Method, embedded
from xltnb.core import XltError
from xltnb.heads import add_head
from xltnb.robust import ADV, RSRP, FreeADV, Repeat  # noqa: F401
from xltnb.tasks import Task, make_rows
from xltnb.trainer import FineCfg, Finetuner, MethodTrainer, averaged

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

@pytest.mark.parametrize('select,left', [('last',1), ('best',2), ('average',0)])
def test_looks_are_not_more_than_said_and_few_checkpoints_stay(tmp_path, select, left):
    "100 updates with 30 looks were 34, and every one left its optimizer on the disk"
    seen = []
    class Count(Finetuner):
        def evaluate(self, *a, **k): seen.append(len(list(Path(self.args.output_dir).glob('checkpoint-*')))); return super().evaluate(*a, **k)
    task = toy_task()
    Count(add_head(net(), task.kind, task.labels, seed=0), task, FineCfg(steps=20, batch=8, looks=6, select=select), (), tokenizer(), out=tmp_path, use_cpu=True).fit()
    assert len(seen)==5 and len(list(tmp_path.glob('checkpoint-*')))==left
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

@pytest.mark.parametrize('methods', ['(RSRP(.3), ADV(.1), FreeADV(.2))'])
def test_a_killed_run_continues_as_if_undisturbed(tmp_path, methods):
    cfg = 'FineCfg(steps=40, batch=8, looks=8)'
    script = tmp_path/'run.py'
    script.write_text(f'''
import sys, time; sys.path[:0] = [{str(Path(__file__).parent)!r}]
from test_trainer import *
from transformers import TrainerCallback
class Slow(TrainerCallback):
    def on_step_end(self, args, state, control, **kw): time.sleep(.05)
out = Path(sys.argv[1]); task = toy_task()
t = Finetuner(add_head(net(dropout=.1), task.kind, task.labels, seed=0), task, {cfg}, {methods}, tokenizer(), out=out, use_cpu=True)
if len(sys.argv)>2: t.add_callback(Slow())
t.fit(); save_file(dict(w=weights(t)), out/'done.safetensors')
''')
    run = lambda *a: subprocess.Popen([sys.executable, script, *map(str, a)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    whole,cut = tmp_path/'whole', tmp_path/'cut'
    first = run(whole); victim = run(cut, 'slow'); end = time.time()+60
    while not (cut/'checkpoint-15'/'trainer_state.json').exists() and victim.poll() is None and time.time()<end: time.sleep(.05)
    victim.send_signal(signal.SIGKILL); victim.wait()
    assert not (cut/'done.safetensors').exists()
    again = run(cut); assert again.wait()==0, again.stdout.read().decode()[-2000:]
    assert first.wait()==0, first.stdout.read().decode()[-2000:]
    assert torch.equal(*(load_file(d/'done.safetensors')['w'] for d in (whole, cut)))

@pytest.mark.parametrize('methods', ['(ADV(.2),)'])
def test_two_processes_equal_one(tmp_path, methods):
    script = tmp_path/'run.py'
    script.write_text(f'''
import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]
from test_trainer import *
n = int(os.environ.get('WORLD_SIZE', 1)); task = toy_task()
t = Finetuner(add_head(net(), task.kind, task.labels, seed=0), task, FineCfg(steps=6, batch=16//n), {methods}, tokenizer(), out=Path(sys.argv[1]), use_cpu=True).fit()
if t.args.process_index==0: save_file(dict(w=weights(t)), sys.argv[2])
''')
    env = os.environ | dict(OMP_NUM_THREADS='1', ACCELERATE_USE_CPU='true')
    subprocess.run([sys.executable, script, tmp_path/'o1', tmp_path/'one'], check=True, env=env, capture_output=True)
    two = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_port=0', '--rdzv_backend=c10d', '--rdzv_endpoint=localhost:0', str(script), str(tmp_path/'o2'), str(tmp_path/'two')]
    done = subprocess.run(two, env=env, capture_output=True, text=True); assert done.returncode==0, done.stderr[-3000:]
    a,b = (load_file(tmp_path/n)['w'] for n in ('one','two'))
    start = weights(Finetuner(add_head(net(), 'classify', ('a','b','c'), seed=0), toy_task(), FineCfg(steps=1), (), tokenizer(), out=tmp_path/'o3', use_cpu=True))
    assert (a-b).norm() < .02*(a-start).norm()

@pytest.mark.parametrize('bf16', [False, True])
def test_a_stock_script_takes_methods(tmp_path, bf16):
    tok,task = tokenizer(), toy_task()
    rows = task.rows('en','train').map(lambda r: tok(r['text']), batched=True).rename_column('label','labels')
    args = TrainingArguments(output_dir=str(tmp_path), max_steps=12, per_device_train_batch_size=8, gradient_accumulation_steps=2, learning_rate=5e-3, bf16=bf16, use_cpu=True,
                             report_to='none', save_strategy='no', disable_tqdm=True)
    t = MethodTrainer(add_head(net(), 'classify', task.labels, seed=0), args, train_dataset=rows, eval_dataset=rows, processing_class=tok, data_collator=DataCollatorWithPadding(tok), methods=[ADV(.1), RSRP(.1)])
    t.train(); assert t.evaluate()['eval_loss']<1.2

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


def test_offline_methods_want_prepared_rows():
    with pytest.raises(XltError, match='Repeat works on the rows before training'): MethodTrainer(None, None, methods=[Repeat(2)])
