"Scores equal those of the published scripts; tasks refuse what they cannot score"
import collections
import json
import re
import string
import subprocess
import sys
import warnings

import numpy as np
import pytest
from conlleval import evaluate as conlleval
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from xltnb.core import XltError
from xltnb.tasks.formats import read_tagged
from xltnb.tasks.metrics import answer_score, answer_words, micro_f1, random_spans, span_counts, spans
from xltnb.tasks.own import own_task
from xltnb.tasks.own_files import find_own, read_own
from xltnb.tasks.task import Task, make_rows

TAGS = ('O', 'B-A', 'I-A', 'B-B', 'I-B', 'B-A-C', 'I-A-C', 'I-é', 'B-人')
quick = settings(max_examples=300, deadline=None)


@st.composite
def tagged(draw):
    "Gold and predicted tags of a few sentences; empty ones, orphan I-, changes of type"
    gold = draw(st.lists(st.lists(st.sampled_from(TAGS), max_size=7), min_size=1, max_size=4))
    return gold, [[draw(st.sampled_from([t, t, *TAGS])) for t in s] for s in gold]


@given(tagged())
@quick
def test_span_f1_equals_conlleval(case):
    gold, pred = case
    if not any(gold): return
    lines = [line for g, p in zip(gold, pred) for line in [*(f'w {a} {b}' for a, b in zip(g, p)), '-X- O O']]
    all_ = conlleval(lines)['overall']['chunks']
    counts, ours = span_counts(pred, gold), micro_f1(span_counts(pred, gold))
    assert counts.sum(0).tolist() == [all_['stats'][k] for k in ('correct', 'pred', 'gold')]
    assert ours['f1'] == pytest.approx(all_['evals']['f1']) and ours['recall'] == pytest.approx(all_['evals']['rec'])


def test_span_f1_on_known_cases():
    assert spans(['I-A', 'I-A', 'O', 'I-B', 'I-A', 'B-A', 'B-A']) == [('A', 0, 2), ('B', 3, 4), ('A', 4, 5), ('A', 5, 6), ('A', 6, 7)]
    assert micro_f1(span_counts([[]], [[]])) == dict(f1=0., precision=0., recall=0.)
    assert span_counts([['B-A', 'I-A']], [['B-A', 'B-A']]).tolist() == [[0, 1, 2]], 'overlapping spans are not half right'
    assert span_counts([['B-A', 'B-B']], [['B-A', 'B-B']], kind='B').tolist() == [[1, 1, 1]]
    with pytest.raises(XltError, match='1 tags of sentence 0 predicted, 2 expected'): span_counts([['O']], [['O', 'O']])


# The published scripts, step by step: SQuAD's evaluate-v1.1 and MLQA's evaluation_v1.
MLQA_PUNCT = {chr(i) for i in range(sys.maxunicode) if __import__('unicodedata').category(chr(i)).startswith('P')} | set(string.punctuation)
MLQA_ARTICLES = dict(en=r'\b(a|an|the)\b', es=r'\b(un|una|unos|unas|el|la|los|las)\b', vi=r'\b(của|là|cái|chiếc|những)\b',
                     de=r'\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b', ar='\\sال^|ال')


def squad_normal(s):
    s = ''.join(ch for ch in s.lower() if ch not in set(string.punctuation))
    return ' '.join(re.sub(r'\b(a|an|the)\b', ' ', s).split())


def mixed_segments(text):
    out, word = [], ''
    for ch in text:
        if re.search(r'[\u4e00-\u9fa5]', ch) or ch in MLQA_PUNCT:
            if word != '': out.extend(word.split()); word = ''
            out.append(ch)
        else: word += ch
    if word != '': out.extend(word.split())
    return out


def mlqa_normal(s, lang):
    s = ''.join(ch for ch in s.lower() if ch not in MLQA_PUNCT)
    if lang in MLQA_ARTICLES: s = re.sub(MLQA_ARTICLES[lang], ' ', s)
    return ' '.join(t for t in (mixed_segments(s) if lang == 'zh' else s.split()) if t.strip() != '')


def published(pred, golds, normal):
    def f1(a, b):
        x, y = normal(a).split(), normal(b).split()
        same = sum((collections.Counter(x) & collections.Counter(y)).values())
        if same == 0: return 0
        p, r = same/len(x), same/len(y)
        return 2*p*r/(p+r)
    return max(f1(pred, g) for g in golds), max(float(normal(pred) == normal(g)) for g in golds)


NASTY = ['', 'The', 'a', 'the  a an', '24–10', '24-10', '«Ла-Манш»', 'L’Équipe', "l'équipe", 'Die  Broncos', 'die Broncos.', '丹佛野马队', '丹佛 野马队', '丹佛Broncos队，',
         '（2016年）', 'ال', 'الكتاب', 'في الكتاب', 'những cái của', 'El Niño', 'el niño', 'İstanbul', 'STRASSE', 'straße', 'e\u0301', 'é', '\u3000全角　空白', 'a\u00a0b', 'ก ข', 'กข', '𝕏', '$1.5', '1,5 €', 'ﬁ']
words = st.one_of(st.sampled_from(NASTY), st.text(max_size=12), st.lists(st.sampled_from([*NASTY, 'x', 'the', 'y']), max_size=5).map(' '.join))


@given(words, st.lists(words, min_size=1, max_size=3))
@quick
def test_squad_scores_equal_the_published_script(pred, golds):
    assert answer_score(pred, golds) == pytest.approx(published(pred, golds, squad_normal))


@given(words, st.lists(words, min_size=1, max_size=3), st.sampled_from(['en', 'es', 'hi', 'vi', 'de', 'ar', 'zh']))
@quick
def test_mlqa_scores_equal_the_published_script(pred, golds, lang):
    assert answer_score(pred, golds, 'mlqa', lang) == pytest.approx(published(pred, golds, lambda s: mlqa_normal(s, lang)))


def test_every_nasty_pair_equals_the_published_scripts():
    for a in NASTY:
        assert ' '.join(answer_words(a)) == squad_normal(a)
        for lang in ('en', 'es', 'hi', 'vi', 'de', 'ar', 'zh'): assert ' '.join(answer_words(a, 'mlqa', lang)) == mlqa_normal(a, lang)
        for b in NASTY: assert answer_score(a, [b]) == pytest.approx(published(a, [b], squad_normal))


def test_answers_that_cannot_be_scored():
    with pytest.raises(XltError, match='without a right answer'): answer_score('x', [])
    with pytest.raises(XltError, match="unknown language of the MLQA scorer 'ru'"): answer_score('x', ['y'], 'mlqa', 'ru')
    with pytest.raises(XltError, match="unknown scorer"): answer_score('x', ['y'], 'squad2')


def pairs(labels, ids=None): return make_rows([dict(id=i, text='a', text2='b', label=y) for i, y in zip(ids or map(str, range(99)), labels)], 'pair', ('no', 'yes'))


def task(kind='pair', labels=('no', 'yes'), **langs): return Task('t', kind, {l: DatasetDict(test=r) for l, r in langs.items()}, labels)


def test_crossed_joins_on_id_whatever_the_order():
    t = task(en=pairs(['yes', 'no', 'yes'], ['a', 'b', 'c']), de=pairs(['yes', 'yes', 'yes'], ['c', 'b', 'x']))
    assert t.crossed('en', 'de')['id'][:] == ['c'], 'b disagrees on the label; a and x have no partner'
    assert t.crossed('de', 'de') is t.rows('de')
    with pytest.raises(XltError, match='not parallel'): task(en=pairs(['yes'], ['a']), de=pairs(['yes'], ['b'])).crossed('en', 'de')
    with pytest.raises(XltError, match='only pair tasks'): task('retrieve', (), en=make_rows([dict(id='1', text='x')], 'retrieve')).crossed('en', 'en')


def test_scores_by_kind():
    y = ['yes', 'no', 'yes']
    t = task(en=pairs(y))
    assert t.score(np.array([1, 0, 0]), t.rows('en')) == {'accuracy': pytest.approx(2/3)} and t.score(y, t.rows('en')) == {'accuracy': 1.}
    for labels, tags, pred, want in ((('O', 'B-A', 'I-A'), [1, 2, 0], [1, 0, 0], {'f1': 0., 'precision': 0., 'recall': 0.}), (('NOUN', 'VERB'), [0, 1, 1], [0, 1, 0], {'accuracy': pytest.approx(2/3)})):
        t = task('tag', labels, en=make_rows([dict(id='1', tokens=list('abc'), tags=tags)], 'tag', labels))
        assert t.score([pred], t.rows('en')) == want and t.item_counts([tags], t.rows('en'))[0, 0] == t.item_counts([tags], t.rows('en'))[0, 2]
    qa = make_rows([dict(id='1', question='q', context='c d', answers=dict(text=['c d'], answer_start=[0]))], 'span')
    t = task('span', (), en=qa)
    assert t.score(['c'], qa) == {'f1': pytest.approx(2/3), 'em': 0.} and t.item_scores(['c'], qa) == [pytest.approx(2/3)]


def test_mean_of_items_is_the_score():
    rng = np.random.default_rng(0)
    t = task(en=pairs(list(rng.choice(['no', 'yes'], 50))))
    pred = rng.integers(0, 2, 50)
    assert np.mean(t.item_scores(pred, t.rows('en'))) == pytest.approx(t.score(pred, t.rows('en'))['accuracy'])


@pytest.mark.parametrize('labels', [('O', 'B-X', 'I-X'), ('N', 'V', 'A')], ids=['spans', 'words'])
def test_mean_of_what_sentences_pull_is_the_score(labels):
    rng = np.random.default_rng(0)
    tags = [list(rng.integers(0, 3, n)) for n in rng.integers(1, 9, 40)]
    rows = make_rows([dict(id=str(i), tokens=['w']*len(x), tags=[int(t) for t in x]) for i, x in enumerate(tags)], 'tag', labels)
    t = task('tag', labels, en=rows)
    pred = [[int(rng.choice([x, 0])) for x in xs] for xs in tags]
    score = t.score(pred, rows)
    assert 0 < next(iter(score.values())) < 1 and np.mean(t.item_scores(pred, rows)) == pytest.approx(next(iter(score.values())))


def test_random_spans_are_words_of_the_context_and_as_long_as_answers():
    ask = lambda c, n: dict(id='1', question='q', context=c, answers=dict(text=[' '.join(c.split()[:n])], answer_start=[0]))
    words = ' '.join(f'w{i}' for i in range(40))
    rows, like = make_rows([ask(words, 1)]*400, 'span'), make_rows([ask(words, 2), ask(words, 6)], 'span')
    got = random_spans(rows, like, seed=1)
    assert all(g in words for g in got) and {len(g.split()) for g in got} == {2, 6}
    first = np.array([int(g.split()[0][1:]) for g in got])
    assert first.min() == 0 and first.max() == 38 and 16 < first.mean() < 20, 'every start is as likely'
    assert got == random_spans(rows, like, seed=1) != random_spans(rows, like, seed=2)
    zh = make_rows([dict(id='1', question='q', context='丹佛野马队赢得了比赛', answers=dict(text=['丹佛'], answer_start=[0]))], 'span')
    assert [len(s) for s in random_spans(zh, zh)] == [2], 'characters where there are no spaces'
    assert random_spans(make_rows([ask('', 0)], 'span'), like) == ['']
    with pytest.raises(XltError, match='training answers'): random_spans(rows, like.select([]))


def test_mlqa_needs_the_language():
    qa = {l: make_rows([dict(id='1', question='q', context='die Stadt', answers=dict(text=['die Stadt'], answer_start=[0]))], 'span') for l in ('en', 'de')}
    t = Task('mlqa', 'span', {l: DatasetDict(test=r) for l, r in qa.items()}, scorer='mlqa')
    assert t.score(['Stadt'], t.rows('de'))['em'] == 1 and t.score(['Stadt'], t.rows('en'))['em'] == 0, 'articles by language'
    part = t.rows('de').select([0])
    assert t.score(['Stadt'], part, lang='de')['em'] == 1
    with pytest.raises(XltError, match='pass lang='): t.score(['Stadt'], part)


def test_bad_input_is_named():
    t = task(en=pairs(['yes']), de=pairs(['no']))
    with pytest.raises(XltError, match="did you mean 'de'"): t.rows('dee')
    with pytest.raises(XltError, match="unknown split"): t.rows('en', 'dev')
    with pytest.raises(XltError, match='no rows to score'): t.score([], t.rows('en').select([]))
    with pytest.raises(XltError, match="unknown predicted label 'maybe'"): t.score(['maybe'], t.rows('en'))
    for n in (2, 1.5):
        with pytest.raises(XltError, match='has 1: choose from 1 to 1'): t.take(n, 'test')
    with pytest.raises(XltError, match="label of a pair task -1"): pairs([-1])
    for tokens, what in ((['a', 'b'], "row '1' has 2 tokens and 3 tags"), (None, 'rows have no tokens'), (['a', 3, 'b'], 'do not have the columns')):
        with pytest.raises(XltError, match=what): make_rows([dict(id='1', tokens=tokens, tags=['O']*3)], 'tag', ('O',))
    with pytest.raises(XltError, match="do not have the columns of a pair task: 'text2'"): make_rows([dict(id='1', text='a', label='no')], 'pair', ('no',))
    for text, what in ((None, 'have no text'), (3, 'do not have the columns')):
        with pytest.raises(XltError, match=what): make_rows([dict(id='1', text=text)], 'retrieve')
    with pytest.raises(XltError, match="unknown language of t 'en'"): task(de=pairs(['no']))
    with pytest.raises(XltError, match='columns are'): task('classify', en=pairs(['no']))
    with pytest.raises(XltError, match='the names of label are'): task(labels=('yes', 'no'), en=pairs(['no']))


def test_take_is_seeded_nested_and_leaves_the_rest():
    rows = pairs(['yes', 'no']*10)
    t = Task('t', 'pair', dict(en=DatasetDict(train=rows, test=rows), de=DatasetDict(train=rows)), ('no', 'yes'))
    a, b = t.take(5), t.take(9)
    assert a.rows('en', 'train')['id'][:] == b.rows('en', 'train')['id'][:5] != t.take(5, seed=1).rows('en', 'train')['id'][:]
    assert len(a.rows('en')) == len(a.rows('de', 'train')) == 20


def test_a_fingerprint_of_one_language():
    t = task(en=pairs(['yes']), de=pairs(['no']))
    assert t.fingerprint('en') == t.fingerprint(('en',)) != t.fingerprint('de') != t.fingerprint()
    with pytest.raises(XltError, match="unknown language of t 'dee'; did you mean 'de'"): t.fingerprint(('en', 'dee'))


def test_loads_no_torch():
    code = 'import sys; from xltnb.tasks import hub, replacing, synonyms; print("torch" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, encoding='utf-8')
    assert done.stdout.strip() == 'False', done.stderr


def test_a_word_without_a_prediction_is_wrong():
    "udpos has no tag for nothing, so a word behind the cut cannot be given one"
    rows = make_rows([dict(id='0', tokens=['a', 'b'], tags=['ADJ', 'ADJ'])], 'tag', ('ADJ', 'NOUN'))
    t = Task('udpos', 'tag', dict(en=DatasetDict(test=rows)), ('ADJ', 'NOUN'))
    assert t.score([[0, -1]], rows) == {'accuracy': .5} and t.score([['ADJ', 'ADJ']], rows) == {'accuracy': 1.}
    rows = make_rows([dict(id='0', tokens=['a', 'b'], tags=['B-X', 'O'])], 'tag', ('O', 'B-X', 'I-X'))
    t = Task('ner', 'tag', dict(en=DatasetDict(test=rows)), ('O', 'B-X', 'I-X'))
    assert t.score([[1, -1]], rows)['f1'] == 1


@pytest.mark.parametrize('wrong', [None, float('nan'), float('inf'), 1.7, 2, -2])
def test_a_prediction_that_is_no_label(wrong):
    t = task(en=pairs(['yes']))
    with pytest.raises(XltError, match=f'predicted label {wrong} is outside 0..1'): t.score([wrong], t.rows('en'))
    rows = make_rows([dict(id='0', tokens=['a'], tags=['O'])], 'tag', ('O', 'B-X'))
    with pytest.raises(XltError, match='is outside 0..1'): task('tag', ('O', 'B-X'), en=rows).score([[wrong]], rows)
    with pytest.raises(XltError, match='prediction of row 1 is .* wants a list of tags'): task('tag', ('O', 'B-X'), en=rows).score([wrong], rows)
    assert t.score([np.float64(1)], t.rows('en')) == t.score(['yes'], t.rows('en')), 'a whole number of any type is an id'


def test_an_answer_is_a_string():
    qa = make_rows([dict(id='1', question='q', context='c d', answers=dict(text=['c d'], answer_start=[0]))], 'span')
    with pytest.raises(XltError, match='prediction of row 1 is None: a span task wants a string'): task('span', (), en=qa).score([None], qa)


# -- a user's own data --

def test_own_files_of_every_ending(tmp_path):
    rows = [dict(id='7', text='a, "b"', label='yes'), dict(id='8', text='c', label='no')]
    (tmp_path/'a.csv').write_text('\ufeffid,text,label,other\n7,"a, ""b""",yes,x\n8,c,no,y\n', encoding='utf-8')
    (tmp_path/'a.tsv').write_text('id\ttext\tlabel\n7\ta, "b"\tyes\n8\tc\tno\n', encoding='utf-8')
    (tmp_path/'a.jsonl').write_text('{"id": "7", "text": "a, \\"b\\"", "label": "yes"}\n\n{"id": "8", "text": "c", "label": "no"}\n', encoding='utf-8')
    Dataset.from_list(rows).to_parquet(tmp_path/'a.parquet')
    for end in ('csv', 'tsv', 'jsonl', 'parquet'): assert read_own(tmp_path/f'a.{end}') == rows, end
    for name, text in (('b.csv', ''), ('b.jsonl', '{'), ('c.jsonl', '[1]'), ('b.parquet', 'version https://git-lfs'), ('b.tsv', 'a\tb\n1\t2\t3\t4\n1\n')):
        (tmp_path/name).write_text(text, encoding='utf-8')
        if name != 'b.tsv':
            with pytest.raises(XltError, match='cannot read .*'+name): read_own(tmp_path/name)
    (tmp_path/'latin.csv').write_bytes('text\nschön\n'.encode('latin-1'))
    with pytest.raises(XltError, match='cannot read'): read_own(tmp_path/'latin.csv')


def test_own_files_in_folders_of_languages(tmp_path):
    for f in ('en/train.csv', 'en/test.csv', 'pt-br/test.csv', 'notes/readme.csv'):
        (tmp_path/f).parent.mkdir(exist_ok=True)
        (tmp_path/f).write_text('text,label\na,1\nb,0\n', encoding='utf-8')
    found = find_own(tmp_path, '{lang}/{split}.csv')
    assert {l: set(s) for l, s in found.items()} == {'en': {'train', 'test'}, 'pt-br': {'test'}}
    t = own_task('own', 'classify', found)
    assert t.labels == ('0', '1') and t.rows('pt-br')['label'][:] == [1, 0] and t.languages == ('en', 'pt-br')


def test_own_datasets_lists_and_kinds():
    typed = Features(text=Value('string'), label=ClassLabel(names=['no', 'yes']))
    data = Dataset.from_list([dict(text='a', label=1), dict(text='b', label=0)], features=typed)
    t = own_task('own', 'classify', dict(en=DatasetDict(train=data, test=data)), labels=('yes', 'no'))
    assert t.rows('en')['label'][:] == [0, 1], 'labels by name, whatever their order in the file'
    with pytest.raises(XltError, match='row 1 of own, en, test has no label: fill it in'):
        own_task('own', 'classify', dict(en=dict(train=data, test=[dict(text='a', label=None)])))
    ret = own_task('own', 'retrieve', dict(en=dict(test=[dict(id='1', text='one')]), de=dict(test=[dict(id='1', text='eins')])))
    assert ret.aligned('de')[1]['text'][:] == ['one'] and ret.labels == ()
    qa = own_task('own', 'span', dict(de=dict(test=[dict(question='q', context='c d', answers=dict(text=['d'], answer_start=[2]))])), source='de')
    assert qa.score(['d'], qa.rows('de'))['em'] == 1
    ner = own_task('own', 'tag', dict(en=dict(train=[dict(tokens=['a', 'b'], tags=['B-X', 'O'])])))
    assert ner.labels == ('O', 'B-X', 'I-X') and ner.metric == 'span_f1'
    with pytest.raises(XltError, match='name the labels'): own_task('own', 'classify', dict(en=dict(test=[dict(text='a', label='x')])))


# -- data that cannot be right --

def texts(word, n=30, shift=0): return [dict(id=f'r{i+shift}', text=f'{word} {i}', label='ab'[i % 2]) for i in range(n)]


def mine(kind='classify', **langs):
    "A task, and its warnings"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        t = own_task('mine', kind, langs)
    return t, [str(w.message) for w in told if w.category is UserWarning]


EN = dict(train=texts('A train'), test=texts('A test'))


def test_data_that_can_be_right_is_not_spoken_of():
    t, told = mine(en=EN, de=dict(test=texts('Ein Test')), fr=dict(test=texts('Un test')[:25] + texts('A test')[25:27]))
    assert not told and not t.notes, '2 of 27 texts are names that all languages share'


def test_one_language_twice_is_refused(tmp_path):
    for name, word in (('de', 'A test'), ('fr', 'Un test')): (tmp_path/f'{name}.csv').write_text('id,text,label\n' + ''.join(f'{r["id"]},{r["text"]},{r["label"]}\n' for r in texts(word)), encoding='utf-8')
    with pytest.raises(XltError, match=r'mine: all 30 texts of de test \(.*de.csv\) stand in en test too: scores of de would be those of en; put the file of de there, or leave de out'):
        mine(en=EN, de=dict(test=tmp_path/'de.csv'))
    with pytest.raises(XltError, match=r'fr.csv is given for fr and for it: give each language its own file'): mine(en=EN, fr=dict(test=tmp_path/'fr.csv'), it=dict(test=str(tmp_path/'fr.csv')))
    with pytest.raises(XltError, match='all 30 texts of it test stand in fr test .* scores of it would be those of fr'): mine(en=EN, fr=dict(test=tmp_path/'fr.csv'), it=dict(test=texts('Un test')))
    with pytest.raises(XltError, match='all 30 texts of de test stand in en train too'): mine(en=EN, de=dict(test=texts('A train')))


def test_odd_data_is_one_warning_with_files_and_counts(tmp_path):
    f = tmp_path/'de.jsonl'
    f.write_text('\n'.join(json.dumps(r) for r in texts('Ein Test', 26)[:20] + texts('A test')[20:26] + [dict(id='r27', text=' ', label='a')]*4), encoding='utf-8')
    t, told = mine(en=EN, de=dict(test=f), it=dict(test=texts('Un', 5)))
    what = f'de test ({f})'
    assert t.notes == (f'the text of 4 of 30 rows of {what} is blank', f'3 of 30 rows of {what} have the id of another row', f'6 of 30 texts of {what} stand in en test too')
    assert told == ['mine: ' + '; '.join(t.notes)]


def test_tests_that_were_trained_on_are_told():
    t, told = mine(en=dict(train=texts('A'), test=texts('A'), validation=texts('A', 5)))
    assert t.notes == ('5 of 5 texts of en validation stand in en train too', '30 of 30 texts of en test stand in en train too', '5 of 30 texts of en test stand in en validation too') and len(told) == 1


def test_ids_that_cannot_be():
    with pytest.raises(XltError, match="all 30 rows of de test have the id 'x': give each its own"): mine(en=EN, de=dict(test=[{**r, 'id': 'x'} for r in texts('Ein')]))
    pair = lambda word, **kw: dict(test=[dict(r, text2='b') for r in texts(word, **kw)])
    en = dict(pair('A'), train=pair('B')['test'])
    t, told = mine('pair', en=en, de=pair('Ein'), fr=pair('Un', shift=20))
    assert t.notes == ('10 of 30 ids of fr test are among those of en test',) and len(told) == 1
    t, _ = mine('pair', en=en, fr=pair('Un', shift=40))
    assert t.notes == ('0 of 30 ids of fr test are among those of en test',)
    with pytest.raises(XltError, match='mine: 0 of 30 ids of fr test are among those of en test: a sentence and its translation must have the same id'):
        mine('retrieve', en=dict(test=texts('A')), fr=dict(test=texts('Un', shift=40)))
    t, _ = mine(en=EN, de=dict(test=texts('Ein')), fr=dict(test=texts('Un', shift=40)))
    assert t.notes == ('0 of 30 ids of fr test are among those of en test',), 'German shows that the rows are translations'
    assert not mine(en=EN, fr=dict(test=texts('Un', shift=40)))[1], 'nothing says that they are'


def test_blank_questions():
    ask = lambda *qs: dict(test=[dict(id=str(i), question=q, context=f'c {i}', answers=dict(text=['c'], answer_start=[0])) for i, q in enumerate(qs)])
    assert mine('span', en=ask('Who?', ' ', 'What?'))[1] == ['mine: the question of 1 of 3 rows of en test is blank']
    with pytest.raises(XltError, match='mine: the question of all 2 rows of de test is blank: put another file there'): mine('span', en=ask('Who?', 'What?'), de=ask('', ' '))


def test_words_of_another_language():
    tagged = lambda *ws: dict(train=[dict(id=str(i), tokens=[w], tags=['O']) for i, w in enumerate(ws)])
    with pytest.raises(XltError, match="the words of de train begin with 'fr:', another language: put the file of de there"):
        mine('tag', en=tagged('the', 'house'), de=tagged('fr:la', 'fr:maison'), fr=tagged('le', 'mot'))
    assert mine('tag', en=tagged('the', 'house'), de=tagged('de:das', 'de:Haus'))[1] == ["mine: the words of de train begin with 'de:': drop it, or no encoder will know them"]
    with pytest.raises(XltError, match="de train has the unknown label 'fr:O'"):
        own_task('mine', 'tag', dict(en=tagged('the'), de=dict(train=[dict(tokens=['das'], tags=['fr:O'])])))


TWO = dict(label=dict(text='a', label='x', intent='y'), text=dict(text='a', premise='b', label='x'), tags=dict(tokens=['a'], pos_tags=['X'], ner_tags=['O']))


@pytest.mark.parametrize('what', TWO)
@pytest.mark.parametrize('how', ['list', 'jsonl', 'parquet', 'table', 'csv', 'tsv'])
def test_two_columns_for_one_field(tmp_path, what, how):
    row, f = TWO[what], tmp_path/f'a.{how}'
    if what == 'tags' and how in ('csv', 'tsv'): return
    if how == 'jsonl': f.write_text(json.dumps(row), encoding='utf-8')
    if how == 'parquet': Dataset.from_list([row]).to_parquet(f)
    if how in ('csv', 'tsv'): f.write_text('\n'.join('\t,'[how == 'csv'].join(x) for x in (row, row.values())), encoding='utf-8')
    given = dict(list=[row], table=Dataset.from_list([row])).get(how, f)
    with pytest.raises(XltError, match=f"columns '.*' and '.*' both hold the {what} and differ .*: keep one of them") as e: own_task('mine', 'tag' if what == 'tags' else 'classify', dict(en=dict(train=given)))
    assert (str(f) if given is f else 'mine, en, train') in str(e.value)


def test_one_column_name_twice(tmp_path):
    import pandas as pd
    (tmp_path/'a.csv').write_text('text,label,label\na,x,y\n', encoding='utf-8')
    (tmp_path/'a.jsonl').write_text('{"text": "a", "label": "x", "label": "y"}\n', encoding='utf-8')
    for f in ('a.csv', 'a.jsonl'):
        with pytest.raises(XltError, match=f"{f}: the column 'label' stands twice"): read_own(tmp_path/f)
    with pytest.raises(XltError, match="mine, en, train: the column 'label' stands twice"):
        own_task('mine', 'classify', dict(en=dict(train=pd.DataFrame([['a', 'x', 'y']], columns=['text', 'label', 'label']))))
    assert read_own(tmp_path/'a.csv') if (tmp_path/'a.csv').write_text('text,label,intent\na,x,x\n', encoding='utf-8') else False, 'two columns that agree are one'


def test_rows_without_what_training_needs():
    with pytest.raises(XltError, match=r"row 2 of mine, en, train has no label: add a column gold_label or label or intent \(or name yours, columns=.'label': ....\), or drop the row"): own_task('mine', 'classify', dict(en=dict(train=[dict(text='a', label='x'), dict(text='b')])))
    with pytest.raises(XltError, match='mine, en, train, row 1 has no tokens: cut its slots'): own_task('mine', 'tag', dict(en=dict(train=[dict(utt='a b', annot_utt='a [x : b]')])))


# -- what a stranger's rows may hold

def test_whole_numbers_are_names_in_every_format(tmp_path):
    "Twelve classes, a number in one file and a text in another: both are one class"
    def jsonl(word, n): return '\n'.join(json.dumps(dict(text=f'{word} {i}', label=i % 12)) for i in range(n))
    (tmp_path/'tr.jsonl').write_text(jsonl('train', 60), encoding='utf-8'), (tmp_path/'te.jsonl').write_text(jsonl('test', 36), encoding='utf-8')
    (tmp_path/'de.csv').write_text('text,label\n'+'\n'.join(f'prüfe {i},{i % 12}' for i in range(36)), encoding='utf-8')
    for labels in ((), tuple(map(str, range(12))), range(12)):
        t = own_task('t', 'classify', dict(en=dict(train=tmp_path/'tr.jsonl', test=tmp_path/'te.jsonl'), de=dict(test=tmp_path/'de.csv')), labels=tuple(labels))
        assert t.labels == tuple(map(str, range(12))) and t.rows('de')['label'] == t.rows('en')['label'] and t.score(t.rows('en')['label'], t.rows('de')) == dict(accuracy=1.)
    stars = [dict(text=f'so {i}', label=i % 5+1) for i in range(20)]
    t = own_task('t', 'classify', dict(en=dict(train=stars, test=[dict(text='a', label=5), dict(text='b', label='1')])))
    assert t.labels == tuple('12345') and t.rows('en')['label'][:] == [4, 0]
    t = own_task('t', 'classify', dict(en=dict(train=[dict(text='a', label=1), dict(text='b', label='no')])), labels=('no', 'yes'))
    assert t.rows('en', 'train')['label'][:] == [1, 0], 'among words a number is an id'
    t = own_task('t', 'tag', dict(en=dict(train=[dict(tokens=list('abc'), tags=[10, 9, 2])])))
    assert t.labels == ('2', '9', '10') and t.rows('en', 'train')['tags'][0] == [2, 1, 0]


@pytest.mark.parametrize('text,says', [
    ('text,label\nq 1,a\nq 2,\nq 3,b\n', 'row 2 of t, en, train .*e.csv. has no label'), ('text,label\nq 1,a\nq 2\nq 3,b\n', 'line 3 has 1 of the 2 fields'), ('text,label\nq 1\nq 2\n', 'line 2 has 1 of the 2'),
    ('text,label\nq 1,a\n"q 2,b\n', 'cannot read .*e.csv: the row that begins in line 3: unexpected end of data'), ('', 'it is empty')])
def test_a_row_without_a_label_is_no_class(tmp_path, text, says):
    (tmp_path/'e.csv').write_text(text, encoding='utf-8')
    with pytest.raises(XltError, match=says): own_task('t', 'classify', dict(en=dict(train=tmp_path/'e.csv')))


def test_answers_of_own_questions_stand_where_they_say():
    def ask(*answers): return [dict(id=str(i), question=f'q {i}', context='die rote Stadt', answers=dict(text=[t], answer_start=[at])) for i, (t, at) in enumerate(answers)]
    with pytest.warns(UserWarning, match='en, train: 2 answers moved'):
        t = own_task('qa', 'span', dict(en=dict(train=ask(('rote', 4), ('Stadt', 0), ('Stadt', -1), ('Dorf', 0), (' ', 0)), test=ask(('Dorf', 3), ('die', 0)))))
    assert [a['answer_start'] for a in t.rows('en', 'train')['answers']] == [[4], [9], [9]] and [a['answer_start'] for a in t.rows('en')['answers']] == [[-1], [0]]
    assert sum('dropped' in n for n in t.notes) == 2 and any('kept for the score' in n for n in t.notes)
    with pytest.raises(XltError, match='all answers are empty'): own_task('qa', 'span', dict(en=dict(train=ask((' ', 0)))))


def test_the_number_of_a_repeated_id_is_no_other_id():
    rows = lambda *ids: [dict(id=i, text=f'{i} {k}', label='ab'[k % 2]) for k, i in enumerate(ids)]
    with pytest.raises(XltError, match="2 rows of de test have the id 'a', and 'a#2' is the id of another row"):
        own_task('t', 'classify', dict(en=dict(train=rows('a', 'a#2', 'b')), de=dict(test=rows('a', 'a', 'c'))))
    assert own_task('t', 'classify', dict(en=dict(train=rows('a', 'a', 'b')))).rows('en', 'train')['id'][:] == ['a', 'a#2', 'b']


def test_a_split_of_another_name_is_told(tmp_path):
    for n in ('train-en', 'devel-en', 'readme-en', 'test-de'): (tmp_path/f'{n}.csv').write_text('text,label\na,b\n', encoding='utf-8')
    with pytest.warns(UserWarning, match='devel-en.csv is left out: splits are called train, validation, test, dev'): found = find_own(tmp_path)
    assert {l: [*s] for l, s in found.items()} == dict(en=['train'], de=['test'])


@pytest.mark.parametrize('name', ['dev', 'valid', 'val', 'DEV'])
def test_dev_is_validation(tmp_path, name):
    rows = [dict(text=f'{i}', label='ab'[i % 2]) for i in range(4)]
    for n in ('train-en', f'{name}-en'): (tmp_path/f'{n}.csv').write_text(f'text,label\n{n},b\n{n} too,c\n', encoding='utf-8')
    assert {*find_own(tmp_path)['en']} == {*own_task('t', 'classify', tmp_path).data['en']} == {'train', 'validation'}
    if name.islower():
        assert len(own_task('t', 'classify', dict(en={'train': rows, name: rows[:1]})).rows('en', 'validation')) == 1
        with pytest.raises(XltError, match='are one split: keep one'): own_task('t', 'classify', dict(en={'train': rows, 'validation': rows, name: rows}))
    (tmp_path/'validation-en.csv').write_text('text,label\na,b\n', encoding='utf-8')
    with pytest.raises(XltError, match='are both validation in en'): find_own(tmp_path)


def test_capitals_in_names_of_columns(tmp_path):
    "Unless another column has the name, or the user names the column"
    rows = [dict(Text=f'{i}', LABEL='ab'[i % 2], Note=1) for i in range(4)]
    (tmp_path/'a.csv').write_text('Text;LABEL;Note\n'+''.join(f'{i};{"ab"[i % 2]};1\n' for i in range(4)), encoding='utf-8')
    (tmp_path/'a.jsonl').write_text('\n'.join(map(json.dumps, rows)), encoding='utf-8')
    table = Dataset.from_list(rows).cast_column('LABEL', ClassLabel(names=['b', 'a']))
    table.to_parquet(tmp_path/'a.parquet')
    for given in (tmp_path/'a.csv', tmp_path/'a.jsonl', tmp_path/'a.parquet', table, table.to_pandas().assign(LABEL=[*'abab']), rows):
        train = own_task('t', 'classify', dict(en=dict(train=given))).rows('en', 'train')
        assert train['text'][:] == [*'0123'] and [train.features['label'].int2str(i) for i in train['label']] == [*'abab']
    both = [r | dict(text='x'+r['Text']) for r in rows]
    assert own_task('t', 'classify', dict(en=dict(train=both))).rows('en', 'train')['text'][0] == 'x0'
    assert own_task('t', 'classify', dict(en=dict(train=rows)), columns=dict(text='Text')).rows('en', 'train')['text'][0] == '0'


@pytest.mark.parametrize('given,says', [
    (dict(en=[dict(text='a', label='b')]), 'list is no splits'), (dict(en={}), 'dict is no splits'), (dict(en=dict(train=None)), 'NoneType holds no rows'), (dict(en=dict(train=['a', 'b'])), "row 1 is 'a': give a dict"),
    (dict(en=dict(train=5)), 'int holds no rows'), ({3: dict(train=[])}, '3 names no language'), ({'en ': dict(train=[])}, "'en ' names no language: write its code"), ({'': dict(train=[])}, 'names no language'), (dict(en=dict(train=[dict(text='\ud800', label='a'), dict(text='b', label='c')])), 'half a character'),
    (dict(en=dict(train=[dict(id='\ud800', text='a', label='a')])), 'half a character')])
def test_data_that_is_none_is_named(given, says):
    with pytest.raises(XltError, match=says): own_task('t', 'classify', given)


def test_what_a_file_may_hold_is_told_in_one_line(tmp_path):
    import os
    f = tmp_path/'a.jsonl'
    row = '{"text": "a", "label": %s}\n'
    for harm, says in ((row % '"\\ud800"', "cannot read .*line 1"), (row % ('['*99999), 'cannot read .*this is no JSON'), (row % ('9'*5000), 'cannot read .*this is no JSON')):
        f.write_text(harm, encoding='utf-8')
        with pytest.raises(XltError, match=says): own_task('t', 'classify', dict(en=dict(train=f)))
    os.mkfifo(tmp_path/'b.csv')
    with pytest.raises(XltError, match='a device or a pipe'): own_task('t', 'classify', dict(en=dict(train=tmp_path/'b.csv')))
    for kw, says in ((dict(kind='clasify'), "did you mean 'classify'"), (dict(labels=('a', 'a')), "the label 'a' stands twice"), (dict(source='fr'), "unknown language of t 'fr'")):
        with pytest.raises(XltError, match=says): own_task('t', **dict(dict(kind='classify', data=dict(en=dict(train=[dict(text='a', label='a')]))), **kw))
    (tmp_path/'A.JSONL').write_text(row % '"x"'+row % '"y"', encoding='utf-8')
    assert len(read_own(tmp_path/'A.JSONL')) == 2


# ---- runs are keyed by what a user brings

def put_squad(folder, langs=('en', 'de'), word='a'):
    folder.mkdir(parents=True, exist_ok=True)
    for l in langs:
        qas = [dict(id='1', question='q', answers=[dict(text=word, answer_start=0)])]
        (folder/f'xquad.{l}.json').write_text(json.dumps(dict(data=[dict(title='T', paragraphs=[dict(context=f'{word} b', qas=qas)])])), encoding='utf-8')


def test_runs_of_a_published_set_are_keyed_by_the_files(tmp_path, monkeypatch):
    from xltnb.papers.baselines.experiments import BaselineCfg
    from xltnb.runs.experiments import Ctx, call_job, make_job
    job = lambda: make_job('xquad', 'baselines.finetune', BaselineCfg('xquad', langs=('en', 'de')), 0)
    none = job()
    assert none.inputs == {} and none.waits == 'XLTNB_XQUAD'
    keys = {}
    for name, langs, word in (('a', ('en', 'de'), 'a'), ('b', ('en', 'de'), 'b'), ('copy', ('en', 'de'), 'a'), ('half', ('en',), 'a')):
        put_squad(tmp_path/name, langs, word)
        monkeypatch.setenv('XLTNB_XQUAD', str(tmp_path/name))
        keys[name] = job().key
    assert keys['a'] == keys['copy'] != keys['b'] and keys['half'] == none.key, 'rows count, not where they lie; what cannot run has no key of its own'
    monkeypatch.setenv('XLTNB_XQUAD', str(tmp_path/'a'))
    planned = job()
    put_squad(tmp_path/'a', word='c')
    assert job().key not in keys.values()
    with pytest.raises(XltError, match='the data of this run is not what it was planned with'): call_job(planned, Ctx(tmp_path))
    monkeypatch.setenv('XLTNB_XQUAD', str(tmp_path/'gone'))
    assert job().key == none.key


@pytest.mark.parametrize('name', ['xnli', 'pawsx', 'wikiann', 'tydiqa', 'udpos', 'mlqa', 'massive', 'tatoeba', 'bucc', 'wikipedia', 'cc100'])
def test_every_published_set_has_a_print(tmp_path, monkeypatch, name):
    "Each file that a run of two languages reads counts, and no other"
    from xltnb.tasks.catalog import PUBLISHED, data_print, folder_variable
    pub, langs = PUBLISHED[name], ('de', 'en') if name in ('wikipedia', 'cc100') else ('de',) if 'de' in PUBLISHED[name].languages else ('fi',)
    monkeypatch.setenv(folder_variable(name), str(tmp_path))
    assert data_print(name, langs) == ''
    for l in {*langs, 'en', 'sw'}:
        for s, patterns in pub.files.items():
            for part in pub.named(patterns[0].rpartition(':')[2], l).split('|'):
                (tmp_path/part.replace('*', 'x')).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path/part.replace('*', 'x')).write_text(f'{l} {s}', encoding='utf-8')
    whole = data_print(name, langs)
    assert len(whole) == 16 == len(data_print(name, langs))
    for f in sorted(p for p in tmp_path.rglob('*') if p.is_file()):
        before = f.read_bytes()
        f.write_bytes(before+b' more')
        read = any(f == tmp_path/part.replace('*', 'x') for l in {*langs, 'en'} for s, ps in pub.files.items() if l == 'en' or s != 'train' or pub.kind == 'text'
                   for part in pub.named(ps[0].rpartition(':')[2], l).split('|') if pub.kind != 'retrieve' or l != 'en')
        assert (data_print(name, langs) != whole) == read, f
        f.write_bytes(before)
    assert data_print(name, langs) == whole


def test_what_is_packaged_needs_no_print(monkeypatch):
    from xltnb.runs.experiments import jobs_for, papers
    for name in ('XQUAD', 'XNLI', 'PAWSX', 'METATEXT'): monkeypatch.delenv(f'XLTNB_{name}', raising=False)
    assert not [j for p in papers() for preset in ('smoke', 'laptop', 'gpu', 'paper') for j in jobs_for(p, preset) if j.inputs and 'invented' not in str(j.config)], 'what is invented names its version'


def test_the_real_xquad_is_what_the_committed_records_stand_on(request, monkeypatch):
    from xltnb.records.store import Store
    from xltnb.runs.experiments import jobs_for
    if not (folder := request.config.getoption('--xquad')): pytest.skip('--xquad DIR, a folder with the xquad.*.json files, tests on the real XQuAD')
    monkeypatch.setenv('XLTNB_XQUAD', folder)
    jobs, store = [j for j in jobs_for('baselines', 'laptop') if j.arm == 'xquad'], Store(committed=True)
    assert not any(j.inputs for j in jobs) and sum(store.has(j.key) for j in jobs) == 3


# -- files as they come: each shape of outside data by the call that the how-to shows --

PAIRS = [('the cat sleeps', 'a cat rests', '1'), ('the dog; it barks', 'a dog sings', '0'), ('it rains', 'it is wet', '1')]


@pytest.mark.parametrize('name, text, columns', [
    ('{s}-{l}.csv', 'nr;first;second;same\n{rows}', dict(id='nr', text='first', text2='second', label='same')),
    ('{s}-{l}.csv', '{rows}', dict(id=0, text=1, text2=2, label=3)), ('{l}/{s}.tsv', '{rows}', dict(text=1, text2=2, label=3)), ('{s}.{l}.tsv', 'id|sentence1|sentence2|same\n{rows}', dict(label='same'))])
def test_separators_names_and_files_without_a_header(tmp_path, name, text, columns):
    mark = '|' if '|' in text else ';' if name.endswith('csv') else '\t'
    quoted = lambda x: f'"{x}"' if name.endswith('csv') else x
    for l in ('en', 'de'):
        for s in ('train', 'test') if l == 'en' else ('test',):
            rows = ''.join(mark.join([f'{s}{i}', quoted(f'{l} {a}'), quoted(f'{s} {b}'), y])+'\n' for i, (a, b, y) in enumerate(PAIRS))
            f = tmp_path/name.format(s=s, l=l)
            f.parent.mkdir(exist_ok=True)
            f.write_text(text.format(rows=rows), encoding='utf-8')
    t = own_task('own', 'pair', f"{tmp_path}/{name.format(s='{split}', l='{lang}')}", columns=columns)
    assert t.languages == ('en', 'de') and t.labels == ('0', '1') and list(t.rows('de')['label']) == [1, 0, 1]
    assert t.rows('de')[1]['text'] == 'de the dog; it barks' and t.rows('en', 'train')[0]['text2'] == 'train a cat rests'


def test_tagged_and_answered_files_come_by_their_readers(tmp_path):
    from xltnb.tasks.formats import read_squad, read_tagged
    (tmp_path/'en.conll').write_text('Rome B-LOC\nsleeps O\n\nAnna B-PER\n', encoding='utf-8')
    qa = dict(data=[dict(title='t', paragraphs=[dict(context='Rome is old', qas=[dict(id='1', question='What is old?', answers=[dict(text='Rome', answer_start=0)])])])])
    (tmp_path/'en.json').write_text(json.dumps(qa), encoding='utf-8')
    ner = own_task('ner', 'tag', dict(en=dict(train=read_tagged(tmp_path/'en.conll'))))
    assert ner.labels == ('O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER')
    assert own_task('qa', 'span', dict(en=dict(test=read_squad(tmp_path/'en.json')))).rows('en')[0]['answers']['text'] == ['Rome']
    for file, reader in (('en.conll', 'read_tagged'), ('en.json', 'read_squad')):
        with pytest.raises(XltError, match=f'{file} is no table: read it with {reader} of xltnb.tasks.formats'): own_task('x', 'tag', dict(en=dict(train=tmp_path/file)))


@pytest.mark.parametrize('columns, says', [
    (dict(text='revue'), "no column 'revue': columns={...} may name nr . review . stars"), (dict(txt='review'), "did you mean 'text'"), (dict(text='review', label=2), 'mixes names and places'),
    (dict(text=-1), 'columns: text is -1'), (dict(text=True), 'text is True'), (dict(text=9, label=0), 'there is no column 9'), ('review', "columns is 'review': write"), (dict(text=None), 'text is None'), (dict(text=['review']), 'text is')])
def test_columns_that_cannot_be_are_told(tmp_path, columns, says):
    (tmp_path/'a.csv').write_text('nr,review,stars\n1,fine,5\n2,awful,1\n', encoding='utf-8')
    with pytest.raises(XltError, match=says) as e: own_task('own', 'classify', dict(en=dict(train=tmp_path/'a.csv')), columns=columns)
    assert '\n' not in str(e.value)


def test_class_numbers_in_files_of_strings(tmp_path):
    "A CSV says '1' where JSON says 1: both are the second of the labels that are named"
    (tmp_path/'a.csv').write_text('text,label\na,0\nb,1\n', encoding='utf-8')
    (tmp_path/'a.jsonl').write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n', encoding='utf-8')
    read = lambda f, labels: list(own_task('t', 'classify', dict(en=dict(train=tmp_path/f)), labels).rows('en', 'train')['label'])
    for f in ('a.csv', 'a.jsonl'): assert read(f, ('neg', 'pos')) == [0, 1]
    assert read('a.csv', ('1', '0')) == [1, 0] and read('a.csv', ('neg', '1', '0')) == [2, 1]
    with pytest.raises(XltError, match='label of a classify task'): read('a.csv', ('neg',))


def test_labels_keep_the_order_of_a_class_label(tmp_path):
    from datasets import List
    texts = Features(dict(text=Value('string'), label=ClassLabel(names=['pos', 'neg', 'none'])))
    rows = Dataset.from_list([dict(text=f'{i}', label=i % 2) for i in range(4)], features=texts)
    rows.to_parquet(tmp_path/'a.parquet')
    for given in (rows, tmp_path/'a.parquet', str(tmp_path/'a.parquet')):
        task = own_task('own', 'classify', dict(en=dict(train=given)))
        assert task.labels == ('pos', 'neg') and list(task.rows('en', 'train')['label']) == [0, 1, 0, 1]
    named = rows.rename_columns(dict(label='mood'))
    assert own_task('own', 'classify', dict(en=dict(train=named)), columns=dict(label='mood')).labels == ('pos', 'neg')
    assert own_task('own', 'classify', dict(en=dict(train=rows)), ('neg', 'pos')).labels == ('neg', 'pos')
    assert own_task('own', 'classify', dict(en=dict(train=list(rows.to_pandas().replace(dict(label={0: 'pos', 1: 'neg'})).to_dict('records'))))).labels == ('neg', 'pos')
    tagged = Features(dict(tokens=List(Value('string')), tags=List(ClassLabel(names=['B-PER', 'I-PER', 'O', 'B-LOC']))))
    assert own_task('own', 'tag', dict(en=dict(train=Dataset.from_list([dict(tokens=['a', 'b', 'c'], tags=[0, 2, 3])], features=tagged)))).labels == ('B-PER', 'I-PER', 'O', 'B-LOC', 'I-LOC')


@pytest.mark.parametrize('tags, told', [('B-PER I-PER O', False), ('b-per i-per o', True), ('PER PER O', True), ('B_PER I_PER O', True), ('PER-B PER-I O', True), ('B I O', False), ('NOUN VERB X', False)])
def test_tags_that_look_like_entities_and_are_none(tags, told):
    with warnings.catch_warnings(action='ignore'): task = own_task('own', 'tag', dict(en=dict(train=[dict(tokens=['a', 'b', 'c'], tags=tags.split())])))
    assert any('scored word by word: write O, B-PER' in n for n in task.notes) == told


def test_a_sentence_with_a_twin_is_noted():
    rows = lambda *xs: dict(test=[dict(text=x) for x in xs])
    with pytest.warns(UserWarning, match='1 of 3 texts of en, test stand there before: a neighbour of the same text'): own_task('own', 'retrieve', dict(en=rows('a b', 'a b', 'c'), de=rows('x', 'y', 'z')))


def test_labels_that_differ_one_class_ten_rows_and_an_empty_language(tmp_path):
    from test_trainer import net, tokenizer
    from xltnb.training.settings import FineCfg
    from xltnb.training.finetune import finetune
    rows = lambda n, labels, word='text': [dict(text=f'{word} {i}', label=labels[i % len(labels)]) for i in range(n)]
    task = lambda **langs: own_task('t', 'classify', langs)
    en = dict(train=rows(10, 'ab'), test=rows(4, 'ab', 'more'))
    with pytest.raises(XltError, match=r"labels are those of the training rows in en; de test has the unknown label 'x' and 1 more: .*labels="): task(en=en, de=dict(test=rows(4, 'xy', 'wort')))
    (tmp_path/'de.csv').write_text('text,label\n', encoding='utf-8')
    for given in ([], tmp_path/'de.csv'):
        with pytest.raises(XltError, match='t, de, test has no rows: leave the split out'): task(en=en, de=dict(test=given))
    with pytest.raises(XltError, match='t, de: dict is no splits'): task(en=en, de={})
    train = lambda t: finetune(t, FineCfg(steps=1), encoder=(net(), tokenizer()), progress=False)
    with pytest.raises(XltError, match='at least two labels'): train(task(en=dict(train=rows(10, 'a'))))
    assert set(train(task(en=en, de=dict(test=rows(4, 'ab', 'wort')))).zero_shot(progress=False).scores) == {'en', 'de'}


def test_spellings_of_ones_own_files(tmp_path):
    "A row whose quotes never close is named by the line where it begins; .CSV is an ending, en and EN are one language"
    (tmp_path/'train-en.CSV').write_text('text,label\na,x\n"b,y\nc,x\n', encoding='utf-8')
    (tmp_path/'test-de.csv').write_text('text,label\na,x\n', encoding='utf-8')
    assert set(find_own(tmp_path)) == {'en', 'de'}
    with pytest.raises(XltError, match='begins in line 3'): own_task('mine', 'classify', tmp_path)
    (tmp_path/'Train-en.csv').write_text('text,label\na,x\n', encoding='utf-8')
    with pytest.raises(XltError, match='are both train in en'): find_own(tmp_path)
    rows = [dict(text='a', label='x'), dict(text='b', label='y')]
    with pytest.raises(XltError, match='en is spelled in two ways'): own_task('mine', 'classify', {'en': dict(train=rows), 'EN': dict(test=rows)})


# -- tables as other programs write them --

@pytest.mark.parametrize('name, text, rows', [
    ('a.tsv', 'text\tlabel\n"he said ""hi"", \n twice"\ta\n"a\tb"\tb\n', [('he said "hi", \n twice', 'a'), ('a\tb', 'b')]),
    ('a.tsv', 'text\tlabel\n"Yes." he said\ta\n"a ""b"""\tb\n', [('"Yes." he said', 'a'), ('"a ""b"""', 'b')]),
    ('a.tsv', 'text\tlabel\n"No."\ta\n', [('"No."', 'a')]), ('a.tsv', '"text"\t"label"\r\n"No."\t"a"\r\n', [('No.', 'a')]),
    ('a.tsv', 'text,label\n"a, b",x\n', [('a, b', 'x')]), ('a.csv', 'text , label\r\nfoo, "a, b"\r\n', [('foo', 'a, b')]),
    ('a.csv', '\n\ntext,label\n\nfoo,a\n,\n,\n', [('foo', 'a')]), ('a.csv', '\ufefftext,label\rfoo\x01\u2028,a\r', [('foo\x01\u2028', 'a')]),
    ('a.jsonl', '[{"text": "foo", "label": "a"}]', [('foo', 'a')]), ('a.json', '[\n{"text": "foo", "label": "a"}\n]\n', [('foo', 'a')]),
    ('a.json', '{"text": "foo", "label": "a"}\r\n{"text": "bar", "label": "b"}\r\n', [('foo', 'a'), ('bar', 'b')])])
def test_tables_as_other_programs_write_them(tmp_path, name, text, rows):
    (tmp_path/name).write_bytes(text.encode())
    assert [(r['text'], r['label']) for r in read_own(tmp_path/name)] == rows


@pytest.mark.parametrize('name, text, says', [
    ('a.tsv', 'review,stars\na,1\n', "none is known: review . stars; write a line of names above the rows, or columns={'text'"), ('a.csv', 'a;b\n1;2\n', 'none is known: a . b'), ('a.jsonl', '"a"\n', "row 1 is 'a': write one object a line"),
    ('a.csv', '\n \n', 'it is empty'), ('a.csv', 'text,label\n"a ""b"" c,x\n', 'look at its quotes'), ('a.jsonl', '{"text": "a\tb"}', 'Invalid control character')])
def test_what_is_no_table_is_told(tmp_path, name, text, says):
    (tmp_path/name).write_text(text, encoding='utf-8')
    with pytest.raises(XltError, match=says): read_own(tmp_path/name)


def test_sentences_without_ids_are_paired_by_their_place(tmp_path):
    rows = lambda *xs, **kw: dict(test=[dict(text=x, **kw) for x in xs])
    for text in ('one\n\nthree\n', 'one\n""\nthree\n\n'):
        (tmp_path/'en.csv').write_text('text\n'+text, encoding='utf-8')
        with pytest.warns(UserWarning, match='the text of 1 of 3 rows of en test .* is blank'): t = own_task('t', 'retrieve', dict(en=dict(test=tmp_path/'en.csv'), de=rows('eins', 'zwei', 'drei')))
        assert [x[2]['text'] for x in t.aligned('de')] == ['drei', 'three']
    with pytest.raises(XltError, match='t, test: en has 2 rows and de has 1; rows without ids are paired by their place, so mend the shorter one'): own_task('t', 'retrieve', dict(en=rows('a', 'b'), de=rows('x')))
    with pytest.raises(XltError, match='some rows of en and de have an id and some have none'): own_task('t', 'retrieve', dict(en=rows('a'), de=rows('x', id='0')))


def test_labels_that_are_spelled_in_two_ways():
    rows = lambda *ys: [dict(text=f'{ys} {i}', label=y) for i, y in enumerate(ys)]
    t, told = mine(en=dict(train=rows('a', 'a ', 'b'), test=rows(' b', 'a\xa0')))
    assert t.labels == ('a', 'b') and t.rows('en')['label'][:] == [1, 0] and not told
    assert own_task('t', 'classify', dict(en=dict(train=rows(' x', 'y'))), labels=('y ', 'x')).rows('en', 'train')['label'][:] == [1, 0]
    for a, b in (('2', '2.0'), ('Good', 'good'), ('\xe9', 'e\u0301'), ('so so', 'so  so'), ('a', 'a\u200b')):
        t, told = mine(en=dict(train=rows(a, b, 'x')))
        assert len(t.labels) == 3 and 'count as two: write them alike if they are one' in told[0] and told[0] in t.notes
    assert any('SNLI writes it where annotators disagree' in x for x in mine(en=dict(train=rows('entailment', 'neutral', '-')))[1])
    assert not mine(en=dict(train=rows('+', '-')))[1]


def test_whole_floats_are_numbers_and_a_gap_is_none():
    import pandas as pd
    table = lambda *ys: pd.DataFrame(dict(text=list('abc'[:len(ys)]), label=ys))
    assert own_task('t', 'classify', dict(en=dict(train=table(1., 2.), test=[dict(text='c', label='2')]))).rows('en')['label'][:] == [1]
    with pytest.raises(XltError, match='row 3 of t, en, train has no label'): own_task('t', 'classify', dict(en=dict(train=table(1., 2., None))))
    with pytest.raises(XltError, match='label is 1.5, expected a name or a whole number'): own_task('t', 'classify', dict(en=dict(train=table(1., 1.5))))


def test_every_way_to_tag_entities_is_read():
    task = lambda *tags, **kw: mine('tag', en=dict(train=[dict(tokens=list('abcde'[:len(tags)]), tags=[*tags])]))
    for tags in (['I-PER', 'I-PER', 'O', 'I-LOC', 'B-LOC'], ['B-PER', 'E-PER', 'O', 'S-LOC', 'S-LOC'], ['B-PER', 'L-PER', 'O', 'U-LOC', 'U-LOC'], ['B-PER', 'I-PER', 'O', 'B-LOC', 'B-LOC']):
        t, told = task(*tags)
        assert t.metric == 'span_f1' and [t.labels[i] for i in t.rows('en', 'train')['tags'][0]] == ['B-PER', 'I-PER', 'O', 'B-LOC', 'B-LOC']
        assert bool(told) == (tags[1:] != ['I-PER', 'O', 'B-LOC', 'B-LOC'] or tags[0] != 'B-PER')
    t = own_task('t', 'tag', dict(en=dict(train=[dict(tokens=['a'], tags=['I-PER'])])), labels=('O', 'I-PER'))
    assert t.metric == 'span_f1' and t.rows('en', 'train')['tags'][0] == [1], 'labels that are named stay'
    assert task('S-NP', 'NOUN')[0].labels == ('NOUN', 'S-NP'), 'not all are marks of entities'


def test_columns_of_parquet_that_hold_no_text(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    maps = pa.array([[('en', 'a')]], pa.map_(pa.string(), pa.string()))
    for text, said in ((maps, 'map<string, string'), (pa.array([['a']]), 'list<'), (pa.array([dict(en='a')]), 'struct<en: string>')):
        pq.write_table(pa.table(dict(text=text, label=['x'])), tmp_path/'a.parquet')
        with pytest.raises(XltError, match=f"a.parquet: the column 'text' holds {said}"): read_own(tmp_path/'a.parquet')
    pq.write_table(pa.table(dict(text=['a'], label=['x'], other=maps)), tmp_path/'a.parquet')
    assert read_own(tmp_path/'a.parquet') == [dict(text='a', label='x')], 'what nobody asks for is not read'
    pq.write_table(pa.table(dict(review=['a'])), tmp_path/'a.parquet')
    with pytest.raises(XltError, match='no column is known: review; name them, columns='): read_own(tmp_path/'a.parquet')


def test_a_split_without_labels_and_a_source_that_is_not_there(tmp_path):
    train = dict(train=[dict(text='a', label='x'), dict(text='b', label='y')])
    for text, says in (('text\nc\nd\n', 'each of the 2 rows of t, en, test .*te.csv. has no label: add a column .*, or drop the split'), ('text,label\nc,x\nd,\n', 'row 2 of t, en, test .*te.csv. has no label: fill it in, or drop the row')):
        (tmp_path/'te.csv').write_text(text, encoding='utf-8')
        for labels in ((), ('x', 'y')):
            with pytest.raises(XltError, match=says): own_task('t', 'classify', dict(en=train | dict(test=tmp_path/'te.csv')), labels=labels)
    with pytest.raises(XltError, match="'en', the one to train on: name another, source='de'; there are: fr, de"): own_task('t', 'classify', dict(fr=dict(test=train['train']), de=train))


def test_ids_languages_and_names_of_labels_that_are_odd():
    rows = lambda *ids, **kw: [dict(id=i, text=f'{ids} {k}', label='ab'[k % 2], **kw) for k, i in enumerate(ids)]
    t = own_task('t', 'retrieve', dict(en=dict(test=rows(1., ' 2')), de=dict(test=rows('1', 2))))
    assert t.rows('en')['id'][:] == t.rows('de')['id'][:] == ['1', '2']
    for blank in (None, float('nan'), ' '):
        with pytest.raises(XltError, match='t, en, train, row 2 has a blank id: fill it in, or leave the column out'): own_task('t', 'classify', dict(en=dict(train=rows('a', blank))))
    with pytest.raises(XltError, match='the language pt-br is spelled in two ways'): own_task('t', 'classify', {'en': dict(train=rows('a')), 'pt-BR': dict(test=rows('b')), 'pt_br': dict(test=rows('c'))})
    assert own_task('t', 'classify', {'en': dict(train=rows('a', 'b')), 'zh-Hant': dict(test=rows('c')), 'sr@latin': dict(test=rows('d'))}).targets == ('zh-Hant', 'sr@latin')
    for labels in ('ab', {'a', 'b'}, 3, None):
        with pytest.raises(XltError, match='list the names in their order'): own_task('t', 'classify', dict(en=dict(train=rows('a', 'b'))), labels=labels)


def test_rows_that_pandas_and_numpy_hold(tmp_path):
    import numpy as np
    import pandas as pd
    pd.DataFrame(dict(tokens=[['a', 'b']], tags=[['O', 'B-X']])).to_parquet(tmp_path/'a.parquet')
    tagged = own_task('t', 'tag', dict(en=dict(train=pd.read_parquet(tmp_path/'a.parquet'), test=[dict(tokens=('c',), tags=('O',))])))
    assert tagged.labels == ('O', 'B-X', 'I-X') and tagged.rows('en')['tags'][0] == [0]
    assert own_task('t', 'classify', dict(en=dict(train=[dict(text='a', label=np.int64(1))]))).labels == ('1',)
    asked = pd.DataFrame(dict(question=['q'], context=['a c'], answers=[dict(text=np.array(['c']), answer_start=np.array([2]))]))
    assert own_task('t', 'span', dict(en=dict(train=asked))).rows('en', 'train')[0]['answers'] == dict(text=['c'], answer_start=[2])
    (tmp_path/'a.csv').write_text('text,label,,\na,x,,\n,,,\n', encoding='utf-8')
    assert read_own(tmp_path/'a.csv') == [dict(text='a', label='x')], 'columns without a name, as Excel leaves them'


def test_scripts_of_a_language_are_told_apart():
    rows = lambda lang: [dict(text='a', label=l, lang=lang) for l in 'xy']
    data = lambda hans, hant: {'en': dict(train=rows('en')), 'zh-Hans': dict(test=rows(hans)), 'zh-Hant': dict(test=rows(hant))}
    assert len(own_task('t', 'classify', data('zh_hans', 'zh-Hant')).targets) == 2
    with pytest.raises(XltError, match="says that it is of 'zh-Hant'"): own_task('t', 'classify', data('zh-Hant', 'zh-Hans'))


@pytest.mark.parametrize('labels, metric', [('BIO', 'span_f1'), ('BI', 'span_f1'), ('BIX', 'accuracy'), ('IO', 'accuracy')])
def test_entities_without_a_type_are_counted_whole(labels, metric):
    assert own_task('t', 'tag', dict(en=dict(train=[dict(tokens=list(labels), tags=list(labels))]))).metric == metric


def test_a_blank_label_is_not_a_missing_column():
    with pytest.raises(XltError, match='row 2 of t, en, train has no label: fill it in'): own_task('t', 'classify', dict(en=dict(train=[dict(text='a', label=1), dict(text='b', label=None)])))


@pytest.mark.parametrize('name', ['test-fr.csv.gz', 'test-fr.tsv', 'test_fr.csv', 'fr/test.csv'])
def test_a_language_that_does_not_fit_the_pattern_is_told(tmp_path, name):
    for n in ('train-en.csv', 'test-de.csv', 'notes.csv', '.ipynb_checkpoints/train-en-checkpoint.csv', name):
        (tmp_path/n).parent.mkdir(exist_ok=True)
        (tmp_path/n).write_text('text,label\na,b\n', encoding='utf-8')
    with pytest.warns(UserWarning, match=f'{name} is left out: .*the pattern is') as told: find_own(tmp_path)
    assert len(told) == 1


def test_a_table_may_speak_of_paragraphs(tmp_path):
    (tmp_path/'a.jsonl').write_text('{"text": "paragraphs", "label": "a"}\n{"text": "b", "label": "b"}\n', encoding='utf-8')
    assert [r['text'] for r in read_own(tmp_path/'a.jsonl')] == ['paragraphs', 'b']
    (tmp_path/'b.json').write_text('{"version": 1,\n "data": [{"paragraphs": []}]}', encoding='utf-8')
    with pytest.raises(XltError, match='read it with read_squad'): read_own(tmp_path/'b.json')


def test_sentences_without_a_translation_are_told():
    rows = lambda lang, a, b: dict(test=[dict(id=str(i), text=f'{lang} {i}') for i in range(a, b)])
    with pytest.warns(UserWarning, match='60 of 100 ids of de test .* and no other row is retrieved'):
        own_task('t', 'retrieve', dict(en=rows('one', 0, 100), de=rows('eins', 40, 140)))


def test_a_word_with_a_space_and_an_empty_tag(tmp_path):
    read = lambda text: ((tmp_path/'a.conll').write_text(text, encoding='utf-8'), read_tagged(tmp_path/'a.conll'))[1]
    assert [r['tags'] for r in read('John\tB-PER\nNew York\t\nsleeps\tO\n')] == [['B-PER', None, 'O']]
    assert [r['tokens'] for r in read('John B-PER\t\nruns O\n')] == [['John', 'runs']] # a stray tab in a file of spaces
