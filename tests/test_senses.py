"Synonyms that keep the sense: candidates, scores, the threshold, the dose, and what a record says of them"
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from xltnb.core import XltError
from xltnb.papers.robust.augmentation import RSDA
from xltnb.papers.robust.training import METHODS
from xltnb.studies.recipes import make_methods
from xltnb.tasks.synonyms import Synonyms, load_synonyms
from xltnb.training import senses
from xltnb.training.senses import SenseDA, candidates, calibrated, inflected, kept_senses, put, slots, swap_scores
from xltnb.training.views import fraction_swapped, symmetric_kl

TABLE = Synonyms({'please': ('delight',), 'big': ('large', 'adult'), 'turn': ('spin',), 'cat': ()})
SEED = SimpleNamespace(seed=0)


def rows(*texts, **more): return Dataset.from_dict(dict(text=list(texts), label=[0]*len(texts), **more))


@pytest.mark.parametrize('word,ending,want', [('add', 's', 'adds'), ('carry', 's', 'carries'), ('play', 's', 'plays'), ('box', 's', 'boxes'), ('carry', 'ed', 'carried'),
    ('carry', 'ing', 'carrying'), ('close', 'ed', 'closed'), ('see', 'ing', 'seeing'), ('plan', 'ing', 'planning'), ('show', 'ing', 'showing'), ('enter', 'ed', 'entered')])
def test_regular_endings(word, ending, want): assert inflected(word, ending) == want


def test_candidates_take_the_ending_and_keep_what_stands_around():
    assert candidates('turns', TABLE) == ['spins'] and candidates('turning', TABLE) == ['spinning'] and candidates('big', TABLE, 1) == ['large']
    assert candidates('cat', TABLE) == candidates('bigs', Synonyms({'a': ('b',)})) == []
    assert candidates('picked', Synonyms({'pick': ('choose', 'select')})) == ['selected'] and candidates('picks', Synonyms({'pick': ('choose',)})) == ['chooses']
    assert slots('Please, (big) cat!', TABLE) == {0: ['Delight'], 1: ['large', 'adult']}
    assert put('Please, (big) cat!', 1, 'large') == 'Please, (large) cat!'


@pytest.fixture
def scored(monkeypatch, tmp_path):
    "Scores that are known: no encoder, and none of an earlier run"
    monkeypatch.setenv('XLTNB_CACHE', str(tmp_path))
    known, calls = dict(delight=-.1, large=.9, adult=.65, spin=.2, Large=.9), []

    def scores(texts, table, encoder=None, k=6):
        calls.append(len(texts))
        return [{i: tuple(sorted(((w, known.get(w.lower(), 0)) for w in ws), key=lambda x: -x[1])) for i, ws in slots(t, table, k).items()} for t in texts]
    monkeypatch.setattr(senses, 'swap_scores', scores)
    return calls


def test_the_threshold_decides_and_scores_are_kept(scored):
    found = kept_senses(['please turn off the big light', 'cat'], TABLE)
    assert found == {'please turn off the big light': {4: (('large', .9), ('adult', .65))}, 'cat': {}}
    assert kept_senses(['cat', 'please turn off the big light'], TABLE, least=.7)['please turn off the big light'] == {4: (('large', .9),)}
    assert scored == [2], 'scored once, whatever the order and the threshold'
    kept_senses(['cat'], TABLE)
    assert scored == [2, 1], 'other texts are scored anew'


@pytest.mark.parametrize('dose', [.05, .1, 1/6])
def test_the_dose_is_reached_and_recorded(scored, dose):
    data, m = rows(*['please turn off the big light']*600), SenseDA(TABLE, dose=dose, copies=2)
    out = m.prepare(data, SEED)
    facts, reached = m.facts(), np.mean([fraction_swapped(data, out.select(range(i*600, i*600+600))) for i in range(2)])
    assert len(out) == 1200 and out['label'][:] == [0]*1200
    assert facts['swapped'] == pytest.approx(reached) and abs(reached-dose) < 4*(dose*(1-6*dose)/6/1200+1e-9)**.5
    assert facts['swappable'] == pytest.approx(1/6) and .65 <= facts['similarity'] <= .9


def test_more_than_there_is_swaps_all_and_says_so(scored):
    m = SenseDA(TABLE, dose=.9, copies=1)
    assert 'big' not in m.prepare(rows('please turn off the big light'), SEED)['text'][0]
    assert m.facts()['swapped'] == pytest.approx(1/6)
    m = SenseDA(TABLE, dose=.9, copies=1)
    assert m.prepare(rows('cat'), SEED)['text'][:] == ['cat'] and m.facts() == dict(swappable=0., swapped=0.)


def test_originals_control_pairs_and_seeds(scored):
    data = rows('turn the big cat', 'a big cat', text2=['the big one', 'big big big'])
    both = SenseDA(TABLE, copies=1, originals=True, dose=1).prepare(data, SEED)
    assert both['text'][:2] == data['text'][:] and len(both) == 4 and 'big' not in ' '.join(both['text2'][2:])
    swap, control = (SenseDA(TABLE, copies=1, dose=1, random=r).prepare(data, SEED) for r in (False, True))
    words = {w for t in [*data['text'], *data['text2']] for w in t.split(' ')}
    assert {w for t in control['text'] for w in t.split(' ')} <= words, 'random words are words of the rows'
    assert set(' '.join(swap['text']).split()) & {'large', 'adult'}
    draw = lambda seed: SenseDA(TABLE, copies=3, dose=.2).prepare(data, SimpleNamespace(seed=seed))['text2'][:]
    assert draw(0) == draw(0) and len({tuple(draw(s)) for s in range(6)}) > 1


def test_bad_settings_and_rows(scored):
    for bad in (dict(dose=-.1), dict(dose=2), dict(copies=0), dict(dose=float('nan'))):
        with pytest.raises(XltError, match='SenseDA'): SenseDA(TABLE, **bad)
    with pytest.raises(XltError, match='SenseDA needs a table'): SenseDA('wordnet')
    with pytest.raises(XltError, match='SenseDA reads sentences'): SenseDA(TABLE).prepare(Dataset.from_dict(dict(tokens=[['big']])), SEED)
    with pytest.raises(XltError, match='too few'): calibrated(['no word'], TABLE)
    made, = make_methods(['SenseDA(dose=0.3, copies=4)'], METHODS, table=TABLE)
    assert (made.dose, made.copies, made.facts()) == (.3, 4, {})


def test_the_encoder_keeps_the_sense():
    "With the real encoder: large for big, and not delight for please"
    (found,) = swap_scores(['please turn off the big light'], load_synonyms())
    best = {i: ws[0] for i, ws in found.items()}
    assert best[0][0] == 'delight' and best[0][1] < .3 and best[4][0] == 'large' and best[4][1] > .6


def test_rsda_says_how_much_it_changed():
    data, m = rows(*['big cat']*400), RSDA(dict(big=('large',)), copies=2)
    m.prepare(data, SEED)
    assert abs(m.facts()['swapped']-.25) < .04
    assert RSDA(dict(big=('large',))).facts() == {}


def test_divergence_is_that_of_the_definition():
    a, b = torch.randn(5, 4), torch.randn(5, 4)
    p, q = a.softmax(-1), b.softmax(-1)
    kl = lambda p, q: (p*(p/q).log()).sum(-1).mean()
    assert float(symmetric_kl(a, b)) == pytest.approx(float(kl(p, q)+kl(q, p))/2, rel=1e-5)
