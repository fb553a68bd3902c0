"""``--local_rank`` for hosts written for an older launcher: torchrun tells a process its rank by environment alone.

torch.distributed.launch passes ``--local-rank=N``; older hosts know ``--local_rank`` only. In a process that was
given ``LOCAL_RANK``, a parser of the command line with either option gets it in its own spelling. An option that was
given stays as it is. Standard library only.
"""

from __future__ import annotations

import functools
import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from apml_plugin.announce import tell

SPELLINGS = ("--local_rank", "--local-rank")
_MARK = "_apml_local_rank"


def install() -> None:
    """Wraps argparse in this interpreter, once; nothing where no launcher set ``LOCAL_RANK``."""
    if not os.environ.get("LOCAL_RANK", "").isdigit() or hasattr(ArgumentParser, _MARK):
        return
    setattr(ArgumentParser, _MARK, True)
    parse = ArgumentParser.parse_known_args

    @functools.wraps(parse)
    def parse_known_args(self: ArgumentParser, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        # A parser of anything but the command line is no business of the launcher's.
        if args is None or list(args) == sys.argv[1:]:
            args = arguments(self, sys.argv[1:], os.environ["LOCAL_RANK"])
        return parse(self, args, namespace)

    ArgumentParser.parse_known_args = parse_known_args  # type: ignore[method-assign, assignment]


def arguments(parser: ArgumentParser, words: Sequence[str], rank: str) -> list[str]:
    """`words` with the local rank in the spelling that `parser` knows; as they are if it knows none."""
    takes = {name: action.nargs for action in parser._actions for name in action.option_strings}
    known = [name for name in SPELLINGS if name in takes and takes[name] is None]
    if not known:
        return list(words)
    end = words.index("--") if "--" in words else len(words)
    options = [word.partition("=")[0] if i < end else "" for i, word in enumerate(words)]
    given = [option for option in options if option in SPELLINGS]
    if not given:
        tell("local_rank", f"{known[0]} is not given: it gets LOCAL_RANK of the launcher")
        return [known[0], rank, *words]
    if set(given) <= set(known):
        return list(words)
    tell("local_rank", f"{given[0]} of the launcher goes to this script's {known[0]}")
    return [
        known[0] + word.removeprefix(option) if option in SPELLINGS and option not in known else word
        for word, option in zip(words, options, strict=True)
    ]
