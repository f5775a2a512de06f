"""What a study gets from the words of a command line."""

from dataclasses import replace

import pytest


class _Caught(Exception):
    pass


def options_of(study, *words):
    """Give the options that a study is run with."""
    from study import translated

    from histofeat.cli._studies import command_of

    def run(options, runtime):
        caught.append(options)
        raise _Caught

    caught, caller = [], {"commit": "", "reports": "nowhere"}
    command = command_of(replace(study, run=run))
    with pytest.raises(_Caught):
        command.main(translated(list(map(str, words))), standalone_mode=False, obj=caller)
    return caught[0]
