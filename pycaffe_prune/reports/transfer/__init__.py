"""What pre-training changes: in the weights, and in the order of the two methods."""
