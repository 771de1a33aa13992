"""Builders of the data sets: LMDBs that the real Caffe reads, with a manifest."""
