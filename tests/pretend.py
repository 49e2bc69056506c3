"""A GPU that is only pretended: memory of the CPU that is said to lie on a device.

`with PretendedGPU() as gpu:` code that asks for `device='cuda'` gets it. Every operation is checked for tensors of two devices, as far
into backward passes as PyTorch goes, and `gpu.waits` counts what would keep the CPU waiting for the device: a value that is read, a
size that depends on values, and a copy from memory that is not pinned."""
from collections import Counter
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA, CPU = torch.device('cuda', 0), torch.device('cpu')
READS = {'_local_scalar_dense', 'nonzero', 'masked_select', '_unique2', 'unique_dim', 'unique_consecutive', 'bincount', 'equal'}
INDEXED = {'index', 'index_put_', 'index_put', '_index_put_impl_'}
NO_SCALAR = {'cat', 'stack', 'gather', 'scatter', 'scatter_add', 'index_select', 'embedding'}  # elsewhere one number may lie on the CPU


class Mismatch(RuntimeError):
    "Tensors of two devices met in one operation"


class PretendedGPU:
    "Says which memory lies on the device; counts `waits` by kind"
    def __init__(self): self.gpu, self.pinned, self.waits, self.inside = set(), set(), Counter(), False

    def has(self, t): return isinstance(t, Tensor) and _memory(t) in self.gpu
    def put(self, out, gpu=True):
        for t in tensors(out): (self.gpu.add if gpu else self.gpu.discard)(_memory(t))
        return out

    def __enter__(self):
        self.stack = ExitStack()
        for m in (_patches(self), _Operations(self), _Calls(self)): self.stack.enter_context(m)
        return self

    def __exit__(self, *error): return self.stack.__exit__(*error)

    def waits_of(self, f):
        "Waits of a call, by kind"
        before = self.waits.copy()
        f()
        return self.waits-before


def tensors(x): return [t for t in tree_leaves(x) if isinstance(t, Tensor)]
def _memory(t): return StorageWeakRef(t.untyped_storage())


class _Operations(TorchDispatchMode):
    "Checks each operation, and says where its result lies: where its tensors do, or where the call around it computes"
    def __init__(self, gpu): super().__init__(); self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, ts = func.overloadpacket.__name__, tensors((args, kwargs or {}))
        there = [t for t in ts if self.gpu.has(t)]
        if there: self.check(name, args, [t for t in ts if not self.gpu.has(t)], kwargs or {})
        out = func(*args, **kwargs or {})
        mine = {_memory(t) for t in ts}
        if there or not ts and self.gpu.inside: self.gpu.put([t for t in tensors(out) if _memory(t) not in mine])
        return out

    def check(self, name, args, others, kwargs):
        "Raise `Mismatch` for an operation on two devices, count one that waits"
        gpu, waits = self.gpu, self.gpu.waits
        if name == 'copy_': return self.copied(*args)
        if name in READS: waits[name] += 1
        if name in INDEXED:
            at, value = tensors(args[1]), tensors(args[2:3])
            if any(not gpu.has(t) for t in at) and gpu.has(args[0]): waits['index from the CPU'] += 1
            elif any(t.dtype in (torch.bool, torch.uint8) for t in at) and not (value and value[0].numel() == 1): waits['boolean index'] += 1
            others = [t for t in others if not any(t is i for i in at)] if gpu.has(args[0]) else others
        strict = name in NO_SCALAR or name.startswith(('_foreach', '_fused'))
        if bad := [t for t in others if t.dim() or strict]: raise Mismatch(f'{name} with tensors of the CPU, {[tuple(t.shape) for t in bad]}')

    def copied(self, to, source, non_blocking=False):
        "Count a copy between devices"
        if not self.gpu.has(to): self.gpu.waits['copied to the CPU'] += 1
        elif not self.gpu.has(source) and not (non_blocking and _memory(source) in self.gpu.pinned): self.gpu.waits['copied to the GPU'] += 1


class _Calls(TorchFunctionMode):
    "Answers what Python asks of a device, and moves tensors"
    def __init__(self, gpu): super().__init__(); self.gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        gpu, kwargs, name = self.gpu, dict(kwargs or {}), _name(func)
        first = args[0] if args else None
        if name in ('get device', 'get is_cuda'): return (CUDA if gpu.has(first) else CPU) if name == 'get device' else gpu.has(first)
        if name in ('to', 'cpu', 'cuda'): return self.moved(func, name, args, kwargs)
        if name == 'pin_memory': return self.pin(first)
        if name in ('numpy', '__array__') and gpu.has(first) and not kwargs.get('force'): raise Mismatch(f'{name} of a tensor on the GPU')
        if name in ('tolist', 'numpy') and gpu.has(first): gpu.waits[name] += 1
        want = kwargs.get('device') and torch.device(kwargs.pop('device')).type
        return self.computed(func, name, args, kwargs, want)

    def computed(self, func, name, args, kwargs, want):
        "Call a function; what it makes from nothing lies where it was asked for, or where its tensors are"
        gpu, g = self.gpu, kwargs.get('generator')
        if want and g is not None and g.device.type != want: raise Mismatch(f'{name} on {want} draws from a generator on {g.device.type}')
        before, gpu.inside = gpu.inside, want == 'cuda' if want else any(map(gpu.has, tensors((args, kwargs))))
        try: out = func(*args, **kwargs)
        finally: gpu.inside, there = before, gpu.inside
        if name in ('tensor', 'as_tensor', 'new_tensor') and there and not gpu.has(args[0]): gpu.waits['copied to the GPU'] += 1
        if want or name in ('tensor', 'as_tensor', 'new_tensor', '__deepcopy__'): gpu.put(out, there)
        return out

    def moved(self, func, name, args, kwargs):
        "`to`, `cpu` and `cuda`: another device is another tensor"
        gpu, t = self.gpu, args[0]
        asked = [x for x in (*args[1:], *kwargs.values()) if isinstance(x, (torch.device, str))] if name == 'to' else [name]
        like = [x for x in (*args[1:], *kwargs.values()) if isinstance(x, Tensor)]
        there = torch.device(asked[0]).type == 'cuda' if asked else gpu.has(like[0]) if like else gpu.has(t)
        here = lambda x: CPU if isinstance(x, (torch.device, str)) else x
        out = func(*map(here, args), **{k: here(v) for k, v in kwargs.items()}) if name == 'to' else t
        if there == gpu.has(t): return gpu.put(out, there)
        soon = there and _memory(t) in gpu.pinned and (kwargs.get('non_blocking') or True in args[1:])
        if not soon: gpu.waits[f'copied to the {"GPU" if there else "CPU"}'] += 1
        return gpu.put(out.clone() if out is t else out, there)

    def pin(self, t):
        "A copy in pinned memory"
        if self.gpu.has(t): raise Mismatch('pin_memory of a tensor on the GPU')
        t = t.clone()
        self.gpu.pinned.add(_memory(t))
        return t


def _name(func):
    "Name of a function, 'get NAME' of a property"
    if func.__name__ not in ('__get__', '__set__'): return func.__name__
    return f'{func.__name__.strip("_")} {getattr(getattr(func, "__self__", None), "__name__", "")}'


class _Generator(torch.Generator):
    "A generator that says it lies where it was asked for"
    def __new__(cls, device='cpu'): return super().__new__(cls, 'cpu')
    def __init__(self, device='cpu'): self.where = CUDA if torch.device(device).type == 'cuda' else CPU
    device = property(lambda self: self.where)
    def manual_seed(self, seed): super().manual_seed(seed); return self


_group = torch._C._group_tensors_by_device_and_dtype
def _grouped(lists, with_indices=False): # clip_grad_norm_ and optimizers ask C++ where their tensors lie
    return {(CUDA if k[0] is not None else None, *k[1:]): v for k, v in _group(lists, with_indices).items()}


_backward = torch.autograd._engine_run_backward


@contextmanager
def _patches(gpu):
    "What asks the machine, and not a tensor, about a GPU; hooks of a backward pass are asked like everything else"
    def backward(*args, **kwargs):
        with _Calls(gpu): return _backward(*args, **kwargs)
    answers = dict(is_available=lambda: True, device_count=lambda: 1, current_device=lambda: 0, set_device=lambda d: None,
                   is_bf16_supported=lambda *a, **k: True, get_device_name=lambda *a: 'pretended', synchronize=lambda *a: None,
                   get_device_capability=lambda *a: (9, 0), empty_cache=lambda: None, get_rng_state=lambda *a: torch.get_rng_state(),
                   set_rng_state=lambda s, *a: torch.set_rng_state(s), manual_seed_all=lambda s: None)
    random = {k: answers[k] for k in ('get_rng_state', 'set_rng_state')}
    machine = dict(is_available=lambda: True, current_accelerator=lambda *a, **k: CUDA)
    with ExitStack() as stack:
        for p in (patch.multiple(torch.cuda, **answers), patch.multiple(torch.cuda.random, **random), patch.multiple(torch.accelerator, **machine),
                  patch.multiple(torch, Generator=_Generator, compile=lambda f, **k: f), patch.object(torch.autograd, '_engine_run_backward', backward),
                  patch.object(torch.optim.Optimizer, '_accelerator_graph_capture_health_check', lambda self: None),
                  patch.object(torch._C, '_group_tensors_by_device_and_dtype', _grouped)): stack.enter_context(p)
        yield
