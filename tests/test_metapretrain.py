"Meta-pretraining: what was planted is refused, what was stopped goes on, what is carried stays tied"
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xltnb.core import XltError
from xltnb.papers.metapretrain.arms import COMPARISONS, LabCfg, MetaCfg, NetCfg, PhaseCfg, Size, arm_cfg, check_arms, check_fair, langs_of, tokens_read
from xltnb.papers.metapretrain.experiments import META_SCALES, metapretrain_jobs
from xltnb.records.published import load_paper
from xltnb.records.rules import names_in

TINY = Size(NetCfg(layers=1, width=16, heads=2, block=16), ('en', 'de'), 128, rest=dict(batch=16, looks=2, pairs=20, probe_rows=20))


def weights(run): return torch.cat([p.detach().flatten() for p in run.model.parameters()])


@pytest.mark.parametrize('preset', ['gpu', 'paper'])
def test_the_best_layer_is_looked_for_between_those_that_are_trained(preset):
    (check,), deep = load_paper('metapretrain').claims['R7'].at(preset), META_SCALES[preset].size.net.layers
    inner, ends = ({m for _, m in names_in(part)} for part in check.effect.split(' - '))
    assert ends == {'centred_L0', f'centred_L{deep}'} and inner <= {f'centred_L{i}' for i in range(1, deep)} and f'centred_L{deep-1}' in inner


@pytest.mark.parametrize('preset', META_SCALES)
def test_comparisons_are_fair_at_every_preset(preset):
    size = META_SCALES[preset].size
    check_arms(size)
    meta, joint, skewed = (tokens_read(arm_cfg(a, size)) for a in ('META', 'JOINT', 'JOINT_EN'))
    assert sum(meta.values()) == sum(joint.values()) and meta == skewed != joint


@pytest.mark.parametrize('a,b,how', COMPARISONS)
def test_a_planted_row_is_refused(a, b, how):
    one, two = arm_cfg(a, TINY), arm_cfg(b, TINY)
    last = two.phases[-1]
    more = replace(last, rows=tuple((s, n+1) for s, n in last.rows))
    with pytest.raises(XltError, match='must read'): check_fair(one, replace(two, phases=(*two.phases[:-1], more)), how, (a, b))


@pytest.mark.parametrize('change', [dict(update=1), dict(phase=1)])
def test_counts_that_are_not_the_plan_are_refused(change, tmp_path):
    from xltnb.papers.metapretrain.phases import Pretraining
    run = Pretraining(arm_cfg('JOINT', TINY), 0, tmp_path).run()
    run.check_counts()
    if 'update' in change: run.at.tokens['en'] -= 1
    else: run.at.rows['de'] += 1
    with pytest.raises(XltError, match='run again'): run.check_counts()


def test_a_leaked_test_string_is_refused():
    from xltnb.papers.metapretrain.corpus import clean_text
    from xltnb.tasks.held_out import check_clean, test_strings as held
    rows, told = clean_text(('en', 'de'))
    check_clean(rows['text'])
    leak = next(iter(sorted(held())))
    with pytest.raises(XltError, match='is a test string'): check_clean([*rows['text'][:5], leak])
    assert (told['kept'] == told['sentences']-told['repeated']-told['test_strings']).all() and told['kept'].min() > 1000


def test_parts_of_the_text_share_no_sentence():
    from xltnb.papers.metapretrain.corpus import meta_corpus, split_of
    c = meta_corpus('shared4k', ('de', 'en'))
    for a, b in (('train', 'dev'), ('train', 'test'), ('dev', 'test')):
        items = [set(np.concatenate([c.item[split_of(c, k, l)] for l in ('en', 'de')])) for k in (a, b)]
        assert not items[0] & items[1]


def test_an_untied_head_is_refused(tmp_path):
    from xltnb.papers.metapretrain.carry import carry, meta_model
    from xltnb.papers.metapretrain.phases import Pretraining
    net = TINY.net
    broken = meta_model(net, 40)
    broken.lm_head.decoder.weight = torch.nn.Parameter(broken.lm_head.decoder.weight.clone())
    with pytest.raises(XltError, match='not tied'): carry(broken, meta_model(net, 40))
    run = Pretraining(arm_cfg('META', TINY), 0, tmp_path)
    run.model.lm_head.decoder.weight = torch.nn.Parameter(run.model.lm_head.decoder.weight.clone())
    with pytest.raises(XltError, match='not tied'): run.run()


@pytest.mark.parametrize('mode', ['shared', 'body', 'overlap', 'focus'])
def test_carry_keeps_what_it_must(mode):
    from xltnb.papers.metapretrain.carry import carry, meta_model
    old, new = meta_model(TINY.net, 60, seed=1), meta_model(TINY.net, 60 if mode == 'shared' else 80, seed=2)
    common = np.stack([np.arange(40), np.arange(40)[::-1]+10], 1)
    common = np.concatenate([[[1, 1]], common[common[:, 0] != 1]])
    space = np.random.default_rng(0).normal(size=(80, 8))
    carry(old, new, mode, common, space)
    rows, before = new.get_input_embeddings().weight, old.get_input_embeddings().weight
    assert rows is new.get_output_embeddings().weight and not rows[1].any() and rows.isfinite().all()
    if mode in ('overlap', 'focus'): assert all((rows[n] == before[o]).all() for o, n in common)
    body = {k: v for k, v in new.state_dict().items() if 'encoder.layer' in k or 'dense' in k}
    assert all((v == old.state_dict()[k]).all() for k, v in body.items())


def stop_and_go_on(cfg, folder, at, seed=0):
    from xltnb.papers.metapretrain.phases import Pretraining
    run = Pretraining(cfg, seed, folder)
    while (run.at.phase, run.at.update) != at:
        run.update()
        if run.at.update == run.reader.updates: run.end_phase()
    run.save()
    again = Pretraining(cfg, seed, folder)
    assert (again.at.phase, again.at.update) == at
    return again.run()


@pytest.mark.parametrize('at', [(0, 1), (0, 3), (1, 0), (1, 2)])
@pytest.mark.parametrize('arm', ['META', 'body'])
def test_a_stopped_run_ends_in_the_same_weights(arm, at, tmp_path):
    from xltnb.papers.metapretrain.phases import Pretraining
    cfg = arm_cfg(arm, TINY)
    whole = Pretraining(cfg, 0, tmp_path/'whole').run()
    again = stop_and_go_on(cfg, tmp_path/'stopped', at)
    assert (weights(again) == weights(whole)).all() and again.at.tokens == whole.at.tokens


@pytest.mark.parametrize('more', [dict(optimizer='kept'), dict(freeze=2), dict(forget_every=2)])
def test_switches_change_the_run_and_survive_a_stop(more, tmp_path):
    from xltnb.papers.metapretrain.phases import Pretraining
    plain = arm_cfg('META', TINY)
    where = 0 if 'forget_every' in more else 1
    cfg = replace(plain, phases=tuple(replace(p, **more) if i == where else p for i, p in enumerate(plain.phases)))
    whole = Pretraining(cfg, 0, tmp_path/'whole').run()
    assert not (weights(whole) == weights(Pretraining(plain, 0, tmp_path/'plain').run())).all()
    assert (weights(stop_and_go_on(cfg, tmp_path/'stopped', (where, 3))) == weights(whole)).all()


@pytest.mark.parametrize('arm', ['META_tlm', 'META_rev', 'MONO', 'focus'])
def test_arms_that_wait_for_a_gpu_run(arm, tmp_path):
    from xltnb.papers.metapretrain.training import run_meta
    from xltnb.runs.experiments import Ctx
    made = arm_cfg(arm, META_SCALES['smoke'].size)
    res = run_meta(made, 0, Ctx(cache=tmp_path))
    assert sum(res.provenance['rows'].values()) == sum(p.total for p in made.phases) and all(np.isfinite(v) for v in res.metrics.values())
    assert 0 <= res.metrics['retrieval_de'] <= 1 and {'loss_en', 'probe_de'} <= set(res.metrics)


def test_two_arms_at_once_train_a_first_phase_once(tmp_path, monkeypatch):
    from threading import Thread
    from xltnb.papers.metapretrain.phases import Pretraining
    plain = arm_cfg('META', TINY)
    arms = [plain, replace(plain, phases=(plain.phases[0], replace(plain.phases[1], lr=plain.phases[1].lr/2)))]
    update, trained = Pretraining.update, []
    def counted(self):
        if not self.at.phase: trained.append(self.cfg)
        update(self)
    monkeypatch.setattr(Pretraining, 'update', counted)
    runs = [Pretraining(a, 0, tmp_path/str(i), shared=tmp_path/'first') for i, a in enumerate(arms)]
    both = [Thread(target=r.run) for r in runs]
    for t in both: t.start()
    for t in both: t.join()
    assert all(r.done for r in runs) and len(set(trained)) == 1 and len(trained) == Pretraining(plain, 0, tmp_path/'x').reader.updates
    assert (weights(runs[0]) == weights(Pretraining(plain, 0, tmp_path/'alone').run())).all()
    assert not list((tmp_path/'first'/'.claims').iterdir())


def test_who_waits_for_a_first_phase_too_long_stops(tmp_path):
    from xltnb.papers.metapretrain.phases import Pretraining
    from xltnb.records.leases import Lease
    run = Pretraining(arm_cfg('META', TINY), 0, tmp_path/'run', shared=tmp_path/'first')
    said = []
    with Lease(tmp_path/'first'/'.claims'/f'{run.first().file.name}.lock'): run.run(lambda share, note='': said.append(note), deadline=0.)
    assert not run.done and run.at.update == 0
    assert run.run().done


def test_a_damaged_checkpoint_is_not_believed(tmp_path):
    from xltnb.papers.metapretrain.phases import Pretraining
    cfg = arm_cfg('META', TINY)
    run = Pretraining(cfg, 0, tmp_path)
    for _ in range(2): run.update()
    run.save()
    data = bytearray(run.file.read_bytes())
    data[-3] ^= 255
    run.file.write_bytes(bytes(data))
    with pytest.warns(UserWarning): fresh = Pretraining(cfg, 0, tmp_path)
    assert fresh.at.update == 0


def test_the_second_phase_reads_what_xphase_reads():
    from xltnb.papers.metapretrain.corpus import load_vocab, meta_corpus
    from xltnb.papers.metapretrain.rows import RowReader
    from xltnb.training.masking import Frame
    c = meta_corpus('shared4k', ('de', 'en'))
    frame = Frame.of(load_vocab('shared4k'), c)
    meta, alone = arm_cfg('META', TINY), arm_cfg('XPHASE', TINY)
    a, b = RowReader(meta.phases[1], c, meta, frame, (0, 1)), RowReader(alone.phases[0], c, alone, frame, (0, 1))
    assert (a(2)[0] == b(2)[0]).all()


def test_an_aligned_encoder_scores_one_and_a_drawn_one_chance():
    "The laboratory knows the truth of every token"
    from xltnb.papers.metapretrain.shifted import SPECIAL, lab_measures, stack_weights
    cfg, V = LabCfg(width=32, layers=1, block=16, pairs=60), 256
    w = stack_weights(cfg, 2*V-SPECIAL, (0, 1))
    drawn = lab_measures(w, cfg, V)
    with torch.no_grad(): w['emb'][:, V:] = w['emb'][:, SPECIAL:V]
    copied = lab_measures(w, cfg, V)
    for d, c in zip(drawn, copied):
        assert c['words'] == c['raw_L0'] == c['raw_L1'] == 1 and abs(c['cka_L1']-1) < 1e-3 and abs(c['loss_en']-c['loss_copy']) < 1e-3
        assert d['words'] < .03 and d['centred_L1'] < .2


def test_seeds_side_by_side_are_seeds_alone():
    from xltnb.papers.metapretrain.shifted import train_lab
    cfg = LabCfg(width=16, layers=1, block=16, steps=6, pairs=30, looks=1)
    both, alone = train_lab(cfg, (3, 4)), train_lab(cfg, (4,))
    assert both.metrics[1]['loss_en'] == pytest.approx(alone.metrics[0]['loss_en'], abs=1e-3)
    assert both.metrics[0] != both.metrics[1]


@pytest.mark.parametrize('arm', ['JOINT', 'META', 'body'])
def test_a_lab_goes_on_from_any_update(arm, tmp_path):
    "Stopped after each of its updates, also between two phases, it ends with the same bits"
    from xltnb.papers.metapretrain.shifted import train_lab
    from xltnb.records.checkpoints import Checkpoint
    cfg = LabCfg(arm=arm, width=16, layers=1, block=16, steps=6, pairs=30, looks=3)
    whole, sittings, run = train_lab(cfg, (0, 1)), 0, None
    while run is None:
        sittings += 1
        run = train_lab(cfg, (0, 1), checkpoint=Checkpoint(tmp_path/'state.safetensors', dict(run=arm)), deadline=0)
    assert sittings == 6 and run.metrics == whole.metrics and [ms for _, ms in run.curve] == [ms for _, ms in whole.curve]


def test_a_lab_stops_when_its_time_is_up(tmp_path, monkeypatch):
    "Its first job pauses and keeps what it has; the next call goes on, the other seeds of the stack find the result"
    from xltnb.papers.metapretrain import shifted
    from xltnb.papers.metapretrain.training import run_lab
    from xltnb.runs.experiments import Ctx, Paused, tidy
    cfg = LabCfg(width=16, layers=1, block=16, steps=2, pairs=30, looks=1, stack=2)
    with monkeypatch.context() as m, pytest.raises(Paused, match='the same command goes on'):
        m.setattr(shifted, 'time', SimpleNamespace(time=lambda: 1e12, perf_counter=time.perf_counter))  # once it trains, it is late
        run_lab(cfg, 0, Ctx(tmp_path, deadline=time.time()+1000))
    assert list(tmp_path.rglob('state.safetensors'))
    ctx = Ctx(tmp_path)
    first = run_lab(cfg, 0, ctx)
    tidy(ctx.lent)
    assert not list(tmp_path.rglob('state.safetensors'))
    other = run_lab(cfg, 1, Ctx(tmp_path))
    assert first.provenance == other.provenance and first.metrics['loss_en'] != other.metrics['loss_en']


def test_the_search_is_as_long_for_both():
    jobs = [j for j in metapretrain_jobs('laptop') if j.labels['study'] == 'search']
    rows = {a: sum(sum(n for p in j.config['phases'] for _, n in p['rows']) for j in jobs if j.labels['row'] == a) for a in ('META', 'JOINT')}
    assert rows['META'] == rows['JOINT'] > 0 and all(j.seed >= 900 and j.config['measure'] == 'dev' for j in jobs)


def test_judged_seeds_are_not_those_of_the_search():
    jobs = metapretrain_jobs('laptop')
    assert not {j.seed for j in jobs if j.labels['study'] == 'arms'} & {j.seed for j in jobs if j.labels['study'] == 'search'}


@pytest.mark.parametrize('bad', [dict(rows=()), dict(rows=(('de', 0),)), dict(rows=(('de', 1), ('de', 2))), dict(rows=(('en+de+fr', 1),)),
                                 dict(rows=(('de', 1),), lr=0), dict(rows=(('de', 1),), lr=float('nan')), dict(rows=(('de', 1),), freeze=-1)])
def test_bad_phases_are_refused(bad):
    with pytest.raises(XltError): PhaseCfg(**bad)


@pytest.mark.parametrize('bad', [dict(carry='soul'), dict(mask=0), dict(batch=0), dict(looks=1.5), dict(text='web'), dict(measure='some')])
def test_bad_runs_are_refused(bad):
    with pytest.raises(XltError): MetaCfg(**bad)


@pytest.fixture
def explorer():
    from xltnb.papers.metapretrain.explorer import PhasesExplorer
    return PhasesExplorer()


def test_every_control_changes_the_picture(explorer):
    import json
    drawn = lambda: json.dumps(explorer.fig().to_plotly_json(), default=lambda a: np.asarray(a).tolist(), sort_keys=True)
    for name, value in (('META', False), ('body', True), ('measure', 'cka'), ('cursor', .3)):
        before = drawn()
        explorer.controls[name].value = value
        assert drawn() != before, name


def test_the_live_figure_follows(explorer):
    explorer.widget()
    for name, value in (('META', False), ('measure', 'raw'), ('cursor', .4), ('META', True)):
        explorer.controls[name].value = value
        fig = explorer.fig()
        assert explorer.live.layout.title.text.startswith(fig.layout.title.text) and explorer.live.layout.shapes == fig.layout.shapes
        for a, b in zip(explorer.live.data, fig.data): assert a.visible == b.visible and np.allclose(a.y, b.y)


def test_the_boundary_is_marked(explorer):
    explorer.controls['cursor'].value = 1.
    lines = lambda: {s.x0 for s in explorer.fig().layout.shapes if s.visible}
    assert len(lines()) == 2  # the cursor at the end, the boundary in the middle
    explorer.controls['META'].value = False
    assert len(lines()) == 1


def test_only_ids_make_lines_of_a_folder_translations(tmp_path, monkeypatch):
    "Lines of equal number are none; `LANG.ids` says which are, and as many ids as lines are asked for"
    from xltnb.papers.metapretrain.corpus import clean_text, load_vocab, pairs_of
    from xltnb.training.text import tokenise
    monkeypatch.setenv('XLTNB_METATEXT', str(tmp_path))
    said = dict(en=['The dog sleeps.', '', 'A cat runs home.'], de=['Eine Katze rennt heim.', 'Der Hund schläft.', 'Es regnet.'])
    for l, lines in said.items(): (tmp_path/f'{l}.txt').write_text('\n'.join(lines)+'\n', encoding='utf-8')
    def pairs():
        rows = clean_text(('en', 'de'), 'folder')[0]
        c = tokenise(rows['text'].tolist(), rows['lang'].tolist(), rows['id'].tolist(), load_vocab('shared4k'))
        return [tuple(rows['text'][list(p)]) for p in pairs_of(c, 'en', 'de')]
    assert pairs() == []
    (tmp_path/'en.ids').write_text('dog\nnone\ncat\n', encoding='utf-8'), (tmp_path/'de.ids').write_text('cat\ndog\nrain\n', encoding='utf-8')
    assert pairs() == [('A cat runs home.', 'Eine Katze rennt heim.'), ('The dog sleeps.', 'Der Hund schläft.')]
    (tmp_path/'de.ids').write_text('cat\n', encoding='utf-8')
    with pytest.raises(XltError, match='1 lines and de.txt 3: write one id for each line'): pairs()


def test_a_users_text_is_split_alike_for_every_arm(tmp_path, monkeypatch):
    "An arm of one language is not tested on what it has read, and is measured in the languages of its study"
    from xltnb.papers.metapretrain.corpus import meta_corpus, split_of
    monkeypatch.setenv('XLTNB_METATEXT', str(tmp_path))
    for l, n in dict(de=403, en=500).items(): (tmp_path/f'{l}.txt').write_text(''.join(f'Sentence {i} of {l} sleeps at home.\n' for i in range(n)), encoding='utf-8')
    def part(langs, split):
        c = meta_corpus('shared4k', langs, 'folder')
        return {c[i].tobytes() for i in split_of(c, split, 'en')}
    for split in ('train', 'dev', 'test'): assert part(('en',), split) == part(('de', 'en'), split) != set()
    of = lambda arm: langs_of(arm_cfg(arm, Size(langs=('en', 'sw'), rows=64)))
    assert {*of('MONO')} == {*of('UNTRAINED')} == {*of('META')} == {'en', 'sw'}


def test_another_text_of_the_same_name_is_another_run(tmp_path, monkeypatch):
    "The folder's content is in the job's key, and nothing that was read before is believed"
    from xltnb.papers.metapretrain.corpus import clean_text
    keys = []
    for word in ('sleeps', 'barks'):
        for l in ('en', 'de', 'fr', 'es'): (tmp_path/f'{l}.txt').write_text(f'The dog {word}, {l}.\n', encoding='utf-8')
        monkeypatch.setenv('XLTNB_METATEXT', str(tmp_path))
        assert word in clean_text(('en', 'de'), 'folder')[0]['text'][0]
        keys.append({j.key for j in metapretrain_jobs('paper') if j.config.get('text') == 'folder' and j.config['phases']})
    assert keys[0] and not keys[0] & keys[1]


@pytest.fixture(scope='module')
def world():
    from xltnb.papers.metapretrain.corpus import meta_world
    return meta_world('invented-7')


def oracle(world, apart=0.):
    "An untrained model whose embeddings know a word's kind and number, with a direction for each language"
    from xltnb.papers.metapretrain.carry import meta_model
    tok, g = world.tokenizer(), torch.Generator().manual_seed(0)
    model = meta_model(NetCfg(layers=1, width=64, heads=2, block=32), len(tok), tok.pad_token_id)
    kinds = torch.tensor([sorted(set(world.kinds)).index('noun' if k == 'class' else k) for k in world.kinds])
    known = torch.randn(len(world.of), 64, generator=g)+3*torch.randn(20, 64, generator=g)[kinds]
    with torch.no_grad():
        for i, l in reversed(list(enumerate(world.languages))):  # what is shared belongs to the source
            model.get_input_embeddings().weight[tok.convert_tokens_to_ids(list(world.words[l]))] = known+i*apart
    return model.eval(), tok


def test_words_are_translated_by_who_knows_them_and_by_chance_otherwise(world):
    from xltnb.papers.metapretrain.carry import meta_model
    from xltnb.papers.metapretrain.worlds import translated
    model, tok = oracle(world, apart=3.)
    assert min(translated(model, tok, world).values()) > .95  # centring takes the direction of a language away
    blind = meta_model(NetCfg(layers=1, width=64, heads=2, block=32), len(tok), tok.pad_token_id)
    assert max(translated(blind, tok, world).values()) < .1


def test_translations_are_retrieved_by_who_knows_the_words(world):
    from xltnb.papers.metapretrain.worlds import world_pairs, world_retrieval
    found = world_retrieval(*oracle(world), world, 60)
    for l in ('x1', 'x2', 'x3'): assert found[l]['retrieval'] > .95 and found[l]['lexical'] < .8
    assert all(len(set(ts)) == 60 for ts in world_pairs(world, 'test', 60).values())  # no sentence is asked for twice


def test_kinds_that_all_languages_share_transfer(world):
    from xltnb.papers.metapretrain.worlds import kind_probe
    found = kind_probe(*oracle(world), world, 60)
    assert min(found.values()) > .9


def test_the_nouns_of_the_test_are_new_to_the_class_probe(world):
    from xltnb.papers.metapretrain.worlds import noun_sentences
    a, b = ({n for _, n, _ in noun_sentences(world, split, 1, seen)} for split, seen in (('train', True), ('test', False)))
    half = world.cfg.classes*world.cfg.members//2
    assert len(a) == len(b) == half and not a & b
    assert all(world.concepts[world.of[n]].parent == c for _, n, c in noun_sentences(world, 'train', 1, True))


def test_a_worlds_text_keeps_its_parts_apart():
    "No sentence is read in one language and asked for in another; none of a test statement is read at all"
    from xltnb.invented.world import split_of_clause
    from xltnb.papers.metapretrain.corpus import load_vocab, meta_corpus, meta_world, split_of
    langs = ('x0', 'x1', 'x2', 'x3')
    c, world, tok = meta_corpus('invented-7', langs, 'invented'), meta_world('invented-7'), load_vocab('invented-7')
    texts = lambda part: {tuple(c[i]) for l in langs for i in split_of(c, part, l)}
    train, dev, held = (texts(p) for p in ('train', 'dev', 'test'))
    assert not train & held and not train & dev and not dev & held and tok.unk_token_id not in c.ids
    for i in split_of(c, 'train', 'x2')[:200]:
        assert split_of_clause(world.meaning(world.read(tok.decode(c[i]), 'x2'))) == 'train'


@pytest.fixture
def short(monkeypatch):
    "Worlds with a tenth of their text; nobody else gets it"
    from xltnb.papers.metapretrain import corpus
    corpus._tokenised.cache_clear()
    monkeypatch.setattr(corpus, '_DRAWN', tuple(n//10 for n in corpus._DRAWN))
    yield
    corpus._tokenised.cache_clear()


def test_every_seed_is_a_world_of_its_own_and_arms_share_it(short, tmp_path):
    from xltnb.papers.metapretrain.worlds import run_invented
    from xltnb.runs.experiments import Ctx
    size = META_SCALES['smoke'].worlds[0][0]
    runs = {(a, s): run_invented(arm_cfg(a, size), s, Ctx(cache=tmp_path)) for a, s in (('META', 0), ('JOINT', 0), ('UNTRAINED', 1))}
    keys = {k: r.provenance['world'] for k, r in runs.items()}
    assert keys['META', 0] == keys['JOINT', 0] != keys['UNTRAINED', 1]
    meta, joint = (runs[a, 0].metrics for a in ('META', 'JOINT'))
    assert meta['tokens'] == joint['tokens'] and meta['lexical'] == joint['lexical'] and meta['loss_source'] != joint['loss_source']


def test_worlds_are_not_those_of_the_pilot_and_change_their_key():
    from xltnb.core import seed_for
    from xltnb.papers.metapretrain import arms
    jobs = [j for j in metapretrain_jobs('laptop') if j.experiment == 'metapretrain.worlds']
    used = {seed_for('meta-world', j.seed) for j in jobs}
    assert not used & {*range(1, 7), *range(900, 911)} and all(j.inputs['text'] == arms.text_print('invented', ()) for j in jobs)
    assert {j.labels['row'] for j in jobs[:3]} == {'META', 'JOINT', 'JOINT_EN'} and {j.seed for j in jobs[:3]} == {0}


def test_an_invented_world_is_measured_by_its_own_experiment(tmp_path):
    from xltnb.papers.metapretrain.corpus import clean_text, meta_world
    from xltnb.papers.metapretrain.training import run_meta
    from xltnb.runs.experiments import Ctx
    with pytest.raises(XltError, match='metapretrain.worlds'): run_meta(arm_cfg('META', META_SCALES['smoke'].worlds[0][0]), 0, Ctx(cache=tmp_path))
    with pytest.raises(XltError, match='meta_corpus'): clean_text(('x0',), 'invented')
    with pytest.raises(XltError, match='by its number'): meta_world('invented-x')
