"Every published format is read from small files made here; every known trap is an error that says so, or a rule that counts"
import csv
import gzip
import json
import lzma
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from xltnb.tasks.catalog import PUBLISHED, catalog_state, data_folder, find_files, missing
from xltnb.core import XltError
from xltnb.tasks.rows import place_answer
from xltnb.tasks.formats import read_bucc, read_conllu, read_lines, read_pairs, read_squad, read_tagged, stream_texts, tag_slots
from xltnb.training.scores import spread
from xltnb.tasks.hub import PUBLISHED_TASKS, load_corpus, load_task, split_articles

NLI = ('entailment', 'neutral', 'contradiction')


@pytest.fixture
def put(tmp_path):
    "Write a file under `tmp_path`"
    def _put(name, text, encoding='utf-8', end='\n'):
        p = tmp_path/name
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_bytes(text.replace('\n', end).encode(encoding))
        return p
    return _put


def refuses(what, *args, **kw):
    with pytest.raises(XltError, match=what): load_task(*args, **kw)


def nli(word, n=30, shift=0): return ''.join(f'{word} {i}\tx {i}\t{NLI[(i+shift) % 3]}\n' for i in range(n))


def xnli(put, **files):
    "A complete XTREME folder of XNLI in English and German, but for what is given"
    for f in ('train-en', 'dev-en', 'test-en', 'test-de'): put(f'xnli/{f}.tsv', files.get(f.replace('-', '_')) or nli(f))


# ---------------------------------------------------------------- XNLI and PAWS-X

def test_xnli_as_xtreme_writes_it(put, tmp_path):
    xnli(put)
    t = load_task('xnli', tmp_path, ('de',))
    assert (t.kind, t.labels, t.languages, t.metric) == ('pair', NLI, ('en', 'de'), 'accuracy') and not t.notes
    assert t.rows('de')[1] == dict(id='1', text='test-de 1', text2='x 1', label=1)
    assert len(t.crossed('de', 'en')) == 30 and 'train' not in t.data['de']


def test_xnli_as_its_authors_publish_it(put, tmp_path):
    head = 'language\tgold_label\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\tsentence1\tsentence2\tpromptID\tpairID\tgenre\tlabel1\n'
    rows = ''.join(f'{l}\t{NLI[i]}\t\t\t\t\t{l} "{i}" said\t"x"\t{i}\tp{i}\tfiction\tneutral\n' for l in ('en', 'de') for i in range(3))
    for s in ('dev', 'test'): put(f'XNLI-1.0/xnli.{s}.tsv', head+rows, end='\r\n')
    put('XNLI-MT-1.0/multinli/multinli.train.en.tsv', '\ufeffpremise\thypo\tlabel\nIt rains .\tIt is dry .\tcontradictory\n')
    t = load_task('xnli', tmp_path, ('de',))
    assert t.rows('de')[2] == dict(id='p2', text='de "2" said', text2='"x"', label=2), 'CRLF and single quotation marks survive'
    assert t.rows('en', 'train')[0] == dict(id='0', text='It rains .', text2='It is dry .', label=2), 'byte-order mark gone, contradictory is contradiction'
    assert len(t.rows('en')) == 3 and len(t.rows('de', 'validation')) == 3
    refuses('holds no rows of sw, test', 'xnli', tmp_path, ('sw',))


def test_pairs_as_hub_parquet(tmp_path):
    feats = Features(premise=Value('string'), hypothesis=Value('string'), label=ClassLabel(names=['neutral', 'contradiction', 'entailment']))
    for l in ('en', 'de'):
        for s in ('train', 'validation', 'test'):
            (tmp_path/'xnli'/l).mkdir(parents=True, exist_ok=True)
            Dataset.from_dict(dict(premise=['a', 'b'], hypothesis=['c', 'd'], label=[2, 0 if s == 'test' else -1]), features=feats).to_parquet(tmp_path/'xnli'/l/f'{s}-00000-of-00001.parquet')
    t = load_task('xnli', tmp_path, ('de',))
    assert t.rows('de')['label'][:] == [0, 1], 'classes go by name, not by number'
    assert 'en train: 1 rows without a label, dropped' in t.notes and len(t.rows('en', 'train')) == 1


def test_quotation_marks_of_csv_are_undone_and_only_those(put, tmp_path):
    said = [['He said "no".', '"Yes."', 'neutral'], ['""', 'a, b', 'entailment'], ['"A" is "B"', "it's", 'contradiction']]
    with open(tmp_path/'csv.tsv', 'w', newline='', encoding='utf-8') as f: csv.writer(f, delimiter='\t').writerows(said)
    raw, notes = put('raw.tsv', '\n'.join('\t'.join(r) for r in said)), Counter()
    assert [[r['text'], r['text2'], r['label']] for r in read_pairs(tmp_path/'csv.tsv', notes)] == said and notes.total() == 4
    assert [[r['text'], r['text2'], r['label']] for r in read_pairs(raw, notes)] == said and notes.total() == 4, 'raw files stay as they are'


def test_pawsx_as_published(put, tmp_path):
    head = 'id\tsentence1\tsentence2\tlabel\n'
    for l in ('en', 'de'):
        put(f'x-final/{l}/test_2k.tsv', head + f'1\t{l} a\tb\t1\n2\t{"NS" if l == "de" else "c"}\td\t0\n7\te\tf\t{int(l == "en")}\n')
        put(f'x-final/{l}/dev_2k.tsv', head + '1\ta\tb\t0\n')
    put('x-final/en/train.tsv', head + '1\ta\tb\t1\n')
    put('x-final/de/translated_train.tsv', head + '1\ta\tb\t1\n')
    t = load_task('pawsx', tmp_path, ('de',))
    assert t.labels == ('different', 'paraphrase') and t.rows('de')['id'][:] == ['1', '7'] and 'train' not in t.data['de']
    assert t.notes == ('de test: 1 rows with "NS" for a sentence, dropped',)
    assert t.crossed('en', 'de')['id'][:] == ['1'], '7 has another label in German'


@pytest.mark.parametrize('bad,what', [
    (dict(test_de=''.join(f'a {i}\tb\n' for i in range(30))), 'test-de.tsv has no labels: XTREME takes them out'),
    (dict(test_de=nli('a').replace('entailment', 'neutral').replace('contradiction', 'neutral')*2, test_en=nli('a', 60)), "all 60 rows have the label 'neutral', a placeholder"),
    (dict(test_de=nli('a').replace('neutral', 'neutraal', 1)), "unknown label in .*test-de.tsv, row 2: 'neutraal'; did you mean 'neutral'"),
    (dict(test_de=nli('a').replace('neutral', 'maybe').replace('entailment', 'maybe')), "row 1: 'maybe'; choose from: entailment, neutral, contradiction"),
    (dict(test_de=nli('a').replace('x ', ' ').translate({ord(c): None for c in '0123456789'})), r'test-de.tsv: nothing is left of de, test \(30 rows with a blank'),
    (dict(test_de=nli('a', 29)), r'xnli, test: \w\w has \d\d rows, other languages \d\d; rows are matched by line'),
    (dict(test_de=nli('a', shift=1)), 'labels of de agree with en in only 0 of 30 rows'),
    (dict(test_de='\n\n'), 'test-de.tsv is empty'),
    (dict(test_de=nli('a')+'broken line\n'), 'line 31: 1 columns'),
    (dict(test_de='a\tb\tneutral\textra\n'), 'line 1: 4 columns'),
])
def test_pair_files_that_are_wrong(put, tmp_path, bad, what):
    xnli(put, **bad)
    refuses(what, 'xnli', tmp_path, ('de',))


def test_half_a_folder_is_named(put, tmp_path):
    xnli(put)
    refuses(r"lacks 13 of the files of xnli; to use what is there pass langs=\('en', 'de'\). Missing: ar test: test-ar.tsv or xnli.test.tsv", 'xnli', tmp_path)
    refuses('lacks 1 of .* Missing: sw test: test-sw.tsv', 'xnli', tmp_path, ('de', 'sw'))
    refuses("unknown language 'xx'", 'xnli', tmp_path, ('xx',))
    (tmp_path/'xnli/train-en.tsv').unlink()
    refuses('Missing: en train: train-en.tsv or multinli.train.en.tsv', 'xnli', tmp_path, ('de',))
    refuses('is not a folder', 'xnli', tmp_path/'gone')
    assert missing('xnli', tmp_path/'xnli', ('de',)) == missing('xnli', tmp_path, ('de',)) != []


def test_a_folder_without_english_training_rows(put, tmp_path):
    "Fewer languages would not help; the same files read in another way do"
    xnli(put)
    (tmp_path/'xnli/train-en.tsv').unlink()
    with pytest.raises(XltError) as e: load_task('xnli', tmp_path, ('de',))
    assert "load_task('xnli_dev', ...) makes do with what is there" in str(e.value)
    with pytest.raises(XltError) as e: load_task('xnli', tmp_path)
    assert 'pass langs' not in str(e.value)
    t = load_task('xnli_dev', tmp_path, ('de',))
    assert t.rows('en', 'train')[0]['text'] == 'dev-en 0' and 'validation' not in t.data['en']
    refuses(r"'panx' is what a folder of wikiann is called: load_task\('wikiann', ...\)", 'panx')


def test_only_the_rows_that_are_asked_for(put, tmp_path):
    xnli(put)
    whole, few = load_task('xnli', tmp_path, ('de',)), load_task('xnli', tmp_path, ('de',), limit=12)
    for l in ('en', 'de'): assert few.rows(l)['id'] == spread(whole.rows(l), 12)['id'], 'the rows that a score with this limit reads'
    assert (len(few.rows('en', 'train')), len(few.rows('en', 'validation'))) == (30, 12)
    refuses('limit', 'xnli', tmp_path, ('de',), limit=-1)


def test_test_rows_that_training_repeats_are_noted(put, tmp_path):
    xnli(put, test_en=nli('train-en', 2)+nli('test-en', 30)[len(nli('test-en', 2)):])
    assert load_task('xnli', tmp_path, ('de',)).notes == ('en test: 2 of 30 rows stand in train too',)


def test_text_files_that_are_wrong(put):
    with pytest.raises(XltError, match='not UTF-8 .byte 0xff.: convert it'): read_lines(put('u16.tsv', 'a\tb', 'utf-16'))
    with pytest.raises(XltError, match='is empty'): read_lines(put('e.tsv', ''))
    assert read_lines(put('u.tsv', '\ufeffa\u2028b\x0cc\x1cd\x85e\n', end='\r\n')) == ['a\u2028b\x0cc\x1cd\x85e'], 'only a line feed ends a line'


# ---------------------------------------------------------------- tags

def test_wikiann_as_its_authors_publish_it(put, tmp_path):
    for l in ('en', 'zh'):
        for s in ('train', 'dev', 'test'): put(f'wikiann/{l}/{s}', f'{l}:北\tB-LOC\n{l}:京\tI-LOC\n{l}:\u3000\tO\n{l}:a:b\tO\n\n{l}:x\tO\n')
    t = load_task('wikiann', tmp_path, ('zh',))
    assert t.rows('zh')[0] == dict(id='0', tokens=['北', '京', 'a:b'], tags=[5, 6, 0]) and len(t.rows('zh')) == 2 and t.metric == 'span_f1'
    assert 'zh test: 1 blank words, dropped' in t.notes


def test_words_of_another_language(put, tmp_path):
    for l in ('en', 'de'):
        for s in ('train', 'dev', 'test'): put(f'wikiann/{l}/{s}', f'{"fr" if l == "de" else l}:x {s}\tB-LOC\n{"fr" if l == "de" else l}:y\tO\n')
    refuses("the words of .*wikiann/de/dev begin with 'fr', another language: put the file of de there", 'wikiann', tmp_path, ('de',))


def test_a_language_twice_and_odd_rows_are_told(put, tmp_path):
    xnli(put, test_de=nli('test-en'))
    refuses(r'xnli: all 30 texts of de test \(.*test-de.tsv\) stand in en test \(.*test-en.tsv\) too: scores of de would be those of en', 'xnli', tmp_path, ('de',))
    xnli(put, test_de=nli('test-en', 10)+''.join(nli('test-de').splitlines(True)[10:]))
    with pytest.warns(UserWarning, match='xnli: 10 of 30 texts of de test .*test-de.tsv. stand in en test') as told: t = load_task('xnli', tmp_path, ('de',))
    assert len(told) == 1 and len(t.notes) == 1
    put('xquad.en.json', squad(('q1', ('Nil', 4)), ('q2', ('Nil', 4)), context='The Nil flows.').replace('Was q2?', ' '))
    with pytest.warns(UserWarning, match='xquad: the question of 1 of 2 rows of en test .*xquad.en.json. is blank'): load_task('xquad', tmp_path, ())


@pytest.mark.parametrize('head, says', [('id\tsentence1\tsentence1\tsentence2\tlabel', "a.tsv: the column 'sentence1' stands twice"), ('id\tpremise\tsentence1\tsentence2\tlabel', "a.tsv: columns 'premise' and 'sentence1' both hold the text and differ")])
def test_two_columns_of_a_published_file(put, head, says):
    with pytest.raises(XltError, match=says): read_pairs(put('a.tsv', head+'\n1\ta\tb\tc\t1\n'))


def test_wikiann_as_xtreme_writes_it(put, tmp_path):
    for f in ('train-en', 'dev-en', 'test-en'): put(f'panx/{f}.tsv', 'Rome\tB-LOC\nfell\tO\n\n')
    put('panx/test-de.tsv', 'Rom\nfiel\n\n')
    assert load_task('wikiann', tmp_path, ()).rows('en')[0]['tokens'] == ['Rome', 'fell']
    refuses('test-de.tsv has no labels: XTREME takes them out', 'wikiann', tmp_path, ('de',))
    put('panx/test-de.tsv', 'Rom\tB-MISC\n\n'*50)
    refuses("test-de.tsv, row 1: 'B-MISC'", 'wikiann', tmp_path, ('de',))
    put('panx/test-de.tsv', 'Rom\tO\n\n'*50)
    refuses("all 50 rows have the label 'O', a placeholder", 'wikiann', tmp_path, ('de',))
    put('panx/test-de.tsv', 'Rom\tB-GPE\n')
    refuses("test-de.tsv, row 1: 'B-GPE'; did you mean .* choose from: O, B-PER", 'wikiann', tmp_path, ('de',))
    refuses('Missing: qu test', 'wikiann', tmp_path, ('qu',))


def test_wikiann_as_hub_parquet(tmp_path):
    feats = Features(tokens=List(Value('string')), ner_tags=List(ClassLabel(names=['B-LOC', 'O'])), langs=List(Value('string')), spans=List(Value('string')))
    (tmp_path/'en').mkdir()
    for s in ('train', 'validation', 'test'):
        Dataset.from_dict(dict(tokens=[['Rome', 'fell']], ner_tags=[[0, 1]], langs=[['en', 'en']], spans=[['LOC: Rome']]), features=feats).to_parquet(tmp_path/'en'/f'{s}-00000-of-00001.parquet')
    assert load_task('wikiann', tmp_path, ()).rows('en')['tags'][:] == [[5, 0]]


def conllu(*words, ident='s1'): return f'# sent_id = {ident}\n# text = ...\n' + ''.join('\t'.join([i, w, w, p, '_', '_', '0', 'root', '_', '_'])+'\n' for i, w, p in words) + '\n'


def test_ud_words_not_written_words(put, tmp_path):
    french = conllu(('1', 'Va', 'VERB'), ('2-3', 'du', '_'), ('2', 'de', 'ADP'), ('3', 'le', 'DET'), ('3.1', 'grand', 'ADJ'), ('4', '10 000', 'NUM'))
    hidden = conllu(('1', '_', 'NOUN'), ('2', '_', 'VERB'), ident='s2')
    for name in ('UD_English-EWT/en_ewt', 'UD_English-GUM/en_gum', 'UD_French-GSD/fr_gsd'):
        for s in ('train', 'dev', 'test'): put(f'{name}-ud-{s}.conllu', french+hidden, end='\r\n')
    t = load_task('udpos', tmp_path, ('fr',))
    assert t.rows('fr')['tokens'][0] == ['Va', 'de', 'le', '10 000'] and t.metric == 'accuracy'
    assert t.rows('en')['id'][:] == ['en_ewt-ud-test/s1', 'en_gum-ud-test/s1'], 'treebanks of one language follow each other'
    assert 'fr test: 1 sentences published without their words, dropped' in t.notes
    with pytest.raises(XltError, match='line 1: 2 columns, CoNLL-U has 10'): read_conllu(put('x.conllu', 'a\tb\n'))
    put('UD_French-GSD/fr_gsd-ud-test.conllu', conllu(('1', 'Va', 'VERBE')))
    refuses("unknown label in .*fr_gsd-ud-test.conllu, row 's1': 'VERBE'; did you mean 'VERB'", 'udpos', tmp_path, ('fr',))
    put('UD_French-GSD/fr_gsd-ud-test.conllu', conllu(('1', 'Va', '_')))
    refuses('has no labels', 'udpos', tmp_path, ('fr',))


def test_one_odd_line_leaves_the_language_before_no_other_word(put):
    notes = Counter()
    rows = read_tagged(put('dev', 'en:Rome\tB-LOC\nen:fell\tO\n\n'*10 + 'a:b\tO\n'), notes)
    assert rows[0]['tokens'] == ['Rome', 'fell'] and rows[-1]['tokens'] == ['a:b'] and notes == {'words without en: before them, kept as they are': 1}
    assert read_tagged(put('few', 'en:Rome\tO\nfell\tO\n'), notes)[0]['tokens'] == ['en:Rome', 'fell'], 'half of the words are no rule'


def test_two_columns_of_xtreme_udpos(put):
    assert len(read_tagged(put('w.tsv', 'a\tX\n \nb\tX\n\t\nc\tX\n'))) == 3, 'a line of blanks ends a sentence too'
    assert read_tagged(put('dev-en.tsv', 'http://x\tX\n:\tPUNCT\n\nBye\tINTJ'))[0] == dict(tokens=['http://x', ':'], tags=['X', 'PUNCT'])


# ---------------------------------------------------------------- questions

def squad(*qas, title='Nile', context='Der Nil fließt. Der Nil!'):
    return json.dumps(dict(version='1.1', data=[dict(title=title, paragraphs=[dict(context=context, qas=[dict(id=i, question=f' Was {i}? ', answers=[dict(text=t, answer_start=s) for t, s in answers]) for i, *answers in qas])])]))


def test_answers_are_where_they_say(put, tmp_path):
    put('squad/train-v1.1.json', squad(('t1', ('Nil', 4)), ('t2', ('Rhein', 0)), title='Rhein'))
    put('xquad.en.json', squad(('q1', ('Nil', 4)), ('q2', ('Nil', 4)), context='The Nil flows.'))
    put('xquad.de.json', '\ufeff'+squad(('q1', ('Nil', 21)), ('q2', (' fließt. ', 7), ('Rhein', 3)), ('q3', ('Rhein', 0)), ('q4',)), end='\r\n')
    t = load_task('xquad', tmp_path, ('de',))
    assert t.rows('de')[0]['answers'] == dict(text=['Nil'], answer_start=[20]), 'nearest occurrence'
    assert t.rows('de')[1]['answers'] == dict(text=['fließt.', 'Rhein'], answer_start=[8, -1]) and t.rows('de')['id'][:] == ['q1', 'q2', 'q3'], 'the scorers count every question'
    assert set(t.notes) == {'de test: 1 answers moved to where they stand', 'de test: 2 answers that the context does not hold, kept for the score', 'de test: 1 questions without an answer, dropped',
                            'en train: 1 answers that the context does not hold, dropped', 'en train: 1 questions without an answer, dropped'}
    assert t.score(['Nil', 'Rhein', 'Rhein'], t.rows('de'))['em'] == 1
    assert t.rows('en', 'train')['id'][:] == ['t1'] and 'train' not in t.data['de'] and t.groups['q1'] == 'Nile'
    for lang, splits in t.data.items():
        for r in splits['test']:
            for text, s in zip(r['answers']['text'], r['answers']['answer_start']): assert s < 0 or r['context'][s:s+len(text)] == text


def test_validation_holds_no_question_of_the_test(put, tmp_path):
    "XQuAD's questions are some of SQuAD's development file"
    asked = [(f'q{i}', ('Nil', 4)) for i in range(5)]
    for l in ('en', 'de'): put(f'xquad.{l}.json', squad(*asked[:3], context=f'{l}: Nil'))
    put('dev-v1.1.json', squad(*asked))
    put('train-v1.1.json', squad(('t', ('Nil', 4))))
    t = load_task('xquad', tmp_path, ('de',))
    assert t.rows('en', 'validation')['id'][:] == ['q3', 'q4'] and t.rows('de')['id'][:] == ['q0', 'q1', 'q2']
    assert t.notes == ('en validation: 3 questions that are in the test, dropped',)
    put('dev-v1.1.json', squad(*asked[:3]))
    assert set(load_task('xquad', tmp_path, ('de',)).data['en']) == {'train', 'test'}, 'none is left'


def test_emptied_answers_of_xtreme_are_refused(put, tmp_path):
    for l in ('en', 'de'): put(f'xquad.{l}.json', squad(('q1', ('', 0))))
    refuses('xquad.en.json: all answers are empty: XTREME takes the answers out', 'xquad', tmp_path, ('de',))
    for text in ('{"data": [{"title": 1}]}', '[]', '{', '{"version": 1}'):
        with pytest.raises(XltError, match='is not SQuAD JSON'): read_squad(put('x.json', text))


def test_mlqa_reads_and_scores_by_language(put, tmp_path):
    for l in ('en', 'de'):
        for s in ('dev', 'test'): put(f'MLQA_V1/{s}/{s}-context-{l}-question-{l}.json', squad(('q', ('Der Nil', 0))))
    put('MLQA_V1/test/test-context-en-question-de.json', squad(('q', ('Nil', 4))))
    t = load_task('mlqa', tmp_path, ('de',))
    assert t.score(['Nil'], t.rows('de'))['em'] == 1 and t.score(['Nil'], t.rows('en'))['em'] == 0


def test_tydiqa_files_hold_several_languages(put, tmp_path):
    put('tydiqa/tydiqa-goldp-v1.1-train.json', squad(('english-1', ('Nil', 4)), ('swahili-2', ('Nil', 4))))
    put('tydiqa/tydiqa-goldp-v1.1-dev.json', squad(('english-3', ('Nil', 4)), ('swahili-4', ('Nil', 4)), ('korean-5', ('Nil', 4))))
    t = load_task('tydiqa', tmp_path, ('sw',))
    assert t.rows('en', 'train')['id'][:] == ['english-1'] and t.rows('sw')['id'][:] == ['swahili-4']
    refuses('holds no rows of fi, test', 'tydiqa', tmp_path, ('fi',))
    put('tydiqa/tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-finnish.json', squad(('finnish-6', ('Nil', 4))))
    put('tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.en.dev.json', squad(('english-7', ('Nil', 4))))
    assert load_task('tydiqa', tmp_path, ('fi',)).rows('fi')['id'][:] == ['finnish-6']


def test_span_parquet_of_the_hub(tmp_path):
    feats = Features(id=Value('string'), title=Value('string'), context=Value('string'), question=Value('string'), answers=dict(text=List(Value('string')), answer_start=List(Value('int32'))))
    for l in ('en', 'de'):
        (tmp_path/f'xquad.{l}').mkdir()
        Dataset.from_dict(dict(id=['q'], title=['Nile'], context=['Der Nil'], question=['Was?'], answers=[dict(text=['Nil'], answer_start=[4])]), features=feats).to_parquet(tmp_path/f'xquad.{l}'/'validation-00000-of-00001.parquet')
    t = load_task('xquad', tmp_path, ('de',))
    assert t.rows('de')[0]['answers'] == dict(text=['Nil'], answer_start=[4]) and t.groups == {'q': 'Nile'}


def test_a_needed_split_that_ends_empty_is_an_error(put, tmp_path):
    put('squad/train-v1.1.json', squad(('t1', ('Nil', 4))))
    put('xquad.en.json', squad(('q1', ('Nil', 4))))
    put('xquad.th.json', squad(('q1', ('Rhein', 4))))
    refuses(r'xquad.th.json: nothing is left of th, test \(1 answers .*; 1 questions without an answer, dropped\)', 'xquad', tmp_path, ('th',))
    head = 'id\tsentence1\tsentence2\tlabel\n'
    for f in ('en/train', 'en/dev_2k', 'en/test_2k', 'de/test_2k'): put(f'x-final/{f}.tsv', head + f'1\t{"NS" if f[0] == "d" else "a"}\tb\t1\n')
    refuses(r'nothing is left of de, test \(1 rows with "NS"', 'pawsx', tmp_path, ('de',))
    put('x-final/de/test_2k.tsv', head + ''.join(f'{i}\ta\tb\t{i % 2 + 1}\n' for i in range(30)))
    refuses("unknown label in .*test_2k.tsv, row '1': '2'; choose from: different, paraphrase, 0, 1", 'pawsx', tmp_path, ('de',))


WRONG = dict(
    no_column=('xnli', dict(premise=['a'], label=['neutral']), "row 1 has no text2: expected a column hypothesis or hypo"),
    null=('xnli', dict(premise=['a', None], hypothesis=['b', 'c'], label=['neutral']*2), 'row 2: text is None, expected a string; mend the row'),
    lengths=('wikiann', dict(tokens=[['a', 'b']], ner_tags=[['O']*3]), 'row 1: 2 tokens and 3 tags'),
    no_tokens=('wikiann', dict(tokens=[['a'], None], ner_tags=[['O']]*2), 'row 2: tokens is None, expected a list of strings'))


@pytest.mark.parametrize('what', WRONG)
def test_values_of_another_type_in_a_table(what, tmp_path):
    name, cols, says = WRONG[what]
    (tmp_path/'en').mkdir()
    for s in ('train', 'validation', 'test'): Dataset.from_dict(cols).to_parquet(tmp_path/'en'/f'{s}-00000-of-00001.parquet')
    refuses(f'en/train-00000-of-00001.parquet, {says}', name, tmp_path, ())


@pytest.mark.parametrize('old,new,says', [('"answer_start": 4', '"answer_start": "4"', 'answers is .* whole numbers in "answer_start"'),
    ('"answer_start": 4', '"answer_start": null', 'answers is'), ('"context": "Der Nil fließt. Der Nil!"', '"context": null', 'context is None, expected a string')])
def test_values_of_another_type_in_squad(old, new, says, put, tmp_path):
    text = json.dumps(json.loads(squad(('q1', ('Nil', 4)))), ensure_ascii=False)
    assert old in text
    put('xquad.en.json', text.replace(old, new))
    refuses(f"xquad.en.json, row 'q1': {says}", 'xquad', tmp_path, ())


def test_blank_sentences_go_and_the_rest_stays_in_step(put, tmp_path):
    xnli(put, test_de=nli('a').replace('a 1\t', ' \t', 1))
    t = load_task('xnli', tmp_path, ('de',))
    assert t.notes == ('de test: 1 rows with a blank sentence, dropped',) and t.crossed('en', 'de')['id'][:2] == ['0', '2']
    put('tatoeba.deu-eng.deu', 'Hallo\n\nJa\n')
    put('tatoeba.deu-eng.eng', 'Hello\nBye\nYes\n')
    assert load_task('tatoeba', tmp_path, ('de',)).rows('de')['id'][:] == ['de-0', 'de-2']


# ---------------------------------------------------------------- intents

def massive(locale, **utts):
    rows = [dict(id=str(i), locale=locale, partition=p, scenario='s', intent=intent, utt=u, annot_utt=a, worker_id='1')
            for i, (p, intent, u, a) in enumerate([('train', 'alarm_set', 'wake me at five am', 'wake me at [time : five am]'), ('train', 'play_music', 'play it', 'play it'),
                                                   ('dev', 'play_music', 'play it', 'play it'), ('test', 'alarm_set', *utts['test'])])]
    return '\n'.join(json.dumps(r, ensure_ascii=False) for r in rows) + '\n'


def test_massive_intents_and_slots(put, tmp_path):
    put('1.1/data/en-US.jsonl', massive('en-US', test=('at five', 'at [time : five]')))
    put('1.1/data/zh-CN.jsonl', massive('zh-CN', test=('上午 五点叫我', '[time : 上午 五点]叫我')))
    t = load_task('massive', tmp_path, ('zh',))
    assert (t.kind, t.labels, len(t.rows('en', 'train')), t.rows('zh')['text'][:]) == ('classify', ('alarm_set', 'play_music'), 2, ['上午 五点叫我'])
    t = load_task('massive_slot', tmp_path, ('zh',))
    assert t.labels == ('O', 'B-time', 'I-time') and t.rows('zh')[0]['tokens'] == list('上午五点叫我') and t.rows('zh')[0]['tags'] == [1, 2, 2, 2, 0, 0]
    put('1.1/data/zh-CN.jsonl', massive('zh-CN', test=('x', '[date : y]')))
    refuses(r'nothing is left of zh, test \(1 sentences whose slots', 'massive_slot', tmp_path, ('zh',))
    put('1.1/data/zh-CN.jsonl', massive('zh-CN', test=('y', '[date : y]')))
    refuses("massive_slot, zh, test: unknown label of a tag task 'B-date'", 'massive_slot', tmp_path, ('zh',))
    for line in ('not json', '[1]'):
        put('1.1/data/zh-CN.jsonl', line+'\n')
        refuses('line 1 is not a JSON object', 'massive', tmp_path, ('zh',))


@pytest.mark.parametrize('marked,lang,tokens,tags', [
    ('[a : x y] z [b_c : q]', 'en', ['x', 'y', 'z', 'q'], ['B-a', 'I-a', 'O', 'B-b_c']),
    ('[a : x][a : y]', 'en', ['x', 'y'], ['B-a', 'B-a']),
    ('[time: 5:30]', 'de', ['5:30'], ['B-time']),
    ('ab [t : ก ข]', 'th', ['ab', 'ก', 'ข'], ['O', 'B-t', 'I-t']),
    ('ပိတ် [t : ၅ နာရီ]', 'my', ['ပိတ်', '၅', 'နာရီ'], ['O', 'B-t', 'I-t']),
    ('打开 [d : iphone 12] 吧', 'zh', ['打', '开', 'iphone', '12', '吧'], ['O', 'O', 'B-d', 'I-d', 'O']),
    ('[t : 五点]叫 [d : siri]', 'zh-tw', ['五', '点', '叫', 'siri'], ['B-t', 'I-t', 'O', 'B-d']),
    ('', 'en', [], []),
])
def test_slots_in_brackets(marked, lang, tokens, tags): assert tag_slots(marked, lang) == (tokens, tags)


# ---------------------------------------------------------------- retrieval

def test_tatoeba_pairs_keep_their_own_english(put, tmp_path):
    for x, words in (('deu', 'Hallo\nTschüss\n'), ('fra', 'Merci\nOui\n')): put(f'tatoeba.{x}-eng.{x}', words)
    put('tatoeba.deu-eng.eng', 'Hello\nBye\n')
    put('tatoeba.fra-eng.eng', 'Thanks\nYes\n')
    t = load_task('tatoeba', tmp_path, ('de', 'fr'))
    queries, candidates = t.aligned('fr')
    assert candidates['text'][:] == ['Thanks', 'Yes'] and queries['id'][:] == candidates['id'][:] == ['fr-0', 'fr-1'] and len(t.rows('en')) == 4
    assert t.score(['fr-0', 'fr-0'], queries) == {'accuracy@1': .5}
    put('tatoeba.deu-eng.eng', 'Hello\n')
    refuses('2 lines.*has 1: they are not parallel', 'tatoeba', tmp_path, ('de',))
    (tmp_path/'tatoeba.deu-eng.eng').unlink()
    refuses(r'Missing: de test: tatoeba.deu-eng.deu \+ tatoeba.deu-eng.eng or', 'tatoeba', tmp_path, ('de',))
    refuses("tatoeba pairs English with another language: name one in langs=, for instance 'af'", 'tatoeba', tmp_path, ('en',))


def test_sorted_english_of_xtreme_is_refused(put, tmp_path):
    put('tatoeba/de-en.de', ''.join(f'Satz {i}\n' for i in range(25)))
    put('tatoeba/de-en.en', ''.join(f'sentence {i:02}\n' for i in range(25)))
    refuses('in alphabetical order, as XTREME writes it', 'tatoeba', tmp_path, ('de',))


def test_bucc_pairs(put, tmp_path):
    put('bucc2018/de-en/de-en.training.de', 'de-1\tHallo\tWelt\nde-2\tAllein\n')
    put('bucc2018/de-en/de-en.training.en', 'en-1\tHello world\n')
    put('bucc2018/de-en/de-en.training.gold', 'de-1\ten-1\n')
    t = load_task('bucc', tmp_path, ('de',))
    assert t.aligned('de')[1]['text'][:] == ['Hello world'] and t.notes == ('de test: 1 sentences without a translation, left out',)
    put('bucc2018/de-en/de-en.training.gold', 'de-1\ten-9\n')
    refuses("pairs en-9, which is in neither text file", 'bucc', tmp_path, ('de',))


# ---------------------------------------------------------------- text

def test_running_text(put, tmp_path):
    (tmp_path/'cc100').mkdir()
    (tmp_path/'cc100/sw.txt.xz').write_bytes(lzma.compress('Moja.\r\nMbili.\r\n\r\nTatu.\n'.encode()))
    put('wikipedia/sw/AA/wiki_00', '{"text": "Simba."}\n{"text": " "}\n{"text": "Tembo."}\n')
    (tmp_path/'wikipedia/20231101.ha').mkdir()
    Dataset.from_dict(dict(id=['1', '2'], title=['a', 'b'], text=['Zaki.', 'Giwa.'])).to_parquet(tmp_path/'wikipedia/20231101.ha/train-00000-of-00001.parquet')
    assert load_corpus('cc100', tmp_path, 'sw')['text'][:] == ['Moja.\nMbili.', 'Tatu.']
    both = load_corpus('wikipedia', tmp_path, ('sw', 'ha'))
    assert both['text'][:] == ['Simba.', 'Tembo.', 'Zaki.', 'Giwa.'] and both['lang'][:] == ['sw', 'sw', 'ha', 'ha']
    assert len(load_corpus('wikipedia', tmp_path, ('ha',), chars=3)) == 1
    for text in ('null', '5'):
        with pytest.raises(XltError, match='x.jsonl, line 2 is not a JSON object with a "text" that is a string'):
            list(stream_texts(put('x.jsonl', '{"text": "a"}\n{"text": '+text+'}\n')))
    for bad, what in ((('xx',), "no wikipedia text of 'xx'; looked for xx.jsonl"),):
        with pytest.raises(XltError, match=what): load_corpus('wikipedia', tmp_path, bad)
    with pytest.raises(XltError, match='not a JSON object with a "text"'): list(stream_texts(put('x.jsonl', '{"title": "x"}\n')))
    (tmp_path/'cc100/sw.txt.xz').write_bytes(lzma.compress(b'Moja.\n'*100)[:-20])
    with pytest.raises(XltError, match='cannot read'): load_corpus('cc100', tmp_path, 'sw')


DAMAGED = dict(
    gz=(lambda put, d: (d/'a.txt.gz').write_bytes(gzip.compress(b'words '*99)[:10] + b'\xff'*20), lambda d: read_lines(d/'a.txt.gz'), 'a.txt.gz.*fetch it again'),
    no_text=(lambda put, d: Dataset.from_dict(dict(body=['x'])).to_parquet(d/'t.parquet'), lambda d: list(stream_texts(d/'t.parquet')), 't.parquet has no column "text"; it has body'),
    pointer=(lambda put, d: put('p.parquet', 'version https://git-lfs.github.com/spec/v1\noid sha256:0\n'), lambda d: list(stream_texts(d/'p.parquet')), 'p.parquet as parquet.*Git LFS'),
    bucc=(lambda put, d: [put('de', 'de-1\tHallo\nde-2 Welt\n'), put('en', 'en-1\tHello\n'), put('gold', 'de-1\ten-1\n')],
          lambda d: read_bucc([d/'de', d/'en', d/'gold']), 'de, line 2 has no tab'))


@pytest.mark.parametrize('what', DAMAGED)
def test_damaged_files_are_named(what, put, tmp_path):
    make, read, says = DAMAGED[what]
    make(put, tmp_path)
    with pytest.raises(XltError, match=says): read(tmp_path)


def test_a_negative_offset_is_no_place(): assert place_answer('abc Panthers', 'Panthers', -8) == 4


def test_what_a_shared_file_lacks_is_said_of_the_file(put, tmp_path):
    put('tydiqa/tydiqa-goldp-v1.1-train.json', squad(('english-1', ('Nil', 4)), ('swahili-2', ('Nil', 4))))
    put('tydiqa/tydiqa-goldp-v1.1-dev.json', squad(('english-3', ('Nil', 4)), ('swahili-4', ('Nil', 4))))
    from xltnb.tasks.hub import _Loader, _gather
    loader = _Loader('tydiqa', tmp_path)
    _gather(loader, ('en', 'sw'))
    for key, count in loader.mended.items(): count['things'] += 1
    assert sorted(loader.notes) == ['en train: 1 things', 'tydiqa-goldp-v1.1-dev.json: 1 things']


def test_zero_shot_scores_a_part_of_mlqa_by_language(put, tmp_path):
    "The scorer knows its language by name, not by which table it was given"
    import torch
    from test_trainer import net, tokenizer
    from xltnb.models.heads import add_head
    from xltnb.training.scores import zero_shot
    for l in ('en', 'de'):
        for s in ('dev', 'test'): put(f'MLQA_V1/{s}/{s}-context-{l}-question-{l}.json', squad(*((f'q{i}', ('Nil', 4)) for i in range(3))))
    torch.manual_seed(0)
    got = zero_shot(add_head(net(), 'span'), tokenizer(), load_task('mlqa', tmp_path, ('de',)), limit=2)
    assert sorted(got.scores) == ['de', 'en'] and len(got.items['de']) == 2


# ---------------------------------------------------------------- catalogue, hub, splits

def test_catalogue_is_sound():
    for name, p in PUBLISHED.items():
        assert p.languages[0] == 'en' and len(set(p.languages)) == len(p.languages) and set(p.need) <= set(p.files) <= {'train', 'validation', 'test'}, name
        assert p.licence and (p.hub or p.of or name == 'cc100') and (not p.train_from or p.train_from in PUBLISHED), name
        for names in p.files.values():
            for f in names: p.named(f.rpartition(':')[2], 'de')
        if any('{x}' in f for fs in p.files.values() for f in fs): assert set(p.languages) - set(p.codes) <= ({'en'} if p.kind == 'retrieve' else set()), name
    assert {'xnli', 'xnli_dev', 'pawsx', 'wikiann', 'wikiann_dev', 'squad', 'xquad', 'mlqa', 'tydiqa', 'udpos', 'massive', 'massive_slot', 'tatoeba', 'bucc'} == set(PUBLISHED_TASKS)


def test_nothing_is_fetched_unasked(monkeypatch):
    monkeypatch.delenv('XLTNB_PAWSX', raising=False)
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    refuses(r'pawsx is not shipped: pass folder= \(or set XLTNB_PAWSX\), or set HF_HUB_OFFLINE=0 and pass hub=True', 'pawsx')
    for said in ('1', 'no', None):
        monkeypatch.delenv('HF_HUB_OFFLINE') if said is None else monkeypatch.setenv('HF_HUB_OFFLINE', said)
        refuses('pawsx would come from the hub .*, which is off: set HF_HUB_OFFLINE=0', 'pawsx', hub=True)
    refuses("unknown task 'paws-x'; did you mean 'pawsx'", 'paws-x')
    with pytest.raises(XltError, match='cc100 is not shipped: pass folder= .or set XLTNB_CC100.$'): load_corpus('cc100', hub=True)
    with pytest.raises(XltError, match='which is off: set HF_HUB_OFFLINE=0'): load_corpus('wikipedia', hub=True)


def test_blank_documents_of_the_hub_are_left_out(monkeypatch):
    import xltnb.tasks.hub as hub
    monkeypatch.setenv('HF_HUB_OFFLINE', '0')
    monkeypatch.delenv('XLTNB_WIKIPEDIA', raising=False)
    monkeypatch.setattr(hub, 'load_dataset', lambda *a, **kw: [dict(text=t) for t in ('', 'Simba.', ' ', 'Tembo.')])
    assert load_corpus('wikipedia', langs='sw', hub=True)['text'][:] == ['Simba.', 'Tembo.']


def test_embedded_tasks_come_by_the_same_call():
    t = load_task('lo_pair', langs='de')
    assert t.languages == ('en', 'de') and len(t.crossed('en', 'de')) > 100
    refuses('takes no folder', 'lo_pair', '.')


def test_the_hub_is_read_with_its_own_loader(tmp_path, monkeypatch):
    "A repository in the hub's layout, here on the disk, through `load_dataset`"
    import datasets
    feats = Features(premise=Value('string'), hypothesis=Value('string'), label=ClassLabel(names=list(NLI)))
    for l, splits in (('en', ('train', 'validation', 'test')), ('de', ('test',))):
        (tmp_path/'repo'/l).mkdir(parents=True)
        for s in splits: Dataset.from_dict(dict(premise=[f'{l} {s}'], hypothesis=['b'], label=[2]), features=feats).to_parquet(tmp_path/'repo'/l/f'{s}-00000-of-00001.parquet')
    part = '  - split: {s}\n    path: {l}/{s}-*\n'
    configs = ''.join(f'- config_name: {l}\n  data_files:\n' + ''.join(part.format(l=l, s=s) for s in ss) for l, ss in (('en', ('train', 'validation', 'test')), ('de', ('test',))))
    (tmp_path/'repo/README.md').write_text(f'---\nconfigs:\n{configs}---\n', encoding='utf-8')
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path/'cache')
    monkeypatch.setitem(PUBLISHED, 'xnli', replace(PUBLISHED['xnli'], hub=str(tmp_path/'repo')))
    monkeypatch.setenv('HF_HUB_OFFLINE', '0')
    monkeypatch.delenv('XLTNB_XNLI', raising=False)
    t = load_task('xnli', langs=('de',), hub=True)
    assert t.rows('de')[0] == dict(id='0', text='de test', text2='b', label=2) and set(t.data['de']) == {'test'} and len(t.rows('en', 'train')) == 1
    refuses("the hub did not give .*repo, sw, .*'sw' not found", 'xnli', langs=('sw',), hub=True)
    assert 'de validation' in ' '.join(t.notes) and 'left out' in ' '.join(t.notes)
    import xltnb.tasks.hub as hub
    def broken(repo, config, split, revision=None):
        if (config, split) == ('de', 'validation'): raise ConnectionError('the line is down')
        return datasets.load_dataset(repo, config, split=split, revision=revision)
    monkeypatch.setattr(hub, 'load_dataset', broken)
    refuses('the line is down', 'xnli', langs=('de',), hub=True)


def test_folder_from_the_environment(put, tmp_path, monkeypatch):
    xnli(put)
    monkeypatch.setenv('XLTNB_XNLI', str(tmp_path))
    assert len(load_task('xnli', langs='de').rows('de')) == 30 and data_folder('xnli') == tmp_path
    state = {s['name']: s for s in catalog_state()}
    assert state['xnli']['complete'] == 2 and len(state['xnli']['missing']) == 13 and state['pawsx']['folder'] == os.environ.get('XLTNB_PAWSX', '')
    monkeypatch.setenv('XLTNB_XNLI', str(tmp_path/'gone'))
    state = {s['name']: s for s in catalog_state()}['xnli']
    assert 'is not a folder' in state['missing'][0] and state['complete'] == 0
    put('tatoeba/de-en.de', 'Hallo\n')
    put('tatoeba/de-en.en', 'Hello\n')
    monkeypatch.setenv('XLTNB_TATOEBA', str(tmp_path))
    state = {s['name']: s for s in catalog_state()}['tatoeba']
    assert (state['complete'], state['languages']) == (1, len(PUBLISHED['tatoeba'].languages)-1), 'English has no files of its own'


def articles(lang, n=12, per=5):
    return json.dumps(dict(data=[dict(title=f'T{i}' if lang == 'en' else f'{lang}{i}', paragraphs=[dict(context=f'{lang} {i} {k}', qas=[dict(id=f'{i}-{k}', question='q', answers=[dict(text=str(i), answer_start=3)])]) for k in range(per)]) for i in range(n)]))


def test_split_by_article_never_by_question(put, tmp_path):
    for l in ('en', 'de'): put(f'xquad.{l}.json', articles(l))
    whole = load_task('xquad', tmp_path, ('de',))
    t = split_articles(whole, train=32, validation=10)
    parts = {s: {whole.groups[i] for i in t.rows('en', s)['id']} for s in ('train', 'validation', 'test')}
    assert not parts['train'] & parts['test'] and not parts['validation'] & (parts['train'] | parts['test']) and sum(map(len, parts.values())) == 12
    assert [len(t.rows('en', s)) for s in ('train', 'validation', 'test')] == [30, 10, 20] and t.rows('de')['id'][:] == t.rows('en')['id'][:]
    assert 'train' not in t.data['de'] and t.fingerprint() == split_articles(whole, train=32, validation=10).fingerprint()
    assert load_task('xquad', tmp_path, ()).groups == whole.groups, 'the English titles decide, whatever else is loaded'
    with pytest.raises(XltError, match='ask for fewer'): split_articles(whole, train=800)
    with pytest.raises(XltError, match='no article fits into train=2; they have 5 questions'): split_articles(whole, 2, 2)
    assert len(split_articles(whole, 30, 0).rows('en', 'validation')) == 0


def test_real_xquad(request, monkeypatch):
    folder = request.config.getoption('--xquad')
    if not folder: pytest.skip('--xquad DIR, a folder with the xquad.*.json files, tests on the real XQuAD')
    monkeypatch.setenv('XLTNB_XQUAD', folder)
    t = load_task('xquad')
    assert len(t.languages) == 12 and all(len(t.rows(l)) == 1190 for l in t.languages) and not t.notes
    s = split_articles(t)
    sizes = [len(s.rows('en', x)) for x in ('train', 'validation', 'test')]
    assert sum(sizes) == 1190 and 700 <= sizes[0] <= 800 and sizes[2] >= 250 and all(s.rows(l)['id'][:] == s.rows('en')['id'][:] for l in s.languages)
    assert not {t.groups[i] for i in s.rows('en', 'train')['id']} & {t.groups[i] for i in s.rows('en')['id']}
    for l in t.languages: assert t.score([a['text'][0] for a in t.rows(l)['answers']], t.rows(l)) == {'f1': 1., 'em': 1.}
    assert find_files('xquad', data_folder('xquad'), 'zh', 'test')[0] == Path(folder)/'xquad.zh.json'


@pytest.mark.parametrize('harm', ['['*99999, '9'*5000, '"\\ud800"', '{"a": 1, "a": 2}'])
def test_json_that_cannot_be_read_is_told_in_one_line(tmp_path, harm):
    from xltnb.tasks.formats import read_jsonl
    squad = json.dumps(dict(data=[dict(title='HARM', paragraphs=[dict(context='a b', qas=[dict(id='1', question='q', answers=[dict(text='a', answer_start=0)])])])]))
    for name, text, read in (('s.json', squad.replace('"HARM"', harm), read_squad), ('x.jsonl', '{"text": %s}\n' % harm, read_jsonl), ('x.jsonl', '{"text": %s}\n' % harm, lambda p: list(stream_texts(p)))):
        (tmp_path/name).write_text(text, encoding='utf-8')
        with pytest.raises(XltError, match=name): read(tmp_path/name)


def test_the_ending_of_a_text_may_be_in_capitals(tmp_path):
    (tmp_path/'x.JSONL').write_text('{"text": "Moja."}\n', encoding='utf-8')
    assert list(stream_texts(tmp_path/'x.JSONL')) == ['Moja.']
    (tmp_path/'x.TXT.GZ').write_bytes(__import__('gzip').compress(b'Moja.\n'))
    assert list(stream_texts(tmp_path/'x.TXT.GZ')) == ['Moja.']
