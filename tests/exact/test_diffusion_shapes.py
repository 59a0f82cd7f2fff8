"""The shapes in the annotations of the diffusion core hold at run time."""

import subprocess
import sys

PROGRAM = """
import collections.abc, typing
import jaxtyping, numpy, torch
from beartype import beartype
import sfumato.errors

Warm = collections.abc.Callable[[torch.Tensor], torch.Tensor]

Shape = jaxtyping.Float[torch.Tensor, " b"]

@jaxtyping.jaxtyped(typechecker=beartype)
def warm(x: Shape, f: Warm, s: collections.abc.Sequence[int]) -> collections.abc.Iterator[int]:
    yield 1

list(warm(torch.ones(2), abs, [1]))  # beartype imports its own parts late, and they too read TYPE_CHECKING
typing.TYPE_CHECKING = True  # the package imports jaxtyping for type checkers only
with jaxtyping.install_import_hook("sfumato.diffusion", "beartype.beartype"):
    from sfumato.diffusion import guide, noise, precondition, sample, schedule

for make in schedule.SCHEDULES.values():
    make(5)
walk, sigmas = noise.walk((1, 8), seed=1, items=[1, 2]), schedule.karras(4)
for maker in precondition.PRECONDITIONERS.values():
    denoise = maker(lambda x, c_noise, condition: torch.tanh(x))
    known = torch.arange(8).expand(2, 1, 8) < 4
    guided = guide.posterior(denoise, lambda clean: clean[..., :4], walk(5)[..., :4], 0.1)
    joint = guide.windows(guide.circle(guide.cfg(guided, denoise, 2.0), 8, 2), 8, 2)
    held = guide.strength(joint, walk(5), torch.rand(1, 1, 8), sigmas)
    kept = guide.keep(held, guide.known_samples(walk(5), known))
    for sampler in sample.SAMPLERS.values():
        sample.last(sampler(kept, walk(0) * sigmas[0], sigmas, walk))
precondition.edm_weight(precondition.lognormal_sigma(noise.uniform((2,), seed=0, item=0, step=0)), 0.5)
try:
    precondition.edm_weight(torch.ones(2, 2), 0.5)
except jaxtyping.TypeCheckError:
    print("a wrong shape was caught")
"""


def test_every_call_of_the_core_keeps_its_annotated_shapes():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a wrong shape was caught\n"
