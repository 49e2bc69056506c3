"Small harms to bytes, to nested data, to the text of a file, to words of a command: what `test_fuzz` tries"
import copy
import json
import random


def spoil_bytes(data: bytes, rng: random.Random) -> bytes:
    "Cut, flip a bit, empty, double, put zeros, lose a byte, or put another encoding before; never the same"
    at = rng.randrange(len(data))
    harms = [data[:at], data[:at]+bytes([data[at] ^ (1 << rng.randrange(8))])+data[at+1:], b'', data+data, data[:at]+data[at+1:],
             data[:at]+bytes(64)+data[at+64:], b'\xff\xfe'+data, data[:at]+b'\xff'+data[at+1:]]
    return rng.choice([h for h in harms if h != data])


ODD = (None, True, -1, 0, 10**30, 1.5, -.5, float('nan'), float('inf'), '', 'x', '../x', '*', 'ä\0', [], [None], {}, {'x': 1})
HUGE = (10**6, 10**8, 1e-9, 1e308, 10**400, '~nouser/x', '\ud800', ' ', ['x']*3, [[0]], {'config': 1})  # sizes without end, half a character


def odd_value(rng, more=()):
    "A value that hardly any field wants"
    return copy.deepcopy(rng.choice((*ODD, *more)))


def _places(tree, path=()):
    "Where values stand in nested data"
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, (list, tuple)) else ()
    for k in keys: yield from ((*path, k), *_places(tree[k], (*path, k)))


def spoil_tree(tree, rng: random.Random, more=()):
    "A copy with one harm: an odd value in a place, a place that is lost, a misspelt key"
    tree = copy.deepcopy(tree)
    *way, last = rng.choice([*_places(tree)])
    at = tree
    for k in way: at = at[k]
    harm = rng.choice(('odd', 'odd', 'lost', 'misspelt'))
    if harm == 'misspelt' and isinstance(at, dict): at[f'{last}x'] = at.pop(last)
    elif harm == 'lost': del at[last]
    else: at[last] = odd_value(rng, more)
    return tree


RAW = ('['*9999, '{"a":'*9999, '9'*5000, '-'+'9'*5000, r'"\ud800"', '1e999', '-Infinity', '{"a": 1, "a": 2}', '2024-13-45', '!!int x', '"', '\t', '&a [*a]')


def spoil_text(text: str, rng: random.Random) -> bytes:
    "The text of a JSON or YAML file with one harm that no tree shows: a nesting, a number, half a character, a key twice, another encoding"
    if rng.random() < .3: return spoil_bytes(text.encode('utf-8', 'surrogatepass'), rng)
    tokens = [i for i, c in enumerate(text) if c in ':[,{']
    at = rng.choice(tokens)+1
    if rng.random() < .2 and '"' in text:  # a member twice
        start = text.index('"')
        return (text[:start]+text[start:text.find(',', start)+1]+text[start:]).encode('utf-8', 'surrogatepass')
    end = next((i for i in range(at, len(text)) if text[i] in ',]}\n'), len(text))
    return (text[:at]+' '+rng.choice(RAW)+text[end:]).encode('utf-8', 'surrogatepass')


def spoil_json(tree, rng: random.Random) -> bytes:
    "A JSON file with one harm, to the tree or to the text"
    if rng.random() < .6: return json.dumps(spoil_tree(tree, rng, HUGE)).encode()
    return spoil_text(json.dumps(tree), rng)


ODD_WORDS = ('', '*', '--', '-', '~nouser/x', '/'+'x'*5000, 'nan', '-1', '2147483648', 'a\0b', ',', '../..', 'ä', '{}', '/dev/null')


def spoil_words(words: list, rng: random.Random) -> list:
    "Misspell, drop, repeat or replace one word of a command"
    at = rng.randrange(len(words))
    w = words[at]
    harms = [[w[:-1]+'q'], [], [w, w], [rng.choice(ODD_WORDS)], [w, rng.choice(ODD_WORDS)], [w+'='+rng.choice(ODD_WORDS)]]
    return words[:at]+rng.choice(harms)+words[at+1:]
