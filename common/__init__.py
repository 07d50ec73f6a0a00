"""The engine room shared by all bundles. It imports no bundle."""
