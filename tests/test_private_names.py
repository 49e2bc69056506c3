"Private names of other libraries: each one that is used stands here, and its test fails on the day when it vanishes"
import argparse
import ast
import inspect
from functools import cache

import accelerate.accelerator
import anywidget
import pytest
import torch
from conftest import LIB, MODULES
from datasets import Dataset, Features
from transformers import Trainer, TrainerCallback

import xltnb.training.trainer  # the methods of `Finetuner` are patched in
from xltnb.training.checkpoints import Between, Keeping
from xltnb.training.method_trainer import MethodTrainer

THERE = {  # name -> is it still there?
    '_is_accelerate_prepared': lambda: '._is_accelerate_prepared = True' in inspect.getsource(accelerate.accelerator),
    '_actions': lambda: isinstance(argparse.ArgumentParser()._actions, list),
    '_fingerprint': lambda: len({Dataset.from_dict({'a': [1, 2]})._fingerprint for _ in range(2)} | {Dataset.from_dict({'a': [1, 3]})._fingerprint}) == 2,
    '_empty': lambda: inspect._empty is inspect.Parameter.empty,
    '_repr_mimebundle_': lambda: callable(anywidget.AnyWidget._repr_mimebundle_),
    '_standard_gamma': lambda: torch._standard_gamma(torch.ones(2), generator=torch.Generator()).shape == (2,),
    '_to_yaml_list': lambda: Features.from_dict({'a': {'_type': 'Value', 'dtype': 'int64'}})._to_yaml_list() == [dict(name='a', dtype='int64')]}
OURS = MethodTrainer, xltnb.training.trainer.Finetuner


def private(name): return isinstance(name, str) and name.startswith('_') and not name.startswith('__') and name != '_' and name.isidentifier()


@cache
def trees(): return {p.relative_to(LIB): ast.parse(p.read_text(encoding='utf-8')) for p in MODULES}


def nodes(*kinds): return (n for tree in trees().values() for n in ast.walk(tree) if isinstance(n, kinds))


def defined():
    "Names that the package itself gives to something"
    return {n.name for n in nodes(ast.FunctionDef, ast.ClassDef)} | {n.id for n in nodes(ast.Name) if isinstance(n.ctx, ast.Store)} | {
        n.attr for n in nodes(ast.Attribute) if isinstance(n.ctx, ast.Store)}


def foreign():
    "Private names that the package uses and does not define: attributes, imports, and strings that mark other libraries' objects"
    used = {n.attr for n in nodes(ast.Attribute)} | {a.name for n in nodes(ast.ImportFrom) for a in n.names}
    return {n for n in used if private(n)}-defined()


def test_the_list_is_complete():
    "`os._exit` is documented; the mark of `accelerate` is named in a string"
    assert foreign() | {'_is_accelerate_prepared'} == set(THERE) | {'_exit'}


@pytest.mark.parametrize('name', THERE)
def test_it_is_still_there(name): assert THERE[name]()


@pytest.mark.parametrize('cls', OURS, ids=lambda c: c.__name__)
def test_no_private_hook_of_the_trainer_is_overridden(cls):
    "By intent or by accident: a name of our own that the library takes one day would be called in its place"
    ours = {n for c in cls.__mro__ if issubclass(c, MethodTrainer) for n in vars(c) if private(n)}
    kept = {n.attr for tree in (trees()[p] for p in trees() if p.as_posix() in ('training/trainer.py', 'training/method_trainer.py'))
            for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store) and private(n.attr)}
    library = {n for n in dir(Trainer) if private(n)} | {n.attr for n in ast.walk(ast.parse(inspect.getsource(inspect.getmodule(Trainer)))) if isinstance(n, ast.Attribute)}
    assert ours and not (ours | kept) & library


@pytest.mark.parametrize('cls', OURS, ids=lambda c: c.__name__)
def test_the_public_hooks_are_there(cls):
    "A hook that is renamed would no longer be called, and nobody would be told"
    hooks = {n for c in cls.__mro__ if issubclass(c, MethodTrainer) for n, v in vars(c).items() if callable(v) and hasattr(Trainer, n) and not n.startswith('__')}
    want = {'compute_loss', 'training_step', 'train'} | ({'create_optimizer', 'evaluate', 'get_train_dataloader', 'save_model'} if cls is not MethodTrainer else set())
    assert hooks == want


@pytest.mark.parametrize('cls', [Between, Keeping], ids=lambda c: c.__name__)
def test_callbacks_answer_what_the_library_calls(cls):
    assert {n for n in vars(cls) if n.startswith('on_')} <= set(dir(TrainerCallback))
