"An encoder of one's own in every task: the same numbers twice, what stopped goes on, and what cannot be scored is told in one line"
import json
import shutil
from string import ascii_lowercase

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from xltnb.cli import main
from xltnb.core import XltError
from xltnb.leaderboard.score import check_encoder, encoder_tokenizer, score_jobs, score_table, unknown_subwords
from xltnb.models.encoders import load_encoder
from xltnb.papers.baselines.experiments import baseline_jobs
from xltnb.records.store import Store, open_store
from xltnb.runs.plan import Plan
from xltnb.tasks.bench import load_bench


def letters():
    "A tokenizer that knows Latin letters alone"
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    words = special + [p+c for p in ('', '##') for c in ascii_lowercase]
    tok = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token='[UNK]'))
    tok.normalizer, tok.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tok.post_processor = processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    named = dict(zip(('pad_token', 'unk_token', 'cls_token', 'sep_token', 'mask_token'), special))
    return PreTrainedTokenizerFast(tokenizer_object=tok, model_max_length=512, **named)


@pytest.fixture(scope='module')
def encoder(tmp_path_factory):
    "A folder with a tiny encoder of random weights"
    folder, tok = tmp_path_factory.mktemp('score')/'tiny', letters()
    torch.manual_seed(0)
    net = BertModel(BertConfig(vocab_size=len(tok), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64))
    net.save_pretrained(folder), tok.save_pretrained(folder)
    return folder


def xltnb(capsys, *args):
    "Exit code of a command, and what it printed"
    capsys.readouterr()
    with pytest.raises(SystemExit) as end: main([str(a) for a in args])
    told = capsys.readouterr()
    return end.value.code, told.out, told.err


def numbers(capsys, encoder, store, *more):
    code, out, err = xltnb(capsys, 'score', encoder, '--store', store, '--json', *more)
    assert code in (None, 0), err
    return {(r['task'], r['method']): r for r in json.loads(out)}


@pytest.fixture(scope='module')
def few(tmp_path_factory):
    "A folder with an encoder that has 20 positions"
    folder, tok = tmp_path_factory.mktemp('score')/'few', letters()
    BertModel(BertConfig(vocab_size=len(tok), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=20)).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def test_few_positions(capsys, encoder, few, tmp_path):
    "Rows are cut where the positions of an encoder end, in training as in scoring"
    assert {j.config['fine']['max_len'] for j in score_jobs('smoke', str(few), ['cldr_cat'], ['RSRP(rho=0.1)'])} == {20}
    assert {j.config['fine']['max_len'] for j in score_jobs('smoke', str(encoder), ['cldr_cat'])} == {128}
    assert ('cldr_cat', 'plain') in numbers(capsys, few, tmp_path/'store', '--task', 'cldr_cat')


def test_sentences_of_another_encoder_get_no_prefix(encoder, tmp_path):
    "'query: ' is how the packaged one was trained; its runs keep their keys"
    from xltnb import retrieve
    said = lambda name, **kw: {j.config.get('prefix', 'query: ') for j in score_jobs('smoke', name, ['lo_ret'], **kw)}
    assert said(str(encoder)) == {''} and said(str(encoder), prefix='passage: ') == {'passage: '}
    assert said('e5-small') == said('e5-small:2') == {'query: '} and 'prefix' not in score_jobs('smoke', tasks=['lo_ret'])[0].config
    task, (net, tok) = load_bench('lo_ret', ('en', 'de')), load_encoder(str(encoder))
    found = {p: retrieve(net, tok, task, 60, p).scores for p in (None, '', 'query: ')}
    assert found[None] == found[''] != found['query: ']


def test_two_stores_hold_the_same_numbers(capsys, encoder, tmp_path):
    "Also where the first run was stopped before its second task; a script that the tokenizer lacks is told"
    tasks = '--task', 'cldr_cat', '--task', 'lo_ret'
    assert xltnb(capsys, 'score', encoder, *tasks, '--store', tmp_path/'a', '--minutes', 1e-9)[0] == 3
    assert numbers(capsys, encoder, tmp_path/'a', *tasks[:2]).keys() == {('cldr_cat', 'plain')}
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path/'a').rglob('*.json')}
    one, two = (numbers(capsys, encoder, tmp_path/s, *tasks) for s in 'ab')
    for r in (*one.values(), *two.values()): assert r.pop('seconds') > 0 and r.pop('memory_mb') > 0 # the machine's
    assert one == two and one.keys() == {('cldr_cat', 'plain'), ('lo_ret', 'plain')}
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path/'a').rglob('*.json')}
    assert before.items() <= after.items() and len(after) == 2
    row = one['cldr_cat', 'plain']
    assert row['chance'] == 12.5 and row['n'] == 1 and row['packaged'] is None
    assert row['languages']['zh']['unknown'] > 90 > 20 > row['languages']['en']['unknown']
    found = one['lo_ret', 'plain']
    assert found['chance'] == 6.25 and found['low'] <= found['others'] <= found['high'] and found['english'] is None
    code, out, err = xltnb(capsys, 'score', encoder, *tasks, '--store', tmp_path/'a', '--show')
    assert not code and 'cldr_cat' in out and 'languages' not in out
    assert 'the packaged encoder has no runs there: xltnb score e5-small --preset smoke --store' in err


def test_a_method_stands_beside_plain_training(capsys, encoder, tmp_path):
    found = numbers(capsys, encoder, tmp_path, '--task', 'cldr_cat', '--method', 'RSRP(rho=1.0)')
    assert found.keys() == {('cldr_cat', 'plain'), ('cldr_cat', 'RSRP(rho=1.0)')}


def test_the_packaged_encoder_is_the_committed_baseline():
    plan = Plan('score', 'laptop', score_jobs('laptop'), open_store('results'))
    assert {j.key for j in plan.jobs} <= {j.key for j in baseline_jobs('laptop')}
    rows = score_table(plan)
    assert {r['task'] for r in rows} >= {'cldr_cat', 'ha_intent', 'ha_slot', 'lo_pair', 'lo_tag', 'lo_ret'}
    for r in rows: assert r['low'] < r['others'] == r['packaged'] < r['high'] and not r['others'] <= r['chance'], r['task']


def test_another_training_of_the_folder_is_another_run(encoder, tmp_path):
    folder = tmp_path/'tiny'
    shutil.copytree(encoder, folder)
    known = check_encoder(str(folder))
    before = {j.key for j in score_jobs('smoke', known)}
    (folder/'note.txt').write_text('trained on', encoding='utf-8')
    assert check_encoder(f'{folder}:2') == known and check_encoder(f'{folder}:1') == f'{known}:1' # of two layers
    assert before.isdisjoint(j.key for j in score_jobs('smoke', known)) and known == str(folder)


def test_unknown_subwords_are_counted(encoder):
    tok, task = encoder_tokenizer(str(encoder)), load_bench('ha_slot', ['en', 'zh'])
    assert unknown_subwords(tok, task.rows('en')) < .1 < .8 < unknown_subwords(tok, task.rows('zh'))
    assert encoder_tokenizer('e5-small') is None


def spoilt(folder, how):
    "Harm a copy of the encoder's folder"
    if how == 'tokenizer':
        for p in folder.glob('*token*'): p.unlink()
    elif how == 'pickle': (folder/'model.safetensors').rename(folder/'pytorch_model.bin')
    elif how == 'no padding':
        config = json.loads((folder/'tokenizer_config.json').read_text(encoding='utf-8'))
        (folder/'tokenizer_config.json').write_text(json.dumps({k: v for k, v in config.items() if k != 'pad_token'}), encoding='utf-8')
    elif how == 'empty':
        for p in folder.iterdir(): p.unlink()
    elif how == 'width':
        config = json.loads((folder/'config.json').read_text(encoding='utf-8')) | dict(hidden_size=64)
        (folder/'config.json').write_text(json.dumps(config), encoding='utf-8')
    else:
        config = json.loads((folder/'config.json').read_text(encoding='utf-8')) | dict(model_type=how)
        (folder/'config.json').write_text(json.dumps(config), encoding='utf-8')


@pytest.mark.parametrize('how, says', [
    ('tokenizer', 'holds no tokenizer'), ('no padding', 'has no padding token: set tokenizer.pad_token'), ('pickle', r'as a pickle \(pytorch_model.bin\)'), ('empty', 'holds no config.json'),
    ('gpt2', 'holds a gpt2 model, which is not read'), ('t5', 'holds a t5 model, which is not read'), ('vit', 'holds a vit model'),
    ('width', r'embeddings.LayerNorm.bias has the shape \[32\], its config.json asks for \[64\]')])
def test_what_is_no_encoder_is_told(encoder, tmp_path, how, says):
    "By the command as by `load_encoder`"
    shutil.copytree(encoder, tmp_path/'tiny')
    spoilt(tmp_path/'tiny', how)
    for load in (check_encoder, *[load_encoder]*(how != 'no padding')):
        with pytest.raises(XltError, match=says) as e: load(str(tmp_path/'tiny'))
        assert '\n' not in str(e.value)


def test_a_table_for_an_encoder_with_few_positions_and_no_head(capsys, few, monkeypatch, tmp_path):
    "Rows are cut where its positions end; what is left out has a remedy"
    plans = []
    monkeypatch.setattr('xltnb.runs.run.run_plan', lambda plan, **kw: plans.append(plan))
    code, out, err = xltnb(capsys, 'leaderboard', '--encoder', few, '--store', tmp_path/'s')
    assert not code and {j.config[k]['max_len'] for j in plans[0].jobs for k in ('fine', 'frozen')} == {20}, err
    assert 'the rows of SALT are left out' in err and 'give a checkpoint with its own head for masked words' in err
    lost = err[err.index('it lacks ')+9:err.index(')')].split(', ')
    assert lost == sorted(lost)


@pytest.mark.parametrize('args, says', [
    (('{tmp}/none',), 'neither'), (('{tiny}', '--task', 'cldr_cta'), "did you mean 'cldr_cat'"), (('{tiny}', '--method', 'RSDAA()'), "did you mean 'RSDA'"),
    (('{tiny}', '--method', 'RSDA(copie=3)'), "did you mean 'copies'"), (('{tiny}', '--method', 'SelfSwitch()'), 'lacks'),
    (('{tiny}', '--preset', 'paper'), 'use smoke, laptop or gpu'), (('{tiny}:7',), 'from 1 to 2'), (('{tiny}:0',), 'from 1 to 2')])
def test_bad_input_is_one_line(capsys, encoder, tmp_path, monkeypatch, args, says):
    monkeypatch.setattr('xltnb.runs.run.run_plan', lambda *a, **kw: pytest.fail('it ran'))
    code, out, err = xltnb(capsys, 'score', *(a.format(tmp=tmp_path, tiny=encoder) for a in args), '--store', tmp_path/'s')
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1 and not out, err


def test_a_store_of_ones_own_hides_nothing(tmp_path):
    assert not score_table(Plan('score', 'smoke', score_jobs('smoke'), Store(tmp_path, committed=False)))


@pytest.mark.parametrize('task, method', [('ha_slot', 'RSDA(copies=1)'), ('lo_tag', 'ADV(rho=0.1)'), ('lo_pair', 'Consistency(views=1)'), ('cldr_cat', 'EAR(views=1, push=0, layer=1)'), ('ha_slot', 'FreeADV()')])
def test_a_method_runs_on_every_kind_that_it_serves(capsys, encoder, tmp_path, task, method):
    found = numbers(capsys, encoder, tmp_path, '--task', task, '--method', method)
    assert found.keys() == {(task, 'plain'), (task, method)}
    row = found[task, method]
    assert row['seconds'] > 0 and row['memory_mb'] > 0 and row['languages'].keys() >= {'en', 'de'}


@pytest.mark.parametrize('task, method, says', [
    ('ha_slot', 'Consistency()', 'Consistency() serves tasks of the kinds classify, pair, and no others: ha_slot is of the kind tag'),
    ('lo_ret', 'RSDA(copies=3)', 'serves tasks of the kinds classify, pair, tag, and no others: lo_ret is of the kind retrieve'),
    ('lo_ret', 'ADV()', 'kinds classify, pair, tag, span, and no others'), ('lo_tag', 'EmbedMixup(kind="classic")', 'serves tasks of the kinds classify, pair'),
    ('ha_slot', 'ADV() + PreparedViews(views=1)', 'serves tasks of the kinds classify, pair'), ('cldr_cat', 'EmbedMixup()', "reads the column 'switched_ids', and no method of the row writes it")])
def test_a_kind_that_a_method_does_not_serve_is_told(capsys, encoder, tmp_path, monkeypatch, task, method, says):
    monkeypatch.setattr('xltnb.runs.run.run_plan', lambda *a, **kw: pytest.fail('it ran'))
    code, out, err = xltnb(capsys, 'score', encoder, '--task', task, '--method', method, '--store', tmp_path/'s')
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1 and not out, err


def test_one_of_two_tasks_is_left_out_with_a_word():
    with pytest.warns(UserWarning, match='ha_slot is of the kind tag; it is left out there'): jobs = score_jobs('smoke', tasks=['ha_slot', 'cldr_cat'], methods=['Consistency()'])
    assert [j.labels['task'] for j in jobs if j.labels['row'] != 'plain'] == ['cldr_cat']
    served = {j.labels['task'] for j in score_jobs('smoke', methods=['ADV()']) if j.labels['row'] != 'plain'}
    assert served == {'cldr_cat', 'ha_intent', 'ha_slot', 'lo_tag', 'lo_pair'}


def test_a_method_given_twice_is_one_row():
    once, twice = (score_jobs('smoke', tasks=['cldr_cat'], methods=['RSDA(copies=1)']*n) for n in (1, 2))
    assert [j.key for j in once] == [j.key for j in twice]


def test_a_prefix_is_heeded_by_the_packaged_encoder_too():
    key = lambda **how: {j.key for j in score_jobs('smoke', tasks=['lo_ret'], **how)}
    assert key() == key(prefix='') and not key() & key(prefix='passage: ')
