"""The values of one blob over a whole data set."""
