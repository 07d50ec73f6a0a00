"""What the fork server of `tests.bundles.runs` loads once, for all the runs that it forks.

Libraries alone, nothing of this project.
"""

# ruff: noqa: F401
import inspect

import fire
import ignite.engine
import itk
import matplotlib.backends.backend_agg
import matplotlib.pyplot
import monai.bundle
import monai.data
import monai.engines
import monai.handlers
import monai.inferers
import monai.losses
import monai.metrics
import monai.networks.nets
import monai.transforms
import nibabel
import PIL.Image
import PIL.ImageFont
import scipy.stats
import skimage.exposure
import skimage.transform
import torch._dynamo  # the first optimizer of a process loads it
import torch.utils.tensorboard
import yaml

inspect.stack()  # `fire` calls it; the first call looks at the files of all modules
