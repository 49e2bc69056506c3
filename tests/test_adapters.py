"Adapters: equations by hand, attach and detach, files, AdapterHub's layout"
import copy
import json

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel, RobertaConfig, RobertaForMaskedLM
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM, XLMRobertaForTokenClassification

from xltnb.core import XltError
from xltnb.models.adapterhub import FILES, from_hub, hub_cfg, hub_config, own_name, to_hub, unpickle
from xltnb.models.adapter_files import load_adapter, read_header, save_adapter
from xltnb.models.adapters import Adapter, Backbone, BottleneckCfg, IA3Cfg, LoraCfg, NiceCoupling, fill
from xltnb.models.attaching import attach
from xltnb.training.settings import MLMCfg
from xltnb.training.text import Corpus
from xltnb.training.masking import Batch
from xltnb.training.masked_loss import masked_loss
from xltnb.training.mlm_run import MLMRun

SIZES = dict(vocab_size=120, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, max_position_embeddings=40)
LAYOUTS = {'bert': (BertConfig, BertForMaskedLM), 'roberta': (RobertaConfig, RobertaForMaskedLM), 'xlm-roberta': (XLMRobertaConfig, XLMRobertaForMaskedLM)}
KINDS = dict(pfeiffer=BottleneckCfg(), houlsby=BottleneckCfg(16, 'relu', ('attention', 'output'), False), lora=LoraCfg(), ia3=IA3Cfg(ff='before'))
IDS = torch.from_numpy(np.random.default_rng(0).integers(5, 120, (3, 9)))


def masked(kind):
    torch.manual_seed(0)
    cfg, cls = LAYOUTS[kind]
    return cls(cfg(**SIZES)).eval()


def shaken(name, cfg, model, seed=1):
    a = Adapter(name, cfg, model)
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in a.parameters(): p.add_(.1*torch.randn(p.shape, generator=gen))
    return a


def by_hand(model, ids, lang, task=None, inverse=True):
    "The paper's equations, written out: o1, o2, LN(o2+a), NICE at the embeddings, its inverse before the decoder"
    body = model.base_model
    x = body.embeddings(ids)
    if lang.nice is not None: x = lang.nice(x)
    for i, layer in enumerate(body.encoder.layer):
        a = layer.attention(x)[0]
        o = layer.output.dense(layer.intermediate(a))
        norm = layer.output.LayerNorm
        for adapter in (lang, task) if task else (lang,):
            u = adapter.layer[str(i)].output
            o = u.up(u.act(u.down(norm(o+a))))+o
        x = norm(o+a)
    if hasattr(model, 'classifier'): return model.classifier(x)
    head = model.cls.predictions if hasattr(model, 'cls') else model.lm_head
    if hasattr(head, 'transform'): x = head.transform.LayerNorm(nn.functional.gelu(head.transform.dense(x)))
    else: x = head.layer_norm(nn.functional.gelu(head.dense(x)))
    return head.decoder(lang.nice.inverse(x) if inverse and lang.nice is not None else x)


@pytest.mark.parametrize('kind', LAYOUTS)
def test_outputs_equal_the_equations(kind):
    model = masked(kind)
    for cfg in (BottleneckCfg(), BottleneckCfg(nice=False), BottleneckCfg(act='relu')):
        es = shaken('es', cfg, model)
        for inverse in (True, False):
            want = by_hand(model, IDS, es, inverse=inverse)
            with attach(model, es, inverse=inverse): assert torch.equal(model(IDS).logits, want)
    assert not torch.equal(by_hand(model, IDS, shaken('es', BottleneckCfg(), model)), by_hand(model, IDS, shaken('es', BottleneckCfg(), model), inverse=False))


def test_a_stack_equals_the_equations():
    torch.manual_seed(0)
    model = XLMRobertaForTokenClassification(XLMRobertaConfig(**SIZES, num_labels=5)).eval()
    es, ner = shaken('es', BottleneckCfg(), model), shaken('ner', BottleneckCfg(reduction=16, nice=False), model, 2)
    want = by_hand(model, IDS, es, ner)
    with attach(model, es, ner): assert torch.equal(model(IDS).logits, want)
    with pytest.raises(XltError, match='name es first'): attach(model, ner, es)
    flat = shaken('flat', BottleneckCfg(nice=False), model)
    with attach(model, flat, ner): want = model(IDS).logits
    with attach(model, ner, flat): assert not torch.equal(model(IDS).logits, want)


def test_houlsby_has_two_places():
    model = masked('bert')
    a = shaken('es', BottleneckCfg(16, 'relu', ('attention', 'output'), False, nice=False), model)
    x = model.bert.embeddings(IDS)
    for i, layer in enumerate(model.bert.encoder.layer):
        u = a.layer[str(i)]
        h = layer.attention.output.dense(layer.attention.self(x)[0])
        x1 = layer.attention.output.LayerNorm(u.attention(h)+h+x)
        h = layer.output.dense(layer.intermediate(x1))
        x = layer.output.LayerNorm(u.output(h)+h+x1)
    with attach(model, a): got = model.bert(IDS).last_hidden_state
    assert torch.allclose(got, x, atol=1e-6)


def test_lora_and_ia3_equal_changed_weights():
    "LoRA is a change of the projection; IA3 scales its rows"
    for cfg in (LoraCfg(4, 8., ('query', 'key', 'value')), IA3Cfg(ff='before')):
        model = masked('bert')
        a = shaken('es', cfg, model)
        with attach(model, a): want = model(IDS).logits
        with torch.no_grad():
            for i, layer in enumerate(model.bert.encoder.layer):
                for place, u in a.layer[str(i)].items():
                    m = layer.intermediate.dense if place == 'ff' else getattr(layer.attention.self, place)
                    if isinstance(cfg, LoraCfg): m.weight += u.B@u.A*u.scaling
                    else:
                        m.weight *= u.scale[:, None]
                        m.bias *= u.scale
        assert torch.allclose(model(IDS).logits, want, atol=1e-5)


@pytest.mark.parametrize('kind', LAYOUTS)
@pytest.mark.parametrize('cfg', KINDS)
def test_detach_restores_bit_for_bit(kind, cfg):
    model = masked(kind)
    state, flags, cls = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()], type(model)
    out, hooks = model(IDS).logits, sum(len(m._forward_hooks)+len(m._forward_pre_hooks) for m in model.modules())
    a = shaken('es', KINDS[cfg], model)
    on = attach(model, a, train=a)
    assert type(model) is cls and not torch.equal(model(IDS).logits, out)
    assert {n.split('.')[-1] for n, p in model.named_parameters() if p.requires_grad} == {n.split('.')[-1] for n, _ in a.named_parameters()}
    on.detach()
    assert model.state_dict().keys() == state.keys() and all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(model(IDS).logits, out) and [p.requires_grad for p in model.parameters()] == flags
    assert hooks == sum(len(m._forward_hooks)+len(m._forward_pre_hooks) for m in model.modules())


def test_any_model_of_the_layout():
    torch.manual_seed(0)
    for cls in (BertModel, BertForSequenceClassification):
        model = cls(BertConfig(**SIZES)).eval()
        with attach(model, shaken('es', BottleneckCfg(), model)): model(IDS)
    with pytest.raises(XltError, match='no layers in the layout'): attach(nn.Linear(2, 2), shaken('es', BottleneckCfg(), model))


def test_a_failed_attach_changes_nothing():
    model = masked('bert')
    a = shaken('es', LoraCfg(), model)
    del model.bert.encoder.layer[1].attention.self.value
    with pytest.raises(XltError, match="no projection called 'value'"): attach(model, a)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()) and not hasattr(model.bert, 'attached_adapters')


def test_misfits_are_refused():
    model, other = masked('bert'), Backbone('bert', 3, 64, 128)
    a = shaken('es', BottleneckCfg(), model)
    with pytest.raises(XltError, match='layers 3 and 2'): attach(model, Adapter('es', BottleneckCfg(), other))
    with pytest.raises(XltError, match='one name'): attach(model, a, shaken('es', BottleneckCfg(), model))
    with pytest.raises(XltError, match='not attached'): attach(model, a, train=shaken('ner', BottleneckCfg(), model))
    with pytest.raises(XltError, match='no adapter'): attach(model)
    with pytest.raises(XltError, match='bfloat16'): attach(model.bfloat16(), a)
    with pytest.raises(XltError, match='leave_out names layer 5'): Adapter('es', BottleneckCfg(leave_out=(5,)), other)
    with pytest.raises(XltError, match="unknown activation 'geluu'"): BottleneckCfg(act='geluu')


def test_leave_out_leaves_the_layer_alone():
    model = masked('xlm-roberta')
    a = Adapter('es', BottleneckCfg(nice=False, leave_out=(1,)), model)
    assert list(a.layer) == ['0']
    with attach(model, a): model(IDS)


def test_shared_start():
    shape = Backbone('bert', 2, 64, 128)
    a, b, c = (Adapter(n, BottleneckCfg(), shape, init=i) for n, i in (('a', 'shared'), ('b', 'shared'), ('c', 1)))
    assert a.fingerprint == b.fingerprint != c.fingerprint
    w = a.weights()
    first = torch.randn(32, 64, generator=torch.Generator().manual_seed(2147483647))*.02
    for i in (0, 1):
        assert torch.equal(w[f'layer.{i}.output.down.weight'], first)
        assert not w[f'layer.{i}.output.down.bias'].any()


@pytest.mark.parametrize('width', [64, 7])
def test_the_coupling_is_invertible(width):
    nice, x = NiceCoupling(width, BottleneckCfg()), torch.randn(5, 3, width)
    for p in nice.parameters(): nn.init.normal_(p, std=.3)
    assert torch.allclose(nice.inverse(nice(x)), x, atol=1e-5) and not torch.allclose(nice(x), x)


def test_masked_positions_get_the_inverse_and_the_same_gradient():
    "The head at masked positions only, as training computes it, against all logits"
    for kind in LAYOUTS:
        model = masked(kind)
        a = shaken('es', BottleneckCfg(), model)
        place = torch.tensor([1, 5, 13, 20])
        target = torch.tensor([7, 8, 9, 10])
        with attach(model, a, train=a):
            loss, _ = masked_loss(model, Batch(IDS, None, place, target))
            loss.backward()
            few = {n: p.grad.clone() for n, p in a.named_parameters()}
            a.zero_grad()
            want = nn.functional.cross_entropy(model(IDS).logits.flatten(0, 1)[place], target)
            want.backward()
        assert torch.allclose(loss, want, atol=1e-6)
        assert all(torch.allclose(few[n], p.grad, atol=1e-6) for n, p in a.named_parameters())
        assert all(p.grad is None for p in model.parameters())


def test_the_mlm_run_trains_an_attached_adapter(tmp_path):
    "The loop for masked words needs no change: body and head stay, the adapter moves, and a run can go on"
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast
    vocab = {w: i for i, w in enumerate(['<s>', '<pad>', '</s>', '<unk>', '<mask>', *(f'w{i}' for i in range(115))])}
    tok = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(vocab, '<unk>')), cls_token='<s>', sep_token='</s>', pad_token='<pad>', unk_token='<unk>', mask_token='<mask>')
    rng = np.random.default_rng(0)
    sizes = rng.integers(6, 12, 60)
    corpus = Corpus(rng.integers(5, 120, sizes.sum()).astype(np.int32), np.cumsum([0, *sizes]), np.zeros(60, np.uint8), np.arange(60, dtype=np.int32), ('es',))
    model = masked('xlm-roberta')
    before, a = copy.deepcopy(model.state_dict()), Adapter('es', BottleneckCfg(), model)
    start = a.fingerprint
    cfg = MLMCfg(tokens=400, block=16, batch=4, mask=.15, dual=0., lr=1e-3, warmup=0.)
    with attach(model, a, train=a): MLMRun(cfg, tmp_path, corpus, (model, tok)).train(log=lambda _: None)
    assert a.fingerprint != start and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    moved = Adapter('es', BottleneckCfg(), model)
    assert all(not torch.equal(p, q) for (n, p), q in zip(a.named_parameters(), moved.parameters()))
    with attach(model, moved, train=moved): MLMRun(cfg, tmp_path, corpus, (model, tok))
    assert moved.fingerprint == a.fingerprint


def test_files(tmp_path):
    for name, cfg in KINDS.items():
        a = shaken('es', cfg, Backbone('bert', 2, 64, 128))
        a.about = dict(text='naïve')
        path = save_adapter(a, tmp_path/f'{name}.safetensors')
        b = load_adapter(path)
        assert (b.fingerprint, b.cfg, b.backbone, b.init, b.about, b.name) == (a.fingerprint, a.cfg, a.backbone, a.init, a.about, 'es')
        assert save_adapter(b, tmp_path/'again').read_bytes() == path.read_bytes()
        assert next(read_header(path).parameters()).is_meta


def test_bad_files(tmp_path):
    a = shaken('es', BottleneckCfg(), Backbone('bert', 2, 64, 128))
    path = save_adapter(a, tmp_path/'es.safetensors')
    whole = path.read_bytes()
    for cut in (0, 4, 100, len(whole)//2, len(whole)-1):
        path.write_bytes(whole[:cut])
        with pytest.raises(XltError, match='no whole safetensors file'): load_adapter(path)
    with pytest.raises(XltError, match='is missing'): load_adapter(tmp_path/'gone')
    with torch.no_grad(): a.nice.F[0].weight[0, 0] = float('nan')
    with pytest.raises(XltError, match='not finite'): save_adapter(a, tmp_path/'nan')
    assert not (tmp_path/'nan').exists()
    weights = a.weights()
    with pytest.raises(XltError, match='missing'): fill(a, {k: v for k, v in weights.items() if 'nice' not in k})
    with pytest.raises(XltError, match='has shape'): fill(a, {**weights, 'nice.F.0.bias': torch.zeros(3)})


def test_the_fingerprint_sees_every_change():
    a = shaken('es', BottleneckCfg(), Backbone('bert', 2, 64, 128))
    seen = {a.fingerprint}
    w = a.layer['0'].output.down.weight
    w.data[0, 0] += 1e-6
    seen.add(a.fingerprint)
    w.data[[0, 1]] = w.data[[1, 0]]
    seen.add(a.fingerprint)
    w.data[:, [0, 1]] = w.data[:, [1, 0]]
    assert len(seen | {a.fingerprint}) == 4


@pytest.mark.parametrize('kind', KINDS)
def test_hub_round_trip(kind, tmp_path):
    a = shaken('es', KINDS[kind], Backbone('xlm-roberta', 2, 64, 128))
    first = to_hub(a, tmp_path/'a')
    b = from_hub(first)
    assert (b.fingerprint, b.cfg) == (a.fingerprint, a.cfg)
    second = to_hub(b, tmp_path/'b')
    assert all((first/n).read_bytes() == (second/n).read_bytes() for n in FILES[:2])
    with torch.no_grad(): next(b.parameters()).add_(1)
    assert from_hub(to_hub(b, tmp_path/'c')).fingerprint == b.fingerprint != a.fingerprint
    to_hub(a, tmp_path/'p', pickled=True)
    with pytest.raises(XltError, match='could run code'): from_hub(tmp_path/'p')
    assert from_hub(unpickle(tmp_path/'p', tmp_path/'q')).fingerprint == a.fingerprint and not (tmp_path/'p'/'adapter.safetensors').exists()


def test_old_published_layout(tmp_path):
    "Words and keys of the adapters published for MAD-X"
    a = shaken('es', BottleneckCfg(act='relu', nice_reduction=2), Backbone('bert', 2, 64))
    top = dict(config=dict(LN_after=False, LN_before=False, MH_Adapter=False, Output_Adapter=True, non_linearity='relu', reduction_factor=2, residual_before_ln=True,
        original_ln_before=True, original_ln_after=True, adapter_residual_before_ln=False,
        invertible_adapter=dict(block_type='nice', non_linearity='relu', reduction_factor=2)), hidden_size=64, model_type='bert', name='es', type='text_lang')
    old = {k: f"bert.encoder.layer.{k.split('.')[1]}.output.layer_text_lang_adapters.es.adapter_{'down.0' if 'down' in k else 'up'}.{k.split('.')[-1]}" if k.startswith('layer')
        else f'bert.invertible_lang_adapters.es.{k[5:]}' for k in a.weights()}
    assert all(own_name(v) == k for k, v in old.items())
    from safetensors.torch import save_file
    (tmp_path/'es').mkdir()
    save_file({old[k]: v for k, v in a.weights().items()}, tmp_path/'es'/'adapter.safetensors')
    (tmp_path/'es'/'adapter_config.json').write_text(json.dumps(top, indent=4), encoding='utf-8')
    b = from_hub(tmp_path/'es')
    assert b.fingerprint == a.fingerprint and b.cfg == a.cfg and b.init is None
    to_hub(b, tmp_path/'out')
    assert all((tmp_path/'es'/n).read_bytes() == (tmp_path/'out'/n).read_bytes() for n in FILES[:2])
    with attach(masked('bert'), b) as on: on.model(IDS)


def test_a_folder_holds_one_adapter_whatever_the_format(tmp_path):
    a, b = (Adapter(n, BottleneckCfg(), Backbone('bert', 2, 64, 128), init=i) for i, n in enumerate('ab'))
    to_hub(b, to_hub(a, tmp_path), pickled=True)
    with pytest.raises(XltError, match='is a pickle'): from_hub(tmp_path)
    unpickle(tmp_path)
    assert (from_hub(tmp_path).name, from_hub(tmp_path).fingerprint) == ('b', b.fingerprint)
    to_hub(a, tmp_path)
    assert from_hub(tmp_path).fingerprint == a.fingerprint and not (tmp_path/FILES[2]).exists()


def test_a_half_precision_adapter_has_a_fingerprint():
    a = Adapter('a', BottleneckCfg(), Backbone('bert', 2, 64, 128))
    assert a.fingerprint != a.half().fingerprint == a.fingerprint


def test_hub_refusals(tmp_path):
    a = Adapter('es', BottleneckCfg(), Backbone('bert', 2, 64, 128))
    for key, value in dict(is_parallel=True, phm_layer=True, use_gating=True, ln_after=True, scaling='learned', reduction_factor={'0': 2}, inv_adapter='glow').items():
        top = hub_config(a)
        top['config'][key] = value
        with pytest.raises(XltError, match=key): hub_cfg(top, list(a.weights()))
    with pytest.raises(XltError, match='the weights lack it'): hub_cfg(hub_config(a), ['layer.0.output.up.bias'])
    with pytest.raises(XltError, match='belongs to no bottleneck'): own_name('bert.encoder.layer.0.prefix')
    with pytest.raises(XltError, match='holds no adapter_config.json'): from_hub(tmp_path)
    folder = to_hub(a, tmp_path/'es')
    data = (folder/'adapter.safetensors').read_bytes()
    (folder/'adapter.safetensors').write_bytes(data[:-9])
    with pytest.raises(XltError, match='no whole safetensors'): from_hub(folder)
    (folder/'adapter_config.json').write_text('{"config"', encoding='utf-8')
    (folder/'adapter.safetensors').write_bytes(data)
    with pytest.raises(XltError, match='is no JSON'): from_hub(folder)


def test_a_pickle_with_code_is_refused(tmp_path):
    class Bad:
        def __reduce__(self): return print, ('ran',)
    (tmp_path/'es').mkdir()
    torch.save({'x': Bad()}, tmp_path/'es'/'pytorch_adapter.bin')
    (tmp_path/'es'/'adapter_config.json').write_text('{}', encoding='utf-8')
    with pytest.raises(XltError, match='holds more than tensors'): unpickle(tmp_path/'es')
    assert not (tmp_path/'es'/'adapter.safetensors').exists()


def test_the_hub_layout_keeps_origin_start_and_scaling(tmp_path):
    a = shaken('es', BottleneckCfg(scaling=2.), Backbone('xlm-roberta', 2, 64, 128))
    a.about = dict(merge=dict(method='linear', odd=float('nan')))
    b = from_hub(to_hub(a, tmp_path/'a'))
    assert (b.fingerprint, b.cfg, b.init) == (a.fingerprint, a.cfg, 'shared') and b.about['merge'] == dict(method='linear', odd=None)
    json.loads((tmp_path/'a'/'adapter_config.json').read_text(encoding='utf-8'), parse_constant=lambda x: pytest.fail(f'{x} is no JSON'))
    assert all((to_hub(b, tmp_path/'b')/n).read_bytes() == (tmp_path/'a'/n).read_bytes() for n in FILES[:2])


@pytest.mark.parametrize('key,value', [('xltnb', None), ('xltnb', dict(init=[1])), ('scaling', 10**400)])
def test_a_bad_configuration_is_one_line(tmp_path, key, value):
    top = hub_config(Adapter('es', BottleneckCfg(), Backbone('bert', 2, 64, 128)))
    (top if key == 'xltnb' else top['config'])[key] = value
    to_hub(Adapter('es', BottleneckCfg(), Backbone('bert', 2, 64, 128)), tmp_path)
    (tmp_path/'adapter_config.json').write_text(json.dumps(top), encoding='utf-8')
    with pytest.raises(XltError): from_hub(tmp_path)


@pytest.mark.parametrize('harm', [('"act": "gelu_new"', '"act": []'), ('"nice_reduction": 2.0', '"nice_reduction": 1000.0'), ('"about": {}', '"about": []')])
def test_a_bad_header_is_one_line(tmp_path, harm):
    from safetensors.torch import save_file
    from xltnb.models.adapter_files import adapter_metadata
    a = Adapter('es', BottleneckCfg(), Backbone('bert', 2, 64, 128))
    text = adapter_metadata(a)['xltnb']
    assert harm[0] in text
    save_file(a.weights(), tmp_path/'x', dict(xltnb=text.replace(*harm)))
    with pytest.raises(XltError): load_adapter(tmp_path/'x')


def test_an_invertible_part_has_units():
    with pytest.raises(XltError, match='no units'): NiceCoupling(64, BottleneckCfg(nice_reduction=33.))
    with pytest.raises(XltError, match='no units'): Adapter('es', BottleneckCfg(), Backbone('bert', 1, 1))


def test_files_are_written_as_the_library_writes_them(tmp_path):
    from safetensors.torch import save
    from xltnb.models.tensors import TensorFile, float_word, write_tensors
    some = {'z': torch.randn(3, 2), 'a.b': torch.ones(5).bfloat16(), 'é': torch.zeros(0), 'h': torch.randn(4).half(), 'd': torch.randn(2).double(), 's': torch.tensor(1.)}
    with write_tensors(tmp_path/'x', {k: (float_word(v.dtype), v.shape) for k, v in some.items()}, dict(note='"naïve"\n')) as to:
        for k, v in reversed(some.items()): to.put(k, v.flatten())
    assert (tmp_path/'x').read_bytes() == save(some, dict(note='"naïve"\n'))
    file = TensorFile(tmp_path/'x')
    assert all(torch.equal(file.read(k), v.flatten()) for k, v in some.items()) and torch.equal(file.read('z', 2, 3), some['z'].flatten()[2:5])
    was = (tmp_path/'x').read_bytes()
    with pytest.raises(RuntimeError), write_tensors(tmp_path/'x', dict(a=('F32', (2,)))) as to: raise RuntimeError('power cut')
    assert (tmp_path/'x').read_bytes() == was and len(list(tmp_path.iterdir())) == 1


def test_an_ia3_with_a_factor_is_refused(tmp_path):
    folder = to_hub(Adapter('ia', IA3Cfg(ff='before'), Backbone('bert', 2, 16, 32)), tmp_path/'ia')
    file = folder/'adapter_config.json'
    said = json.loads(file.read_text(encoding='utf-8'))
    said['config']['alpha'] = 4
    file.write_text(json.dumps(said), encoding='utf-8')
    with pytest.raises(XltError, match='alpha is 4'): from_hub(folder)


def test_an_adapter_may_be_called_as_a_method_of_torch():
    model = BertModel(BertConfig(vocab_size=9, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2))
    for name in ('to', 'train', 'type'): attach(model, Adapter(name, BottleneckCfg(), model)).detach()
