"The embedded benchmark: features, counts, splits that share nothing, files that are checked, parsers on small inputs"
import hashlib
import io
import json
import lzma
import random
import shutil
import sys
import tarfile
import unicodedata
from collections import Counter
from itertools import combinations

import pytest
import yaml
from xltnb.tasks import bench
from xltnb.dev import build as bench_build
from xltnb.dev import items as bench_items
from xltnb.dev import parse as bench_parse
from xltnb.dev import sources as bench_sources
from xltnb.tasks import languages as scripts
from xltnb.tasks.bench import BENCH, BENCH_DIR, ENTRIES, bench_languages, check_bench, load_aligned, load_bench, load_text
from xltnb.core import XltError
from xltnb.tasks.metrics import spans
from xltnb.tasks.task import columns

FOLDERS = ('cldr_cat', 'ha', 'lo_pair', 'lo_tag', 'lo_ret', 'lo_topic', 'lo_text')
HELP = ('lo_pair', 'lo_tag', 'lo_ret', 'lo_topic')


def held(task): return [s for s in ('validation', 'test') if s in task.data['en']]


def strings(rows):
    "The texts of some rows, that of a tagging task put together again"
    if 'tokens' in rows.features: return [' '.join(t) for t in rows['tokens']]
    return rows['text'][:] if 'text2' not in rows.features else rows['text2'][:]


# -- what is there --

@pytest.mark.parametrize('name', BENCH)
def test_columns_and_labels(name):
    task = load_bench(name)
    for lang in task.languages:
        for split, rows in task.data[lang].items():
            assert rows.features == columns(task.kind, task.labels), (lang, split)
            assert len(set(rows['id'])) == len(rows), f'an id twice in {lang} {split}'
    assert task.source == 'en' and task.licence


def test_counts_are_those_of_the_recipe():
    "Languages, and rows of English, German and Chinese"
    assert [len(bench_languages(n)) for n in BENCH] == [30, 15, 13, 34, 34, 15, 15]
    sizes = {n: {s: len(r) for s, r in load_bench(n, ['de']).data['en'].items()} for n in BENCH}
    assert sizes['cldr_cat'] == dict(train=959, validation=142, test=479)
    assert sizes['lo_ret'] == dict(validation=500, test=1000)
    assert sizes['lo_topic'] == dict(train=1190, validation=174, test=488)
    assert 3500 < sizes['lo_pair']['train'] < 4500 and sizes['lo_pair']['test'] > 450
    assert 5000 < sizes['lo_tag']['train'] < 6000 and sizes['lo_tag']['test'] > 500
    assert 4000 < sizes['ha_intent']['train'] < 5300 and sizes['ha_intent'] == sizes['ha_slot']


@pytest.mark.parametrize('name', HELP)
def test_help_items_are_the_same_in_every_language(name):
    task = load_bench(name)
    for split in held(task):
        ids = task.rows('en', split)['id'][:]
        for lang in task.targets:
            assert task.rows(lang, split)['id'][:] == ids
            if name in ('lo_pair', 'lo_topic'): assert task.rows(lang, split)['label'][:] == task.rows('en', split)['label'][:]


def test_emoji_keep_split_and_label_in_every_language():
    task = load_bench('cldr_cat')
    at = {i: (s, y) for s, rows in task.data['en'].items() for i, y in zip(rows['id'], rows['label'])}
    for lang in task.languages:
        for s, rows in task.data[lang].items(): assert all(at[i] == (s, y) for i, y in zip(rows['id'], rows['label']))


def test_tags_have_the_same_types_in_every_language():
    task = load_bench('lo_tag')
    kinds = lambda lang: [sorted(k for k, *_ in spans([task.labels[t] for t in ts])) for ts in task.rows(lang)['tags']]
    same = {lang: sum(a == b for a, b in zip(kinds('en'), kinds(lang))) for lang in task.targets}
    assert min(same.values()) > .99*len(task.rows('en')), same


def test_slots_lie_in_the_sentence():
    intent, slot = load_bench('ha_intent', ['zh', 'he']), load_bench('ha_slot', ['zh', 'he'])
    for lang in intent.languages:
        for text, tokens, tags in zip(intent.rows(lang)['text'], slot.rows(lang)['tokens'], slot.rows(lang)['tags']):
            assert ''.join(tokens) == ''.join(text.split()) and len(tokens) == len(tags)
            assert not any(slot.labels[b][0] == 'I' and slot.labels[a][2:] != slot.labels[b][2:] for a, b in zip([0, *tags], tags)), 'I- after another type'


def test_pair_labels_are_balanced():
    rows = load_bench('lo_pair', ['de'])
    for split in ('train', *held(rows)): assert .45 < sum(rows.rows('en', split)['label'])/len(rows.rows('en', split)) < .55


def test_topics_are_told_by_the_page_and_not_by_a_name():
    task = load_bench('lo_topic')
    folders = list(bench_items._APPS)
    for split, rows in task.data['en'].items():
        counts = Counter(rows['label'])
        assert len(counts) == 6 and max(counts.values()) < .2*len(rows), (split, counts)
        for i, text, y in zip(rows['id'], rows['text'], rows['label']):
            assert i.split('/')[0] == folders[y] and bench_items._plain_sentence(text)
            assert not any(name in text for name in ('Writer', 'Calc', 'Impress', 'Basic', 'Math')), text


@pytest.mark.audit
def test_topics_lose_no_subword_of_the_pruned_encoder():
    task = load_bench('lo_topic', ['ja', 'km', 'hu'])
    texts = {f'{lang}-{split}-{i}': [t] for lang in task.languages for split in task.data[lang] for i, t in zip(task.rows(lang, split)['id'], task.rows(lang, split)['text'])}
    assert bench_items.read_whole(texts) == set(texts)
    assert bench_items.read_whole(dict(a=['ਪੰਜਾਬ ਦੇ ਕਿਸਾਨ'], b=['Save'])) == {'b'}


# -- nothing in two splits --

@pytest.mark.parametrize('name', BENCH)
def test_no_id_and_no_string_in_two_splits(name):
    task = load_bench(name)
    for lang in task.languages:
        for a, b in combinations(task.data[lang].values(), 2):
            if name[:3] != 'ha_': assert not set(a['id']) & set(b['id'])
            both = set(strings(a)) & set(strings(b))
            if task.kind == 'tag' and name == 'lo_tag' or name == 'cldr_cat': assert len(both) <= 2, (lang, sorted(both)[:3])  # two emoji may have one name
            else: assert not both, (lang, sorted(both)[:3])


@pytest.mark.parametrize('name', HELP)
def test_a_page_is_in_one_split(name):
    task = load_bench(name)
    pages = [{i.split('#')[0] for i in rows['id']} for rows in task.data['en'].values()]
    assert not any(a & b for a, b in combinations(pages, 2))
    assert all(bench_parse.hash_split(p) == 'test' for p in pages[-1])


def test_english_training_sentences_of_the_home_are_in_no_other_language():
    task = load_bench('ha_intent')
    english = set(task.rows('en', 'train')['text'])
    assert not any(english & set(task.rows(lang)['text']) for lang in task.targets)


def test_slot_values_of_the_test_are_unseen():
    task = load_bench('ha_slot', [])
    def values(split, kind): return {' '.join(r['tokens'][a:b]) for r in task.rows('en', split) for k, a, b in spans([task.labels[t] for t in r['tags']]) if k == kind}
    for kind in ('area', 'item'): assert values('test', kind) and not values('train', kind) & values('test', kind)


def test_training_text_holds_no_held_out_string():
    text = load_text().to_pandas()
    text['key'] = text.text.map(bench_items.match_key)
    by_lang = text.groupby('lang').key.apply(set)
    assert len(by_lang) == 23 and not text.duplicated(['lang', 'key']).any(), 'a string twice in a language'
    for name in HELP:
        task = load_bench(name)
        for lang in task.languages:
            for split in held(task):
                rows = task.rows(lang, split)
                for c in {'text', 'text2'} & set(rows.features): assert not by_lang[lang] & set(rows[c]), (name, lang, split)
                if 'tokens' in rows.features: assert not {''.join(t.split()) for t in by_lang[lang]} & {''.join(t) for t in rows['tokens']}


def test_aligned_text_stands_beside_its_original():
    pairs, english = load_aligned(['fi', 'zh']), set(load_text(['en'])['text'])
    assert set(pairs['lang']) == {'fi', 'zh'} and set(pairs['en']) <= english
    text = Counter(load_text(['fi', 'zh'])['lang'])
    assert Counter(pairs['lang']) == text
    assert not any(a == b for a, b in zip(pairs['text'], pairs['en']))


# -- files --

def test_size_licences_and_notices():
    files = [p for p in BENCH_DIR.rglob('*') if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 12e6
    for folder in FOLDERS:
        names = {p.name for p in (BENCH_DIR/folder).iterdir()}
        assert {f'LICENSE-{n}.txt' for n in bench_build.read_cards()[folder]['licences']} | {'README.md'} <= names
        card = (BENCH_DIR/folder/'README.md').read_text(encoding='utf-8')
        head = yaml.safe_load(card.split('---')[1])
        assert head['license'] and head['configs'][0]['data_files'] and '©' in card
        assert {f['path'] for f in head['configs'][0]['data_files']} == {n for n in names if n.endswith('.parquet')}


@pytest.mark.parametrize('folder', ['cldr_cat', 'lo_tag'])
def test_datasets_alone_opens_a_folder(folder, tmp_path):
    from datasets import ClassLabel, load_dataset
    data = load_dataset(str(BENCH_DIR/folder), cache_dir=str(tmp_path))
    name = next(n for n, e in ENTRIES.items() if e.folder == folder)
    assert set(data) == {'train', 'validation', 'test'} and set(data['test']['lang']) == set(bench_languages(name))
    kind = data['test'].features['tags'].feature if folder == 'lo_tag' else data['test'].features['label']
    assert isinstance(kind, ClassLabel) and tuple(kind.names) == load_bench(name, []).labels


def test_check_finds_every_kind_of_damage(tmp_path, monkeypatch):
    shutil.copytree(BENCH_DIR, tmp_path, dirs_exist_ok=True)
    whole = check_bench(tmp_path)
    assert whole.ok and 'all as built' in repr(whole)
    (tmp_path/'lo_ret'/'test.parquet').write_bytes((BENCH_DIR/'lo_ret'/'test.parquet').read_bytes()[:-100])
    raw = bytearray((BENCH_DIR/'ha'/'test.parquet').read_bytes())
    raw[len(raw)//2] ^= 255
    (tmp_path/'ha'/'test.parquet').write_bytes(raw)
    (tmp_path/'cldr_cat'/'train.parquet').unlink()
    shutil.copy(BENCH_DIR/'lo_tag'/'validation.parquet', tmp_path/'lo_tag'/'test.parquet')
    found = '\n'.join(check_bench(tmp_path).problems)
    assert 'lo_ret/test.parquet is damaged' in found and 'ha/test.parquet is damaged' in found
    assert 'cldr_cat/train.parquet is missing' in found and 'lo_tag/test.parquet: en: 157 rows, not 527' in found
    monkeypatch.setattr(bench, 'BENCH_DIR', tmp_path)
    bench._split.cache_clear()
    try:
        with pytest.raises(XltError, match='is damaged .*: install the package again'): load_bench('ha_intent')
        with pytest.raises(XltError, match='is missing: install'): load_bench('cldr_cat')
    finally: bench._split.cache_clear()


def test_wrong_names():
    with pytest.raises(XltError, match="did you mean 'cldr_cat'"): load_bench('cldr_cats')
    with pytest.raises(XltError, match="unknown language of lo_pair 'sw'"): load_bench('lo_pair', ['sw'])
    with pytest.raises(XltError, match='unknown language of lo_text'): load_text(['sw'])


def test_a_string_is_one_language():
    assert load_bench('lo_pair', 'de').languages == ('en', 'de')
    assert set(load_text('km')['lang']) == set(load_aligned('km')['lang']) == {'km'}
    with pytest.raises(XltError, match="unknown language of lo_text .train. 'dee'"): load_text('dee')


@pytest.mark.parametrize('text', ['{}', '[]', '{"files": {}}', '{"files": 3}', '{"files": {"ha/test.parquet": {"sha256": "0"}}}'])
def test_a_manifest_that_lists_nothing(text, tmp_path):
    (tmp_path/'manifest.json').write_text(text, encoding='utf-8')
    with pytest.raises(XltError, match='manifest.json cannot be read: it lists no files with "rows"'): check_bench(tmp_path)


# -- the builder --

def test_pins_and_their_licences():
    pins = bench_sources.read_pins()
    assert len(pins) == 3+23 and all(len(s.sha256) == 64 for s in pins.values())
    assert {k for k in pins if k[:5] == 'help-'} == {f'help-{lang}' for lang in bench_items.TEXT_LANGS}
    assert all(any(c.isdigit() for c in s.get) for s in pins.values()), 'a version a package'


def test_another_package_is_refused(tmp_path):
    for s in bench_sources.read_pins().values(): (tmp_path/s.file).write_bytes(b'something else')
    with pytest.raises(XltError, match='26 packages are not as pinned.*strict=False'): bench_build.build_bench(tmp_path, tmp_path/'out')
    with pytest.raises(XltError, match='cannot be read.*fetch it again|not a Debian package'): bench_build.build_bench(tmp_path, tmp_path/'out', strict=False)
    assert not (tmp_path/'out').exists()


def test_a_download_that_was_cut_is_fetched_again(tmp_path, monkeypatch):
    whole = bench_sources.Source('a', 'npm', 'a@1', 'a.tgz', hashlib.sha256(b'whole').hexdigest(), 'MIT')
    monkeypatch.setattr(bench_sources, 'read_pins', lambda: dict(a=whole))
    write = lambda text, code: lambda s: [sys.executable, '-c', f"import sys; open('a.tgz', 'w').write('{text}'); sys.exit({code})"]
    (tmp_path/'a.tgz').write_bytes(b'wh')
    assert 'delete it and fetch it again: npm pack a@1' in bench_sources.check_sources(tmp_path)[0]
    monkeypatch.setattr(bench_sources.Source, 'command', write('who', 1))
    with pytest.raises(XltError, match='did not give a.tgz'): bench_sources.fetch_sources(tmp_path)
    monkeypatch.setattr(bench_sources.Source, 'command', write('other', 0))
    with pytest.raises(XltError, match='a.tgz with SHA-256 d9298a10d1b0…, pinned is .*: run again, or fetch it from another registry'): bench_sources.fetch_sources(tmp_path)
    assert (tmp_path/'a.tgz').read_bytes() == b'wh', 'what was there stays'
    monkeypatch.setattr(bench_sources.Source, 'command', write('whole', 0))
    assert (bench_sources.fetch_sources(tmp_path), bench_sources.fetch_sources(tmp_path)) == (['a.tgz'], [])
    assert [p.name for p in tmp_path.iterdir()] == ['a.tgz'] and not bench_sources.check_sources(tmp_path)


def deb(files):
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode='w') as t:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            t.addfile(info, io.BytesIO(text.encode()))
    data = lzma.compress(buf.getvalue())
    head = lambda n, k: f'{n:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{k:<10}`\n'.encode()
    return b'!<arch>\n' + head('debian-binary', 3) + b'2.0\n' + head('data.tar.xz', len(data)) + data  # odd length: one byte of padding


def test_help_pages_from_a_package(tmp_path):
    html = '<p id="x">menu</p><div id="DisplayArea"><h2 id="hd1">A &amp; B</h2><p id="p1">See <a href="b">this\n page</a>.</p><p id="p2"><span class="switchinline"><span class="MAC">x</span></span></p>'
    (tmp_path/'a.deb').write_bytes(deb({'./usr/share/libreoffice/help/zh-CN/text/scalc/a.html': html, './usr/share/libreoffice/help/zh-CN/b.js': '1'}))
    found = bench_items.read_help(tmp_path/'a.deb', 'zh')
    assert {i: s.text for i, s in found.items()} == {'scalc/a.html#hd1': 'A & B', 'scalc/a.html#p1': 'See this page.'}
    assert found['scalc/a.html#hd1'].heading and found['scalc/a.html#p1'].page == 'scalc/a.html'


@pytest.mark.parametrize('body,text,marks', [
    ('Press <span class="keycode">F1</span>, then <span class="emph"> OK </span>!', 'Press F1, then OK !', [('F1', 'KEY'), ('OK', 'UI')]),
    ('<span class="avis">One <span class="emph">two</span></span>', 'One two', [('two', 'UI')]),
    ('<span class="emph"></span>nothing<br>marked', 'nothing marked', []),
    ('an <span class="literal">open mark', 'an open mark', []),
    ('选择<span class="menuitem">「<span class="emph">格式</span>」</span>。', '选择「格式」。', [('「格式」', 'MENU')]),
])
def test_inline_marks(body, text, marks):
    found, where = bench_parse.marked_text(body)
    assert found == text and [(found[a:b], t) for a, b, t in where] == marks


def test_tokens_are_words_or_characters():
    assert bench_parse.tag_tokens('Click Save as.', ((6, 13, 'UI'),), 'en') == (['Click', 'Save', 'as.'], ['O', 'B-UI', 'I-UI'])
    assert bench_parse.tag_tokens('按F1键', ((1, 3, 'KEY'),), 'zh') == (['按', 'F1', '键'], ['O', 'B-KEY', 'O'])
    assert bench_parse.tag_tokens('ที่นี่', (), 'th')[0] == ['ที่', 'นี่'], 'marks stay on their letter'
    assert bench_parse.tag_tokens('', (), 'en') == ([], [])


@pytest.mark.parametrize('lang,text,names', [
    ('te', 'ఇల్లు', ('TELUGU',)), ('mr', 'घर', ('DEVANAGARI',)), ('kn', 'ಮನೆ', ('KANNADA',)), ('gu', 'ઘર', ('GUJARATI',)), ('pa', 'ਘਰ', ('GURMUKHI',)),
    ('hy', 'տուն', ('ARMENIAN',)), ('kk', 'үй', ('CYRILLIC',)), ('mn', 'гэр', ('CYRILLIC',)), ('lo', 'ເຮືອນ', ('LAO',)), ('zh-tw', '家', ('CJK',)), ('sr', 'кућа', ('CYRILLIC', 'LATIN')),
])
def test_scripts_of_languages_beyond_the_benchmark(lang, text, names):
    assert scripts.scripts_of(lang) == names and scripts.script(text) in names and scripts.in_script(text, lang)
    assert scripts.in_script('house', lang) == ('LATIN' in names) and scripts.spaced(lang) == (lang not in ('lo', 'zh-tw'))


def every(text, rules=None, fill=lambda *a: 'X', n=300):
    "All sentences that many random walks find"
    tree = bench_parse.parse_template(text)
    walks = (bench_parse.walk(tree, rules or {}, fill, random.Random(i)) for i in range(n))
    return {w and bench_parse.join_pieces(w)[0] for w in walks}


@pytest.mark.parametrize('text,want', [
    ('turn (on|off) [the] light[s]', {f'turn {o} {t}light{s}' for o in ('on', 'off') for t in ('', 'the ') for s in ('', 's')}),
    ('a|b c', {'a', 'b c'}),
    ('[(a|b)]c', {'c', 'ac', 'bc'}),
    ('(a;b)', {'a b', 'b a'}),
    (r'5 \[cm\]', {'5 [cm]'}),
    ('in <where>', {'in the X', 'in X'}),
    ('<nowhere>', {None}),
])
def test_templates(text, want): assert every(text, {'where': '[the] {area}'}) == want


def test_templates_with_faults():
    for bad in ('(a|b', 'a]', '[a)', 'a)b'):
        with pytest.raises(XltError, match='bracket'): bench_parse.parse_template(bad)
    assert every('<loop>', {'loop': '<loop>'}, n=3) == {None}, 'a rule that names itself gives nothing'
    assert every('{floor}', fill=lambda *a: None, n=3) == {None}


def test_values_of_lists():
    draw = lambda spec: {bench_parse.list_value(spec, {}, random.Random(i)) for i in range(200)}
    assert draw(dict(range={'from': 5, 'to': 7})) == {'5', '6', '7'}
    assert draw(dict(values=[{'in': 'door[s]', 'out': 'door'}, 'gate'])) == {'door', 'doors', 'gate'}
    assert draw(dict(wildcard=True)) == {None}


def test_first_seen_prefers_held_out_items():
    items = [('train', ['a', 'b'], 1), ('validation', ['b'], 2), ('test', ['c'], 3), ('test', ['c', 'd'], 4), ('train', ['e'], 5)]
    assert bench_items.first_seen(items) == [2, 3, 5]


def test_text_leaves_out_what_was_held(monkeypatch):
    "Strings of held-out pages, their translations, untranslated paragraphs, repetitions"
    pages = {s: next(f'p{i}' for i in range(99) if bench_parse.hash_split(f'p{i}') == s) for s in ('train', 'test')}
    long = 'a paragraph that is long enough'
    def segs(rows): return {i: bench_parse.Segment(i, 'p', t) for i, t in rows.items()}
    tr, te = pages['train'], pages['test']
    en = segs({f'{tr}#1': long, f'{tr}#2': long+' 2', f'{tr}#3': long+' 3', f'{tr}#4': long, f'{te}#1': long+' 3', f'{te}#2': 'short'})
    de = segs({f'{tr}#1': 'ein Absatz', f'{tr}#2': 'Absatz zwei', f'{tr}#3': 'Absatz drei', f'{tr}#4': 'ein Absatz, anders', f'{te}#2': 'Absatz zwei'})
    helps = {lang: {} for lang in bench_items.TEXT_LANGS} | dict(en=en, de=de)
    rows = bench_items.text_rows(helps)['train']
    assert [(r['lang'], r['id'], r['text']) for r in rows] == [('en', 0, long), ('en', 1, long+' 2'), ('de', 0, 'ein Absatz'), ('de', 0, 'ein Absatz, anders')]


def test_a_table_is_written_the_same_twice(tmp_path):
    rows = [dict(id=str(i), lang='en' if i < 50 else 'de', text=f'row {i}', label=i % 8) for i in range(100)]
    types = bench_items.column_types(('text',), bench_parse.GROUPS)
    a, b = (bench_build.write_table(rows, types, tmp_path/n).read_bytes() for n in 'ab')
    assert a == b
    assert json.loads(json.dumps(bench.describe(tmp_path/'a')))['rows'] == dict(en=50, de=50)


# -- baselines without an encoder --

def test_ngrams_learn_english_and_little_else():
    from xltnb.tasks.ngrams import NgramTagger, majority, nearest_texts, simple_scores
    cat = simple_scores(load_bench('cldr_cat', ['sw', 'hi']))
    assert cat.ngrams['en'] > .75 and cat.ngrams[['sw', 'hi']].max() < .3 and cat.majority.max() < .25
    slot = load_bench('ha_slot', ['nl', 'zh'])
    tagger, rows = NgramTagger(slot, 800), slot.rows('en')
    assert slot.score(tagger(rows), rows)['f1'] > .3 > slot.score(tagger(slot.rows('zh')), slot.rows('zh'))['f1']
    assert slot.score(majority(slot, rows), rows)['f1'] == 0
    ret = load_bench('lo_ret', ['fr', 'zh'])
    found = {lang: ret.score(ids, ret.rows(lang))['accuracy@1'] for lang, ids in nearest_texts(ret).items()}
    assert found['fr'] > .5 > found['zh']
    with pytest.raises(XltError, match='no labels to count'): majority(ret, ret.rows('fr'))


def test_baselines_of_bare_tags_and_of_another_source():
    from datasets import DatasetDict
    from xltnb.tasks.ngrams import NgramTagger, majority
    from xltnb.tasks.task import Task, make_rows
    rows = make_rows([dict(id=str(i), tokens=['das', 'Haus', 'Tor'], tags=['DET', 'NOUN', 'NOUN']) for i in range(6)], 'tag', ('DET', 'NOUN'))
    task = Task('pos', 'tag', dict(de=DatasetDict(train=rows, test=rows)), ('DET', 'NOUN'), source='de')
    assert task.score(majority(task, rows), rows) == {'accuracy': pytest.approx(2/3)}
    assert task.score(NgramTagger(task)(rows), rows) == {'accuracy': 1.}


def test_a_test_string_is_known_in_any_normal_form():
    from xltnb.tasks.held_out import bare, check_clean
    text = next(t for t in load_bench('lo_ret').rows('vi', 'test')['text'] if unicodedata.normalize('NFD', t) != t and len(bare(t)) > 20)
    for form in ('NFC', 'NFD'):
        with pytest.raises(XltError, match='is a test string'): check_clean([unicodedata.normalize(form, text)])
