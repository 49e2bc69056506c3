"Invented languages: renamings, true labels, splits without leaks, settings that can be broken"
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xltnb.core import XltError, from_dict, to_dict
from xltnb.invented.words import WORLDS
from xltnb.invented.grammar import Clause, Thing
from xltnb.invented.world import Invented, invented, split_of_clause
from xltnb.invented.words import FIVE, InventedCfg, Lang
from xltnb.invented.tasks import EDITS, INFERENCE, INVENTED_TASKS, Changes, _edited, invented_task, relation, special, truth


@pytest.mark.parametrize('size', WORLDS)
def test_bijections_and_anchors(size):
    w = invented(size)
    for lang in w.cfg.languages:
        assert len(set(w.words[lang.name])) == len(w.of)
        kept = [i for i, (a, b) in enumerate(zip(w.words[lang.name], w.words['x0'])) if a == b]
        assert len(kept) == len(set(w.words[lang.name]) & set(w.words['x0'])) == round(lang.anchors*len(w.of))
    common = [set(w.words[x]) & set(w.words['x0']) for x in ('x4', 'x3', 'x2', 'x1')]
    assert common[0] <= common[1] == common[2] <= common[3], 'anchors are nested'
    every = [x for ws in w.words.values() for x in ws]
    assert all(v for x, v in Counter(every).items()) and not any(' ' in x for x in every)
    for a in w.languages:
        for b in w.languages: assert a == b or set(w.words[a]) & set(w.words[b]) <= set(w.words['x0'])


@pytest.mark.parametrize('size', WORLDS)
@pytest.mark.parametrize('seed', range(3))
def test_written_is_read(size, seed):
    w, rng = invented(size), Random(seed)
    for _ in range(200):
        c = w.clause(rng)
        s = w.say(c, rng)
        assert w.meaning(s) == c
        for lang in w.languages: assert w.read(w.write(s, lang), lang) == s


def test_orders():
    w = invented()
    s = Clause(*(w.concepts[w.at[k]].words[0] for k in ('vt',)), Thing(w.concepts[0].words[0]), Thing(w.concepts[1].words[0]))
    assert w.gloss(w.write(s, 'x0'), 'x0').split()[0::1][2].startswith('V') and w.gloss(w.write(s, 'x3'), 'x3').split()[-1].startswith('V')


def everything(w, c):
    "All statements one edit away: a noun's class or its members, a modifier more or less"
    for edit in ('hypernym', 'hyponym'): yield from ((edit, e) for e in _edited(w, c, edit))
    for slot, first in (('adverb', 'adv'), ('day', 'digit')): yield from modified(c, slot, getattr(c, slot), w.at[first])
    for role in ('subj', 'obj'):
        t = getattr(c, role)
        if t and w.concepts[t.noun].kind != 'name':
            for edit, e in modified(t, 'adj', t.adj, w.at['adj']): yield edit, replace(c, **{role: e})


def modified(x, slot, now, other): yield ('add', replace(x, **{slot: other})) if now < 0 else ('drop', replace(x, **{slot: -1}))


def test_edits_have_the_relation_they_are_listed_for():
    w, rng = invented('tiny'), Random(0)
    seen = Counter()
    for _ in range(300):
        c = w.clause(rng)
        for edit, e in everything(w, c):
            label = 'entailment' if (edit in ('hypernym', 'drop')) != c.negated else 'neutral'
            assert relation(c, e, w.concepts) == label, (edit, c, e)
            assert edit not in EDITS.values() or (EDITS[c.negated] == edit) == (label == 'entailment')
            flipped = replace(e, negated=not e.negated)
            if label == 'entailment': assert relation(c, flipped, w.concepts) == 'contradiction'
            seen[edit, c.negated] += 1
    assert len(seen) == 8 and min(seen.values()) > 20


def worlds(w, c, things):
    "Truth of `c` in a world: a set of events, each with one noun, adjectives, ... per role (brute force)"
    return c.negated != any(c.verb == e.verb and all(_fits(w, a, b) for a, b in ((c.subj, e.subj), (c.obj, e.obj))) and
                            c.adverb in (-1, e.adverb) and c.day in (-1, e.day) for e in things)


def _fits(w, said, event):
    if said is None or event is None: return said is event
    return said.noun in (event.noun, w.concepts[event.noun].parent) and said.adj in (-1, event.adj)


def test_logic_against_models():
    "Entailed: true in every world where the premise is; contradicted: in none. Events are drawn around the two statements"
    w, rng = invented('tiny'), Random(1)
    for _ in range(150):
        p = w.clause(rng)
        near = [e for _, e in everything(w, p)]
        h = rng.choice([*near, w.clause(rng)])
        h = replace(h, negated=rng.random() < .5)
        members = lambda t: t and Thing(rng.choice([i for i, c in enumerate(w.concepts) if t.noun in (i, c.parent)] or [t.noun]), t.adj)
        full = lambda c: replace(c, subj=members(c.subj), obj=members(c.obj), negated=False)
        events = [full(p), full(h), p, h, *(full(e) for e in near[:6])]
        truths = {(worlds(w, p, es), worlds(w, h, es)) for n in range(150) for es in [[e for e in events if rng.random() < (.15, .5)[n % 2]] if n else []]}
        r = relation(p, h, w.concepts)
        if r == 'entailment': assert (True, False) not in truths
        if r == 'contradiction': assert (True, True) not in truths
        if r == 'neutral': assert {(True, False), (True, True)} <= truths, (p, h)


@pytest.mark.parametrize('name', INVENTED_TASKS)
@pytest.mark.parametrize('changes', [{}, dict(seed=3), dict(groups=(1.,)), dict(negated=0.5, focus=0., passive=1., modified=1.)], ids=str)
def test_labels_follow_from_the_texts(name, changes):
    w = invented('tiny', **changes)
    t = invented_task(name, w, 120, 60, 60, Changes(0., 0.) if 'seed' in changes else Changes())
    for lang in t.languages:
        for split, rows in t.data[lang].items():
            assert [truth(name, w, r['text'], r['text2'], lang) for r in rows] == [t.labels[y] for y in rows['label']]
    for p in t.languages:
        for q in t.languages:
            rows = t.crossed(p, q)
            assert len(rows) == 60
            assert [truth(name, w, r['text'], r['text2'], p, q) for r in rows] == [t.labels[y] for y in rows['label']]
    turns = INVENTED_TASKS[name][1]
    assert Counter(t.rows('x0', 'train')['label']) == {t.labels.index(y): 120*turns.count(y)/len(turns) for y in turns}
    if name == 'paraphrase': assert all(a != b for a, b in zip(t.rows('x0', 'train')['text'], t.rows('x0', 'train')['text2']))


def counts(w, t, split):
    "What can be counted in each pair of the source, and its label"
    def row(r):
        a, b = (set(r[k].split(' ')) for k in ('text', 'text2'))
        x, y = (w.read(r[k], 'x0') for k in ('text', 'text2'))
        return [len(r['text'].split(' ')), len(r['text2'].split(' ')), len(a & b), len(a | b), x.negated, y.negated, x.passive, y.passive]
    rows = list(t.rows('x0', split))
    return np.array([row(r) for r in rows], float), np.array([r['label'] for r in rows])


@pytest.mark.parametrize('name', INVENTED_TASKS)
def test_labels_cannot_be_counted(name):
    "Trees over lengths, common words, negations and voices stay below .6; a planted shortcut is seen"
    from sklearn.ensemble import GradientBoostingClassifier
    w = invented('tiny', seed=4)
    t = invented_task(name, w, 2000, 10, 800)
    (x, y), (z, gold) = counts(w, t, 'train'), counts(w, t, 'test')
    learned = lambda keep, held: GradientBoostingClassifier(n_estimators=40, random_state=0).fit(x[keep], y[keep]).score(z[held], gold[held])
    assert learned(y == y, gold == gold) < .6
    if name == 'inference':  # neutral pairs whose negation differs are left out
        tells = lambda x, y: (x[:, 4] == x[:, 5]) | (y != t.labels.index('neutral'))
        assert learned(tells(x, y), tells(z, gold)) > .6


def test_splits_share_nothing():
    w = invented('tiny')
    t = invented_task('paraphrase', w, 400, 100, 100)
    key = lambda text: (c := w.meaning(w.read(text, 'x0'))) and (c.verb, *sorted(x.noun for x in (c.subj, c.obj) if x))
    sets = [{key(x) for col in ('text', 'text2') for x in t.rows('x0', s)[col]} for s in ('train', 'validation', 'test')]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    for lang in w.languages: assert {split_of_clause(w.meaning(w.read(x, lang))) for x in w.corpus(lang, 300)} == {'train'}


def test_train_in():
    t = invented_task('inference', invented('tiny'), 30, 9, 9, train_in=('x2',))
    assert len(t.rows('x2', 'train')) == 30 and 'train' not in t.data['x1']
    assert t.rows('x2', 'train')['id'] == t.rows('x0', 'train')['id']


def test_same_everywhere():
    "Another process with another hash seed makes the same rows; a seed in any place makes others"
    code = "from xltnb.invented.world import invented; from xltnb.invented.tasks import invented_task; w = invented('tiny'); print(invented_task('inference', w, 30, 9, 9).fingerprint(), w.corpus('x3', 3), dict(w.synonyms()))"
    runs = {subprocess.run([sys.executable, '-c', code], capture_output=True, encoding='utf-8', check=True, env={'PYTHONHASHSEED': s}).stdout for s in '12'}
    w = invented('tiny')
    assert runs == {f"{invented_task('inference', w, 30, 9, 9).fingerprint()} {w.corpus('x3', 3)} {dict(w.synonyms())}\n"}
    assert w.corpus('x3', 3) != w.corpus('x3', 3, seed=1) and w.synonyms() != w.synonyms(seed=1)
    assert invented_task('inference', w, 30, 9, 9, seed=1).fingerprint() != invented_task('inference', w, 30, 9, 9).fingerprint()
    assert invented('tiny', seed=1).words['x0'] != w.words['x0']


def test_a_language_more_changes_no_other():
    a, b = invented('tiny'), invented('tiny', languages=(*FIVE, Lang('x9', 0.5, 'SOV')))
    assert all(a.words[x] == b.words[x] for x in a.languages)


def test_text_tells_words_apart():
    "With focus the verb says something about its subject; without it next to nothing"
    def information(w):
        at, n = w.at, np.zeros((len(w.concepts), len(w.concepts)))
        rng = Random(0)
        for _ in range(6000): c = w.clause(rng); n[c.subj.noun, c.verb] += 1
        p = n[:at['vt'], at['vt']:at['adj']]/n.sum()
        return (p*np.log((p+1e-12)/(p.sum(0)*p.sum(1)[:, None]+1e-12))).sum()
    assert information(invented('tiny')) > 4*information(invented('tiny', focus=0.))


def test_synonym_table():
    w = invented()
    for wrong in (0., 0.05, 0.5):
        t = w.synonyms(wrong)
        bad = sum(w.of[w.numbers['x0'][a]] != w.of[w.numbers['x0'][b]] for a, near in t.items() for b in near)
        assert bad == round(wrong*(t.edges-bad)) and set(t) == set(w.words['x0'])
        assert all(w.kinds[w.numbers['x0'][a]] == w.kinds[w.numbers['x0'][b]] for a, near in t.items() for b in near)
    assert set(w.synonyms(lang='x3')) == set(w.words['x3'])


def test_translation():
    w = invented('tiny')
    assert w.dictionary('x0', 'x1')[w.words['x0'][5]] == w.words['x1'][5]
    text = w.corpus('x4', 5)[2]
    assert w.translate(w.translate(text, 'x4', 'x1'), 'x1', 'x4') == text


def test_tokenizer():
    w = invented('tiny')
    tok = w.tokenizer()
    for lang in w.languages:
        for text in w.corpus(lang, 20):
            enc = tok(text)
            assert tok.decode(enc['input_ids'], skip_special_tokens=True) == text and tok.unk_token_id not in enc['input_ids']
            assert len(enc['input_ids']) == len(text.split(' '))+2
    assert tok('nosuchword')['input_ids'][1] == tok.unk_token_id and tok.pad_token_id == 0
    pair = tok(text, text, return_offsets_mapping=True)
    assert sum(pair['token_type_ids']) == len(text.split(' '))+1


def test_tokenizer_is_saved_and_loaded(tmp_path):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    w = invented('tiny')
    w.tokenizer().save_pretrained(tmp_path)
    text = w.corpus('x2', 1)[0]
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path)(text)['input_ids'] == w.tokenizer()(text)['input_ids']
    assert json.loads((tmp_path/'tokenizer.json').read_text(encoding='utf-8'))['model']['type'] == 'WordLevel' and AutoTokenizer


@pytest.mark.parametrize('changes, why', [(dict(languages=()), 'different names'), (dict(languages=(Lang('a'), Lang('a'))), 'different names'),
    (dict(classes=1), 'classes is 1'),
    (dict(groups=()), 'groups'), (dict(negated=1.5), 'negated is 1.5')])
def test_settings_that_cannot_be(changes, why):
    with pytest.raises(XltError, match=why): invented('tiny', **changes)


@pytest.mark.parametrize('changes, why', [(dict(order='VSO'), "unknown Lang.order 'VSO'; did you mean 'SVO'"), (dict(anchors=-.1), 'Lang.anchors is -0.1: give a number from 0 to 1')])
def test_a_language_that_cannot_be(changes, why):
    with pytest.raises(XltError, match=why): Lang('a', **changes)


def test_names():
    w = invented('tiny')
    for f in (lambda: w.corpus('x7', 1), lambda: w.read('a', 'x7'), lambda: invented_task('inference', w, 3, 3, 3, train_in=('x7',)), lambda: w.synonyms(lang='x7'), lambda: w.distance('x7'), lambda: w.dictionary('x0', 'x7')):
        with pytest.raises(XltError, match="unknown invented language 'x7'"): f()
    with pytest.raises(XltError, match='task in invented languages'): invented_task('nli', w)


def test_config_round_trip():
    for cfg in WORLDS.values(): assert from_dict(InventedCfg, json.loads(json.dumps(to_dict(cfg)))) == cfg
    assert Invented(WORLDS['tiny']).key == invented('tiny').key


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 4), st.floats(0, 3), st.integers(0, 99), st.floats(0, 1))
def test_any_size_works(classes, members, names, focus, seed, anchors):
    w = Invented(InventedCfg((Lang('a', 1.), Lang('b', anchors, 'SOV')), classes, members, names, 6, 5, 5, 3, focus=focus, seed=seed))
    t = invented_task('inference', w, 12, 3, 3)
    assert [truth('inference', w, r['text'], r['text2'], 'b') for r in t.rows('b')] == [t.labels[y] for y in t.rows('b')['label']]


def test_special_is_a_partial_order():
    w, rng = invented('tiny'), Random(2)
    cs = [w.clause(rng) for _ in range(60)]
    cs += [e for c in cs for _, e in everything(w, c)][:120]
    for a in cs: assert special(a, a, w.concepts)
    for a in cs:
        for b in cs:
            if a != b and special(a, b, w.concepts) and special(b, a, w.concepts): assert replace(a, negated=b.negated) == b
    assert INFERENCE == ('entailment', 'neutral', 'contradiction')


def test_no_torch():
    code = 'import sys, xltnb.invented.world; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_a_split_that_is_none_is_named():
    with pytest.raises(XltError, match="split 'dev'"): invented('tiny').draw('dev', Random(0))


def test_too_many_wrong_links_are_told():
    from xltnb.core import XltError
    for wrong in (5., -1):
        with pytest.raises(XltError, match='wrong'): invented('tiny').synonyms(wrong=wrong)
