"""From a bundle of the repository to one file that others download, load and run.

`configs` turns YAML into JSON, `standalone` adds what finds the code from any folder, `contents` gathers
everything, `archive` writes the zip, `listing` what a zoo says of it, `hub` sends it, `exporting` turns a
trained network into TorchScript or ONNX.
"""
