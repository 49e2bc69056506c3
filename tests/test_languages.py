"""Round trips of artificial languages, under properties."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from xltnb.core import XltError
from xltnb.othello.lexicon import LANGUAGE_KINDS, decode_game, draw_anchors, encode_game, make_lexicon, relabel
from xltnb.othello.tokens import Encoder, inputs_targets
from xltnb.othello.rules import symmetries
from xltnb.othello.rules import NONE
from xltnb.othello.games import random_games

worlds = st.fixed_dictionaries(dict(n=st.sampled_from([4,6,8]), kinds=st.lists(st.sampled_from(LANGUAGE_KINDS),min_size=1,max_size=5).map(tuple), anchors=st.integers(0,3), seed=st.integers(0,10**6), unified=st.booleans()))

def build(n, kinds, anchors, seed, unified):
    group = tuple(range(len(kinds)))
    return make_lexicon(kinds, n, draw_anchors(anchors,(group,),n,seed) if anchors and len(kinds)>1 else (), unified, seed)

@settings(max_examples=60, deadline=None)
@given(worlds, st.integers(0,10**6))
def test_round_trip_and_batches(world, which):
    lex = build(**world); games = random_games(3, n=lex.n, seed=which); enc = Encoder(lex)
    for lang in range(len(lex.kinds)):
        tok,ends = enc(torch.from_numpy(games), lang)
        for i,g in enumerate(games):
            moves = [int(s) for s in g if s!=NONE]; line = encode_game(lex, g, lang)
            assert decode_game(lex, line, lang)==moves
            assert [int(t) for t in tok[i] if t]==line and len(line)<=lex.longest(lang)
            assert [int(e) for e in ends[i] if e>=0]==(np.cumsum([len(lex.words[lang][s]) for s in moves])-1).tolist()

@settings(max_examples=60, deadline=None)
@given(worlds)
def test_tokens_are_shared_by_anchors_alone(world):
    lex = build(**world); tokens = [{t for w in ws for t in w} for ws in lex.words]; anchored = {sq for sq,_ in lex.anchors}
    for i in range(len(tokens)):
        for j in range(i):
            shared = {t for sq in anchored for t in lex.words[i][sq]} & {t for sq in anchored for t in lex.words[j][sq]}
            assert tokens[i]&tokens[j]==shared
            for sq in anchored: assert lex.words[i][sq]==lex.words[j][sq]
    assert max(max(t) for t in tokens) < lex.vocab and 0 not in set.union(*tokens)
    if lex.unified: assert not set(lex.out)-{0} & set.union(*tokens)

@pytest.mark.parametrize('kind', LANGUAGE_KINDS)
def test_unified_targets_are_the_next_square_at_move_ends(kind):
    lex = make_lexicon(('atomic',kind), 6, (), True, 3); games = random_games(20, n=6, seed=2); enc = Encoder(lex)
    x,y = inputs_targets(enc, torch.from_numpy(games), 1)
    for i,g in enumerate(games):
        moves = [int(s) for s in g if s!=NONE]
        assert [lex.out.index(int(t)) for t in y[i] if t]==moves[1:]
        at = np.flatnonzero(y[i].numpy()); assert decode_game(lex, x[i,:at[-1]+1], 1)==moves[:-1]

@pytest.mark.parametrize('s', range(4))
def test_a_relabelled_language_tells_the_mirror_image(s):
    lex = make_lexicon(('atomic','compositional'), 6); game = [int(m) for m in random_games(1,n=6,seed=s)[0] if m!=NONE]
    for lang in (0,1): assert encode_game(relabel(lex,lang,s), game, lang)==encode_game(lex, symmetries(6)[s][game], lang)

@pytest.mark.parametrize('make,word', [
    (lambda: make_lexicon(('atomik',)), "did you mean 'atomic'"), (lambda: make_lexicon(('atomic',), anchors=((5,(0,3)),)), 'anchor group .0, 3. is 3: give an integer from 0 to 0'),
    (lambda: draw_anchors(60, n=6), 'ask for fewer'), (lambda: encode_game(make_lexicon(n=6), [14], 0), 'no word'), (lambda: decode_game(make_lexicon(n=6), [64], 0), 'does not continue'),
    (lambda: make_lexicon(n=5), 'choose a side')])
def test_bad_input_names_the_remedy(make, word):
    with pytest.raises(XltError, match=word): make()


@settings(max_examples=30, deadline=None)
@given(worlds)
def test_token_tables_say_what_the_lexicon_says(world):
    "One table for what is read, one for what is predicted; ids are laid out by language, square and place in the word"
    lex = build(**world); ids = lex.inputs.ids(); squares = range(lex.n**2)
    assert ids.shape[:2]==(len(lex.kinds),256) and not ids[:,lex.n**2:].any()
    for l,words in enumerate(lex.words):
        assert [tuple(int(t) for t in ids[l,s] if t) for s in squares]==list(words)
        assert lex.inputs.squares(l).tolist()==[s for s in squares if words[s]] and lex.inputs.longest(l)==sum(map(len, words))
        assert [lex.inputs.square_of(l)[words[s]] for s in squares if words[s]]==lex.inputs.squares(l).tolist()
        predicted = lex.outputs.first(l).tolist()
        assert predicted==(list(lex.out) if lex.unified else [w[0] if w else 0 for w in words])
        assert lex.outputs.one_token(l) if lex.unified else lex.outputs.one_token(l)==all(len(w)<2 for w in words)
