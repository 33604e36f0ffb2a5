//! Archives made to do harm: each a clear error, and nothing outside the root is touched.
