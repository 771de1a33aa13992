"""Tables, figures and pages that put our numbers beside the paper's."""
