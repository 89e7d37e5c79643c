"""Table 1: stage 2 with one of the paper's choices changed (Section 4.4).

Train each in its own folder, from the same initial networks as the paper's model: `--init` names a folder with a
trained stage 1, and Stable Diffusion's networks or `tiny`'s VAE. `joint` ignores that encoder and starts a new one.
"""

from dataclasses import replace

from configs import sd15, tiny
from train.config import Preset

PRESETS = {
    "sd15_joint": Preset(model=sd15.MODEL, diffusion=replace(sd15.DIFFUSION, encoder="joint")),
    "sd15_unfrozen": Preset(model=sd15.MODEL, diffusion=replace(sd15.DIFFUSION, encoder="unfrozen")),
    "sd15_own_partition": Preset(model=sd15.MODEL, diffusion=replace(sd15.DIFFUSION, random_partition=False)),
    "tiny_joint": Preset(model=tiny.MODEL, diffusion=replace(tiny.DIFFUSION, encoder="joint")),
    "tiny_unfrozen": Preset(model=tiny.MODEL, diffusion=replace(tiny.DIFFUSION, encoder="unfrozen")),
    "tiny_own_partition": Preset(model=tiny.MODEL, diffusion=replace(tiny.DIFFUSION, random_partition=False)),
}
