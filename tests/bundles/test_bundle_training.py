import os
import pytest, torch
def test_one(bundle, tmp_path, trained):
    bundle.train(tmp_path/'a')
    bundle.train(tmp_path/'b','nir')
    bundle.evaluate(tmp_path/'a')
    bundle.infer(tmp_path/'c', tmp_path/'a'/'model.pt', image_size=28)
