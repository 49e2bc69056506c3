"What a formula computes: each of these sees a wrong sign, factor, axis or seed that no other test saw"
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from test_metapretrain import TINY
from test_methods import IDS, TABLE, batch, model, ready
from test_mlm import make

from xltnb.models.adapters import BottleneckCfg, NiceCoupling
from xltnb.othello import legality as legal_page
from xltnb.othello.games import unpack
from xltnb.othello.lexicon import make_lexicon
from xltnb.othello.probes import Alignment, _mover_side
from xltnb.othello.replays import game_set
from xltnb.othello.rules import Position, play
from xltnb.othello.train import model_for
from xltnb.papers.arithmetic.joins import elected_mean
from xltnb.papers.metapretrain import phases
from xltnb.papers.metapretrain import training as meta_training
from xltnb.papers.metapretrain.arms import arm_cfg
from xltnb.papers.metapretrain.phases import Pretraining
from xltnb.papers.robust import views
from xltnb.papers.robust.methods import ADV, RSRP, FreeADV, project, scale
from xltnb.papers.salt import gate
from xltnb.papers.salt.mixup import EmbedMixup
from xltnb.papers.salt.proposals import Proposals
from xltnb.papers.salt.switching import SelfProposals, SelfSwitch, drawn_proposals, switched_words
from xltnb.training.masking import Frame, hide
from xltnb.training.methods import Replay, Step, chain, embedded, run_model


def sharp():
    "A model whose answers depend on its words"
    net = model()
    with torch.no_grad():
        for p in net.parameters(): p.mul_(10)
    return net


def weighed(method, step, at):
    "The loss of a method where the n-th pass costs `at[n]`"
    costs = iter(at)
    return float(method.loss(step, lambda s: replace(run_model(s), loss=torch.tensor(next(costs)))).loss)


def test_losses_are_weighed_as_said():
    assert weighed(RSRP(.1, samples=4), batch(), [1., 2., 3., 6.]) == 3
    x = batch(views=0)
    x = replace(x, extras=dict(switched_ids=IDS.flip(0)))
    assert weighed(EmbedMixup('pair', lam=.5, clean=.25), x, [1., 5.]) == .75*1+.25*5
    assert weighed(EmbedMixup('classic', lam=.25), x, [1., 5.]) == .25*1+.75*5


def test_adv_blends():
    step = batch(sharp())
    worst = chain([ADV(5.)], Replay(torch.device('cpu')))(step).loss
    clean = chain([], Replay(torch.device('cpu')))(step).loss
    got = chain([ADV(5., clean=.25)], Replay(torch.device('cpu')))(step).loss
    assert got.item() == pytest.approx((.75*worst+.25*clean).item(), abs=1e-6) and (worst-clean).abs().item() > 1e-4


def test_a_displacement_is_as_long_as_said():
    d = torch.tensor([[[.1,0.],[3.,4.]]])
    assert project(d, 1.).tolist() == [[[pytest.approx(.1),0.],[pytest.approx(.6),pytest.approx(.8)]]]
    s = embedded(batch())
    D = s.emb.shape[-1]
    assert float(ADV(.1, norm='linf').radius(s)) == pytest.approx(.1*float(scale(s))/math.sqrt(D))
    for kind, want in dict(gaussian=.3*math.sqrt(D), uniform=.3*math.sqrt(D/3), sphere=.3).items():
        ids = torch.full((64, 24), 7)
        big = Step(s.net, dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.zeros(64).long()), special=(0, 2, 3), axes=(0, 1))
        moved = RSRP(.3, kind=kind, unit='absolute').displaced(big).emb-embedded(big).emb
        assert moved.norm(dim=-1).square().mean().sqrt().item() == pytest.approx(want, rel=.03), kind


def test_three_steps_stay_inside_and_are_short():
    step = embedded(batch())
    seen = []
    def rest(s):
        d = s.emb-step.emb
        seen.append(d.detach().norm(dim=-1)[step.words].max().item())
        return replace(run_model(s), loss=(s.emb[...,0]).sum())
    ADV(.1, steps=3).attack(step, rest)
    eps = float(ADV(.1).radius(step))
    assert seen == pytest.approx([0., eps/2, eps], rel=1e-3, abs=1e-6)


def test_keep_of_memory():
    m = FreeADV(.1, keep=.75)
    m._seen = torch.zeros(50, 2)
    m._seen[7] = torch.tensor([1.,0.])
    m.remember(torch.tensor([7]), torch.tensor([[0.,2.]]))
    assert m._seen[7].tolist() == pytest.approx([3/math.sqrt(10), 1/math.sqrt(10)])


def proposals(n=1):
    return Proposals(np.zeros(n, np.int32), np.arange(n, dtype=np.int32), np.array([[7, 8]]*n, np.int32), np.array([[.3, .1]]*n, np.float32))


def test_words_are_drawn_at_the_rate_and_as_likely_as_proposed():
    rng, one = np.random.default_rng(0), proposals()
    share = lambda t: np.mean([drawn_proposals(one, np.array([0]), rng, t)[0] == 7 for _ in range(4000)])
    for t, want in ((1., .75), (.5, .9), (math.inf, .5)): assert abs(share(t)-want) < .03, t
    for n in (1, 3, 7): assert abs(np.mean([len(switched_words(proposals(n), .4, 0., rng)) for _ in range(4000)])/n-.4) < .02, n


def test_copies_of_a_row_draw_apart():
    assert len({SelfSwitch()._axes([1], s, j, i) for s in (0, 1) for j in (0, 1) for i in (0, 1)}) == 8


def test_the_coupling_is_the_papers():
    nice, x = NiceCoupling(64, BottleneckCfg()), torch.randn(5, 64)
    for p in nice.parameters(): torch.nn.init.normal_(p, std=.3)
    y1 = x[:, :32]+nice.F(x[:, 32:])
    assert torch.equal(nice(x), torch.cat([y1, x[:, 32:]+nice.G(y1)], -1))


def test_no_random_token_is_the_mask():
    rows = np.full((400, 50), 7)
    class Late:
        "Draws that choose every token and never the mask, then the highest id that may come"
        def __init__(self): self.calls = 0
        def random(self, shape):
            self.calls += 1
            return np.full(shape, 0. if self.calls == 1 else .95)
        def integers(self, low, high, shape): return np.full(shape, high-1)
    assert (hide(rows, rows > 0, .5, Frame(0, 2, 1, 59, 60), Late()).ids == 58).all()


def test_a_count_may_elect_another_side_than_the_mass():
    three = [torch.tensor([v]).double() for v in (5., -1., -2.)]
    assert [elected_mean(three, [1, 1, 1], e)[0].item() for e in ('mass', 'count')] == [5, -1.5]


def test_phases_do_what_they_say(tmp_path, monkeypatch):
    plain = arm_cfg('META', TINY)
    def run(name, i=1, **more):
        return Pretraining(replace(plain, phases=tuple(replace(p, **more) if i == n else p for n, p in enumerate(plain.phases))), 0, tmp_path/name)
    one = run('a', freeze=99)
    while not one.at.phase:
        one.update()
        if one.at.update == one.reader.updates: one.end_phase()
    before = {n: p.detach().clone() for n, p in one.model.named_parameters()}
    moved = {n for n, p in one.run().model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {'lm_head.bias', 'lm_head.decoder.weight'}, moved
    two = run('b', 0, forget_every=2)
    rows = two.model.get_input_embeddings().weight
    seen = []
    for _ in range(2): two.update()
    for n in (2, 4):
        two.forget(n)
        assert not two.opt.state.get(rows)
        seen.append(rows.detach().clone())
    assert not torch.equal(*seen)
    three, rates, masks = run('c'), [], []
    step, hidden = three.opt.step, phases.hide
    three.opt.step = lambda *a, **k: rates.append(three.opt.param_groups[0]['lr']) or step(*a, **k)
    def watched(rows, free, rate, frame, rng, **k):
        masks.append(rng.bit_generator.state['state']['state'])
        return hidden(rows, free, rate, frame, rng, **k)
    monkeypatch.setattr(phases, 'hide', watched)
    while not three.at.phase and three.at.update < three.reader.updates: three.update()
    assert len(set(masks)) == len(masks) > 2 and rates[-1] < max(rates)


def test_six_discs_are_turned():
    p = Position(8, 1, sum(1 << i for i in range(1, 7)))   # black on a1, white on a2 to a7
    assert 7 in p.legal() and play(p, 7).black == 255


def test_mine_and_yours():
    gs = game_set(20, 4, seed=0)
    got = _mover_side(gs)
    for i, t in ((0, 0), (3, 1), (7, 6)):
        turn = gs.replay.black_moves[i, t]
        assert ((got[i, t] == 2) == (gs.boards[i, t] == (2 if turn else 0))).all()


def test_each_split_language_has_lengths_of_its_own():
    a, b = ([len(w) for w in ws] for ws in make_lexicon(('split', 'split')).words)
    assert a != b


def test_four_kinds_of_moves(monkeypatch):
    lex, gs = make_lexicon(n=4), game_set(30, 4, seed=3)
    trie, own, opp = legal_page.word_trie(lex), *(unpack(b[:, :-1], 16) for b in (gs.replay.legal, gs.replay.legal_opp))
    def said(choose, lang):
        "A model that says one square of `choose` in `lang` after every move"
        sq = np.where(choose.any(-1), choose.argmax(-1), -1)
        node = {int(s): n for n, s in enumerate(trie.square) if s >= 0 and trie.langs[n, lang]}
        nodes = torch.tensor(np.vectorize(lambda s: node.get(int(s), 1))(sq))
        monkeypatch.setattr(legal_page, 'greedy_nodes', lambda model, enc, games, *a: nodes)
        found = legal_page.legality(model_for(lex, 1, 2, 16), lex, gs, 0, batch=1000)
        v = gs.valid.numpy()
        return found, (choose.any(-1) & v).sum(1)/v.sum(1)
    f, share = said(own, 0)
    assert np.allclose(f.strict, share) and np.allclose(f.lax, share) and np.allclose(f.illegal, 1-share)
    f, share = said(own, 1)
    assert np.allclose(f.wrong_language, share) and not f.strict.any() and not f.lax.any()
    f, share = said(opp & ~own, 0)
    assert share.any() and np.allclose(f.lax, share) and not f.strict.any()
    f, share = said(~own & ~opp, 1)
    assert not f.wrong_language.any() and np.allclose(f.illegal, 1)


def test_the_better_of_plain_and_flipped_counts():
    acc = np.full((1, 1, 1, 4, 2, 3), .1, np.float32)
    acc[0, 0, 0, 0, 1] = .9
    acc[0, 0, 0, 2] = .6
    a = Alignment(acc, np.zeros((1, 1, 1)), (5,))
    assert a.matrix(5)[0, 0] == pytest.approx(.9) and a.best_symmetry(5, 0, 0) == 0 and a.per_game(5, 0, 0, 'best').mean() == pytest.approx(.9)


def test_signs_of_push_pull_and_price(monkeypatch):
    net = sharp()
    net.set_attn_implementation('eager')
    step = batch(net, views=1)
    loss = lambda m: m.loss(step, run_model).loss.item()
    c = [loss(*ready(views.Consistency(TABLE, views=1, weight=w))) for w in (0., 1.)]
    e = [loss(*ready(views.EAR(TABLE, views=1, layer=1, push=p, pull=q))) for p, q in ((0., 0.), (10., 0.), (0., 1000.))]
    assert c[1] > c[0] and e[1] < e[0] < e[2]


def test_views_take_turns():
    m, = ready(views.PreparedViews(TABLE, views=3))
    seen = set()
    for n in range(30):
        s = batch(views=0)
        s = replace(s, axes=(0, n), extras={f'view{i}_ids': torch.full((2, 5), 10+i) for i in range(3)})
        seen.add(int(m.drawn(s).ids[0, 0]))
    assert seen == {10, 11, 12}


def test_second_phase_of_a_run(tmp_path):
    meta, alone = Pretraining(arm_cfg('META', TINY), 0, tmp_path/'m'), Pretraining(arm_cfg('XPHASE', TINY), 0, tmp_path/'x')
    meta.begin(1)
    assert all((meta.reader(u)[0] == alone.reader(u)[0]).all() for u in range(alone.reader.updates))


def test_a_last_update_may_be_short(tmp_path):
    cfg = arm_cfg('JOINT', replace(TINY, rest=TINY.rest | dict(batch=24)))
    run = Pretraining(cfg, 0, tmp_path)
    assert sum(p.total for p in cfg.phases) % 24
    assert run.run().done                     # check_counts raises where a row of the budget was not read


def test_parts_weigh_as_the_whole(tmp_path, monkeypatch):
    ends = []
    for n, most in enumerate((2**16, 32)):
        monkeypatch.setattr('xltnb.papers.metapretrain.phases.PASS', most)
        run = Pretraining(arm_cfg('JOINT', TINY), 0, tmp_path/str(n))
        norms = []
        watched = lambda ps, most: norms.append(torch.stack([p.grad.norm() for p in ps]).norm().item()) or torch.tensor(1.)
        monkeypatch.setattr('xltnb.papers.metapretrain.phases.nn.utils.clip_grad_norm_', watched)
        run.model.train()
        run.update()
        ends.append(norms[0])
    assert ends[0] == pytest.approx(ends[1], rel=1e-3)


def test_the_layer_is_chosen_on_development_pairs(monkeypatch):
    asked = []
    vectors = {l: torch.randn(3, 8, 4) for l in ('en', 'de')}
    monkeypatch.setattr(meta_training, '_language_vectors', lambda model, tok, split, *a: asked.append(split) or vectors)
    monkeypatch.setattr(meta_training, 'layer_alignment', lambda *a: None)
    monkeypatch.setattr(meta_training, '_pair_texts', lambda *a: None)
    meta_training._retrieved(None, arm_cfg('JOINT', TINY), ('en', 'de'), None)
    assert asked == ['validation', 'test']


def test_shares_of_a_words_proposals_sum_to_one(monkeypatch):
    p = Proposals(np.zeros(1, np.int32), np.array([1], np.int32), np.array([[7, 8]], np.int32), np.array([[.3, .1]], np.float32))
    m = SelfProposals(k=2, model=(object(), None))
    monkeypatch.setattr(SelfProposals, 'proposed', lambda self, data, ctx: (p, None, [[(0, 1)]]))
    got = m.prepare(Dataset.from_dict(dict(input_ids=[[1, 5, 9, 2]])), None)
    assert got['soft_probs'][0] == pytest.approx([.75, .25]) and got['soft_at'][0] == [2, 2]


def test_each_word_may_have_a_weight_of_its_own():
    step = batch()
    shapes = [EmbedMixup(token=token)._drawn(step).shape for token in (True, False)]
    assert shapes == [(*step.ids.shape, 1), (len(step.ids), 1, 1)]


def test_the_gate_asks_for_both(monkeypatch):
    monkeypatch.setattr(gate, 'masked_accuracy', lambda *a: dict(en=dict(accuracy=.5)))
    def passed(copied, top1):
        monkeypatch.setattr(gate, '_copy_share', lambda *a: dict(en=dict(copied=copied)))
        monkeypatch.setattr(gate, '_name_share', lambda *a: dict(de=dict(top1=top1, topk=.5, random=.1)))
        return gate.gate(None, None, None)['passed']
    assert [passed(*x) for x in ((.9, .9), (.9, .1), (.1, .9))] == [True, False, False]


def test_masked_words_are_read_in_order_at_a_rate_that_falls(tmp_path):
    run, read, rates = make(tmp_path), [], []
    update = run.update
    def watched(b):
        read.append(b.ids)
        found = update(b)
        rates.append(run.opt.param_groups[0]['lr'])
        return found
    run.update = watched
    run.train(log=lambda s: None)
    wanted = [b.ids for number in range(run.at.chunk+1) for b in run.chunk(number)][:len(read)]
    assert len(run.chunk(0)) < len(read) and all(torch.equal(a, b) for a, b in zip(read, wanted, strict=True))
    assert rates[-1] < max(rates) and rates[0] < max(rates)


def test_a_start_is_drawn_from_the_whole_ball():
    "Half of the volume lies below the radius .5^(1/D)"
    step = embedded(batch())
    D = step.emb.shape[-1]
    many = torch.cat([ADV(1., start='random')._begin(replace(step, axes=(0, n)), torch.tensor(1.)).norm(dim=-1).flatten() for n in range(400)])
    assert many.max() <= 1+1e-5 and many.median().item() == pytest.approx(.5**(1/D), abs=.01)
