"Methods on what is not the usual batch: no words, overflow, other layouts and precisions, a wrong order, numbers that cannot be meant"
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import (BertConfig, BertForSequenceClassification, DebertaV2Config, DebertaV2ForSequenceClassification, DistilBertConfig,
                          DistilBertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification, XLMRobertaConfig, XLMRobertaForSequenceClassification)

from xltnb.training.methods import Method, Replay, Step, chain, check_methods, embedded, plus, run_model
from xltnb.core import XltError
from xltnb.papers.robust.training import METHODS
from xltnb.training.method_trainer import MethodTrainer, _rows_of, _run
from xltnb.papers.robust.methods import ADV, RSRP, FreeADV, scale, vote
from xltnb.papers.robust.augmentation import RSDA, Repeat
from xltnb.papers.robust.views import EAR, Consistency, PreparedViews, _map_distance
from xltnb.tasks.synonyms import Synonyms
from xltnb.studies.recipes import make_methods
from xltnb.training.views import swapped

TABLE = {'big': ('large','huge')}
TINY = dict(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=24, num_labels=3,
            pad_token_id=0, hidden_dropout_prob=0., attention_probs_dropout_prob=0.)
IDS = torch.tensor([[2,7,8,9,3],[2,11,3,0,0]])
CPU = torch.device('cpu')

def model(layout='bert'):
    torch.manual_seed(0)
    if layout=='bert': return BertForSequenceClassification(BertConfig(**TINY)).train()
    if layout=='xlmr': return XLMRobertaForSequenceClassification(XLMRobertaConfig(**TINY)).train()
    if layout=='deberta': return DebertaV2ForSequenceClassification(DebertaV2Config(**TINY, relative_attention=True, position_biased_input=False,
        pos_att_type=['p2c','c2p'], norm_rel_ebd='layer_norm', type_vocab_size=0)).train()
    if layout=='distil': return DistilBertForSequenceClassification(DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32, num_labels=3)).train()
    return GPT2ForSequenceClassification(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=24, num_labels=3, pad_token_id=0,
        embd_pdrop=0., attn_pdrop=0., resid_pdrop=0.)).train()

def batch(net=None, ids=IDS, views=0, mask=True):
    x = dict(input_ids=ids, labels=torch.tensor([0,2])[:len(ids)]) | (dict(attention_mask=ids.ne(0).long()) if mask else {})
    return Step(net or model(), x, {f'view{i}_ids': ids.flip(0) for i in range(views)}, special=(0,2,3), axes=(0,5))

def ready(*methods):
    for m in methods: m._pad = 0
    return list(methods)

def run(methods, step): return chain(check_methods(methods), Replay(CPU))(step)

def weights_after(methods, step):
    step.net.zero_grad(); run(methods, step).loss.backward()
    return torch.cat([p.grad.flatten() for p in step.net.parameters() if p.grad is not None])

# batches

@pytest.mark.parametrize('m', [ADV(.1), ADV(.1, norm='linf', start='random'), RSRP(.3), FreeADV(.1)], ids=repr)
def test_a_batch_without_words_is_not_displaced(m):
    step = batch(ids=torch.tensor([[2,3],[2,3]]))
    assert scale(embedded(step))==0
    assert torch.equal(weights_after([m], step), weights_after([], step))

def test_without_a_mask_every_token_is_real():
    step = batch(mask=False)
    assert step.words.tolist()==batch().words.tolist() and step.real.all()
    for site in ('word','last'): run([ADV(.1, site=site), RSRP(.1, site=site)], step)

def test_overflow_leaves_the_memory_finite():
    m = FreeADV(.1); step = batch(); run([m], step).loss.backward(); before = m._seen.clone()
    m.remember(torch.tensor([7,8,7]), torch.full((3,16), torch.inf)); assert torch.equal(m._seen, before)
    m.remember(torch.tensor([7,8]), torch.stack([torch.full((16,), torch.nan), torch.ones(16)]).half())
    assert torch.equal(m._seen[7], before[7]) and not torch.equal(m._seen[8], before[8])
    assert m._seen.dtype==torch.float32 and m._seen.isfinite().all()

def test_two_sites_draw_apart():
    at = lambda site: RSRP(.1, site=site, unit='absolute').displaced(batch())
    assert not torch.equal((at('word').emb-embedded(batch()).emb)[0,1], at('last').last[0,1])

# models

@pytest.mark.parametrize('layout', ['bert','xlmr','deberta'])
def test_last_states_are_displaced(layout):
    step = batch(model(layout)); plain = run_model(step).logits
    assert not torch.allclose(run_model(plus(step, torch.randn(2,5,16), 'last')).logits, plain)
    norm = step.net.base_model.encoder.layer[-1].output.LayerNorm
    torch.nn.init.constant_(norm.weight, 3.); assert scale(step, 'last').item()==pytest.approx(12)
    assert weights_after([ADV(.1, site='last'), RSRP(.1, site='last')], step).isfinite().all()

@pytest.mark.parametrize('layout', ['distil','gpt2'])
@pytest.mark.parametrize('m', [ADV(.1, site='last'), RSRP(.1, site='last'), RSRP(.1, site='last', unit='absolute')], ids=repr)
def test_other_layouts_say_so(layout, m):
    with pytest.raises(XltError, match=r"ForSequenceClassification has no encoder.*site='word'"): run([m], batch(model(layout), IDS[:1]))

def test_a_decoder_does_not_read_padding():
    net = model('gpt2'); left = batch(net, torch.tensor([[2,7,8,9,3],[0,0,2,11,3]]))
    assert torch.equal(run_model(left).logits, run_model(embedded(left)).logits)
    with pytest.raises(XltError, match='padding_side'): run([ADV(.1)], batch(net))

@pytest.mark.parametrize('m', [*[ADV(.1, norm=n, site=s, start='random') for n in ('l2','linf') for s in ('word','last')],
                               RSRP(.1), RSRP(.1, site='last'), FreeADV(.1)], ids=repr)
def test_bfloat16(m):
    step = batch(model().to(torch.bfloat16)); out = run([m,m], step); out.loss.backward()
    assert out.logits.dtype==torch.bfloat16 and out.loss.isfinite()

def test_a_model_without_a_table_of_words():
    with pytest.raises(XltError, match='Linear has no get_input_embeddings'): run([ADV(.1)], batch(torch.nn.Linear(2, 2)))

# lists

@pytest.mark.parametrize('first', [ADV(.1), RSRP(.1), RSRP(.1, site='last'), FreeADV(.1)], ids=repr)
@pytest.mark.parametrize('view', [PreparedViews, Consistency, EAR])
def test_view_methods_come_first(first, view):
    m, = ready(view(TABLE, views=1, **(dict(layer=1) if view is EAR else {})))
    net = model(); net.set_attn_implementation('eager'); step = batch(net, views=1)
    weights_after([m, first], step) # FreeADV has something to remember
    assert not torch.equal(weights_after([m, first], step), weights_after([m], step))
    with pytest.raises(XltError, match='put the view method first'): run([first, m], step)

def test_two_that_write_the_same_columns():
    with pytest.raises(XltError, match="PreparedViews and Consistency would both write the column 'view0_ids'"):
        check_methods([PreparedViews(TABLE), RSRP(.1), Consistency(TABLE, views=2)])

def test_attention_of_padding_does_not_count():
    net = model().eval(); net.set_attn_implementation('eager')
    other = IDS.clone(); other[0,1] = 20
    read = lambda ids: (net(ids, attention_mask=ids.ne(0).long(), output_attentions=True).attentions[0], ids.ne(0))
    def distance(a, b): (x,real_x),(y,real_y) = read(a),read(b); return _map_distance(x, y, real_x, real_y).item()
    longer = lambda ids: torch.nn.functional.pad(ids, (0,3))
    assert distance(IDS, longer(IDS))<1e-10<1e-8<distance(IDS, other)
    assert distance(longer(IDS), longer(other))==pytest.approx(distance(IDS, other), rel=1e-3)

def test_frozen_words_cannot_be_pushed():
    m,free = ready(EAR(TABLE, views=1, layer=1), EAR(TABLE, views=1, layer=1, push=0)); net = model(); net.set_attn_implementation('eager')
    net.get_input_embeddings().requires_grad_(False)
    with pytest.raises(XltError, match="push of EAR is 0.1.*freeze='none', or push=0"): run([m], batch(net, views=1))
    assert weights_after([free], batch(net, views=1)).isfinite().all()

def test_a_radius_is_measured_before_anything_is_added():
    step = batch(); far = plus(step, 9*torch.ones(2,5,16))
    assert torch.equal(scale(far), scale(step)) and torch.equal(scale(step), embedded(step).emb.detach().norm(dim=-1)[step.words].mean())

def test_words_change_before_views_are_drawn():
    rows,ctx = Dataset.from_dict(dict(text=['a big dog'], view0_ids=[[1]])), SimpleNamespace(seed=0)
    with pytest.raises(XltError, match='put the method that changes words first'): RSDA(TABLE).prepare(rows, ctx)
    assert len(Repeat(2).prepare(rows, ctx))==2

@pytest.mark.parametrize('methods', [ADV(.1), ADV, None])
def test_one_method_is_no_list(methods):
    with pytest.raises(XltError, match='not a list'): MethodTrainer(methods=methods)

def test_rows_and_features_that_do_not_fit():
    with pytest.raises(XltError, match='prepared no rows'): run([Consistency(TABLE, views=1)], batch(views=1))
    with pytest.raises(XltError, match='no words to change'): RSDA(TABLE).prepare(Dataset.from_dict(dict(sentence=['a big dog'])), SimpleNamespace(seed=0))
    with pytest.raises(XltError, match='no words to change'): swapped(Dataset.from_dict(dict(label=[0])), None)
    m, = ready(EAR(TABLE, views=1, layer=99)); net = model(); net.set_attn_implementation('eager')
    with pytest.raises(XltError, match='layers 0 to 1'): run([m], batch(net, views=1))

# numbers and words

@pytest.mark.parametrize('cls,bad', [
    (ADV, dict(rho='0.1')), (ADV, dict(rho=float('inf'))), (ADV, dict(rho=-1)), (ADV, dict(steps=1.5)), (ADV, dict(steps=True)), (ADV, dict(clean=2)),
    (FreeADV, dict(rho=float('nan'))), (FreeADV, dict(keep=1)), (RSRP, dict(rho=float('nan'))), (RSRP, dict(samples=0)), (RSRP, dict(samples=1.5)),
    (Repeat, dict(copies=0)), (Repeat, dict(copies=-2)), (RSDA, dict(copies=2.5)), (RSDA, dict(copies=0)), (PreparedViews, dict(views=2.5)),
    (PreparedViews, dict(views=0)), (Consistency, dict(weight=float('nan'))), (Consistency, dict(weight=-1)), (EAR, dict(push=float('nan'))),
    (EAR, dict(pull=-1)), (EAR, dict(layer=1.5))])
def test_numbers_that_cannot_be_meant(cls, bad):
    given = {} if cls in (ADV, FreeADV, RSRP, Repeat) else dict(table=TABLE)
    (name,value), = bad.items()
    with pytest.raises(XltError, match=f'{name} of {cls.__name__} is {value!r}'.replace('.', r'\.')): cls(**given, **bad)

@pytest.mark.parametrize('cls', [RSDA, PreparedViews])
def test_a_table_is_a_table(cls):
    assert isinstance(cls(TABLE).table, Synonyms)
    for bad in (None, 'wordnet', ['big'], {'big': 'large'}, {}):
        with pytest.raises(XltError, match=r'synonym|expected a list'): cls(bad)

@pytest.mark.parametrize('word,match', [('ADV(rho=0.1, rho=0.2)', 'given twice'), ('RSDA(copies=2)', 'needs table'), ('Consistency(weight=2)', 'needs table')])
def test_words_that_lack_or_repeat(word, match):
    with pytest.raises(XltError, match=match): make_methods([word], METHODS)

def test_votes():
    with pytest.raises(XltError, match='samples of vote is 0'): vote(RSRP(.1), batch(), 0)
    with pytest.raises(XltError, match='pass RSRP'): vote(ADV(.1), batch())


@pytest.mark.parametrize('made, says', [(lambda out: out.loss, 'Wrong.loss returned Tensor: it takes'), (lambda out: None, 'Wrong.loss returned NoneType'),
    (lambda out: replace(out, loss=out.loss.expand(2)), r'the loss of Wrong has the shape \[2\]')], ids=['a loss', 'nothing', 'a loss a row'])
def test_a_method_that_returns_something_else_is_named(made, says):
    class Wrong(Method):
        def loss(self, step, rest): return made(rest(step))
    with pytest.raises(XltError, match=says): _run([Wrong()], batch())


def test_a_method_that_prepares_something_else_is_named():
    class Lists(Method):
        def prepare(self, rows, ctx): return list(rows)
    with pytest.raises(XltError, match='Lists.prepare returned list'): _rows_of(Lists(), Dataset.from_dict(dict(text=['a'])), None)
