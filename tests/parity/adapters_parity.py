"""Our adapters beside those of `adapters` 1.3.0, in an environment of its own (it needs transformers 4.57):

    uv venv parity-env --python 3.11
    uv pip install -p parity-env/bin/python adapters==1.3.0 transformers==4.57.6 torch==2.13.0 'fastcore<2' pyyaml
    PYTHONPATH=. parity-env/bin/python tests/parity/adapters_parity.py

Models are small and random; every line prints the largest difference between the two libraries and what it may be. Not part of CI."""
import sys
import tempfile
from pathlib import Path

import adapters
import torch
from adapters import BertAdapterModel, DoubleSeqBnConfig, IA3Config, LoRAConfig, SeqBnConfig, SeqBnInvConfig, XLMRobertaAdapterModel
from adapters.composition import Stack
from transformers import BertConfig, BertForMaskedLM, BertForTokenClassification, XLMRobertaConfig, XLMRobertaForMaskedLM, XLMRobertaForTokenClassification

from xltnb.models.adapterhub import from_hub, hub_config, to_hub, unpickle
from xltnb.models.attaching import attach

SIZES = dict(vocab_size=120, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, max_position_embeddings=40)
KINDS = {
    'xlm-roberta': (XLMRobertaConfig, XLMRobertaAdapterModel, XLMRobertaForMaskedLM, XLMRobertaForTokenClassification),
    'bert': (BertConfig, BertAdapterModel, BertForMaskedLM, BertForTokenClassification)}
LANG = SeqBnInvConfig(reduction_factor=2, non_linearity='gelu_new', inv_adapter='nice', inv_adapter_reduction_factor=2)
failed = []


def check(what, difference, most=0.):
    "Print one line and remember a failure"
    ok = difference <= most
    failed.extend([] if ok else [what])
    print(f'{"ok  " if ok else "OFF "} {what:<66} {difference:.1e} (at most {most:.0e})')


def apart(a, b): return (a-b).abs().max().item()


def shake(model, names):
    "Random adapters: at their start, LoRA and IA3 do nothing"
    torch.manual_seed(1)
    for k, p in model.named_parameters():
        if any(f'.{n}.' in k for n in names): p.data += .1*torch.randn_like(p)


def ours(model, folder, name):
    "The library's adapter, saved by the library and read by us"
    model.save_adapter(str(folder/name), name, with_head=False, use_safetensors=True)
    return from_hub(folder/name)


@torch.no_grad()
def forward(kind, tmp):
    "Tagging and masked words, with every kind of adapter"
    cfg, flex_cls, mlm_cls, tag_cls = KINDS[kind]
    torch.manual_seed(0)
    ids = torch.randint(5, 120, (3, 11))
    tagger = tag_cls(cfg(**SIZES, num_labels=5)).eval()
    theirs = tag_cls(cfg(**SIZES, num_labels=5)).eval()
    theirs.load_state_dict(tagger.state_dict())
    adapters.init(theirs)
    made = dict(es=LANG, ner=SeqBnConfig(reduction_factor=16, non_linearity='gelu_new'), hou=DoubleSeqBnConfig(), lora=LoRAConfig(), ia3=IA3Config(), sca=SeqBnConfig(scaling=2.))
    for n, c in made.items(): theirs.add_adapter(n, config=c)
    shake(theirs, made)
    own = {n: ours(theirs, tmp, n) for n in made}
    for stack in (['es'], ['es', 'ner'], ['hou'], ['lora'], ['ia3'], ['sca']):
        theirs.set_active_adapters(Stack(*stack))
        want = theirs(ids).logits
        with attach(tagger, *[own[n] for n in stack]): check(f'{kind}: tagging, {" + ".join(stack)}', apart(tagger(ids).logits, want))
    theirs.set_active_adapters(None)
    check(f'{kind}: tagging without adapters, after all of them', apart(tagger(ids).logits, theirs(ids).logits))
    for n in made:
        mine, top = hub_config(own[n]), __import__('json').loads((tmp/n/'adapter_config.json').read_text(encoding='utf-8'))
        check(f'{kind}: configuration of {n}, fields that differ', sum(mine['config'].get(k) != v for k, v in top['config'].items()))
    return own, theirs


@torch.no_grad()
def masked(kind, tmp):
    "Masked words: the library's own head classes forget the inverse, its flexible heads do not"
    cfg, flex_cls, mlm_cls, _ = KINDS[kind]
    torch.manual_seed(0)
    ids = torch.randint(5, 120, (3, 11))
    plain, theirs = mlm_cls(cfg(**SIZES)).eval(), mlm_cls(cfg(**SIZES)).eval()
    theirs.load_state_dict(plain.state_dict())
    adapters.init(theirs)
    theirs.add_adapter('es', config=LANG)
    shake(theirs, ['es'])
    own = ours(theirs, tmp, 'es')
    theirs.set_active_adapters('es')
    with attach(plain, own, inverse=False): check(f'{kind}: masked words, inverse switched off', apart(plain(ids).logits, theirs(ids).logits))
    flex = flex_cls(plain.config).eval()
    flex.load_adapter(str(tmp/'es'), load_as='es', use_safetensors=True)
    flex.add_masked_lm_head('es', activation_function='gelu')
    body, head = flex.base_model, flex.heads['es']
    body.load_state_dict(plain.base_model.state_dict(), strict=False)
    lm = getattr(plain, 'lm_head', None) or plain.cls.predictions
    dense, norm = (lm.dense, lm.layer_norm) if hasattr(lm, 'dense') else (lm.transform.dense, lm.transform.LayerNorm)
    for to, part in ((head[0], dense), (head[2], norm), (head[3], lm.decoder)): to.load_state_dict(part.state_dict())
    flex.set_active_adapters('es')
    flex.active_head = 'es'
    with attach(plain, own): check(f'{kind}: masked words, with the inverse', apart(plain(ids).logits, flex(ids).logits), 1e-6)


def folders(kind, tmp):
    "A folder in the published layout, read and written back"
    cfg, flex_cls, *_ = KINDS[kind]
    model = flex_cls(cfg(**SIZES))
    for n, c in dict(es=LANG, hou=DoubleSeqBnConfig(), lora=LoRAConfig(), ia3=IA3Config()).items():
        model.add_adapter(n, config=c)
        model.save_adapter(str(tmp/n), n, with_head=False, use_safetensors=True)
        to_hub(from_hub(tmp/n), tmp/'again'/n)
        differ = [f.name for f in (tmp/n).iterdir() if f.read_bytes() != (tmp/'again'/n/f.name).read_bytes()]
        check(f'{kind}: folder of {n}, files that differ byte for byte', len(differ))
        (tmp/'pickled').mkdir(exist_ok=True)
        model.save_adapter(str(tmp/'pickled'/n), n, with_head=False)
        a, b = from_hub(unpickle(tmp/'pickled'/n)).weights(), from_hub(tmp/n).weights()
        check(f'{kind}: {n} out of a pickle', max(apart(a[k], b[k]) for k in a))
        back = flex_cls(cfg(**SIZES))
        back.load_adapter(str(tmp/'again'/n), load_as='x', use_safetensors=True)
        pairs = zip(back.get_adapter('x')[0].values(), model.get_adapter(n)[0].values())
        check(f'{kind}: {n}, written by us and read by the library', max(apart(p, q) for m, k in pairs for p, q in zip(m.parameters(), k.parameters())))
        mine = from_hub(tmp/n)
        for p in mine.parameters(): p.data += .5
        mine.about['formula'] = 'a word on where it comes from'
        back = flex_cls(cfg(**SIZES))
        back.load_adapter(str(to_hub(mine, tmp/'told'/n)), load_as='x', use_safetensors=True)
        told = from_hub(tmp/'told'/n)
        same = told.about['formula'] == mine.about['formula'] and told.fingerprint == mine.fingerprint
        check(f'{kind}: {n} with its origin, read by the library and by us', float(not same))


def merging(kind, tmp):
    "The library's average, asked of the headless model, since elsewhere it drops the invertible part"
    from xltnb.papers.arithmetic.merges import merge
    cfg, flex_cls, *_ = KINDS[kind]
    model = flex_cls(cfg(**SIZES))
    for n in ('es', 'en'): model.add_adapter(n, config=LANG)
    shake(model, ('es', 'en'))
    a, b = ours(model, tmp, 'es'), ours(model, tmp, 'en')
    model.base_model.average_adapter('mix', ['es', 'en'], weights=[.3, .7])
    theirs, mine = ours(model, tmp, 'mix').weights(), merge(a, b, weight=.3).weights()
    check(f'{kind}: 0.3 es + 0.7 en, bottlenecks and invertible part', max(apart(theirs[k], mine[k]) for k in theirs), 1e-7)


if __name__ == '__main__':
    print(f'adapters {adapters.__version__}, transformers {__import__("transformers").__version__}, torch {torch.__version__}')
    for kind in KINDS:
        for part in (forward, masked, folders, merging):
            with tempfile.TemporaryDirectory() as tmp: part(kind, Path(tmp))
    print('all as they should be' if not failed else f'{len(failed)} are off: {"; ".join(failed)}')
    sys.exit(bool(failed))
