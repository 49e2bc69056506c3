"The encoder of the invented languages: same settings same weights, one training for all who ask, nothing half done in the cache"
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from xltnb.core import XltError, from_dict, to_dict
from xltnb.models.encoders import load_encoder
from xltnb.models.heads import add_head
from xltnb.invented.world import Invented
from xltnb.invented.encoder import InventedEncoderCfg, encoder_run, folder_of, invented_encoder, neighbours
from xltnb.invented.words import NEAR_TO_FAR
from xltnb.invented.tasks import invented_task
from xltnb.training.scores import zero_shot

TWO = replace(NEAR_TO_FAR, languages=NEAR_TO_FAR.languages[:2])
TINY = InventedEncoderCfg(TWO, sentences=300, layers=1, width=16, heads=2, tokens=9000, batch=8)
SLOW = replace(TINY, sentences=1000, tokens=3_000_000)


def same(a, b): return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_same_seed_same_weights_and_the_cache_hands_them_back(tmp_path):
    told = []
    one, tok = invented_encoder(TINY, tmp_path, report=lambda done, note: told.append(done))
    assert told and sorted(told) == told and max(told) <= 1
    stamp = (folder_of(TINY, tmp_path)/'model.safetensors').stat().st_mtime_ns
    told.clear()
    two, _ = invented_encoder(TINY, tmp_path, report=lambda done, note: told.append(done))
    assert not told and same(one, two) and (folder_of(TINY, tmp_path)/'model.safetensors').stat().st_mtime_ns == stamp
    three, _ = invented_encoder(TINY, tmp_path/'elsewhere')
    assert same(one, three)
    other, _ = invented_encoder(replace(TINY, seed=1), tmp_path)
    assert not same(one, other)
    assert {p.suffix for p in folder_of(TINY, tmp_path).iterdir()} == {'.json', '.safetensors'}
    text = 'any ' + ' '.join(Invented(TWO).words['x1'][:5])
    assert tok(text)['input_ids'] == Invented(TWO).tokenizer()(text)['input_ids']


def test_it_is_an_encoder_as_any_other(tmp_path):
    net, tok = invented_encoder(TINY, tmp_path)
    again, tok2 = load_encoder(str(folder_of(TINY, tmp_path)))
    assert torch.equal(net.get_input_embeddings().weight, again.get_input_embeddings().weight) and tok.get_vocab() == tok2.get_vocab()
    assert not net.training and not any('pooler' in n for n, _ in net.named_parameters())
    task = invented_task('inference', Invented(TWO), train=6, dev=30, test=6)
    a, b = (zero_shot(add_head(net, 'pair', task.labels, seed=3), tok, task, 'validation') for _ in range(2))
    assert [a.main(lang) for lang in task.languages] == [b.main(lang) for lang in task.languages]


def test_a_stopped_run_is_not_taken_for_finished_and_goes_on_to_the_same_weights(tmp_path):
    assert invented_encoder(TINY, tmp_path, deadline=0) is None and not folder_of(TINY, tmp_path).exists()
    home = folder_of(TINY, tmp_path)
    part = encoder_run(TINY, home.with_name(f'{home.name}.part')).train(stop=lambda run: run.at.updates == 7)
    assert 0 < part.progress < 1 and not home.exists()
    got, _ = invented_encoder(TINY, tmp_path)
    whole, _ = invented_encoder(TINY, tmp_path/'whole')
    assert same(got, whole) and sorted(p.name for p in home.parent.iterdir()) == ['.claims', home.name, f'{home.name}.seal']


def test_time_that_runs_out_midway_leaves_a_checkpoint(tmp_path):
    start = time.time()
    assert invented_encoder(SLOW, tmp_path, deadline=start+3) is None
    home = folder_of(SLOW, tmp_path)
    assert not home.exists() and (home.with_name(f'{home.name}.part')/'state.safetensors').is_file()


ASK = '''
import sys
from test_invented_encoder import SLOW
from xltnb.invented.encoder import invented_encoder
invented_encoder(SLOW, sys.argv[1], report=lambda done, note: print(note, flush=True))
'''


def test_of_two_at_once_one_trains_and_the_other_follows_when_it_is_killed(tmp_path):
    first = subprocess.Popen([sys.executable, '-c', ASK, str(tmp_path)], stdout=subprocess.PIPE, encoding='utf-8', cwd=Path(__file__).parent)
    assert 'updates' in first.stdout.readline()
    told = []
    assert invented_encoder(SLOW, tmp_path, report=lambda done, note: told.append(note), deadline=time.time()+1) is None
    assert set(told) == {'another process trains this encoder'}
    first.send_signal(signal.SIGKILL)
    first.wait()
    told.clear()
    assert invented_encoder(SLOW, tmp_path, report=lambda done, note: told.append(note), deadline=time.time()+2) is None
    assert any('updates' in t for t in told) and not folder_of(SLOW, tmp_path).exists()


@pytest.mark.parametrize('change,word', [(dict(heads=5), 'multiple'), (dict(tokens=0), 'InventedEncoderCfg.tokens is 0'), (dict(block=200), '16 to 64'),
                                         (dict(mask=2.), 'mask is 2.0: give a number from 0 to 1'), (dict(world=dict(negated=3.)), 'InventedCfg.negated is 3.0')])
def test_bad_settings_are_named(change, word):
    with pytest.raises(XltError, match=word): replace(TINY, **change)


def test_settings_survive_json(): assert from_dict(InventedEncoderCfg, to_dict(TINY)) == TINY


def test_measures(tmp_path):
    net, tok = invented_encoder(TINY, tmp_path)
    world = Invented(TWO)
    with torch.no_grad():  # every new word of x1 gets the vector of its translation
        emb = net.get_input_embeddings().weight
        for a, b in zip(world.words['x0'], world.words['x1']): emb[tok.convert_tokens_to_ids(b)] = emb[tok.convert_tokens_to_ids(a)]
    assert neighbours(net, tok, world).loc['x1', ['translation', 'synonym', 'kind']].tolist() == [1, 1, 1]


def test_a_number_behind_the_name_is_another_world_and_encoder(monkeypatch):
    "The seed draws the words and the pre-training; without a number everything is as its records have it"
    from xltnb.invented import encoder
    from xltnb.studies import by_name
    asked = []
    monkeypatch.setattr(by_name, 'invented_encoder', lambda cfg=encoder.InventedEncoderCfg(), cache=None, deadline=None: asked.append(cfg) or ('net', 'tok'))
    for name in ('invented', 'invented:2'): by_name.encoder_of(name)
    assert asked[0] == encoder.InventedEncoderCfg() and (asked[1].seed, asked[1].world.seed) == (2, 2)
    assert encoder.folder_of(asked[0]) != encoder.folder_of(asked[1])
    zero, two = (by_name.task_of(f'invented_paraphrase{s}', train=50) for s in ('', ':2'))
    assert zero.fingerprint() != two.fingerprint() and zero.labels == two.labels and zero.languages == two.languages


def test_an_encoder_that_is_asked_for_stops_at_the_deadline(tmp_path):
    from xltnb.runs.experiments import Paused
    from xltnb.studies.by_name import encoder_of
    with pytest.raises(Paused, match='the same command goes on'): encoder_of('invented:7', cache=tmp_path, deadline=0.)
