"The family tree, the pipeline, the judged records and the widget"
import json
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from xltnb.core import XltError
from xltnb.models.adapters import Adapter, BottleneckCfg
from xltnb.papers.arithmetic.experiments import FamilyRunCfg, arithmetic_jobs
from xltnb.papers.arithmetic.tree import TREE, Branch, FamilyCfg, family_words, known_words, shifted, sound_shifts
from xltnb.records.record import Record


@pytest.fixture(scope='module')
def world():
    from xltnb.papers.arithmetic.family import Family
    return Family()


def kinds_of(cfg):
    from xltnb.invented.words import concepts_of
    return [c.kind for c in concepts_of(cfg.grammar) for _ in c.words]


@pytest.mark.parametrize('seed', range(5))
def test_words_descend(seed):
    "A word is the parent's after its sounds have shifted, the parent's as it was, or one of the language's own; none stands twice"
    cfg = FamilyCfg(seed=seed)
    kinds = kinds_of(cfg)
    words = family_words(cfg, kinds)
    for b in TREE[1:]:
        old, new, shifts = words[b.parent], words[b.name], sound_shifts(b, seed)
        assert len(set(new)) == len(new)
        kept = [n in (o, shifted(o, shifts)) for o, n in zip(old, new)]
        open_ = [k for k, kind in zip(kept, kinds) if kind not in ('name', 'digit')]
        assert abs((1-np.mean(open_))-b.replaced) < .06
        assert all(n == o for o, n, kind in zip(old, new, kinds) if kind in ('name', 'digit'))


def test_relatedness_follows_the_tree():
    cfg = FamilyCfg()
    assert known_words(cfg, 'b1', 'b2') == pytest.approx(.9*.9)
    assert known_words(cfg, 'b2', 's') == pytest.approx(.9*.7*.7) == known_words(cfg, 's', 'b2')
    assert known_words(cfg, 'b2', 'c2') == pytest.approx(.9*.7*.7*.9)


def test_the_next_family_is_another():
    one, two = (family_words(FamilyCfg(seed=s), kinds_of(FamilyCfg(seed=s))) for s in (0, 1))
    assert one['s'] != two['s']


@pytest.mark.parametrize('tree, says', [((Branch('a', 'b'),), 'the root alone'), ((Branch('a'), Branch('b', 'c')), 'parent of b'), ((Branch('a'), Branch('a', 'a')), 'different names')])
def test_trees_that_are_none(tree, says):
    with pytest.raises(XltError, match=says): FamilyCfg(tree)


@pytest.mark.parametrize('wrong, says', [(dict(steps=5), 'even number'), (dict(targets=('s',)), 'other than the source'), (dict(targets=('b3',)), 'b3'), (dict(targets=('b2', 'b1', 'c2', 'c1')), 'leave [12] languages'), (dict(world='huge'), 'world'), (dict(share=2.), 'share')])
def test_runs_that_cannot_be(wrong, says):
    with pytest.raises(XltError, match=says): replace(FamilyRunCfg(), **wrong)


def test_every_language_reads_what_it_writes(world):
    from random import Random
    rng = Random(0)
    for _ in range(40):
        s = world.say(world.draw('test', rng), rng)
        for l in world.languages: assert world.read(world.write(s, l), l) == s


def test_syllables_make_the_text_again(world):
    from xltnb.papers.arithmetic.family import syllables
    tok = world.tokenizer()
    for l in world.languages:
        for text in world.corpus(l, 20):
            assert ''.join(syllables(text)).replace('▁', ' ').strip() == text
            assert tok.tokenize(text) == syllables(text)


def test_labels_are_those_of_the_words(world):
    "The same tags in every language, at the first syllable of the same meanings"
    tok = world.tokenizer()
    tags = {l: world.tag_rows('test', 30, tok, l)[1] for l in world.languages}
    for l, y in tags.items():
        assert [sorted(r[r >= 0]) for r in y] == [sorted(r[r >= 0]) for r in tags['s']]
        assert ((y > 0).sum(1) >= 2).all()
    ids, _ = world.tag_rows('train', 200, tok, 's')
    test, _ = world.tag_rows('test', 200, tok, 's')
    assert not {tuple(r[r > 0]) for r in ids} & {tuple(r[r > 0]) for r in test}


def test_targets_are_not_read_before_the_merge():
    cfg = FamilyRunCfg()
    assert not set(cfg.known) & set(cfg.targets) and cfg.known[0] == cfg.source


def test_judged_seeds_are_not_those_of_the_pilots():
    for preset in ('smoke', 'laptop', 'gpu'): assert all(j.seed < 100 for j in arithmetic_jobs(preset))


def test_the_entropy_mixture_lowers_entropy():
    from xltnb.papers.arithmetic.pipeline import entropy_mixture
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 7, 4)
    h = lambda p: -(p*p.clamp_min(1e-9).log()).sum(-1).mean(1)
    uniform, mixed = logits.softmax(-1).mean(0), entropy_mixture(logits, steps=30)
    assert torch.allclose(mixed.sum(-1), torch.ones(5, 7), atol=1e-5) and (h(mixed) < h(uniform)).all()
    keep = np.ones((5, 7), bool)
    keep[:, 4:] = False
    padded = logits.clone()
    padded[:, :, 4:] = 9*torch.randn(3, 5, 3, 4)
    assert torch.allclose(entropy_mixture(padded, keep)[:, :4], entropy_mixture(logits[:, :, :4]), atol=1e-5)


def small(world):
    from transformers import BertConfig, BertForMaskedLM
    tok = world.tokenizer()
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(vocab_size=len(tok), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64, pad_token_id=tok.pad_token_id)).eval(), tok


def test_training_a_task_leaves_encoder_and_language_alone(world):
    from xltnb.papers.arithmetic.family import tags_of
    from xltnb.papers.arithmetic.pipeline import TaskCfg, train_task
    model, tok = small(world)
    lang = Adapter('s', BottleneckCfg(), model).requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}, lang.fingerprint
    tagger, task = train_task(model.bert, 'tag', tags_of(), world.tag_rows('train', 16, tok, 's'), tok.pad_token_id, lang, TaskCfg(1, 8))
    assert lang.fingerprint == before[1] and all(torch.equal(v, before[0][k]) for k, v in model.state_dict().items())
    assert all(torch.equal(p, before[0][f'bert.{n}']) for n, p in tagger.bert.named_parameters())
    assert task.fingerprint != Adapter('task', task.cfg, model).fingerprint and not hasattr(tagger.bert, 'attached_adapters')


def test_a_sweep_reads_the_ends_and_leaves_the_inputs(world):
    from xltnb.papers.arithmetic.family import tags_of
    from xltnb.papers.arithmetic.pipeline import TaskCfg, answers, sweep, train_task
    model, tok = small(world)
    a, b = (Adapter(n, BottleneckCfg(), model, init=i).requires_grad_(False) for i, n in enumerate('ab'))
    rows = world.tag_rows('train', 8, tok, 's')
    tagger, task = train_task(model.bert, 'tag', tags_of(), rows, tok.pad_token_id, a, TaskCfg(1, 8))
    prints = a.fingerprint, b.fingerprint
    got = dict(sweep(tagger, task, a, b, lambda: answers(tagger, rows[0], tok.pad_token_id), 4))
    assert torch.equal(got[1.], answers(tagger, rows[0], tok.pad_token_id, a, task)) and torch.equal(got[0.], answers(tagger, rows[0], tok.pad_token_id, b, task))
    assert (a.fingerprint, b.fingerprint) == prints


def run(seed=0, shift=0.):
    points = [(i/4, j/4, (4-i-j)/4) for i in range(5) for j in range(5-i)]
    land = {c: [p[k] for p in points] for k, c in enumerate(('s', 'b1', 'c1'))} | {f'in {l}': [.4+.1*k*p[k % 3]+shift for p in points] for k, l in enumerate(('s', 'b1', 'b2', 'c2'))}
    w = [i/20 for i in range(21)]
    layers = dict(a=['s', 's', 'b1', 'c1'], b=['b1', 'c1', 'b2', 'c2'], part=['layer 0']*4, cosine=[.1, .2, .3, .4], conflict=[.5]*4)
    near = dict(target=['b2', 'b2', 'c2', 'c2'], partner=['b1', 'c1']*2, known=[.8, .4, .4, .8], cosine=[.3, .1]*2, half=[.6, .5]*2)
    curves = dict(triangle=land, zero_shot=dict(weight=w, b2=[.5+x+shift for x in w], c2=[.6-x/2 for x in w]), layers=layers, relatedness=near)
    return Record('arithmetic.family', f'{seed:016x}', {}, seed, dict(source=.5, half=.6+shift), curves=curves, per_language=dict(b2=dict(source=.5), c2=dict(source=.4)), source='s', arm='family')


def drawn(ex): return json.dumps(ex.fig().to_plotly_json(), default=lambda a: np.asarray(a).tolist(), sort_keys=True)


@pytest.mark.parametrize('name, value', [('world', 1), ('target', 'c2'), ('lam', .9), ('share', .25)])
def test_a_control_changes_the_picture(name, value):
    from xltnb.papers.arithmetic.explorer import LambdaExplorer
    ex = LambdaExplorer([run(), run(1, .05)])
    before = drawn(ex)
    ex.controls[name].value = value
    assert drawn(ex) != before


def test_the_live_figure_follows():
    from xltnb.papers.arithmetic.explorer import LambdaExplorer
    ex = LambdaExplorer([run(), run(1, .05)])
    ex.live = go.FigureWidget(ex.fig())
    for name, value in (('lam', .3), ('share', .5), ('target', 'c2'), ('world', 1)):
        ex.controls[name].value = value
        fig = ex.fig()
        assert ex.live.layout.title.text.startswith(fig.layout.title.text)
        for a, b in zip(ex.live.data, fig.data):
            assert np.array_equal(a.x, b.x)
            if a.y is not None and b.y is not None: assert np.allclose(np.array(a.y, float), np.array(b.y, float), equal_nan=True)


def test_the_mixture_is_a_mixture():
    from xltnb.papers.arithmetic.explorer import LambdaExplorer
    ex = LambdaExplorer([run()], target='c2', lam=.2, share=.75)
    assert ex.relative == 'c1' and ex.weights == pytest.approx([.2, .2, .6])


def test_committed_records_are_whole():
    "What pages quote: every planned seed of the family at laptop, with the metrics that the rules name"
    from xltnb.records.published import load_paper
    from xltnb.records.rules import names_in
    from xltnb.runs.plan import make_plan
    plan = make_plan('arithmetic', 'laptop')
    found = plan.records().get('family', [])
    assert len(found) == sum(j.arm == 'family' for j in plan.jobs) > 3
    checks = [k for c in load_paper('arithmetic').claims.values() for k in c.at('laptop') if 'family' in k.arms.values()]
    need = {m for k in checks for _, m in names_in(k.effect)}
    for r in found:
        assert need <= r.metrics.keys()
        for m in ('half', 'source', 'tuned'): assert np.mean(r.items[m]) == pytest.approx(r.metrics[m], abs=1e-3)
        assert all(len(v) == len(r.curves['zero_shot']['weight']) for v in r.curves['zero_shot'].values())


def test_figures_follow_the_records():
    "Gains are paired by world, the title says what a chosen λ gains, and relatedness is counted over the source"
    from xltnb.papers.arithmetic.figures import arm_gains, lambda_fig, relatedness_df
    runs = [run(), run(1, .05)]
    gains = arm_gains(runs, 'source', ('half',))
    assert gains.gain['half'] == pytest.approx(12.5) and gains.n['half'] == 2
    assert lambda_fig(runs[:1]).layout.title.text == 'Scores along λ, beside the source adapter alone'  # no weight was chosen
    assert relatedness_df(runs[:1]).gain.tolist() == pytest.approx([10, 0, 20, 10])


def test_every_arm_and_pair_has_an_ink_of_its_own():
    "Two bars of one colour cannot be told apart; each task seed is a dot"
    from xltnb.papers.arithmetic.figures import real_fig, vectors_fig
    arms, langs, pairs = ('source', 'half', 'related', 'shrunk', 'none'), ('en', 'es'), [('s', 'b1'), ('s', 'c1'), ('b1', 'b2'), ('c1', 'c2'), ('b1', 'c1')]
    task = dict(seed=[0, 1, 2]) | {f'{l} {a}': [.3, .4, .5] for l in langs for a in arms}
    real = Record('arithmetic.real', 'r', {}, 0, {}, curves=dict(task=task), per_language={l: dict.fromkeys(arms, .4) for l in langs}, arm='real-es')
    layers = dict(zip(('a', 'b', 'part', 'cosine'), (*zip(*pairs), ['all']*len(pairs), [.1]*len(pairs)), strict=True))
    family = Record('arithmetic.family', 'f', {}, 0, {}, curves=dict(layers=layers), arm='family')
    dots, means = real_fig([real]).data[::2], real_fig([real]).data[1::2]
    assert all(len(t.y) == len(langs)*3 for t in dots)
    for shown in (means, vectors_fig([family]).data): assert len({t.marker.color for t in shown}) == len(shown) == 5


def sentences(lang, n, seed):
    "Sentences of one language in the layout of XTREME's files"
    from random import Random
    rng, words = Random(f'{lang} {seed}'), [f'{lang}{w}' for w in ('una', 'dos', 'tre', 'kat', 'lin', 'pal')]
    made = ([*(f'{w}\tO' for w in rng.choices(words, k=rng.randint(3, 8))), f'{rng.choice(["Lima", "Roma", "Ankara"])}\tB-LOC'] for _ in range(n))
    return '\n\n'.join(map('\n'.join, made))+'\n'


@pytest.fixture
def wikiann(tmp_path, monkeypatch):
    "A folder of small files in four languages; the first ten dev sentences stand in train"
    for lang in ('en', 'es', 'pt', 'tr'):
        train, dev = sentences(lang, 500, 0), sentences(lang, 60, 1)
        (tmp_path/f'train-{lang}.tsv').write_text(train, encoding='utf-8')
        (tmp_path/f'dev-{lang}.tsv').write_text('\n\n'.join([*train.split('\n\n')[:10], dev]), encoding='utf-8')
    monkeypatch.setenv('XLTNB_WIKIANN', str(tmp_path))
    return tmp_path


def entity_cfg(**more):
    from xltnb.papers.arithmetic.experiments import EntityCfg
    return EntityCfg(**dict(layers=1, tokens=2500, rows=32, epochs=1, valid=8, test=16, steps=2) | more)


def test_named_entities_wait_for_their_files(wikiann, monkeypatch):
    "Six seeds at laptop alone; files other than XTREME's make other keys, and another text makes yet another"
    from xltnb.runs.experiments import make_job
    job = lambda: make_job('entities', 'arithmetic.entities', entity_cfg(), 0)
    here = job()
    assert here.waits == '' and here.inputs['data']
    (wikiann/'train-tr.tsv').write_text(sentences('tr', 200, 5), encoding='utf-8')
    assert job().key != here.key
    monkeypatch.delenv('XLTNB_WIKIANN')
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    assert [(j.seed, j.waits, j.inputs) for j in arithmetic_jobs('laptop') if j.arm == 'entities'] == [(s, 'XLTNB_WIKIANN', {}) for s in range(6)]
    assert not any(j.arm == 'entities' for p in ('smoke', 'gpu', 'paper') for j in arithmetic_jobs(p))


@pytest.mark.parametrize('wrong, says', [(dict(steps=3), 'even number'), (dict(targets=('es',)), 'one relative for each'), (dict(targets=()), 'one relative'),
                                         (dict(other='es'), 'besides en'), (dict(relatives=('es', 'es')), 'besides en'), (dict(rows=0), 'rows')])
def test_entity_settings_that_make_no_sense(wrong, says):
    from xltnb.papers.arithmetic.experiments import EntityCfg
    with pytest.raises(XltError, match=says): EntityCfg(**wrong)


def test_scored_sentences_were_not_read(wikiann):
    from xltnb.papers.arithmetic.entities import entity_rows, text_without_tags
    cfg = entity_cfg()
    text = text_without_tags(cfg.task, cfg.langs)
    task, parts = entity_rows(cfg, text)
    for lang in cfg.targets:
        valid, test = ({tuple(w) for w in parts[lang, s]['tokens']} for s in ('validation', 'test'))
        assert (len(valid), len(test)) == (cfg.valid, cfg.test)
        assert not valid & test and not (valid | test) & {*text[lang], *text['en']}
    (wikiann/'train-pt.tsv').unlink()
    with pytest.raises(XltError, match='no wikiann_dev text of pt'): text_without_tags(cfg.task, cfg.langs)


def test_head_and_task_share_a_vocabulary():
    "All subwords are read, those that the head lacked have their own embedding and a bias, and a text of them can be learned from"
    from xltnb.models.encoders import load_mlm
    from xltnb.models.pruning import engine
    from xltnb.papers.arithmetic.entities import shared_vocabulary
    from xltnb.training.masked_loss import mlm_head
    texts = ['Algarrobo (Chile)', 'Winfried Georg Sebald', 'Tamás Faragó']
    model, tok, known = shared_vocabulary('e5-small-mlm', texts)
    old, short = load_mlm('e5-small-mlm')
    lacked = [t for e in engine(tok).encode_batch(texts, add_special_tokens=False) for t in e.tokens if t not in short.get_vocab()]
    assert lacked and known < 1 and tok.unk_token_id not in sum(tok(texts).input_ids, [])
    bias, both = mlm_head(model)[1], sorted(tok.get_vocab().keys() & short.get_vocab().keys())
    at, was = (torch.tensor([t.get_vocab()[p] for p in both]) for t in (tok, short))
    torch.testing.assert_close(bias[at], mlm_head(old)[1][was])
    torch.testing.assert_close(model.get_input_embeddings().weight[at], old.get_input_embeddings().weight[was])
    assert bias.isfinite().all() and model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_rows_of_like_length_are_all_read():
    from xltnb.papers.arithmetic.pipeline import TaskCfg, _one_pass
    lengths = torch.from_numpy(np.random.default_rng(0).integers(3, 30, 103))
    one = lambda **how: _one_pass(lengths, TaskCfg(batch=8, **how), np.random.default_rng(1))
    assert sorted(one()) == sorted(one(alike=True)) == list(range(103))
    assert (one() == np.random.default_rng(1).permutation(103)).all()
    widest = lambda order: sum(int(lengths[order[i:i+8]].max()) for i in range(0, 103, 8))
    assert widest(one(alike=True)) < .75*widest(one())


def test_entities_go_on_where_they_stopped(wikiann, tmp_path):
    "A run that is stopped before its task adapter, and then repeated, gives what one that was never stopped gives"
    from xltnb.papers.arithmetic.entities import run_entities
    from xltnb.runs.experiments import Ctx, Paused
    cfg, cache = entity_cfg(targets=('es',), relatives=('pt',)), tmp_path/'cache'
    with pytest.raises(Paused): run_entities(cfg, 3, Ctx(cache=cache, deadline=0.))
    once, again = run_entities(cfg, 3, Ctx(cache=cache)), run_entities(cfg, 3, Ctx(cache=tmp_path/'other'))
    assert once.metrics == again.metrics and once.per_language == again.per_language
    for arm in ('own', 'half', 'own_tuned'): assert np.mean(once.items[f'es {arm}']) == pytest.approx(once.metrics[arm], abs=1e-4)
    assert {'none', 'source', 'related', 'random', 'own', 'half', 'own_half', 'own_shrunk', 'mean'} <= set(once.per_language['es'])


@pytest.mark.parametrize('own, half, word, said', [(.62, .64, 'held', ''), (.55, .64, 'not settled', 'the precondition does not hold'),
                                                    (.62, .55, 'did not hold', ''), (None, .64, 'not settled', 'the precondition is not settled')])
def test_a_claim_stands_on_its_own_adapter(own, half, word, said):
    "Where a language's own adapter does not beat the English one, the claims on WikiANN are not settled, and say so"
    from xltnb.records.published import load_paper
    from xltnb.runs.plan import Plan
    from xltnb.verdicts.claims import _claim_row
    from xltnb.verdicts.judge import judge_claim
    jobs, claim, kept = [j for j in arithmetic_jobs('laptop') if j.arm == 'entities'], load_paper('arithmetic').claims['H1'], {}
    for j in jobs:
        noise = .002*j.seed
        x = dict(own=(.57+.06*j.seed if own is None else own)+noise, source=.6, half=half-noise, shrunk=.5+.003*j.seed)
        kept[j.key] = Record(j.experiment, j.key, j.config, j.seed, x, provenance=dict(rules={'H1/laptop': claim.hash_at('laptop')}))
    plan = Plan('arithmetic', 'laptop', jobs, None)
    checks = judge_claim(claim, plan, kept.get)
    row = _claim_row(claim, plan, checks, kept.get)
    assert row['verdict'] == word and said in row['note'] and bool(said) == ('precondition' in row['note'])
    if said: assert {j.verdict for _, j in checks} == {'not settled'} and row['expression'] == 'e.half - e.source'


@pytest.mark.parametrize('half, own, word', [(.60, .65, 'did not hold'), (.65, .65, 'did not hold'), (.625, .65, 'held'), (.60, .60, 'not settled')])
def test_half_of_a_gap_is_neither_none_nor_all_of_it(half, own, word):
    from xltnb.records.published import load_paper
    from xltnb.runs.plan import Plan
    from xltnb.verdicts.judge import judge_claim
    jobs, claim, kept = [j for j in arithmetic_jobs('laptop') if j.arm == 'family'][:4], load_paper('arithmetic').claims['3'], {}
    for j in jobs:
        x = dict(source=.6, half=half+.001*(j.seed%2), own=own+.001*(j.seed%2))
        kept[j.key] = Record(j.experiment, j.key, j.config, j.seed, x, provenance=dict(rules={'3/laptop': claim.hash_at('laptop')}))
    assert judge_claim(claim, Plan('arithmetic', 'laptop', jobs, None), kept.get)[0][1].verdict == word


def test_a_task_adapter_is_drawn_by_its_seed_alone():
    "What ran before in the process changes nothing, and is not changed"
    import numpy as np
    from transformers import BertConfig, BertModel
    from xltnb.papers.arithmetic.pipeline import TaskCfg, train_task
    net = BertModel(BertConfig(vocab_size=40, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64), add_pooling_layer=False)
    ids = np.random.default_rng(0).integers(5, 40, (8, 6))
    def trained(before):
        torch.manual_seed(before)
        return train_task(net, 'tag', ('a', 'b'), (ids, ids % 2), 0, None, TaskCfg(epochs=1, batch=4), seed=3)[1].fingerprint, torch.rand(1).item()
    (one, next_one), (other, next_other) = trained(0), trained(1)
    torch.manual_seed(0)
    assert one == other and next_one == torch.rand(1).item() != next_other
