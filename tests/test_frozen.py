"The frozen-encoder study: what a chain's points are, and what a head may learn from"
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from transformers import BertConfig, BertModel

from xltnb.core import XltError
from xltnb.papers.robust.augmentation import RSDA, Repeat
from xltnb.papers.robust.methods import ADV, RSRP, FreeADV
from xltnb.tasks.task import Task, make_rows
from xltnb.training.frozen import FrozenPoints, displaced_points, fitted, frozen_study
from xltnb.training.reader import Reader, frozen_encoder, vectors
from xltnb.training.methods import Method
from xltnb.training.settings import FrozenCfg

WORDS = 'big small red green cat dog runs sleeps'.split()
TABLE = {'big': ('small',), 'cat': ('dog',)}
CFG = FrozenCfg(train=30, strengths=(.1, 1.), max_len=16)


class Tok:
    "Words as ids, as a fast tokenizer gives them"
    pad_token_id, all_special_ids = 0, [0, 1, 2]
    ids = {w: i+3 for i, w in enumerate(WORDS)}

    def __call__(self, texts, pairs=None, max_length=None, **kw):
        return dict(input_ids=[[1, *[self.ids[w] for w in t.split()], 2][:max_length] for t in texts])


@pytest.fixture(scope='module')
def task():
    def rows(n, seed):
        rng = np.random.default_rng(seed)
        texts = [' '.join(rng.choice(WORDS, 4)) for _ in range(n)]
        return make_rows([dict(id=str(i), text=t, label=int('cat' in t)) for i, t in enumerate(texts)], 'classify', ('no', 'yes'))
    en = DatasetDict(train=rows(40, 1), validation=rows(20, 2), test=rows(25, 3))
    return Task('toy', 'classify', dict(en=en, xx=DatasetDict(test=rows(25, 4))), ('no', 'yes'))


@pytest.fixture
def reader(tmp_path):
    torch.manual_seed(0)
    cfg = BertConfig(vocab_size=12, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, pad_token_id=0)
    return Reader(frozen_encoder(BertModel(cfg, add_pooling_layer=False), bf16=False), Tok(), tmp_path)


def test_repeated_rows_are_plain_rows(task, reader):
    plain, _ = frozen_study(task, (), 0, CFG, reader)
    assert frozen_study(task, [Repeat(3)], 0, CFG, reader)[0].scores == plain.scores


def test_radius_zero_is_plain(task, reader):
    plain, _ = frozen_study(task, (), 0, CFG, reader)
    for m in (RSRP(rho=0.), ADV(rho=0.)): assert frozen_study(task, [m], 0, CFG, reader)[0].items == plain.items


def test_one_point_a_pass_and_none_for_the_search(task, reader):
    "Adversarial training looks for its displacement with passes that ask a gradient: they are no points"
    for m, points in ((RSRP(rho=.1), 30), (ADV(rho=.1, steps=3), 30), (ADV(rho=.1, clean=.5), 60), (RSDA(TABLE, copies=2), 60)):
        assert frozen_study(task, [m], 0, CFG, reader)[1]['points'] == points, m
    assert frozen_study(task, [RSRP(rho=.1)], 0, FrozenCfg(train=30, readings=3, max_len=16), reader)[1]['points'] == 90
    assert frozen_study(task, [ADV(rho=.1), RSDA(TABLE, copies=2)], 0, CFG, reader)[1]['points'] == 60


def test_adversarial_points_are_worse_than_random_ones(task, reader):
    "At the same radius the head of the undisplaced points errs more on them"
    feats = reader.features(task.rows('en', 'train'), 'classify')
    x, y = vectors(reader, feats), np.array(feats['labels'])
    head = fitted(FrozenPoints(x, y, np.ones(len(y))), (x, y), (x.mean(0), x.std(0)), (1.,), 2)

    def loss(m):
        p = displaced_points(reader, feats, [m], head, seed=0)
        return torch.nn.functional.cross_entropy(head(torch.from_numpy(p.x)), torch.from_numpy(p.y)).item()
    assert loss(ADV(rho=.3)) > loss(RSRP(rho=.3)) > 0


def test_the_head_in_torch_is_the_head(task, reader):
    rng = np.random.default_rng(0)
    for classes in (2, 3):
        x, y = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(classes, size=60)
        head = fitted(FrozenPoints(x, y, np.ones(60)), (x, y), (x.mean(0), x.std(0)), (.1, 1.), classes+1)
        assert (head(torch.from_numpy(x)).argmax(1).numpy() == head.predict(x)).all()


def test_originals_weigh_as_said(task, reader):
    "With all weight on the originals, any method is plain training"
    plain, _ = frozen_study(task, (), 0, CFG, reader)
    near, _ = frozen_study(task, [RSRP(rho=5.)], 0, FrozenCfg(train=30, strengths=(.1, 1.), max_len=16, originals=1e9), reader)
    far, _ = frozen_study(task, [RSRP(rho=5.)], 0, CFG, reader)
    assert near.scores == plain.scores != far.scores


def test_draws_differ_and_repeat(task, reader):
    a, b, again = (frozen_study(task, [RSDA(TABLE, copies=2)], s, CFG, reader)[0] for s in (0, 1, 0))
    assert a.items == again.items and a.items != b.items


def test_rows_are_read_once(task, reader):
    frozen_study(task, (), 0, CFG, reader)
    before = reader.read
    fresh = Reader(reader.net, Tok(), reader.home.parent)
    frozen_study(task, [Repeat(4)], 1, CFG, fresh)
    assert fresh.read == 0 and before > 0  # another process finds the vectors in the cache folder


def test_equal_rows_are_tokenised_once(task, reader, monkeypatch):
    "A second draw asks for the rows of its own draw alone, also where the task was loaded again"
    frozen_study(task, (), 0, CFG, reader)
    again = replace(task, data={l: DatasetDict({s: make_rows([{k: r[k] for k in ('id', 'text', 'label')} for r in rows], 'classify', task.labels)
                                                for s, rows in d.items()}) for l, d in task.data.items()})
    asked, tokenise = [], Reader.features
    monkeypatch.setattr(Reader, 'features', lambda self, rows, *a: asked.append(len(rows)) or tokenise(self, rows, *a))
    frozen_study(again, (), 1, CFG, reader)
    assert asked == [CFG.train]


def test_a_shared_reader_cuts_rows_as_each_study_says(task, reader):
    rows = task.rows('en', 'train')
    before = list(reader.features(rows, 'classify')['length'])
    frozen_study(task, (), 0, replace(CFG, max_len=4), reader)
    assert {len(n) for n in reader._known} == {4*4} and before == list(reader.features(rows, 'classify')['length']) == [6]*40


def test_a_language_may_be_given_alone(task, reader): assert list(frozen_study(task, (), 0, CFG, reader, langs='xx')[0].scores) == ['xx']


def test_what_a_frozen_encoder_cannot_judge_is_refused(task, reader):
    with pytest.raises(XltError, match='needs fine-tuning'): frozen_study(task, [FreeADV(.1)], 0, CFG, reader)
    tags = Task('t', 'tag', dict(en=DatasetDict({s: make_rows([dict(id='0', tokens=['cat'], tags=[0])], 'tag', ('O',)) for s in ('train', 'validation', 'test')})), ('O',))
    with pytest.raises(XltError, match='classify and pair'): frozen_study(tags, (), 0, CFG, reader)


def test_the_loss_of_a_method_weighs_its_points(task, reader):
    "Two passes by .7 and .3; a divergence beside the loss, and minus the loss, are no weights"
    feats, head = reader.features(task.rows('en', 'train'), 'classify'), torch.nn.Linear(16, 2)

    class Mixed(Method):
        def loss(self, step, rest):
            a, b = rest(step), rest(step)
            return replace(a, loss=.7*a.loss+.3*b.loss)

    class Priced(Method):
        def loss(self, step, rest): return replace(out := rest(step), loss=out.loss+1.)
    points = displaced_points(reader, feats, [Mixed()], head, 0)
    assert len(points.y) == 80 and sorted(set(points.weight.round(4))) == [.3, .7]
    with pytest.raises(XltError, match='no weighted sum'): displaced_points(reader, feats, [Priced()], head, 0)


def test_copies_are_read_once(task, reader):
    "An arm with originals beside its copies finds their vectors in the cache folder, in another process too"
    alone, _ = frozen_study(task, [RSDA(TABLE, copies=1)], 0, CFG, reader)
    fresh = Reader(reader.net, Tok(), reader.home.parent)
    again, facts = frozen_study(task, [RSDA(TABLE, copies=1)], 0, CFG, fresh)
    assert facts['read'] == fresh.read == 0 and again.items == alone.items


def test_equal_weights_of_another_model_are_not_taken_for_it(task, tmp_path):
    "Activation, number of heads and attached adapters change what equal weights compute"
    from xltnb.models.adapters import Adapter, BottleneckCfg
    from xltnb.models.attaching import attach
    from xltnb.training.reader import split_vectors
    def encoder(**kw):
        torch.manual_seed(0)
        cfg = dict(vocab_size=12, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, pad_token_id=0) | kw
        net = BertModel(BertConfig(**cfg), add_pooling_layer=False)
        with torch.no_grad():
            for p in net.parameters(): p.mul_(4.)
        return frozen_encoder(net, bf16=False)
    def read(net, where): return split_vectors(Reader(net, Tok(), where), task, 'en', 'test')
    a = read(encoder(), tmp_path)
    assert (read(encoder(), tmp_path) == a).all()
    for kw in (dict(num_attention_heads=1), dict(hidden_act='relu'), dict(layer_norm_eps=.1)):
        own, shared = read(encoder(**kw), tmp_path/str(kw)), read(encoder(**kw), tmp_path)
        assert np.abs(own-a).max() > 1e-3 and (own == shared).all(), kw
    found = []
    for scaling in (1., 9.):
        net = encoder()
        adapter = Adapter('x', BottleneckCfg(scaling=scaling, nice=False), net)
        torch.manual_seed(1)
        with torch.no_grad():
            for p in adapter.parameters(): p.normal_()
        with attach(net, adapter): found.append(read(net, tmp_path))
    assert np.abs(found[0]-found[1]).max() > 1e-3


def test_a_head_of_two_classes_in_torch_is_the_head():
    from sklearn.linear_model import LogisticRegression
    from xltnb.training.frozen import Head
    x, rng = np.random.default_rng(0).normal(size=(60, 4)), np.random.default_rng(1)
    h = Head(np.zeros(4), np.ones(4), LogisticRegression().fit(x, x[:, 0]+rng.normal(size=60) > 0), 1., 2)
    h.model.classes_ = np.array([0, 1])
    assert np.allclose(h(torch.from_numpy(x)).softmax(-1).numpy(), h.model.predict_proba(x))
