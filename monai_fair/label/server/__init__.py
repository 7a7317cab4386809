"""The MONAI Label app itself: tasks, strategies and datastore; the only door to the package monailabel."""
