"For mypy: a function under fastcore's `@patch` is an attribute of the class that its `self` names"
import ast
from collections import defaultdict
from pathlib import Path

from mypy.nodes import MDEF, SymbolTableNode, Var
from mypy.plugin import Plugin
from mypy.types import AnyType, TypeOfAny

LIB = Path(__file__).resolve().parent.parent/'xltnb'


def classes(note):
    "Names in an annotation: `A`, `A|B`, 'A'"
    return {n.id for n in ast.walk(note) if isinstance(n, ast.Name)} | {n.value for n in ast.walk(note) if isinstance(n, ast.Constant)}


def names(fn):
    "What a patched function gives its class: itself, and what it sets on `self`"
    me = fn.args.args[0].arg
    return {fn.name} | {n.attr for n in ast.walk(fn) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store) and ast.unparse(n.value) == me}


def patched():
    "Class -> names that pages give it with `@patch`"
    found = defaultdict(set)
    for p in LIB.rglob('*.py'):
        for n in ast.parse(p.read_text(encoding='utf-8')).body:
            if not isinstance(n, ast.FunctionDef) or not any(ast.unparse(d).startswith('patch') for d in n.decorator_list): continue
            for c in classes(n.args.args[0].annotation): found[c] |= names(n)
    return found


class Patched(Plugin):
    names = patched()

    def get_customize_class_mro_hook(self, fullname):
        return self.add if fullname.startswith('xltnb.') and fullname.rpartition('.')[2] in self.names else None

    def add(self, ctx):
        for name in self.names[ctx.cls.name]:
            v = Var(name, AnyType(TypeOfAny.explicit))
            v.info = ctx.cls.info
            ctx.cls.info.names.setdefault(name, SymbolTableNode(MDEF, v, plugin_generated=True))


def plugin(version): return Patched
