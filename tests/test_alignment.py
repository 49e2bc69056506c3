"Alignment measures on planted truth"
import numpy as np
import pytest
import torch

from xltnb.core import XltError
from xltnb.models.alignment import alignment, cka, lexical_hits, margin, measures, retrieval_hits
from xltnb.models.word_alignment import aer, sinkhorn_links


def draw(n=80, d=16, seed=0): return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_identical_vectors_are_aligned_and_drawn_ones_are_not():
    same, other = measures(draw(), draw()), measures(draw(), draw(seed=1))
    assert same['raw'] == same['centred'] == 1 and abs(same['cka']-1) < 1e-6 and same['margin'] > .9
    assert other['raw'] < .1 and abs(other['margin']) < .05 and other['cka'] < .5


@pytest.mark.parametrize('k', [1, 5, 40])
def test_retrieval_counts_exactly(k):
    "`k` of eighty sentences trade places with the next one"
    y = draw()
    order = torch.arange(80)
    order[:2*k] = order[:2*k].view(-1, 2).flip(1).flatten()
    assert retrieval_hits(y, y[order]).mean() == (80-2*k)/80


def test_centring_takes_a_language_away():
    x, step = draw(), 30*draw(1, seed=3)
    assert retrieval_hits(x, x+step, centre=True).mean() == 1 > retrieval_hits(x, x+step).mean()


def test_cka_ignores_rotation_and_scale_alone():
    turn = torch.linalg.qr(draw(16, 16, 4))[0]
    x = draw()
    assert abs(cka(x, 7*x@turn+3)-1) < 1e-6 and cka(x, x**3) < .99 and retrieval_hits(x, x@turn).mean() < .2


def test_margin_is_the_mean_difference():
    x, y = draw(6, 3), draw(6, 3, 1)
    c = np.array([[float(torch.cosine_similarity(a, b, 0)) for b in y] for a in x])
    assert margin(x, y) == pytest.approx(np.diag(c).mean()-c[~np.eye(6, dtype=bool)].mean(), abs=1e-6)


def test_sinkhorn_agrees_with_a_loop():
    s = np.random.default_rng(0).random((5, 7))
    t = s.copy()
    for _ in range(2):
        for j in range(7): t[:, j] /= t[:, j].sum()
        for i in range(5): t[i] /= t[i].sum()
    row, col = t/t.sum(1, keepdims=True), t/t.sum(0, keepdims=True)
    want = {(i, int(row[i].argmax())) for i in range(5) if col[:, row[i].argmax()].argmax() == i}
    assert sinkhorn_links(s) == want


def test_the_floor_is_a_switch():
    s = np.array([[1., -.5], [.2, .3]])
    assert sinkhorn_links(s, floor=1e-6) == {(0, 0), (1, 1)}
    assert isinstance(sinkhorn_links(s), set)


def test_aer_by_hand():
    sure, possible = [{(0, 0), (1, 1)}], [{(0, 0), (1, 1), (2, 1)}]
    assert aer(sure, sure, possible) == 0
    assert aer([{(0, 0), (2, 1), (3, 3)}], sure, possible) == pytest.approx(1-(2+1)/5)
    assert aer([set()], sure) == 1


@pytest.mark.parametrize('call', [lambda: aer([set()], [set(), set()]), lambda: sinkhorn_links(np.zeros((0, 3))), lambda: sinkhorn_links([[np.inf]]),
                                  lambda: retrieval_hits(draw(4), draw(5)), lambda: sinkhorn_links(np.eye(2), sweeps=-1)])
def test_bad_input_is_named(call):
    with pytest.raises(XltError): call()


def test_lexical_retrieval_needs_common_subwords():
    from xltnb.papers.metapretrain.corpus import load_vocab
    tok = load_vocab('shared4k')
    assert lexical_hits(tok, ['LaTeX 17', 'Basic 42'], ['LaTeX 17 (de)', 'Basic 42 (de)']).tolist() == [1, 1]


def test_two_pairs_and_no_prefix_are_refused():
    from test_trainer import net, tokenizer
    model, tok, texts = net(), tokenizer(), ['w1 w2', 'w3', 'w4 w5 w6']
    with pytest.raises(XltError, match='2 given, and CKA is 1 for any two: give three'): alignment(model, tok, texts[:2], dict(de=texts[:2]))
    with pytest.raises(XltError, match="prefix is None: give a string, '' for none"): alignment(model, tok, texts, dict(de=texts), prefix=None)
    assert alignment(model, tok, texts, dict(de=texts)).pairs == 3
