//! End-to-end tests: the real binary as a process, and clients that we did not write.
