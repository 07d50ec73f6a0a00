"""From a bundle of the repository to one file that others download, load and run.

`vendoring` finds the code that a bundle needs, `configs` turns YAML into JSON, `contents` gathers
everything, `archive` writes the zip, `listing` what a zoo says of it, `hub` sends it, `exporting` turns a
trained network into TorchScript or ONNX.
"""
