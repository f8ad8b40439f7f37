"""What is kept: of a run, so that it can go on elsewhere; of a thread, from run to run."""
