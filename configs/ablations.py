"""Table 1: stage 2 with one of the paper's choices changed, in one line each (Section 4.4).

Each is trained in a folder of its own from the same start as the paper's model: `--init` names a folder that stage 1
was trained in, beside Stable Diffusion's networks or `tiny`'s VAE. Of it `joint` takes no encoder: it draws a new one.
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
