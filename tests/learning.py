"""Commands that learn a word or a class and sample with it, as the tests of both give them."""

import json

from ldmctl.cli.app import run

HOST = ["machine.device=cpu", "machine.precision=fp32"]
FEW = ["steps=12", "batch=4", "report=5", "workers=0", *HOST]


def answer(capsys, *words):
    code = run([*map(str, words), "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


def learn(capsys, ldm, pictures, file, *words, word="<mine>"):
    return answer(capsys, "fit-token", f"run={ldm}", f"data={pictures}", f"word={word}", "--out", file, *FEW, *words)


def sample(capsys, ldm, out, *words):
    return answer(capsys, "sample", "--run", ldm, "--steps", "2", "batch=2", "--out", out, *HOST, *words)
