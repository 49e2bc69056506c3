"Merging: the methods against numpy from the papers' definitions, what holds by construction, weights, recipes"
import copy
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from conftest import ROOT
import torch
from transformers import BertConfig, BertModel

from xltnb.cli import main
from xltnb.core import XltError, seed_for
from xltnb.models.adapterhub import to_hub
from xltnb.models.adapter_files import load_adapter, save_adapter
from xltnb.models.adapters import Adapter, Backbone, BottleneckCfg, LoraCfg
from xltnb.papers.arithmetic.commands import merge_
from xltnb.papers.arithmetic.merges import merge, plan_merge
from xltnb.papers.arithmetic.methods import MERGES, MergeCfg
from xltnb.papers.arithmetic.recipes import explain, merge_recipe, write_merge
from xltnb.models.sources import TensorSource
from xltnb.papers.arithmetic.vectors import Start, language_vector, similarity
from xltnb.papers.arithmetic.weights import Dial, best_of

SHAPE = Backbone('xlm-roberta', 2, 64, 128)


def trained(name, seed, cfg=BottleneckCfg(), init='shared', shape=SHAPE):
    a = Adapter(name, cfg, shape, init=init)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in a.parameters(): p.add_(torch.from_numpy(.02*rng.standard_normal(p.shape).astype(np.float32)))
    return a


@pytest.fixture(scope='module')
def three(): return [trained(n, i) for i, n in enumerate(('es', 'en', 'pt'))]


def arrays(a): return {k: v.numpy().astype(np.float64) for k, v in a.weights().items()}


def start(a): return arrays(Adapter('start', a.cfg, a.backbone))


def near(merged, want, eps=1e-6):
    for k, v in arrays(merged).items(): np.testing.assert_allclose(v, want[k], atol=eps, rtol=0, err_msg=k)


# the papers' definitions, in numpy, on one long vector or tensor by tensor; nothing here is the library's

def flat(d): return np.concatenate([d[k].ravel() for k in sorted(d)])


def unflat(x, like):
    out, at = {}, 0
    for k in sorted(like):
        out[k] = x[at:at+like[k].size].reshape(like[k].shape)
        at += like[k].size
    return out


def top(x, density):
    "Keep the `density` largest by magnitude"
    k = int(density*len(x))
    order = np.argsort(-np.abs(x).astype(np.float32), kind='stable')
    return np.where(np.isin(np.arange(len(x)), order[:k]), x, 0)


def ties(taus, scale=1.):
    "Yadav et al., algorithm 1, after trimming"
    gamma = np.sign(sum(taus))
    gamma[gamma == 0] = np.sign(gamma.sum())
    agree = [np.sign(t) == gamma for t in taus]
    count = np.maximum(1, sum((a & (t != 0)).astype(int) for a, t in zip(agree, taus)))
    return scale*sum(np.where(a, t, 0) for a, t in zip(agree, taus))/count


def flips(seed, a, k, shape): return np.random.default_rng(seed_for('merge-drop', seed, a.fingerprint, k)).random(shape)


def reference(method, adapters, p0, density, seed=0, epsilon=.1, gamma=.01, scale=1.):
    taus = [{k: v-p0[k] for k, v in arrays(a).items()} for a in adapters]
    n = len(adapters)
    if method in ('magnitude', 'ties'): thin = [unflat(top(flat(t), density), t) for t in taus]
    elif method.startswith('dare'): thin = [{k: np.where(flips(seed, a, k, v.shape) < density, v/density, 0) for k, v in t.items()} for a, t in zip(adapters, taus)]
    elif method.startswith('della'):
        def magprune(a, k, v):
            rows = v.reshape(-1, v.shape[-1])
            r = np.argsort(np.argsort(-np.abs(rows), 1, kind='stable'), 1)
            p = ((1-density)-epsilon/2+epsilon*r/rows.shape[1]).reshape(v.shape)
            return np.where(flips(seed, a, k, v.shape) >= p, v/(1-p), 0)
        thin = [{k: magprune(a, k, v) for k, v in t.items()} for a, t in zip(adapters, taus)]
    elif method.startswith('breadcrumbs'):
        def middle(v):
            m = np.abs(v).ravel()
            order, out, hi = np.argsort(m, kind='stable'), np.zeros(m.size), int(gamma*m.size)
            kept = order[m.size-hi-int(density*m.size):m.size-hi]
            out[kept] = v.ravel()[kept]
            return out.reshape(v.shape)
        thin = [{k: middle(v) for k, v in t.items()} for t in taus]
    else: thin = taus
    if method in ('ties', 'dare_ties', 'della', 'breadcrumbs_ties'): tau = unflat(ties([flat(t) for t in thin], scale), p0)
    else: tau = {k: scale*sum(t[k] for t in thin)/n for k in p0}
    return {k: p0[k]+tau[k] for k in p0}


@pytest.mark.parametrize('density', [.2, .5, .85])
@pytest.mark.parametrize('method', [m for m, x in MERGES.items() if x.thin])
def test_against_numpy(three, method, density):
    p0 = start(three[0])
    for n in (2, 3): near(merge(*three[:n], method=method, density=density, scale=.7), reference(method, three[:n], p0, density, scale=.7))
    if 'seed' in MERGES[method].uses: near(merge(*three, method=method, density=density, seed=5), reference(method, three, p0, density, seed=5))


def test_linear_and_task_arithmetic_against_numpy(three):
    p0, xs, ws = start(three[0]), [arrays(a) for a in three], (.5, -.2, 1.3)
    near(merge(*three), {k: sum(x[k] for x in xs)/3 for k in p0})
    near(merge(*three, weights=ws), {k: p0[k]+sum(w*(x[k]-p0[k]) for w, x in zip(ws, xs)) for k in p0})
    near(merge(*three, method='task_arithmetic', weights=ws, scale=.4), {k: p0[k]+.4*sum(w*(x[k]-p0[k]) for w, x in zip(ws, xs)) for k in p0})
    near(merge(*three, weights=(1, 1, 2), normalise=True), {k: (xs[0][k]+xs[1][k]+2*xs[2][k])/4 for k in p0})


def test_slerp_and_karcher_against_numpy(three):
    xs = [arrays(a) for a in three]

    def slerp(a, b, t): # Shoemake: the second counts t
        omega = np.arccos(np.clip((a*b).sum()/np.linalg.norm(a)/np.linalg.norm(b), -1, 1))
        return (np.sin((1-t)*omega)*a+np.sin(t*omega)*b)/np.sin(omega) if np.sin(omega) > .03 else (1-t)*a+t*b
    near(merge(*three[:2], method='slerp', weight=.3), {k: slerp(xs[0][k], xs[1][k], .7) for k in xs[0]})
    ws, got = np.array([.2, .3, .5]), arrays(merge(*three, method='karcher', weights=(.2, .3, .5)))
    for k in got: # the gradient of the squared distances vanishes at the mean, and the length is the mean length
        us = [x[k]/np.linalg.norm(x[k]) for x in xs]
        m = got[k]/np.linalg.norm(got[k])
        logs = [np.arccos(np.clip((m*u).sum(), -1, 1))/np.linalg.norm(u-(m*u).sum()*m)*(u-(m*u).sum()*m) for u in us]
        assert np.linalg.norm(sum(w*x for w, x in zip(ws, logs))) < 1e-5
        assert abs(np.linalg.norm(got[k])-sum(w*np.linalg.norm(x[k]) for w, x in zip(ws, xs))) < 1e-5


def test_model_stock_against_numpy(three):
    p0 = start(three[0])
    taus = [{k: v-p0[k] for k, v in arrays(a).items()} for a in three]
    cos = lambda a, b: (a*b).sum()/np.linalg.norm(a)/np.linalg.norm(b)
    want = {}
    for k in p0:
        c = max(0, np.mean([cos(taus[i][k], taus[j][k]) for i in range(3) for j in range(i)]))
        t = 3*c/(1+2*c)
        want[k] = t*sum(arrays(a)[k] for a in three)/3+(1-t)*p0[k]
    near(merge(*three, method='model_stock'), want)


def test_lambda_one_and_zero_are_the_inputs(three):
    es, en, _ = three
    for method in ('linear', 'task_arithmetic', 'slerp', 'karcher'):
        assert merge(es, en, method=method, weight=1).fingerprint == es.fingerprint
        assert merge(es, en, method=method, weight=0).fingerprint == en.fingerprint


def test_interpolation_is_the_vectors_sum(three):
    es, en, _ = three
    a, b = language_vector(es), language_vector(en)
    near((.3*a+.7*b).adapter(), arrays(merge(es, en, weight=.3)))
    p0 = start(es)
    near(merge(es, en, weight=.3), {k: p0[k]+.3*(arrays(es)[k]-p0[k])+.7*(arrays(en)[k]-p0[k]) for k in p0})


def test_nothing_is_left_out(three):
    "No tensor stays unmerged or at the start, the invertible part included (the usual library's trap)"
    es, en, _ = three
    got, a, b, p0 = arrays(merge(es, en)), arrays(es), arrays(en), start(es)
    assert got.keys() == a.keys() and any(k.startswith('nice') for k in got)
    for k in got: assert not np.array_equal(got[k], a[k]) and not np.array_equal(got[k], b[k]) and not np.array_equal(got[k], p0[k])


def test_merged_coupling_is_invertible(three):
    x = torch.randn(6, 64)
    for m in ('linear', 'ties', 'dare_ties', 'slerp'):
        nice = merge(*three[:2], method=m).nice
        assert torch.allclose(nice.inverse(nice(x)), x, atol=1e-5)


@pytest.mark.parametrize('method', [m for m, x in MERGES.items() if x.join != 'cat'])
def test_order_makes_no_difference_and_inputs_stay(three, method):
    prints = [a.fingerprint for a in three]
    some = three[:2] if method == 'slerp' else three
    ws = {} if method == 'model_stock' else dict(weights=(.4, .6) if len(some) == 2 else (.5, .3, .2))
    turned = {k: v[::-1] for k, v in ws.items()}
    assert merge(*some, method=method, **ws).fingerprint == merge(*some[::-1], method=method, **turned).fingerprint
    assert [a.fingerprint for a in three] == prints


def test_merges_read_pristine_inputs(three):
    "hi from hi+ur and ur from ur+hi: the second merge must not see the first"
    es, en, _ = three
    one, two = merge(es, en, weight=.9, name='es'), merge(en, es, weight=.9, name='en')
    near(two, {k: .9*arrays(en)[k]+.1*arrays(es)[k] for k in arrays(es)})
    with torch.no_grad(): next(one.parameters()).zero_()
    assert merge(es, en, weight=1).fingerprint == es.fingerprint
    same = merge(es, en, weight=1)
    with torch.no_grad(): next(same.parameters()).zero_()
    assert next(es.parameters()).abs().sum() > 0


def test_ties_of_identical_inputs_is_the_input(three):
    es = three[0]
    assert merge(es, copy.deepcopy(es), method='ties', density=1.).fingerprint == es.fingerprint
    assert merge(es, copy.deepcopy(es), copy.deepcopy(es), method='ties', density=1.).fingerprint == es.fingerprint


def test_ties_keeps_the_elected_side_only(three):
    es, en, pt = three
    p0, got = start(es), arrays(merge(es, en, pt, method='ties', density=1.))
    for k in p0:
        taus = np.stack([arrays(a)[k]-p0[k] for a in three])
        side = np.sign(taus.sum(0))
        want = np.where(np.sign(taus) == side, taus, 0).sum(0)/np.maximum(1, (np.sign(taus) == side).sum(0))
        np.testing.assert_allclose(got[k]-p0[k], want, atol=1e-6)


def test_exact_ties_take_the_majority():
    cfg, shape = LoraCfg(1, 1., ('query',)), Backbone('bert', 1, 4)
    a, b = Adapter('a', cfg, shape), Adapter('b', cfg, shape)
    with torch.no_grad():
        for x, v in ((a, [1., 1, 1, 0]), (b, [-1., 1, 1, 0])):
            x.layer['0'].query.A.zero_()
            x.layer['0'].query.B.copy_(torch.tensor(v)[:, None])
    got = merge(a, b, method='ties', density=1., base='zero').layer['0'].query.B.flatten().tolist()
    assert got == [1, 1, 1, 0]


def test_weights_by_part_and_layer(three):
    es, en, _ = three
    w, rest = dict(nice=.25, layers=[1, .1]), dict(nice=.75, layers=[0, .9])
    got = arrays(merge(es, en, weights=(w, rest)))
    for k in got:
        lam = .25 if k.startswith('nice') else [1, .1][int(k.split('.')[1])]
        np.testing.assert_allclose(got[k], lam*arrays(es)[k]+(1-lam)*arrays(en)[k], atol=1e-6)


def test_cat_adds_lora_updates_exactly():
    shape, cfg = Backbone('bert', 2, 64), LoraCfg(4, 8.)
    a, b = trained('a', 1, cfg, shape=shape), trained('b', 2, cfg, shape=shape)
    m = merge(a, b, method='cat', weights=(.3, 1.2))
    delta = lambda x: x.scaling*x.B@x.A
    for i in '01':
        for place in ('query', 'value'): assert torch.allclose(delta(m.layer[i][place]), .3*delta(a.layer[i][place])+1.2*delta(b.layer[i][place]), atol=1e-6)


def test_vectors_are_values(three):
    a, b, c = map(language_vector, three)
    assert (a+b)+c == c+(b+a) and a-a == 0*b and -(-a) == a and (a*2)/2 == a and 3*a == a+a+a
    assert ((a+b)+c).adapter().fingerprint == (c+(b+a)).adapter().fingerprint
    assert .5*a+.25*a == .75*a and (a+b)-b == a
    assert a+(b-c) == a+b-c and (0*a).norm == 0 and abs((2*a).norm-2*a.norm) < 1e-6
    assert repr(a-.5*b) == 'es - 0.5·en' and repr(a-a) == '0'
    with pytest.raises(XltError): a*float('nan')


def test_similarity(three):
    a, b, _ = map(language_vector, three)
    found, p0 = similarity(a, b).table, start(three[0])
    x, y = (np.concatenate([(arrays(t)[k]-p0[k]).ravel() for k in p0]) for t in three[:2])
    assert abs(found.loc['all', 'cosine']-x@y/np.linalg.norm(x)/np.linalg.norm(y)) < 1e-6
    assert abs(found.loc['all', 'conflict']-(x*y < 0).mean()) < 1e-3 and found.loc['all', 'weights'] == len(x)
    assert list(found.index) == ['layer 0', 'layer 1', 'nice', 'all']
    assert similarity(0*a, b)._repr_markdown_().count('-') > 0


BAD = {
    'differ in reduction': lambda es: merge(es, trained('x', 1, BottleneckCfg(4))),
    'differ in act': lambda es: merge(es, trained('x', 1, BottleneckCfg(act='relu'))),
    r'differ in the encoder \(kind\)': lambda es: merge(es, trained('x', 1, shape=Backbone('bert', 2, 64, 128))),
    r'differ in the encoder \(layers\)': lambda es: merge(es, trained('x', 1, shape=Backbone('xlm-roberta', 3, 64, 128))),
    r'differ in the encoder \(width\)': lambda es: merge(es, trained('x', 1, shape=Backbone('xlm-roberta', 2, 32, 128))),
    'x lacks the invertible part that es has': lambda es: merge(es, trained('x', 1, BottleneckCfg(nice=False))),
    'only adapters of one kind': lambda es: merge(es, trained('x', 1, LoraCfg())),
    'at least two adapters': lambda es: merge(es),
    '3 weights for 2': lambda es: merge(es, es, weights=(1, 2, 3)),
    'weight= is for two': lambda es: merge(es, es, es, weight=.5),
    'sum to 0 at': lambda es: merge(es, es, weights=(1, -1), normalise=True),
    'must sum to 1': lambda es: merge(es, es, method='slerp', weights=(.5, .6)),
    'from 0 up': lambda es: merge(es, es, method='karcher', weights=(-.5, 1.5)),
    'finds its own weights': lambda es: merge(es, es, method='model_stock', weights=(.5, .5)),
    'density is 0': lambda es: merge(es, es, method='ties', density=0),
    'density is 1.5': lambda es: merge(es, es, method='ties', density=1.5),
    'beyond 0 and 1': lambda es: merge(es, es, method='della', density=.99, epsilon=.5),
    'seed does not fit the method ties': lambda es: merge(es, es, method='ties', seed=1),
    "unknown key of MergeCfg 'denisty'": lambda es: merge(es, es, method='ties', denisty=.5),
    'weight is nan': lambda es: merge(es, es, weights=(float('nan'), 1)),
    "unknown part of the adapter 'ncie'": lambda es: merge(es, es, weights=(dict(ncie=1, layers=1), 0)),
    'needs a number for nice': lambda es: merge(es, es, weights=(dict(layers=1), 0)),
    'does not say how it was initialised': lambda es: merge(nameless(es), es, method='ties'),
    'start at different points': lambda es: merge(es, trained('x', 1, init=7), method='ties')}


def nameless(a):
    b = copy.deepcopy(a)
    b.init = None
    return b


@pytest.mark.parametrize('words', BAD)
def test_bad_input(three, words):
    with pytest.raises(XltError, match=words): BAD[words](three[0])


def test_base_can_be_given(three):
    es, en = map(nameless, three[:2])
    p0 = Adapter('start', es.cfg, es.backbone)
    assert merge(es, en, method='ties', base=p0).fingerprint == merge(*three[:2], method='ties').fingerprint
    assert merge(es, en).fingerprint == merge(*three[:2]).fingerprint
    near(merge(es, en, weights=(1, 1), base='zero'), {k: arrays(es)[k]+arrays(en)[k] for k in arrays(es)})
    assert Start(TensorSource(es), 'zero').about == 'zero'


def test_provenance(three):
    m = merge(*three[:2], method='dare_ties', weights=(.4, .6), seed=3, density=.7)
    assert m.about['merge'] == dict(method='dare_ties', normalise=False, scale=1., density=.7, elect='mass', seed=3) and m.about['base'] == 'init shared'
    assert {(i['name'], i['fingerprint'], i['weight']) for i in m.about['inputs']} == {('es', three[0].fingerprint, .4), ('en', three[1].fingerprint, .6)}
    assert m.init == 'shared' and m.name == 'es+en'


def test_dial_and_choices(three):
    es, en, pt = three
    for cfg in (MergeCfg(), MergeCfg('ties')):
        dial = Dial(es, en, cfg=cfg)
        kept = dial.adapter
        for w in (0, .35, 1): assert dial.turn(w).fingerprint == merge(es, en, weight=w, method=cfg.method).fingerprint and dial.adapter is kept
    assert Dial(es, en, pt).turn(.2, .3, .5).fingerprint == merge(es, en, pt, weights=(.2, .3, .5)).fingerprint
    with pytest.raises(XltError, match='no weight has a finite score'): best_of([(.5, float('nan'))])


@pytest.fixture
def folder(tmp_path, three):
    for a in three: save_adapter(a, tmp_path/f'{a.name}.safetensors')
    return tmp_path


def test_recipe(folder, three):
    (folder/'r.yaml').write_text('inputs:\n- {adapter: es.safetensors, weight: 0.6}\n- {adapter: hub, weight: 0.4}\nout: new/mix.safetensors\nname: mix\n', encoding='utf-8')
    to_hub(three[1], folder/'hub')
    m = merge_recipe(folder/'r.yaml')
    assert load_adapter(folder/'new'/'mix.safetensors').fingerprint == m.fingerprint == merge(*three[:2], weight=.6).fingerprint
    assert m.name == 'mix' and len(m.about['recipe']) == 16
    first = (folder/'new'/'mix.safetensors').read_bytes()
    merge_recipe(folder/'r.yaml')
    assert (folder/'new'/'mix.safetensors').read_bytes() == first


@pytest.mark.parametrize('text,words', [
    ('', 'holds no recipe'), ('inputs: [', 'is no YAML'), ('inputs: [{adapter: es.safetensors}]\nout: o', 'at least two'),
    ('inputs: [{adapter: es.safetensors, weight: 1}, {adapter: en.safetensors}]\nout: o', 'some inputs have a weight'),
    ('inputs: [{adapter: es.safetensors}, {adapter: cut.safetensors}]\nout: o', 'no whole safetensors'),
    ('inputs: [{adapter: es.safetensors}, {adapter: en.safetensors}]\nmethod: tie\nout: o', "did you mean 'ties'"),
    ('inputs: [{adapter: es.safetensors, wieght: 1}, {adapter: en.safetensors}]\nout: o', "did you mean 'weight'"),
    ('inputs: [{adapter: es.safetensors, weight: a}, {adapter: en.safetensors, weight: 1}]\nout: o', 'give a number'),
    ('inputs: [{adapter: es.safetensors}, {adapter: en.safetensors}]\ndensity: 0.5\nout: o', 'density does not fit')])
def test_bad_recipes_write_nothing(folder, text, words):
    (folder/'cut.safetensors').write_bytes((folder/'en.safetensors').read_bytes()[:-50])
    (folder/'r.yaml').write_text(text, encoding='utf-8')
    with pytest.raises(XltError, match=words): merge_recipe(folder/'r.yaml')
    assert not (folder/'o').exists() and not list(folder.glob('.*'))


def test_command(folder, three, capsys):
    es, en = (str(folder/f'{n}.safetensors') for n in ('es', 'en'))
    merge_(es, en, weight=.4, out=str(folder/'m.safetensors'))
    assert 'written' in capsys.readouterr().out and load_adapter(folder/'m.safetensors').fingerprint == merge(*three[:2], weight=.4).fingerprint
    merge_(es, en, hub=True, out=str(folder/'mh'))
    assert TensorSource(folder/'mh').name == 'es+en'
    merge_(es, en, explain=True)
    assert 'sign conflict' in capsys.readouterr().out
    with pytest.raises(XltError, match='the layout'): merge_(es, en, out=str(folder))
    assert 'weights are compared' in explain(nameless(three[0]), three[1])


MEMORY = '''
import ctypes, sys, threading, time
import torch
from transformers import BertConfig, BertModel
from xltnb.papers.arithmetic.merges import merge
torch.set_num_threads(1)
trim = ctypes.CDLL('libc.so.6').malloc_trim
folder = sys.argv[1]
merge(f'{folder}/small0', f'{folder}/small1', method='dare_ties')

def now(): return int(next(line for line in open('/proc/self/status') if line.startswith('RssAnon')).split()[1])*1024

def most(method):
    "Largest growth of private memory during a merge"
    trim(0)
    before, seen, done = now(), [0], threading.Event()
    def watch():
        while not done.is_set():
            seen.append(now())
            time.sleep(.001)
    t = threading.Thread(target=watch)
    t.start()
    merge(*(f'{folder}/{i}' for i in range(8)), method=method)
    done.set()
    t.join()
    return max(seen)-before

print(*map(most, ('linear', 'ties', 'dare_ties')))
'''


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')
def test_memory_of_a_merge_is_a_copy_and_an_input(tmp_path):
    "Eight files: private memory grows by a copy and an input, and by temporaries the size of one tensor, not by eight inputs"
    shape = Backbone('xlm-roberta', 6, 384, 1536)
    for i in range(8): save_adapter(trained(f'a{i}', i, shape=shape), tmp_path/str(i))
    for i in range(2): save_adapter(trained(f'a{i}', i), tmp_path/f'small{i}')
    size, tensor = (tmp_path/'0').stat().st_size, 8*384*192
    done = subprocess.run([sys.executable, '-c', MEMORY, str(tmp_path)], capture_output=True, encoding='utf-8')
    assert done.returncode == 0, done.stderr
    linear, ties, dare = map(int, done.stdout.split())
    assert linear < size+12*tensor and max(ties, dare) < 2*size+30*tensor, (linear/size, ties/size, dare/size)


def test_a_record_of_a_merge_is_plain_data(three): json.dumps(merge(*three, weights=(dict(nice=1, layers=[.5, .5]), .2, .1)).about)


TWO = 'inputs: [{adapter: es.safetensors}, {adapter: en.safetensors}]\n'


@pytest.mark.parametrize('text,words', [
    ('inputs: []', 'at least two adapters, not 0'), (TWO+'seed: 2024-13-45', 'is no YAML'), (TWO+'seed: !!int x', 'is no YAML'), (TWO+'seed: '+'9'*5000, 'is no YAML'), (TWO+'name: '+'['*9999, 'is no YAML'),
    ('inputs: [{adapter: es.safetensors, weight: 1.0e+308}, {adapter: en.safetensors, weight: 1.0e+308}]', 'weight is 1e[+]308: give a number from'),
    ('inputs: [{adapter: es.safetensors, weight: 1'+'0'*400+'}, {adapter: en.safetensors, weight: 1}]', 'weight is 1000'),
    ('inputs: [{adapter: ~nouser/x}, {adapter: en.safetensors}]', 'nouser/x'), (TWO+'base: ~nouser/x', 'nouser/x'), ('inputs: [{adapter: "a\\0b"}, {adapter: en.safetensors}]', 'cannot be used'),
    (TWO+'method: ties\nmethod: linear', "'method' stands twice"), ('inputs: [{adapter: es.safetensors, weight: .9, weight: .1}, {adapter: en.safetensors, weight: 1}]', "'weight' stands twice"),
    (TWO+'out: ../x.safetensors', 'leads out of the folder'), (TWO+'out: /tmp/x.safetensors', 'leads out of the folder'), (TWO+'out: ~/x.safetensors', 'leads out of the folder'), (TWO+'out: away/x.safetensors', 'leads out of the folder'),
    (TWO+'out: notes.txt', 'is no adapter, and a recipe replaces nothing else'), (TWO+'out: r.yaml', 'is no adapter'), (TWO+'out: es.safetensors', 'would replace'), ('\xff', 'holds no recipe')])
def test_a_recipe_of_somebody_else_harms_nothing(folder, tmp_path_factory, text, words, capsys, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path_factory.mktemp('home')))
    (folder/'notes.txt').write_text('mine', encoding='utf-8')
    (folder/'away').symlink_to(tmp_path_factory.mktemp('away'))
    (folder/'r.yaml').write_text(text, encoding='utf-8')
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    for call in (lambda: merge_recipe(folder/'r.yaml'), lambda: merge_(str(folder/'r.yaml'))):
        with pytest.raises(XltError, match=words): call()
    if 'out:' not in text and 'twice' not in words:
        with pytest.raises(XltError): merge_(str(folder/'r.yaml'), explain='weight' not in text and '[]' not in text, out=str(folder/'o'))
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


def test_no_merge_writes_over_its_inputs(folder, three):
    es, en = (str(folder/f'{n}.safetensors') for n in ('es', 'en'))
    for n, a in zip(('es_hub', 'en_hub'), three): to_hub(a, folder/n)
    was = (folder/'es.safetensors').read_bytes()
    with pytest.raises(XltError, match='would replace'): merge_(es, en, out=f'{folder}/../{folder.name}/es.safetensors')
    for hub, out in ((True, 'en_hub'), (False, 'en_hub/adapter.safetensors')):
        with pytest.raises(XltError, match='would replace'): merge_(str(folder/'es_hub'), str(folder/'en_hub'), hub=hub, base='zero', out=str(folder/out))
    assert (folder/'es.safetensors').read_bytes() == was
    with pytest.raises(XltError, match='weight is 1e[+]308'): merge_(es, en, weight=1e308)
    with pytest.raises(XltError, match='nouser'): merge_(es, en, explain=True, base='~nouser/x')


@pytest.mark.parametrize('harm,words', [
    (lambda w: {k: v*float('nan') for k, v in w.items()}, 'not finite'), (lambda w: {k: v.to(torch.int8) for k, v in w.items()}, 'holds int8'), (lambda w: {k: v > 0 for k, v in w.items()}, 'holds bool'),
    (lambda w: w | {k.replace('.es.', '.fr.'): v.clone() for k, v in w.items()}, 'one place of two adapters')])
def test_a_published_adapter_with_other_weights_is_refused(folder, three, harm, words):
    "NaN, whole numbers, two adapters in one folder: no merge writes them"
    from safetensors.torch import load_file, save_file
    for n, a in zip(('bad', 'good'), three): to_hub(a, folder/n)
    f = folder/'bad'/'adapter.safetensors'
    save_file(harm(load_file(f)), f)
    with pytest.raises(XltError, match=words): merge_(str(folder/'bad'), str(folder/'good'), hub=True, base='zero', out=str(folder/'o'))
    assert not (folder/'o').exists()
    gone = copy.deepcopy(three[0])
    for p in gone.parameters(): p.data.fill_(float('nan'))
    with pytest.raises(XltError, match='not finite'): to_hub(gone, folder/'o')


def test_no_merge_replaces_its_base_or_its_recipe(folder, three):
    es, en, pt = (str(folder/f'{n}.safetensors') for n in ('es', 'en', 'pt'))
    (folder/'r.yaml').write_text(TWO, encoding='utf-8')
    was = {p: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(XltError, match='would replace'): merge_(es, en, method='ties', base=pt, out=pt)
    with pytest.raises(XltError, match='would replace'): merge_(str(folder/'r.yaml'), out=str(folder/'r.yaml'))
    (folder/'one').mkdir()
    kept = save_adapter(three[0], folder/'one'/'adapter.safetensors')
    with pytest.raises(XltError, match='would replace'): merge_(str(kept), en, hub=True, out=str(folder/'one'))
    assert all(p.read_bytes() == b for p, b in was.items())


@pytest.mark.parametrize('dry', [False, True])
def test_a_merge_replaces_nothing_that_it_could_not_have_written(folder, three, dry):
    "A text, a model's weights, a folder of peft; what an earlier merge wrote gives way"
    es, en = (str(folder/f'{n}.safetensors') for n in ('es', 'en'))
    (folder/'notes.txt').write_text('mine', encoding='utf-8'), peft_folder(folder, 'lora', 3, 6, 1), peft_folder(folder, 'other', 3, 6, 2)
    before = {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}
    for out, words in ((folder/'notes.txt', 'is no adapter, and a merge replaces nothing else'), (folder/'lora'/'adapter_model.safetensors', 'is no adapter, and a merge')):
        with pytest.raises(XltError, match=words): merge_(es, en, out=str(out), dry_run=dry)
    with pytest.raises(XltError, match='lora is not empty: give the name of a new folder .in AdapterHub'): merge_(es, en, hub=True, out=str(folder/'lora'), dry_run=dry)
    with pytest.raises(XltError, match='a peft adapter is a folder, with its r and alpha: give a name without .safetensors'):
        merge_(str(folder/'lora'), str(folder/'other'), base='zero', out=str(folder/'m.safetensors'), dry_run=dry)
    with pytest.raises(XltError, match="unknown dtype 'float64'"): merge_(es, en, out=str(folder/'m.safetensors'), dtype='float64', dry_run=dry)
    assert {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()} == before
    (folder/'empty').mkdir()
    for _ in range(2):
        for kw in (dict(out=str(folder/'m.safetensors')), dict(out=str(folder/'empty'), hub=True)): merge_(es, en, **kw)


def test_loras_of_two_models_are_told(folder):
    for n, base in (('x', 'bert-a'), ('y', 'bert-b'), ('z', 'bert-a')):
        peft_folder(folder, n, 3, 6, 1)
        at = folder/n/'adapter_config.json'
        at.write_text(json.dumps(json.loads(at.read_text(encoding='utf-8')) | dict(base_model_name_or_path=base)), encoding='utf-8')
    with pytest.warns(UserWarning, match='x stands on bert-a and y on bert-b: merge them only if'): merge_(str(folder/'x'), str(folder/'y'), base='zero', dry_run=True)
    with warnings.catch_warnings(action='error', category=UserWarning): merge_(str(folder/'x'), str(folder/'z'), base='zero', dry_run=True)


def test_a_merged_adapter_knows_its_start(folder, three):
    merge_(*(str(folder/f'{n}.safetensors') for n in ('es', 'en')), out=str(folder/'m.safetensors'))
    m = load_adapter(folder/'m.safetensors')
    assert m.init == 'shared' == (.5*language_vector(three[0])).adapter().init
    assert merge(m, three[2], method='ties').init == 'shared'
    assert merge(*three[:2], method='ties', base='zero').init is None and merge(three[0], trained('x', 1, init=7)).init is None


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_values_that_are_not_finite_are_neither_merged_nor_explained(three, bad):
    gone = copy.deepcopy(three[0])
    with torch.no_grad(): gone.layer['1'].output.up.weight[-1, -1] = bad
    for f in (lambda: merge(gone, three[1]), lambda: merge(gone, three[1], method='slerp'), lambda: merge(gone, three[1], method='dare_ties'), lambda: explain(gone, three[1])):
        with pytest.raises(XltError, match='es: layer.1.output.up.weight holds values that are not finite'): f()


def test_lambda_lies_between_the_inputs(folder, three):
    paths = [str(folder/f'{n}.safetensors') for n in ('es', 'en')]
    for w in (5., -.1, float('nan')):
        with pytest.raises(XltError, match='weight is .*give both weights'): merge_(*paths, weight=w)
        with pytest.raises(XltError, match='weight is'): merge(*three[:2], weight=w)


def test_the_command_has_all_settings(folder, three, capsys):
    paths = [str(folder/f'{n}.safetensors') for n in ('es', 'en')]
    merge_(*paths, method='della', density=.6, epsilon=.2, elect='count', normalise=True, seed=2, out=str(folder/'o'))
    assert load_adapter(folder/'o').fingerprint == merge(*three[:2], method='della', density=.6, epsilon=.2, elect='count', normalise=True, seed=2).fingerprint
    merge_(*paths, method='breadcrumbs', gamma=.1, out=str(folder/'g'), dtype='bfloat16')
    assert (folder/'g').stat().st_size < .6*(folder/'o').stat().st_size
    capsys.readouterr()
    merge_(*paths, method='ties', out=str(folder/'never'), dry_run=True)
    assert 'nothing written' in capsys.readouterr().out and not (folder/'never').exists()
    with pytest.raises(XltError, match='gamma does not fit'): merge_(*paths, gamma=.1)


def test_parts_make_no_difference(three, monkeypatch):
    from xltnb.papers.arithmetic import merges, vectors
    ws = {m: () if m == 'model_stock' else (.4, .6) for m, x in MERGES.items() if x.join != 'cat'}
    whole = {m: merge(*three[:2], method=m, weights=w).weights() for m, w in ws.items()}
    monkeypatch.setattr(merges, 'PART', 64)
    monkeypatch.setattr(vectors.cuts, '__defaults__', (64,))
    for m, w in ws.items():
        got = merge(*three[:2], method=m, weights=w).weights()
        assert all(torch.allclose(got[k], v, atol=1e-8, rtol=0) for k, v in whole[m].items()), m


def peft_folder(at, name, rank, alpha, seed):
    from safetensors.torch import save_file
    (at/name).mkdir()
    gen, stem = torch.Generator().manual_seed(seed), 'base_model.model.layers.0.q_proj'
    w = {f'{stem}.lora_A.weight': torch.randn(rank, 6, generator=gen), f'{stem}.lora_B.weight': torch.randn(5, rank, generator=gen)}
    save_file(w, at/name/'adapter_model.safetensors')
    (at/name/'adapter_config.json').write_text(json.dumps(dict(peft_type='LORA', r=rank, lora_alpha=alpha)), encoding='utf-8')
    return alpha/rank*w[f'{stem}.lora_B.weight']@w[f'{stem}.lora_A.weight']


def test_cat_joins_unequal_ranks(tmp_path):
    shape = Backbone('bert', 1, 64)
    a, b = trained('a', 1, LoraCfg(4, 8.), shape=shape), trained('b', 2, LoraCfg(2, 1.), shape=shape)
    m = merge(a, b, method='cat', weights=(.3, 1.2))
    delta = lambda x: x.scaling*x.B@x.A
    for place in ('query', 'value'): assert torch.allclose(delta(m.layer['0'][place]), .3*delta(a.layer['0'][place])+1.2*delta(b.layer['0'][place]), atol=1e-6)
    with pytest.raises(XltError, match='differ in rank'): merge(a, b)
    x, y = peft_folder(tmp_path, 'x', 3, 6, 1), peft_folder(tmp_path, 'y', 2, 1, 2)
    with pytest.raises(XltError, match='differ in r'): plan_merge(MergeCfg(), [tmp_path/'x', tmp_path/'y'])
    got = write_merge(plan_merge(MergeCfg('cat', (.5, 2.)), [tmp_path/'x', tmp_path/'y']), tmp_path/'xy')
    A, B = (next(got[k] for k in got.names if f'lora_{c}' in k) for c in 'AB')
    assert got.peft['r'] == 5 and torch.allclose(got.peft['lora_alpha']/5*B@A, .5*x+2*y, atol=1e-5)


def model_folder(at, name, tensors, shards=1):
    from safetensors.torch import save_file
    (at/name).mkdir()
    where = {k: f'model-{i%shards}.safetensors' for i, k in enumerate(tensors)}
    for f in set(where.values()): save_file({k: tensors[k] for k in tensors if where[k] == f}, at/name/f)
    (at/name/'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=where)), encoding='utf-8')
    (at/name/'config.json').write_text('{"dtype": "bfloat16"}', encoding='utf-8')
    return at/name


@pytest.mark.parametrize('method', ['linear', 'slerp', 'ties', 'dare_ties', 'karcher', 'model_stock', 'breadcrumbs', 'della'])
def test_sharded_models(tmp_path, method):
    from safetensors.torch import load_file
    gen = torch.Generator().manual_seed(0)
    base = {f'layers.{i}.w': torch.randn(7, 5, generator=gen) for i in range(3)} | dict(scale=torch.tensor(1.))
    two = [{k: v+.1*torch.randn(v.shape, generator=gen) for k, v in base.items()} for _ in 'ab']
    paths = [model_folder(tmp_path, n, t | dict(ids=torch.arange(4)), s) for n, t, s in (('base', base, 1), ('a', two[0], 2), ('b', two[1], 3))]
    plan = plan_merge(MergeCfg(method), paths[1:], paths[0])
    got = load_file(write_merge(plan, tmp_path/'out', dtype='bfloat16').given/'model.safetensors')
    assert got.keys() == base.keys() | {'ids'} and got['ids'].tolist() == [0, 1, 2, 3] and got['layers.0.w'].dtype == torch.bfloat16
    if method == 'linear': assert all(torch.equal(got[k], (.5*two[0][k]+.5*two[1][k]).bfloat16()) for k in base)
    assert 'would replace' in str(pytest.raises(XltError, write_merge, plan, tmp_path/'a').value)


def test_inputs_that_are_not_one_model(tmp_path, three):
    one = dict(w=torch.ones(3), v=torch.ones(2))
    a = model_folder(tmp_path, 'a', one)
    for name, other, words in (('b', dict(w=torch.ones(3)), 'b lacks v, which a has'), ('c', dict(one, w=torch.ones(4)), r'w has shape \(3,\) in a and \(4,\) in c'), ('d', dict(one, v=torch.ones(2).long()), 'v holds F32 in a and I64 in d')):
        with pytest.raises(XltError, match=words): plan_merge(MergeCfg(), [a, model_folder(tmp_path, name, other)])
    with pytest.raises(XltError, match='only inputs of one kind'): plan_merge(MergeCfg(), [a, three[0]])
    with pytest.raises(XltError, match='where|start|initialised'): plan_merge(MergeCfg('ties'), [a, a])


def test_a_merge_loads_no_pictures_tables_or_models():
    "What an environment for parity lacks"
    code = 'import sys, xltnb.papers.arithmetic.merges as m; print([x for x in ("plotly", "IPython", "pandas", "transformers", "scipy") if x in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, encoding='utf-8').stdout.strip() == '[]'


def test_a_task_that_cannot_be_asked_is_refused_before_training():
    from xltnb.papers.arithmetic.experiments import RealCfg
    from xltnb.papers.arithmetic.real import real_task
    with pytest.raises(XltError, match='ha_slot is of kind'): real_task(RealCfg(task='ha_slot'))
    with pytest.raises(XltError, match="unknown language of ha_intent 'zz'"): real_task(RealCfg(targets=('zz',)))


@pytest.mark.parametrize('given,says', [(['breadcrumbs', '--gamma', '0'], 'gamma=0.0'), (['task_arithmetic', '--scale', '0'], 'scale=0.0')])
def test_a_zero_is_a_value(given, says, capsys):
    "It is no missing option, for which a default would stand"
    pair = [str(ROOT/'nbs'/'tutorials'/'adapters'/f'{l}.safetensors') for l in ('en', 'es')]
    with pytest.raises(SystemExit): main(['merge', *pair, '--method', *given, '--dry-run'])
    assert says in capsys.readouterr().out


def test_what_cat_cannot_join_is_told(tmp_path):
    peft_folder(tmp_path, 'x', 3, 6, 1), peft_folder(tmp_path, 'y', 2, 1, 2), peft_folder(tmp_path, 'none', 2, 0, 3), peft_folder(tmp_path, 'far', 3, 12, 4)
    file = tmp_path/'x'/'adapter_model.safetensors'
    assert TensorSource(file) == TensorSource(tmp_path/'x') and TensorSource(file).what == 'a peft adapter'
    with pytest.raises(XltError, match='differ in lora_alpha'): plan_merge(MergeCfg(), [file, tmp_path/'far'/file.name])
    with pytest.raises(XltError, match='none has alpha 0'): write_merge(plan_merge(MergeCfg('cat'), [tmp_path/'x', tmp_path/'none']), tmp_path/'out')
    from safetensors.torch import load_file, save_file
    wide = {k: torch.randn(2, 9) if 'lora_A' in k else v for k, v in load_file(tmp_path/'y'/file.name).items()}
    save_file(wide, tmp_path/'y'/file.name)
    with pytest.raises(XltError, match='has shape'): plan_merge(MergeCfg('cat'), [tmp_path/'x', tmp_path/'y'])
    with pytest.raises(XltError, match='adds ranks up'): Dial(tmp_path/'x', tmp_path/'far', cfg=MergeCfg('cat'))


def test_weights_by_layer_count_from_the_first_layer(tmp_path):
    from safetensors.torch import load_file, save_file
    for n in ('x', 'y'):
        peft_folder(tmp_path, n, 2, 4, 1)
        f = tmp_path/n/'adapter_model.safetensors'
        save_file({k.replace('layers.0', 'layers.2'): v for k, v in load_file(f).items()}, f)
    both = [tmp_path/'x', tmp_path/'y']
    plan = plan_merge(MergeCfg(weights=(dict(layers=[0., 0., 1.]), dict(layers=[1., 1., 0.]))), both)
    assert set(plan.weights(plan.first.names[0])) == {0., 1.}
    with pytest.raises(XltError, match='1 weights for 3 layers'): plan_merge(MergeCfg(weights=(dict(layers=[1.]), dict(layers=[0.]))), both)


def test_the_layout_of_adapterhub_holds_float32(folder, three):
    with pytest.raises(XltError, match='holds float32, not float16'):
        write_merge(plan_merge(MergeCfg(), three[:2]), folder/'hub', 'hub', 'float16')
    assert not (folder/'hub').exists()


def test_a_merged_model_keeps_what_its_settings_name(tmp_path):
    "Pooling of sentence-transformers, a tokenizer's codes; no folder outside"
    for i, name in enumerate('ab'):
        torch.manual_seed(i)
        BertModel(BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)).save_pretrained(tmp_path/name)
        (tmp_path/name/'1_Pooling').mkdir()
        (tmp_path/name/'1_Pooling'/'config.json').write_text('{"pooling_mode_mean_tokens": true}', encoding='utf-8')
        (tmp_path/name/'bpe.codes').write_text('a b\n', encoding='utf-8')
        (tmp_path/name/'modules.json').write_text('[{"path": ""}, {"path": "1_Pooling"}, {"path": "../b"}]', encoding='utf-8')
    write_merge(plan_merge(MergeCfg(), [tmp_path/'a', tmp_path/'b']), tmp_path/'c')
    made = {p.relative_to(tmp_path/'c').as_posix() for p in (tmp_path/'c').rglob('*') if p.is_file()}
    assert {'config.json', 'modules.json', '1_Pooling/config.json', 'bpe.codes', 'model.safetensors'} == made
