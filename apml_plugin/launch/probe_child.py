"""The probing process: ``python probe_child.py FOLDER NAMES PROBES`` prints two lines per name.

Standard library only; run as a file, so that the real modules meet an interpreter like the host's.
"""

import importlib
import importlib.util
import json
import sys

MARK = "apml-probe "


def probe(modules: dict[str, list[str]]) -> str:
    """The first thing that is wrong with the modules and their attributes, in one short line; "" if nothing."""
    for module, attributes in modules.items():
        try:
            found = importlib.import_module(module)
        except BaseException as error:  # a broken package may well call sys.exit
            return shorten(f"{type(error).__name__}: {error}")
        absent = [attribute for attribute in attributes if not hasattr(found, attribute)]
        if absent:
            return shorten(f"{module} at {getattr(found, '__file__', None) or 'a bare folder'} has no {absent[0]}")
    return ""


def place(name: str) -> str:
    """The file that importing ``name`` would run; "" for none, which a folder of sources has not either."""
    try:
        spec = importlib.util.find_spec(name)
    except Exception:
        return ""
    return (spec.origin or "") if spec is not None else ""


def shorten(text: str) -> str:
    """One line of at most 200 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:197] + "..."


def cuda() -> str:
    try:
        return "" if importlib.import_module("torch").cuda.is_available() else "no CUDA device"
    except BaseException as error:
        return shorten(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    # As if the host's script ran: its folder stands where Python puts the folder of a script.
    sys.path[0] = sys.argv[1]
    probes = json.loads(sys.argv[3])
    for name in json.loads(sys.argv[2]):
        if name != "torch.cuda":  # said before it is tried: importing it may end the interpreter
            print("\n" + MARK + json.dumps({"name": name, "place": place(name)}), flush=True)
        error = cuda() if name == "torch.cuda" else probe(probes[name])
        print("\n" + MARK + json.dumps({"name": name, "error": error}), flush=True)
