"""Where training happens: one small interface, the real Caffe behind it."""
