"""How a config finds the code from any working directory.

MONAI resolves import statements before anything else, so a config that is run or loaded from elsewhere has to
bring its own way to the code. `ON_PATH` stands literally in the YAML files (it runs before ``common`` can be
imported, so it cannot live here alone; a test compares them)::

    on_path: "$..."
    config: {_target_: importlib.import_module, _requires_: "@on_path", name: common.config}
    paths: {_target_: importlib.import_module, _requires_: "@on_path", name: common.paths}
    bundle_root: "$@paths.bundle_root('NAME')"
    network_def: {_target_: bundles.NAME.networks.X, _requires_: "@on_path"}
    training:
    - "$@config.start()"

An expression that holds the word ``import`` cannot hold a reference as well (MONAI parses it as Python).
"""

from __future__ import annotations

# Puts the nearest folder above the config files that holds `common` at sys.path[1]: the repository's root, or
# the root of an unpacked bundle. Without a calling ConfigWorkflow (verify_net_in_out, ckpt_export) the path
# stays as it is.
ON_PATH = (
    "$[__import__('sys').path.insert(1, root) for root in"
    " [next((str(p) for p in f.frame.f_locals['self'].config_root_path.resolve().parents"
    " if (p / 'common').is_dir()), '') for f in __import__('inspect').stack(0)"
    " if isinstance(f.frame.f_locals.get('self'), monai.bundle.ConfigWorkflow)][:1]"
    " if root and root not in __import__('sys').path]"
)
