r"""Are synthetic images faithful, useful and private? One web page and trust.json with the answers.

The images may come from any generator: folders of PNG, JPEG, NumPy, NIfTI, MHD or DICOM files, slices or
volumes; --window maps HU to gray values. With --bundle the bundle's model defines how images are read,
--generate draws images from it, and without --heldout the real images are split by patient into those that
the model was trained on and the others.

Example:
    python scripts/trust_report.py --real TRAIN --heldout OTHERS --synthetic IMAGES --output report.html \
        --window lung
    python scripts/trust_report.py --bundle bundles/dcgan_covid --real DATA --generate 500 \
        --output report.html
    python scripts/trust_report.py --bundle bundles/pix2pix_covid --real TRAIN --heldout OTHERS \
        --synthetic IMAGES --condition MASKS --output report.html --release CLEARED

Exit codes: 0, the release gate is open (or privacy was left out); 3, it is closed; 4, it is undecided: fewer
than 20 held-out patients, or 20 % of copies could have gone unnoticed; the report is written in all these
cases. 2: the input is wrong and nothing is written.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common.cli import OverridesParser, overrides_of
from common.errors import UserError, check_int, install_hook, root_cause, show_one_line

BAD_INPUT, GATE_CLOSED, GATE_UNDECIDED = 2, 3, 4
CODES = {"open": 0, "closed": GATE_CLOSED, "undecided": GATE_UNDECIDED}
FOLDERS = {
    "heldout": "real images of other patients; with --bundle, --real can be split by patient instead",
    "synthetic": "the synthetic images; with --generate the folder for them",
    "condition": "their masks or label maps, of equal names; with --generate what to draw from",
    "release": "copy the images that the gate does not flag to this folder",
}


def parser() -> OverridesParser:
    """The command line."""
    result = OverridesParser(__doc__, receiver="the bundle's configs/inference.yaml, with --generate")
    add = result.add_argument
    add("--real", type=Path, required=True, metavar="DIR", help="images the generator was trained on")
    add("--output", type=Path, required=True, metavar="HTML", help="the report's file")
    add("--bundle", type=Path, metavar="DIR", help="bundle of the model, e.g. bundles/pix2pix_covid")
    for name, meaning in FOLDERS.items():
        add(f"--{name}", type=Path, metavar="DIR", help=meaning)
    add("--generate", default=0, metavar="N", help="draw N images from the bundle")
    add("--window", nargs="+", metavar="HU", help="without --bundle: a name or two numbers in HU (lung)")
    add("--image_size", metavar="N", help="without --bundle: side of the slices in pixels (128)")
    add("--ckpt_path", type=Path, metavar="FILE", help="the model (the bundle's own)")
    add("--patient_pattern", metavar="REGEX", help="the patient's part of file names")
    add("--sections", metavar="NAMES", help="some of fidelity,faithfulness,utility,privacy")
    add("--hu_offset", type=float, metavar="HU", help="added to values that are not HU: -1024")
    add("--source_range", type=float, nargs=2, metavar=("BLACK", "WHITE"), help="of images not in HU: 0 4095")
    add("--mask_threshold", type=float, help="least value of soft masks that counts: 0.5")
    add("--ignore_value", type=int, nargs="+", metavar="VALUE", help="mask values that mean nothing: 255")
    add("--extractor", default="gridvgg", help="gridvgg, lite0, inception or radimagenet")
    add("--extractor_weights", type=Path, metavar="FILE", help="the extractor's weights")
    add("--max_similarity", metavar="R", help="the gate's threshold, a correlation (calibrated)")
    add("--seed", default=0, help="of all random numbers (0)")
    add("--seeds", default=3, help="trainings of each kind for the utility (3)")
    add(
        "--iterations",
        default=200,
        help="of each training for the utility; five times as many for the faithfulness (200)",
    )
    add("--resamples", default=500, help="of the bootstrap (500)")
    add("--device", help="cpu, cuda:0, ... (a GPU where there is one)")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        The exit code.
    Raises:
        UserError: bad input.
    """
    known, rest = parser().parse_known_args(arguments)
    overrides = overrides_of(rest)
    # Not above: --help and refused words need none of it.
    from common.data.hu_calibration import check_source_range
    from common.data.intensity import parse_window
    from common.training.distributed import local_device
    from common.training.fit_supervised import Budget
    from common.trust.command import TrustReport
    from common.trust.gather_sets import SECTIONS, Options

    if overrides and not known.generate:
        raise UserError(f"--{next(iter(overrides))}: settings of the bundle's inference need --generate")
    options = vars(known)
    iterations = check_int("iterations", options.pop("iterations"), 1)
    for name, least in {"generate": 0, "seed": 0, "seeds": 1, "resamples": 2}.items():
        options[name] = check_int(name, options[name], least)
    options["sections"] = SECTIONS if known.sections is None else known.sections.split(",")
    options["window"] = None if known.window is None else parse_window(known.window)
    if known.image_size is not None:
        options["image_size"] = check_int("image_size", known.image_size, 1)
    if known.source_range is not None:
        options["source_range"] = check_source_range(known.source_range)
    options["max_similarity"] = _number(known.max_similarity)
    options["device"] = str(local_device(known.device))
    report = TrustReport(Options(**options, budget=Budget(iterations, 8), settings=overrides))
    return CODES[report.run()]


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise UserError(
            f"max_similarity {text}: give a correlation between -1 and 1, such as 0.95"
        ) from error


if __name__ == "__main__":
    install_hook()
    try:
        code = main()
    except Exception as error:
        show_one_line(type(error), error, error.__traceback__)
        code = BAD_INPUT if isinstance(root_cause(error), UserError) else 1
    sys.exit(code)
