//! "Did you mean": the nearest of some words.

pub(super) use crate::error::{did_you_mean, nearest};
