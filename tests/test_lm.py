"""Training: precision, resume, and what goes wrong."""
import os
import time

import pytest
import torch

from xltnb.core import XltError, seed_for
from xltnb.othello.gpt import GPT
from xltnb.othello.settings import GPTCfg
from xltnb.othello.lexicon import make_lexicon
from xltnb.othello.settings import LMCfg
from xltnb.othello.train import load_checkpoint, loss_sum, model_for, save_checkpoint, train

def test_bfloat16_stays_near_float32():
    lex = make_lexicon(n=4); cfg = LMCfg(steps=20, batch=16, lr=5e-3, warmup=5)
    a,b = (train(model_for(lex,2,2,32), lex, LMCfg(**{**vars(cfg),'dtype':d})).curves['loss'][-1] for d in ('float32','bfloat16'))
    assert abs(a-b) < .05

def test_length_groups_equal_one_padded_batch():
    "Grouping rows by length changes speed, not the loss"
    from xltnb.othello.tokens import Encoder, inputs_targets
    from xltnb.othello.train import batch_groups
    from xltnb.othello.games import random_games
    lex = make_lexicon(('atomic','compositional'), n=6); enc = Encoder(lex); games = torch.from_numpy(random_games(8,n=6)); langs = [0,1]*4; net = model_for(lex,2,2,32)
    grouped = sum(loss_sum(net,x,y) for x,y in batch_groups(enc,games,langs)); padded = loss_sum(net,*inputs_targets(enc,games,langs))
    assert torch.allclose(grouped, padded, rtol=1e-5)

def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    f = tmp_path/'c.safetensors'; save_checkpoint(f, GPT(GPTCfg(20,12,1,2,16)), {})
    with pytest.raises(XltError, match='another model'): load_checkpoint(f, GPT(GPTCfg(20,12,2,2,16)))

def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    from xltnb import files
    f = tmp_path/'c.safetensors'; net = GPT(GPTCfg(20,12,1,2,16)); save_checkpoint(f, net, {'step':1}); before = f.read_bytes()
    def full(*a, **k): raise OSError(28,'No space left on device')
    monkeypatch.setattr(files, '_write_all', full)
    with pytest.raises(XltError, match='free some space.*run the same command again'): save_checkpoint(f, net, {'step':2})
    assert f.read_bytes()==before and len(list(tmp_path.iterdir()))==1

@pytest.mark.parametrize('bad,word', [(dict(schedule='cosin'),"did you mean 'cosine'"),(dict(draw='fech'),"did you mean 'fetch'"),(dict(dtype='float23'),"did you mean 'float32'")])
def test_wrong_names_stop_before_training(bad, word):
    lex = make_lexicon(n=4)
    with pytest.raises(XltError, match=word): train(model_for(lex,1,2,16), lex, LMCfg(steps=2,**bad))

def test_a_checkpoint_of_another_vocabulary_is_refused(tmp_path):
    f = tmp_path/'c.safetensors'; save_checkpoint(f, GPT(GPTCfg(20,12,1,2,16)), {})
    with pytest.raises(XltError, match='another model'): load_checkpoint(f, GPT(GPTCfg(21,12,1,2,16)))

def test_what_a_killed_process_left_is_cleared_and_what_is_being_written_stays(tmp_path):
    for name,age in (('.c.safetensors.1.tmp',9999),('.c.safetensors.2.tmp',0),('c.1.tmp',9999)):
        (tmp_path/name).write_bytes(b'x'); os.utime(tmp_path/name, (time.time()-age,)*2)
    save_checkpoint(tmp_path/'c.safetensors', GPT(GPTCfg(20,12,1,2,16)), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ['.c.safetensors.2.tmp','c.1.tmp','c.safetensors'] # the last but one is a user's

def test_the_callers_random_numbers_are_left_alone():
    "Neither making a model nor training one without dropout touches torch's generator"
    lex = make_lexicon(n=4); torch.manual_seed(3); want = torch.rand(2); torch.manual_seed(3)
    train(model_for(lex,1,2,16), lex, LMCfg(steps=3, batch=8, warmup=1))
    assert torch.equal(torch.rand(2), want)

def test_weights_of_a_seed_stay_what_they_were():
    "Models that were cached by seed before must be made again alike"
    w = model_for(make_lexicon(n=4),1,2,16,seed=0).state_dict()
    torch.manual_seed(seed_for('init',0)); again = GPT(model_for(make_lexicon(n=4),1,2,16).cfg).state_dict()
    assert all(torch.equal(v,again[k]) for k,v in w.items())

def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    "Not entered, and the model that was handed over stays as it was"
    lex,f = make_lexicon(n=4), tmp_path/'c.safetensors'; cfg = LMCfg(steps=4, batch=8, warmup=1)
    def go(seed=0, ckpt=f, deadline=float('inf'), **kw): return train(model_for(lex,1,2,16), lex, LMCfg(**{**vars(cfg), **kw}), seed, ckpt, deadline=deadline)
    same = lambda a,b: all(torch.equal(p, q) for p,q in zip(a.parameters(), b.parameters()))
    whole = go(ckpt=None); assert not go(deadline=0.).done
    for other,why in ((dict(seed=1), 'seed is 0 there and 1 here'), (dict(lr=1e-2), 'lr is'), (dict(steps=8), 'steps is 4 there')):
        with pytest.raises(XltError, match=why): go(**other)
    with pytest.raises(XltError, match='first is'): train(model_for(lex,1,2,16,0.,5), lex, cfg, 0, f)
    net = model_for(lex,1,2,16)
    with pytest.raises(XltError, match='another run'): train(net, lex, cfg, 1, f)
    assert same(net, model_for(lex,1,2,16))
    one,two = (make_lexicon(n=4, anchors=((sq,(0,1)),)) for sq in (0,3)); assert one.vocab==two.vocab; g = tmp_path/'d.safetensors'
    assert not train(model_for(one,1,2,16), one, cfg, ckpt=g, deadline=0.).done
    for model,languages,why in ((model_for(two,1,2,16), two, 'languages is'), (model_for(one,1,1,16), one, 'heads is 2'), (model_for(one,1,2,16,.1), one, 'dropout')):
        with pytest.raises(XltError, match=why): train(model, languages, cfg, ckpt=g)
    assert same(go().model, whole.model)

def test_a_language_that_is_not_there_is_refused():
    lex = make_lexicon(n=4)
    with pytest.raises(XltError, match='only, for these languages, is 5'): train(model_for(lex,1,2,16), lex, LMCfg(steps=1, batch=8, only=5))
