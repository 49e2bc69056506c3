"settings.ini, pyproject.toml and environment.yml name the same requirements"
import ast
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions

import yaml
from conftest import MODULES, ROOT, settings
from packaging.requirements import Requirement


def parsed(reqs): return {r.name.lower().replace('_', '-'): str(r.specifier) for r in map(Requirement, reqs)}


@cache
def project(): return tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))['project']


@cache
def conda():
    deps = yaml.safe_load((ROOT/'environment.yml').read_text(encoding='utf-8'))['dependencies']
    pip = next(d for d in deps if isinstance(d, dict))['pip']
    return [d for d in deps if isinstance(d, str)], [r for r in pip if not r.startswith('-')], [r for r in pip if r.startswith('-')]


def test_settings_and_pyproject_agree():
    cfg = settings()
    assert parsed(cfg['requirements'].split()) == parsed(project()['dependencies'])
    assert parsed(cfg['dev_requirements'].split()) == parsed(project()['optional-dependencies']['dev'])


def test_environment_agrees():
    extras = project()['optional-dependencies']
    want = parsed(project()['dependencies'] + extras['dev'] + extras['ui'] + extras['peers'])
    assert parsed(conda()[1]) == want


def test_environment_installs_the_package():
    assert '-e .' in conda()[2] and '-c constraints.txt' in conda()[2]
    assert 'python=3.11' in conda()[0] and 'quarto' in conda()[0]


def test_constraints_fit_the_requirements():
    spec = {r.name: r.specifier for r in map(Requirement, project()['dependencies'])}
    for line in (ROOT/'constraints.txt').read_text(encoding='utf-8').split():
        name, version = line.split('==')
        assert version in spec[name], f'constraints.txt pins {line}, outside {name}{spec[name]}'


def test_what_is_installed():
    "Published files go with the package, and an editable install is a folder on the path, which no namespace package hides"
    tool = tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))['tool']['setuptools']
    assert {'data/**/*', 'papers/*/published.yaml'} <= set(tool['package-data']['xltnb'])
    assert tool['package-dir'] == {'': '.'}


def test_versions_agree():
    import xltnb
    assert settings()['version'] == xltnb.__version__


def brought_by(names):
    "What the named packages themselves require: numba brings llvmlite, JupyterLab brings nbformat"
    from importlib.metadata import PackageNotFoundError, requires
    for n in names:
        try: yield from parsed(r for r in requires(n) or [] if 'extra ==' not in r)
        except PackageNotFoundError: pass


def test_every_import_is_required():
    "A third-party module that a page imports is named among the requirements, or brought by one that is"
    extras, dists = project()['optional-dependencies'], packages_distributions()
    named = set(parsed(project()['dependencies'] + [r for e in extras.values() for r in e]))
    known = named | set(brought_by(named)) | {'nbformat', 'ipython'}
    for p in MODULES:
        for n in ast.walk(ast.parse(p.read_text(encoding='utf-8'))):
            mods = [n.module] if isinstance(n, ast.ImportFrom) and not n.level else [a.name for a in n.names] if isinstance(n, ast.Import) else []
            for m in {m.split('.')[0] for m in mods} - set(sys.stdlib_module_names) - {'xltnb', '__future__'}:
                assert {d.lower().replace('_', '-') for d in dists.get(m, [m])} & known, f'{p.name} imports {m}, which no requirement names'
