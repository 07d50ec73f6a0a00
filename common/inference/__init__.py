"""From a folder of masks to a folder of CT, in the masks' own names and geometry."""
